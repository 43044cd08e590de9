"""Which kind of store a location is, and the store itself for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mosaic_async.sources.description import is_url
from mosaic_async.sources.placeholders import is_template
from mosaic_async.sources.source import TileSource
from mosaic_async.sources.stores.folder import folder_store, is_folder_of_tiles
from mosaic_async.sources.stores.mbtiles import mbtiles_store
from mosaic_async.sources.stores.pmtiles import pmtiles_store
from mosaic_async.sources.stores.serving import serving
from mosaic_async.sources.stores.store import Store


def is_store(location: str) -> bool:
    """Return whether a location is a folder of tiles, a template of paths, an MBTiles or a PMTiles; blocks."""
    place = _plain(location)
    if is_url(place):
        return urlsplit(place).path.lower().endswith(".pmtiles") and not is_template(place)
    if "://" in place or place.startswith("//"):
        return False
    return is_template(place) or place.lower().endswith((".pmtiles", ".mbtiles")) or is_folder_of_tiles(Path(place))


@asynccontextmanager
async def opened_store(
    location: str, headers: Mapping[str, str], allow_hosts: Collection[str]
) -> AsyncIterator[TileSource]:
    """Serve the tiles of a store to this process for the block, and yield their source.

    Raises:
        SourceError: the store cannot be read.
        UsageError: an extra is not installed, or a template of paths is not one.
    """
    async with _store(_plain(location), headers, allow_hosts) as store, serving(store) as source:
        yield source


def _store(place: str, headers: Mapping[str, str], allow_hosts: Collection[str]) -> AbstractAsyncContextManager[Store]:
    lower = urlsplit(place).path.lower() if is_url(place) else place.lower()
    if lower.endswith(".pmtiles"):
        return pmtiles_store(place, headers, allow_hosts)
    return mbtiles_store(place) if lower.endswith(".mbtiles") and not is_template(place) else folder_store(place)


def _plain(location: str) -> str:
    """Return a location without the schemes of MapLibre and of files."""
    place = location.removeprefix("pmtiles://").removeprefix("mbtiles://")
    return unquote(place.removeprefix("file://")) if place.startswith("file://") else place
