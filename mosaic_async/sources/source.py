"""What tiles are requested from: a URL template and what is known of its tiles; one function per way to get one.

A source is data. It knows nothing of areas, and of HTTP only that a TileJSON is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import aiofiles
from yarl import URL

from mosaic_async.errors import RequestError, SourceError, UsageError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile
from mosaic_async.http.client import Client, Pace
from mosaic_async.http.request import is_same_place
from mosaic_async.redaction import learn, learn_request, scrub
from mosaic_async.safe_json import parse
from mosaic_async.sources.grid_signs import grid_in_url
from mosaic_async.sources.tilejson import TileJson

_PLACE = re.compile(r"(?:\{|%7[Bb])(-?[xyz])(?:\}|%7[Dd])")
"""A placeholder, with literal or percent-encoded braces; any other brace is left as it is."""
_MAX_TILEJSON = 2**20
_PACE = Pace(timeout=60)
_SHORTEST_SECRET = 6
"""Characters: a shorter text is not told from others that happen to be the same."""


@dataclass(frozen=True, kw_only=True)
class TileSource:
    """A URL template and what is known of its tiles."""

    template: str
    """URL with `{z}`, `{x}` and `{y}` (or `{-y}`, rows counted from the south), braces literal or percent-encoded."""
    tile_size: int | None = None
    """Pixels per side; None when only a tile shows it."""
    minzoom: int | None = None
    maxzoom: int | None = None
    """Zoom at which tiles of 256 pixels have the data's own resolution; None when not known."""
    bounds: Bounds | None = None
    """West, south, east, north in degrees of the data; None when not known."""
    grid: str | None = None
    """Matrix set or coordinate system that its description names; None: its URL may name one."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every tile request; may hold secrets."""
    mask_band: bool | None = None
    """Whether the last band of a tile is its mask; None: its colour interpretation says so."""
    identity: str | None = None
    """Name of this source from run to run, by which a killed run resumes; None: the template."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secret texts of the URL by name, which may change from run to run without changing a pixel."""
    notes: tuple[str, ...] = ()
    """What users should know, such as limits of the tiler that its answers do not show."""

    def __post_init__(self) -> None:
        learn(self.secrets.values())
        learn_request(self.template, self.headers)
        if not re.match(r"https?://[^/]", self.template, re.IGNORECASE):
            raise UsageError("a tile URL must begin with http:// or https:// and a host")
        found = {name.lstrip("-") for name in _PLACE.findall(self.template)}
        if missing := sorted({"z", "x", "y"} - found):
            raise UsageError(
                f"the tile URL has no {', '.join(f'{{{name}}}' for name in missing)}",
                hint="an XYZ template looks like https://host/tiles/{z}/{x}/{y}.tif",
            )
        try:
            URL(self.url(Tile(0, 0, 0)))
        except ValueError as error:
            raise UsageError(f"the tile URL is not a URL: {error}", hint="check host, port and brackets") from error

    def url(self, tile: Tile) -> str:
        """Return the URL of one tile."""
        values = {"x": tile.x, "y": tile.y, "z": tile.z, "-y": 2**tile.z - 1 - tile.y}
        return _PLACE.sub(lambda match: str(values[match[1]]), self.template)

    @property
    def stated_grid(self) -> str | None:
        """The matrix set or coordinate system that the source names, where that is not Web Mercator."""
        return self.grid or grid_in_url(self.template)

    def with_params(self, params: Mapping[str, str]) -> TileSource:
        """Return the source with query parameters added to its template."""
        if not params:
            return self
        base, mark, fragment = self.template.partition("#")
        joint = "" if base.endswith(("?", "&")) else "&" if "?" in base else "?"
        identity = None if self.identity is None else f"{self.identity}&{urlencode(params)}"
        return replace(self, template=f"{base}{joint}{urlencode(params)}{mark}{fragment}", identity=identity)


def is_template(text: str) -> bool:
    """Return whether a text contains a placeholder of a tile URL."""
    return _PLACE.search(text) is not None


def from_template(template: str, *, headers: Mapping[str, str] | None = None) -> TileSource:
    """Return the source of an XYZ template; its tile size is that of `@2x` or `tilesize=` in the URL, if any."""
    source = TileSource(template=template, headers=headers or {})
    return replace(source, tile_size=_size_in_url(template))


