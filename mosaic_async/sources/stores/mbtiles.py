"""An MBTiles: tiles in a database of SQLite, whose rows are counted from the south. It knows nothing of pixels."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

import mercantile

from mosaic_async.errors import SourceError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile
from mosaic_async.sources.stores.store import Store, UnreadableError, stamp_of
from mosaic_async.sources.tilejson import TileJson

_TILE = "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"


@asynccontextmanager
async def mbtiles_store(location: str) -> AsyncIterator[Store]:
    """Yield the store of an MBTiles.

    Raises:
        SourceError: the file cannot be read, or its tiles are vectors.
    """
    path = Path(location)
    try:
        with closing(await asyncio.to_thread(_connected, path)) as database:
            yield await asyncio.to_thread(_store, database, path)
    except (sqlite3.Error, OSError) as error:
        raise SourceError(f"{path} cannot be read as MBTiles: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)


def _store(database: sqlite3.Connection, path: Path) -> Store:
    turn = threading.Lock()
    metadata = _metadata(database)
    try:
        told = TileJson.parse({**metadata, "tiles": ["-"], "scheme": "tms", "minzoom": None, "maxzoom": None})
    except ValueError as error:
        raise SourceError(f"{path} cannot be used: {error}") from error
    zooms = database.execute("SELECT min(zoom_level), max(zoom_level) FROM tiles").fetchone()
    if zooms[0] is None:
        raise SourceError(f"{path} has no tiles")

    if told.bounds is not None:
        _check_rows(database, int(zooms[1]), told.bounds, path)

    def read(tile: Tile) -> bytes | None:
        try:
            with turn:
                row = database.execute(_TILE, (tile.z, tile.x, 2**tile.z - 1 - tile.y)).fetchone()
        except sqlite3.Error as error:
            raise UnreadableError(f"{path.name}: {error}") from error
        body = None if row is None else row[0]
        if not isinstance(body, bytes | None):
            raise UnreadableError(f"{path.name} has a {type(body).__name__} instead of an image")
        return body

    return Store(
        read=lambda tile: asyncio.to_thread(read, tile),
        identity=stamp_of(path),
        zooms=(int(zooms[0]), int(zooms[1])),
        bounds=told.bounds,
        grid=told.grid,
        encoding=told.encoding,
        notes=tuple(note.replace("TileJSON", "MBTiles") for note in told.notes),
    )


def _check_rows(database: sqlite3.Connection, zoom: int, bounds: Bounds, path: Path) -> None:
    """Refuse tiles that lie in their own bounds only if their rows are counted from the north, as some write them."""
    lowest, highest = database.execute(
        "SELECT min(tile_row), max(tile_row) FROM tiles WHERE zoom_level = ?", (zoom,)
    ).fetchone()
    from_south = _latitudes(2**zoom - 1 - highest, 2**zoom - 1 - lowest, zoom)
    from_north = _latitudes(lowest, highest, zoom)
    if not _overlap(from_south, bounds) and _overlap(from_north, bounds):
        raise SourceError(
            f"{path} counts its rows from the north, unlike an MBTiles: its tiles are outside of its bounds",
            hint="write the tiles into a folder, and use it as folder/{z}/{x}/{y}.png",
        )


def _latitudes(top: int, lower: int, zoom: int) -> tuple[float, float]:
    """Return the south and the north of rows that are counted from the north."""
    return mercantile.bounds(0, lower, zoom).south, mercantile.bounds(0, top, zoom).north


def _overlap(latitudes: tuple[float, float], bounds: Bounds) -> bool:
    return latitudes[0] < bounds[3] and bounds[1] < latitudes[1]


def _metadata(database: sqlite3.Connection) -> Mapping[str, str]:
    try:
        return dict(database.execute("SELECT name, value FROM metadata"))
    except sqlite3.OperationalError:  # some writers leave the table out
        return {}
