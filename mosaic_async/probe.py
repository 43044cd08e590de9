"""The first tiles of a run: what they look like decides everything else, so they are asked for before it is planned.

Whatever is fetched here goes into the work folder and is not asked for again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice

from mosaic_async.download import checked_body
from mosaic_async.errors import SourceError, TileError
from mosaic_async.grid import Cover, Tile
from mosaic_async.http import Client
from mosaic_async.sources import TileSource
from mosaic_async.tile import TileProfile, learn
from mosaic_async.workdir import WorkFolder

_WRONG_AFTER = 32
"""Tiles; a source that answers 404 to the first this many, and nothing else, is a wrong URL."""
_BROKEN_AFTER = 3
"""Tiles that fail before anything has arrived."""


async def probe(
    client: Client, source: TileSource, cover: Cover, work: WorkFolder, *, tile_size: int | None, batch: int
) -> TileProfile:
    """Find the first tile that is not empty, from the centre outwards, and learn from it.

    Args:
        client: asks.
        source: what to ask for.
        cover: the tiles of the run.
        work: keeps what arrives.
        tile_size: pixels a side that tiles must have; None takes what they have.
        batch: tiles to ask for at once when the one in the centre is empty.

    Raises:
        SourceError: unreachable, refused, a wrong URL, not tiles, or no tile with data in the whole area.
    """
    statuses: list[int] = []
    failures: list[TileError] = []
    for tiles in _batches(cover.outward(), batch):
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(_ask(client, source, tile, work)) for tile in tiles]
        for tile, result in zip(tiles, (task.result() for task in asked), strict=True):
            if isinstance(result, TileError):
                failures.append(result)
                _check_failures(failures)
            elif work.has_body(tile):
                return await asyncio.to_thread(learn_first, await work.read_tile(tile), tile, source, tile_size)
            else:
                statuses.append(result)
        _check_statuses(statuses, cover.count)
    raise SourceError(
        f"none of the {cover.count:,} tiles has data (HTTP {', '.join(map(str, sorted(set(statuses))))})",
        hint="compare the area and the zoom with what the source covers",
    )


def _batches(tiles: Iterator[Tile], size: int) -> Iterator[list[Tile]]:
    yield list(islice(tiles, 1))
    while batch := list(islice(tiles, size)):
        yield batch


async def _ask(client: Client, source: TileSource, tile: Tile, work: WorkFolder) -> int | TileError:
    """Ask for a tile that is not in the folder; give the status, or what went wrong."""
    if work.has_tile(tile):
        return 200
    try:
        async with client.get(source.url(tile)) as answer:
            await work.write_tile(tile, checked_body(answer))
            return answer.status
    except TileError as error:
        return error


def learn_first(body: bytes, tile: Tile, source: TileSource, tile_size: int | None) -> TileProfile:
    """Learn from a first tile.

    Raises:
        SourceError: it is no tile, or not of the size that was said.
    """
    try:
        return learn(body, tile_size=tile_size, mask_band=source.mask_band)
    except TileError as error:
        raise SourceError(f"tile {tile.z}/{tile.x}/{tile.y} is not usable: {error.reason}") from error


def _check_failures(failures: list[TileError]) -> None:
    """End at once where asking on is pointless: no connection, or a refusal."""
    last = failures[-1]
    if last.status is None:
        raise SourceError(f"the source cannot be reached: {last.reason}", hint="check host, port and network") from last
    if last.status < 500:
        hint = "check the token or the headers" if last.status in (401, 403) else "check the URL and its parameters"
        raise SourceError(f"the source refuses the first tile: {last.reason}", hint=hint) from last
    if len(failures) >= _BROKEN_AFTER:
        raise SourceError(f"the first {len(failures)} tiles failed, the last with: {last.reason}") from last


def _check_statuses(statuses: Iterable[int], count: int) -> None:
    seen = list(statuses)
    if len(seen) >= min(_WRONG_AFTER, count) and set(seen) == {404}:
        raise SourceError(
            f"the first {len(seen)} tiles are all 404, not found", hint="check the URL template, the zoom and the area"
        )
