"""A document that describes tiles, from a URL or a file, and the source that it leads to.

A document from the network may name tiles of its own origin only, and headers are never sent anywhere else. It knows
nothing of what the kinds of documents mean.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiofiles
from yarl import URL

from mosaic_async.errors import RequestError, SourceError
from mosaic_async.http.client import Client, Pace
from mosaic_async.http.request import is_same_place
from mosaic_async.safety.redaction import scrub
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.placeholders import on_each_server
from mosaic_async.sources.source import TileSource

_MAX_BODY = 2**24
"""Bytes; capabilities of a server with a thousand layers have some megabytes."""
_ONE_TILE = re.compile(r"/\d+/\d+/\d+((?:@\dx)?(?:\.\w+)?)$")
_GET_MAP = re.compile(r"\brequest=getmap\b", re.IGNORECASE)
_GET_TILE = re.compile(r"\brequest=gettile\b", re.IGNORECASE)
_PACE = Pace(timeout=60)
_NAMES_IN_FOLDER = (
    "a folder of tiles has numbers without leading zeros, such as 7/64/44.png; "
    "write other names as a template, such as {}/{{z}}/{{x}}/{{y}}@2x.png"
)


@dataclass(frozen=True, kw_only=True)
class Description:
    """A document that describes tiles."""

    location: str
    """URL or path."""
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the document's origin."""
    allow_hosts: Collection[str] = ()
    """Other hosts that it may name."""

    @classmethod
    async def fetch(cls, location: str, headers: Mapping[str, str], allow_hosts: Collection[str]) -> Description:
        """Read a document.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            body = await (_fetched(location, headers, allow_hosts) if is_url(location) else _read(location))
        except RequestError as error:
            raise SourceError(
                f"no TileJSON at {shown(location)}: {error.message}",
                hint=error.marked_hint
                or _placeholders_for(location)
                or "check the URL; for 401 or 403, check the headers",
            ) from error
        except OSError as error:
            raise SourceError(
                f"no TileJSON at {location}: {error.strerror}",
                hint=_NAMES_IN_FOLDER.format(location)
                if isinstance(error, IsADirectoryError)
                else "a source is an XYZ template with {z}/{x}/{y}, or the URL or path of a TileJSON",
            ) from error
        return cls(location=location, body=body, headers=headers, allow_hosts=allow_hosts)

    @property
    def name(self) -> str:
        """The location without its query and user, which may hold secrets."""
        return shown(self.location)

    @cached_property
    def json(self) -> Any:
        """The document as JSON.

        Raises:
            ValueError: it is not JSON.
        """
        return parse(self.body.decode("utf-8-sig"))

    @property
    def json_object(self) -> dict[str, Any]:
        """The document as a JSON object.

        Raises:
            SourceError: it is not one.
        """
        try:
            found = self.json
        except ValueError as error:
            raise SourceError(
                f"{self.name} is not JSON", hint=_placeholders_for(self.location) or "the URL may be that of a web page"
            ) from error
        if not isinstance(found, dict):
            raise SourceError(f"{self.name} is not a TileJSON: not a JSON object")
        return found

    async def follow(self, link: str) -> Description:
        """Return the document that a link of this one leads to, on the same origin or an allowed host.

        Raises:
            SourceError: it cannot be read, or is elsewhere.
        """
        url = urljoin(self.location, link)
        others = self._other_hosts(url)
        self._check_hosts(others)
        return await Description.fetch(url, {} if others else self.headers, self.allow_hosts)

    def source(self, template: str, **known: Any) -> TileSource:
        """Return the source of a template, which may be relative, with headers if they may be sent there.

        Args:
            template: as it stands in the document.
            known: other fields of the source.

        Raises:
            SourceError: the document names another host, which is not allowed.
        """
        absolute = urljoin(self.location, template) if is_url(self.location) else template
        others = self._other_hosts(absolute)
        source = TileSource(template=absolute, headers={} if others else self.headers, **known)
        self._check_hosts(others)
        return source

    def _check_hosts(self, others: set[str]) -> None:
        if refused := sorted(others - {host.lower() for host in self.allow_hosts}):
            raise SourceError(
                f"{self.name} names another host for its tiles, {', '.join(refused)}",
                hint="to allow it, add the host to ``allow_hosts``; headers are not sent there",
            )

    def _other_hosts(self, template: str) -> set[str]:
        """Return the hosts of a template that are not the origin of the document; none for one from the disk."""
        if not is_url(self.location):
            return set()
        servers = map(URL, on_each_server(template))
        return {(url.host or "").lower() for url in servers if not is_same_place(URL(self.location), url)}


def _placeholders_for(location: str) -> str | None:
    """Return how to write the URL of one tile, or of one map, as that of all; None for other URLs."""
    parts = urlsplit(location)
    if _GET_MAP.search(parts.query):
        return "for all tiles, write BBOX={bbox-epsg-3857}, WIDTH={width} and HEIGHT={height}"
    if _GET_TILE.search(parts.query):
        return "for all tiles, write TILEMATRIX={TileMatrix}, TILEROW={TileRow} and TILECOL={TileCol}"
    path = _ONE_TILE.sub(r"/{z}/{x}/{y}\1", parts.path)
    return None if path == parts.path else f"for all tiles, write {scrub(parts._replace(path=path).geturl())}"


def is_url(location: str) -> bool:
    """Return whether a location is a URL and not a path."""
    return re.match(r"https?://", location, re.IGNORECASE) is not None


def shown(location: str) -> str:
    """Return the location of a document without its query and user, which may hold secrets."""
    parts = urlsplit(location)
    return scrub(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else location)


async def _fetched(location: str, headers: Mapping[str, str], allow_hosts: Collection[str]) -> bytes:
    async with (
        Client(_PACE, headers=headers, max_body=_MAX_BODY, allow_hosts=allow_hosts) as client,
        client.get(location) as answer,
    ):
        if not answer.body:
            raise RequestError(f"HTTP {answer.status}", status=answer.status)
        return answer.body


async def _read(location: str) -> bytes:
    async with aiofiles.open(location, "rb") as file:
        return await file.read()
