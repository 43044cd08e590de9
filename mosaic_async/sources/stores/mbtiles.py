"""An MBTiles: tiles in a database of SQLite, whose rows are counted from the south. It knows nothing of pixels."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

from mosaic_async.errors import SourceError
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

    def read(tile: Tile) -> bytes | None:
        try:
            with turn:
                row = database.execute(_TILE, (tile.z, tile.x, 2**tile.z - 1 - tile.y)).fetchone()
        except sqlite3.Error as error:
            raise UnreadableError(f"{path.name}: {error}") from error
        return None if row is None else bytes(row[0])

    return Store(
        read=lambda tile: asyncio.to_thread(read, tile),
        identity=stamp_of(path),
        zooms=(int(zooms[0]), int(zooms[1])),
        bounds=told.bounds,
        grid=told.grid,
        encoding=told.encoding,
        notes=tuple(note.replace("TileJSON", "MBTiles") for note in told.notes),
    )


def _metadata(database: sqlite3.Connection) -> Mapping[str, str]:
    try:
        return dict(database.execute("SELECT name, value FROM metadata"))
    except sqlite3.OperationalError:  # some writers leave the table out
        return {}
