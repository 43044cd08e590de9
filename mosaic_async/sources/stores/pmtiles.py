"""A PMTiles archive: directories that say where in one file each tile is. It knows nothing of where the file is."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mosaic_async.errors import SourceError
from mosaic_async.geo.cover import Tile
from mosaic_async.sources.description import is_url, shown
from mosaic_async.sources.extras import required
from mosaic_async.sources.stores.ranges import Ranges, local_ranges, remote_ranges
from mosaic_async.sources.stores.store import Store, UnreadableError

_HEADER = 127
"""Bytes."""
_MAX_DEPTH = 4
_KEPT = 64
"""Directories; a leaf has some thousand tiles, and neighbours share one."""
_MAX_DIRECTORY = 2**26
"""Bytes, unpacked."""
_VECTORS = ("MVT", "MLT")
_DEGREE = 10_000_000


@asynccontextmanager
async def pmtiles_store(
    location: str, headers: Mapping[str, str], allow_hosts: Collection[str]
) -> AsyncIterator[Store]:
    """Yield the store of an archive at a path or a URL.

    Raises:
        SourceError: the archive cannot be read, or its tiles are vectors.
        UsageError: the extra `pmtiles` is not installed.
    """
    format_ = required("pmtiles.tile", extra="pmtiles", what="a PMTiles archive")
    opened = remote_ranges(location, headers, allow_hosts) if is_url(location) else local_ranges(Path(location))
    try:
        async with opened as ranges:
            yield await _store(ranges, format_, shown(location))
    except OSError as error:
        raise SourceError(f"{location}: {error.strerror}") from error


async def _store(ranges: Ranges, format_: Any, name: str) -> Store:
    try:
        header = format_.deserialize_header(await ranges.read(0, _HEADER))
        archive = _Archive(ranges, format_, header)
        await archive.directory(header["root_offset"], header["root_length"])
    except UnreadableError as error:
        raise SourceError(
            f"{name} cannot be read: {error.reason}", hint=error.hint or "check the URL and the headers"
        ) from error
    except (format_.MagicNumberNotFound, format_.SpecVersionUnsupported, ValueError, IndexError) as error:
        raise SourceError(f"{name} is not a PMTiles archive of version 3") from error
    if header["tile_type"].name in _VECTORS:
        raise SourceError(f"the tiles of {name} are vectors, which have no pixels")
    corners = (header[f"{end}_{axis}_e7"] / _DEGREE for end in ("min", "max") for axis in ("lon", "lat"))
    west, south, east, north = corners
    return Store(
        read=archive.tile,
        identity=ranges.stamp(),
        zooms=(header["min_zoom"], header["max_zoom"]),
        bounds=(west, south, east, north) if south < north and west < east else None,
    )


class _Archive:
    """The directories of an archive, the last ones in memory."""

    def __init__(self, ranges: Ranges, format_: Any, header: Mapping[str, Any]) -> None:
        self._ranges = ranges
        self._format = format_
        self._header = header
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def tile(self, tile: Tile) -> bytes | None:
        """Return the bytes of a tile, unpacked; None where the archive has none."""
        number = self._format.zxy_to_tileid(tile.z, tile.x, tile.y)
        offset, length = self._header["root_offset"], self._header["root_length"]
        for _ in range(_MAX_DEPTH):
            entry = self._format.find_tile(await self.directory(offset, length), number)
            if entry is None:
                return None
            if entry.run_length:
                body = await self._ranges.read(self._header["tile_data_offset"] + entry.offset, entry.length)
                return self._unpacked(body)
            offset, length = self._header["leaf_directory_offset"] + entry.offset, entry.length
        raise UnreadableError("the directories of the archive have no end")

    async def directory(self, offset: int, length: int) -> list[Any]:
        """Return the entries of a directory."""
        async with self._turn:
            if offset not in self._kept:
                packed = await self._ranges.read(offset, length)
                self._kept[offset] = await asyncio.to_thread(self._entries, packed)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(offset)
            return self._kept[offset]

    def _entries(self, packed: bytes) -> list[Any]:
        try:
            if self._header["internal_compression"].name == "NONE":
                packed = gzip.compress(packed, 1)
            unpacking = zlib.decompressobj(31)
            unpacking.decompress(packed, _MAX_DIRECTORY)
            if not unpacking.eof:
                raise UnreadableError("a directory of the archive is too large, or cut short")
            found: list[Any] = self._format.deserialize_directory(packed)
        except (OSError, EOFError, zlib.error, IndexError) as error:
            raise UnreadableError("a directory of the archive is damaged") from error
        return found

    def _unpacked(self, body: bytes) -> bytes:
        """Return the bytes of a tile; images are hardly ever packed once more."""
        if self._header["tile_compression"].name != "GZIP":
            return body
        try:
            return gzip.decompress(body)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableError("the tile cannot be unpacked") from error
