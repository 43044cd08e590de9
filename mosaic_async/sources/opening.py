"""The source of what a user passes: a source, a URL template, or the URL or path of a document that describes tiles."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mosaic_async.errors import UsageError
from mosaic_async.http.trust import trusting
from mosaic_async.sources.described import described_source, tilejson_source
from mosaic_async.sources.description import Description
from mosaic_async.sources.placeholders import check_placeholders, is_template, with_values
from mosaic_async.sources.source import TileSource, from_template, with_query
from mosaic_async.sources.stores.found import is_store, opened_store

_SHORTEST_SECRET = 6
"""Characters: a shorter text is not told from others that happen to be the same."""


@asynccontextmanager
async def opened_source(
    source: str | Path | TileSource,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    allow_hosts: Collection[str] = (),
    secrets: Mapping[str, str] | None = None,
    tile_size: int | None = None,
    ca: str | Path | None = None,
) -> AsyncIterator[TileSource]:
    """Yield the source of what a user passes, for as long as the block needs it.

    Args:
        source: as for `open_source`.
        headers: sent with every request.
        params: fill placeholders of the URL, or are added to its query.
        allow_hosts: hosts that a TileJSON may name as well.
        secrets: secret texts of the URL by name.
        tile_size: pixels per side, where the URL leaves them to us; None: as the source states.
        ca: PEM file of certificate authorities to trust in the block, beside those of the system.

    Raises:
        UsageError: as `open_source`, or the file of authorities cannot be read.
        SourceError: as `open_source`.
    """
    with trusting(ca):
        if isinstance(source, TileSource) or not await asyncio.to_thread(is_store, str(source)):
            yield await open_source(
                source, headers=headers, params=params, allow_hosts=allow_hosts, secrets=secrets, tile_size=tile_size
            )
            return
        _check_secrets(secrets or {})
        location, left = with_values(with_secrets(str(source), secrets or {}), params or {})
        async with opened_store(with_query(location, left), headers or {}, allow_hosts) as found:
            yield replace(found, tile_size=tile_size, secrets=secrets or {})


async def open_source(
    source: str | Path | TileSource,
    *,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    allow_hosts: Collection[str] = (),
    secrets: Mapping[str, str] | None = None,
    tile_size: int | None = None,
) -> TileSource:
    """Return the source of what a user passes, with all placeholders known.

    Args:
        source: a source, a URL template, or the URL or path of a document that describes tiles.
        headers: sent with every request.
        params: fill placeholders of the URL, or are added to its query.
        allow_hosts: hosts that a TileJSON may name as well.
        secrets: secret texts of the URL by name.
        tile_size: pixels per side, where the URL leaves them to us; None: as the source states.

    Raises:
        UsageError: it is not a source, a placeholder is not known, or a secret cannot be told from other texts.
        SourceError: the TileJSON cannot be fetched or read.
    """
    secrets = secrets or {}
    _check_secrets(secrets)
    if isinstance(source, TileSource):
        template = with_secrets(source.template, secrets)
        found = replace(source, template=template, headers={**source.headers, **(headers or {})})
    elif is_template(location := with_secrets(str(source), secrets)):
        location, params = with_values(location, params or {})
        found = from_template(location, headers=headers)
    else:
        found, params = await described_source(location, headers or {}, allow_hosts, params or {}), {}
    found = found.with_params(params or {})
    check_placeholders(found.template)
    return replace(found, secrets={**found.secrets, **secrets}, tile_size=tile_size or found.tile_size)


async def from_tilejson(
    location: str | Path, *, headers: Mapping[str, str] | None = None, allow_hosts: Collection[str] = ()
) -> TileSource:
    """Return the source that a TileJSON (2.x or 3.0) at a URL or in a file describes.

    Its first template is used, with its bounds and zooms. Where the document states a `tileSize`, its zooms count such
    tiles. Otherwise they are read as those of 256-pixel tiles, whatever the `tilesize` in the template, as TiTiler 2
    writes them (`/{tms}/tilejson.json`). A document from the network may name tiles of its own origin only, and headers
    are never sent anywhere else.

    Args:
        location: URL or path.
        headers: sent with every request to the document's origin.
        allow_hosts: hosts that the template may name as well.

    Raises:
        SourceError: the document cannot be fetched, is not a TileJSON, or names another host.
    """
    return tilejson_source(await Description.fetch(str(location), headers or {}, allow_hosts))


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