async def from_tilejson(
    location: str | Path, *, headers: Mapping[str, str] | None = None, allow_hosts: Collection[str] = ()
) -> TileSource:
    """Return the source that a TileJSON (2.x or 3.0) at a URL or in a file describes.

    Its first template is used, with its bounds and zooms. Zooms are read as those of 256-pixel tiles, whatever the
    `tilesize` in the template, as TiTiler 2 writes them (`/{tms}/tilejson.json`). A document from the network may name
    tiles of its own origin only, and headers are never sent anywhere else.

    Args:
        location: URL or path.
        headers: sent with every request to the document's origin.
        allow_hosts: hosts that the template may name as well.

    Raises:
        SourceError: the document cannot be fetched, is not a TileJSON, or names another host.
    """
    document = await _document(str(location), headers or {}, allow_hosts)
    try:
        told = TileJson.parse(document)
        template = urljoin(str(location), told.template)
        is_own = not _is_url(str(location)) or is_same_place(URL(str(location)), URL(template))
        source = TileSource(
            template=_south_up(template) if told.is_south_up else template,
            tile_size=_size_in_url(template) or told.tile_size,
            minzoom=told.minzoom,
            maxzoom=told.maxzoom,
            bounds=told.bounds,
            grid=told.grid,
            headers=headers or {} if is_own else {},
        )
    except ValueError as error:
        raise SourceError(
            f"{_shown(location)} is not a TileJSON: {error}",
            hint="a TileJSON is a JSON object whose `tiles` lists URL templates",
        ) from error
    host = (URL(template).host or "").lower()
    if not is_own and host not in {allowed.lower() for allowed in allow_hosts}:
        raise SourceError(
            f"{_shown(location)} names another host for its tiles, {host}",
            hint="to allow it, add the host to ``allow_hosts``; headers are not sent there",
        )
    return source


async def open_source(
    source: str | Path | TileSource,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    allow_hosts: Collection[str] = (),
    secrets: Mapping[str, str] | None = None,
) -> TileSource:
    """Return the source of what a user passes: a source, an XYZ template, or the URL or path of a TileJSON.

    Raises:
        UsageError: it is not a source, or a secret cannot be told from other texts.
        SourceError: the TileJSON cannot be fetched or read.
    """
    secrets = secrets or {}
    _check_secrets(secrets)
    if isinstance(source, TileSource):
        template = with_secrets(source.template, secrets)
        found = replace(source, template=template, headers={**source.headers, **(headers or {})})
    elif is_template(location := with_secrets(str(source), secrets)):
        found = from_template(location, headers=headers)
    else:
        found = await from_tilejson(location, headers=headers, allow_hosts=allow_hosts)
    return replace(found.with_params(params or {}), secrets={**found.secrets, **secrets})


def with_secrets(url: str, secrets: Mapping[str, str]) -> str:
    """Return a URL with each name in braces replaced by its secret."""
    for name, secret in secrets.items():
        for place in (f"{{{name}}}", f"%7B{name}%7D", f"%7b{name}%7d"):
            url = url.replace(place, secret)
    return url


def _check_secrets(secrets: Mapping[str, str]) -> None:
    for name, secret in secrets.items():
        if not re.fullmatch(r"\w{2,}", name):
            raise UsageError(f"{name!r} cannot name a secret", hint="use at least two letters, digits or underscores")
        if len(secret) < _SHORTEST_SECRET:
            raise UsageError(f"the secret {name} is too short", hint=f"use at least {_SHORTEST_SECRET} characters")


def _is_url(location: str) -> bool:
    return re.match(r"https?://", location, re.IGNORECASE) is not None


async def _document(location: str, headers: Mapping[str, str], allow_hosts: Collection[str]) -> dict[str, Any]:
    try:
        if _is_url(location):
            async with (
                Client(_PACE, headers=headers, max_body=_MAX_TILEJSON, allow_hosts=allow_hosts) as client,
                client.get(location) as answer,
            ):
                if not answer.body:
                    raise RequestError(f"HTTP {answer.status}", status=answer.status)
                body = answer.body
        else:
            async with aiofiles.open(location, "rb") as file:
                body = await file.read()
        document = parse(body)
    except RequestError as error:
        raise SourceError(
            f"no TileJSON at {_shown(location)}: {error}", hint="check the URL; for 401 or 403, check the headers"
        ) from error
    except OSError as error:
        raise SourceError(
            f"no TileJSON at {location}: {error.strerror}",
            hint="a source is an XYZ template with {z}/{x}/{y}, or the URL or path of a TileJSON",
        ) from error
    except ValueError as error:
        raise SourceError(f"{_shown(location)} is not JSON", hint="the URL may be that of a web page") from error
    if not isinstance(document, dict):
        raise SourceError(f"{_shown(location)} is not a TileJSON: not a JSON object")
    return document


def _south_up(template: str) -> str:
    return _PLACE.sub(lambda match: "{-y}" if match[1] == "y" else match[0], template)


def _size_in_url(template: str) -> int | None:
    """Return the tile size in a URL: `tilesize=512` of TiTiler 2, or `@2x` of older generations; None without one."""
    for name, value in parse_qsl(urlsplit(template).query):
        if name == "tilesize" and value.isdigit():
            return int(value)
    scale = re.search(r"(?:\}|%7[Dd])@([1-4])x", template)
    return 256 * int(scale[1]) if scale else None


def _shown(location: str | Path) -> str:
    """Return the location of a document without its query and user, which may hold secrets."""
    parts = urlsplit(str(location))
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else str(location)
    return scrub(shown)
