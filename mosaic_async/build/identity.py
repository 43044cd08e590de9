"""Which job a work folder belongs to: a digest of all that decides pixels, and apart from it one of the credentials.

Credentials are what is known to change from run to run without changing a pixel: a header such as Authorization, a
parameter such as access_token, the parts of a signed URL. All other values may decide pixels, so they make another job,
even if their names sound like secrets: `key=2023` and `key=2024` can be two years. Both digests are salted and slow, so
a folder does not give away a value that it was made with. This module knows nothing of folders.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from mosaic_async.build.job import Job

_HEADERS = frozenset(
    {"api-key", "apikey", "authorization", "cookie", "ocp-apim-subscription-key", "private-token"}
    | {"proxy-authorization", "token", "x-access-token", "x-api-key", "x-auth-token", "x-token"}
)
_PARAMETERS = frozenset(
    {"access-token", "access_token", "api-key", "api_key", "apikey", "auth", "auth_token", "authorization", "jwt"}
    | {"passwd", "password", "sig", "signature", "subscription-key", "subscription_key", "token"}
)
_SIGNATURES = frozenset({"sig", "signature"})
_SIGNED = frozenset(
    {"awsaccesskeyid", "expires", "googleaccessid", "key-pair-id", "policy", "saoid", "sdd", "se", "si", "sip", "ske"}
    | {"skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "st", "suoid", "sv"}
)
"""Parameters of Azure's SAS, CloudFront and the older signatures of S3 and GCS; credentials beside a signature only."""
_PREFIXES = ("x-amz-", "x-goog-")
_URL = re.compile(r"https?://", re.IGNORECASE)
_ROUNDS = 50_000
"""Of PBKDF2: some 20 ms for us, a long time for anyone who tries out all words."""


@dataclass(frozen=True)
class Identity:
    """What tells jobs apart."""

    label: str
    """Two jobs whose pixels may differ have different labels."""
    credentials: str
    """Digest of what a job was allowed in with."""

    @classmethod
    def of(cls, job: Job) -> Identity:
        """Return the identity of a job; it takes some milliseconds."""
        source = job.source
        template, credentials = without_credentials(_named(source.identity or source.template, source.secrets))
        headers = sorted((name.lower(), _named(value, source.secrets)) for name, value in source.headers.items())
        secret = [(name, value) for name, value in headers if _is_credential(name, _HEADERS)]
        deciding = [header for header in headers if header not in secret]
        label = _digest(json.dumps(job.settings(), sort_keys=True), [template, deciding])
        return cls(label, _digest(label, [credentials, secret, dict(source.secrets)]))


def without_credentials(url: str) -> tuple[str, list[str]]:
    """Return a URL with `***` for each credential, and the credentials; URLs in its parameters included."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    credentials = [user] if at else []
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    names = {unquote(name).lower() for name, _, _ in pairs}
    query = []
    for name, equals, value in pairs:
        shown = value
        if _is_credential(unquote(name).lower(), _parameters(names)) and not _URL.search(unquote(value)):
            credentials.append(f"{name}={value}")
            shown = "***"
        elif nested := _URL.search(decoded := unquote(value)):
            inner, found = without_credentials(decoded[nested.start() :])
            if found:
                credentials += found
                shown = quote(decoded[: nested.start()] + inner)
        query.append(f"{name}{equals}{shown}")
    netloc = f"***@{host}" if at else host
    return urlunsplit((parts.scheme, netloc, parts.path, "&".join(query), parts.fragment)), credentials


def _named(text: str, secrets: Mapping[str, str]) -> str:
    """Return a text with the name of each secret in its place."""
    for name, secret in sorted(secrets.items(), key=lambda pair: len(pair[1]), reverse=True):
        for spelling in (secret, quote(secret), quote(secret, safe="")):
            text = text.replace(spelling, f"{{{name}}}")
    return text


def _parameters(names: Collection[str]) -> frozenset[str]:
    """Return the parameters that are credentials in a query that has these."""
    return _PARAMETERS if _SIGNATURES.isdisjoint(names) else _PARAMETERS | _SIGNED


def _is_credential(name: str, known: Collection[str]) -> bool:
    return name in known or name.startswith(_PREFIXES)


def _digest(salt: str, values: Sequence[object]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt.encode(), _ROUNDS).hex()
