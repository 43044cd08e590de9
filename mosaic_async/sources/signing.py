"""Readable hrefs of remote scenes: Planetary Computer's signatures, requester-pays buckets, plain https.

It knows nothing of searches. Signatures are secrets that expire within the hour: they are written into the items that
are kept beside a mosaic and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from mosaic_async.errors import SourceError
from mosaic_async.http.user_agent import USER_AGENT
from mosaic_async.safety.redaction import learn_request
from mosaic_async.sources.remote_json import get_json
from mosaic_async.sources.stac_query import Item

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_BLOBS = ".blob.core.windows.net"
_PUBLIC = frozenset({"ai4edatasetspublicassets"})
"""Storage accounts of Planetary Computer that need no signature."""
_LOGIN = frozenset({"landsatlook.usgs.gov"})
"""Hosts that require a person to log in, while the same file lies in a bucket."""
_LEAST_LEFT = 60.0
"""Seconds; a token that expires sooner is replaced (as planetary-computer 1.0 does)."""
_TIMEOUT = 30.0
_ATTEMPTS = 6
_SIGNATURE = frozenset(
    [
        "st",
        "se",
        "sp",
        "sv",
        "sr",
        "sig",
        "sip",
        "spr",
        "skoid",
        "sktid",
        "skt",
        "ske",
        "sks",
        "skv",
        "saoid",
        "suoid",
        "scid",
        "sdd",
        "ses",
    ]
)
"""Parameters of a shared access signature, see learn.microsoft.com/rest/api/storageservices/create-service-sas."""


@dataclass(frozen=True, kw_only=True)
class Signing:
    """Which service signs, and what."""

    endpoint: str = PLANETARY_COMPUTER
    """URL of the token service."""
    suffix: str = _BLOBS
    """Suffix of the hosts whose blobs are signed."""
    subscription_key: str | None = field(default=None, repr=False)
    """Raises the limits of the service."""
    unsigned: bool = False
    """Whether blobs without a signature are signed too when they are read; otherwise signatures are only renewed."""


@dataclass(frozen=True)
class _Token:
    query: str = field(repr=False)
    ends: float
    """Seconds since 1970."""


class Signer:
    """Signs blobs of Planetary Computer with one token per container, renewed before it expires. Thread-safe.

    Args:
        endpoint: URL of the token service.
        suffix: of the hosts whose blobs are signed.
        subscription_key: raises the limits of the service; optional.
        unsigned: whether `renew` signs blobs without a signature too.
        clock: returns seconds since 1970; replaced in tests.
    """

    def __init__(
        self,
        *,
        endpoint: str = PLANETARY_COMPUTER,
        suffix: str = _BLOBS,
        subscription_key: str | None = None,
        unsigned: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._suffix = suffix
        self._headers = {"User-Agent": USER_AGENT}
        if subscription_key:
            self._headers["Ocp-Apim-Subscription-Key"] = subscription_key
        self.signs_unsigned = unsigned
        """Whether `renew` signs blobs without a signature too."""
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens: dict[tuple[str, str], _Token] = {}

    @classmethod
    def of(cls, signing: Signing) -> Signer:
        """Make a signer that uses a service."""
        return cls(
            endpoint=signing.endpoint,
            suffix=signing.suffix,
            subscription_key=signing.subscription_key,
            unsigned=signing.unsigned,
        )

    @property
    def ends(self) -> float | None:
        """When the first of the tokens in use expires, in seconds since 1970; None when nothing was signed."""
        return min((token.ends for token in self._tokens.values()), default=None)

    def sign(self, href: str) -> str:
        """Return a URL with a signature that holds for at least a minute; a URL that is not a blob is unchanged.

        Raises:
            SourceError: the service returns no token.
        """
        parts = urlsplit(href)
        host = parts.hostname or ""
        account, container = host.removesuffix(self._suffix), parts.path.lstrip("/").partition("/")[0]
        if parts.scheme not in ("http", "https") or account == host or account in _PUBLIC or "sig=" in parts.query:
            return href
        joint = "&" if parts.query else "?"
        return f"{href}{joint}{self._token(account, container).query}"

    def renew(self, href: str) -> str:
        """Return a URL with a new signature if its own expires within a minute; others are unchanged.

        Without a new token the old one is used until it expires.

        Raises:
            SourceError: the service returns no token, and the old one has expired.
        """
        ends = signature_end(href)
        if ends is None and self.signs_unsigned:
            return self.sign(href)
        host = urlsplit(href).hostname or ""
        if ends is None or not host.endswith(self._suffix) or ends - self._clock() >= _LEAST_LEFT:
            return href
        bare = urlsplit(href)
        kept = [(name, value) for name, value in parse_qsl(bare.query) if name not in _SIGNATURE]
        try:
            return self.sign(urlunsplit(bare._replace(query=urlencode(kept))))
        except SourceError:
            if ends <= self._clock():
                raise
            return href

    def _token(self, account: str, container: str) -> _Token:
        with self._lock:  # of many threads that need the same token, one requests it
            known = self._tokens.get((account, container))
            if known is None or known.ends - self._clock() < _LEAST_LEFT:
                known = self._ask(account, container)
                self._tokens[account, container] = known
            return known

    def _ask(self, account: str, container: str) -> _Token:
        url = f"{self._endpoint}/{account}/{container}"
        try:
            found = get_json(url, headers=self._headers, timeout=_TIMEOUT, attempts=_ATTEMPTS)
            learn_request(f"?{found['token']}", {})
            return _Token(str(found["token"]), datetime.fromisoformat(found["msft:expiry"]).timestamp())
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"no token for {account}/{container}: {type(error).__name__}",
                hint="check that the scene is one of Planetary Computer",
            ) from error


def signature_end(href: str) -> float | None:
    """Return when the signature in a URL expires, in seconds since 1970; None without a signature that says so."""
    query = dict(parse_qsl(urlsplit(href).query)) if "sig=" in href else {}
    try:
        moment = datetime.fromisoformat(query["se"])
    except (KeyError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_ending(ends: float | None) -> bool:
    """Return whether a signature must be renewed before it is used."""
    return ends is not None and ends - time.time() < _LEAST_LEFT


def readable(item: Item, signer: Signer) -> dict[str, Any]:
    """Return a copy of an item with hrefs that GDAL can open: signed, or the bucket's where a URL requires a login."""
    assets = {
        name: {**asset, "href": signer.sign(_bucket_of(asset))} for name, asset in (item.get("assets") or {}).items()
    }
    return {**item, "assets": assets}


def reader_pays(item: Item) -> bool:
    """Return whether an item's assets lie in a requester-pays bucket (storage extension 1 and 2)."""
    properties = item.get("properties") or {}
    schemes = properties.get("storage:schemes") or {}
    holders = [properties, *schemes.values()]
    for asset in (item.get("assets") or {}).values():
        holders.append(asset)
        holders += [alternate for alternate in _alternates(asset) if alternate.get("href") == _bucket_of(asset)]
    return any(holder.get("storage:requester_pays") or holder.get("requester_pays") for holder in holders)


def _bucket_of(asset: Mapping[str, Any]) -> str:
    href = str(asset["href"])
    if urlsplit(href).hostname not in _LOGIN:
        return href
    return next((str(one["href"]) for one in _alternates(asset) if str(one.get("href")).startswith("s3://")), href)


def _alternates(asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = asset.get("alternate") or {}
    return list(found.values())
