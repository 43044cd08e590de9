"""From tiles to part COGs: fetchers, a bounded queue, one writer, and sealing beside them.

Fetchers share one iterator of tiles, so tasks are as many as requests, never as tiles. Bodies in memory are at most
concurrency + queue size + 1: a fetcher holds its permit until the queue has taken the body. It knows nothing of what
becomes of the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mosaic_async.canvas import Canvas
from mosaic_async.cover import Tile
from mosaic_async.encoding import Encoding
from mosaic_async.errors import RequestError, TileError
from mosaic_async.events import OnEvent, PartSealed, TileEmpty, TileFailed, TileFetched, TilePlaced
from mosaic_async.grid import Grid, Part
from mosaic_async.http import Client, redact
from mosaic_async.sources import TileSource
from mosaic_async.tile import TileProfile, decode
from mosaic_async.workdir import PartRecord, WorkFolder

QUEUE_SIZE = 16
"""Bodies that wait for the writer at most; more would only be more memory, since the writer takes one at a time."""
_QUEUE_BYTES = 64 * 2**20
OPEN_PARTS = 3
"""Canvases in memory at most: one being sealed, one with late tiles, one being filled."""


def queue_size(tile: TileProfile) -> int:
    """Give how many bodies may wait for the writer: fewer where tiles are large."""
    return max(1, min(QUEUE_SIZE, _QUEUE_BYTES // tile.nbytes))


@dataclass
class _OpenPart:
    """A part that is being filled."""

    part: Part
    tiles: list[Tile]
    waiting: int
    """Tiles that are neither placed nor known to be empty or failed."""
    canvas: Canvas | None = None
    """Made when the first pixels arrive."""
    placed: int = 0
    empty: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Arrival:
    """How it ended with one tile of one part: a body, an empty body where there is no data, or a failure."""

    opened: _OpenPart
    tile: Tile
    body: bytes = b""
    failure: TileFailed | None = None


class Download:
    """Fetch all tiles of a grid and leave a COG in the work folder for each part that has data.

    Args:
        grid: the output.
        encoding: how it is stored.
        profile: what its tiles are like.
        source: what to ask for.
        client: asks.
        work: keeps tiles and parts; parts that are finished there are not touched.
        concurrency: requests in flight at most.
        max_failures: tiles that may stay holes; with more, parts that lack tiles are not sealed.
        tags: GDAL metadata of the output; counts are added.
        on_event: told of every tile, once, and of every part.
    """

    def __init__(
        self,
        *,
        grid: Grid,
        encoding: Encoding,
        profile: TileProfile,
        source: TileSource,
        client: Client,
        work: WorkFolder,
        concurrency: int,
        max_failures: int,
        tags: Mapping[str, str],
        on_event: OnEvent,
    ) -> None:
        self._grid = grid
        self._encoding = encoding
        self._profile = profile
        self._source = source
        self._client = client
        self._work = work
        # A tile that backs off keeps its fetcher but not its permit: spare fetchers use the permit meanwhile.
        self._fetchers = 2 * concurrency
        self._max_failures = max_failures
        self._tags = tags
        self._on_event = on_event
        self._queue: asyncio.Queue[_Arrival | None] = asyncio.Queue(queue_size(profile))
        self._room = asyncio.Semaphore(OPEN_PARTS)
        self._tiles = self._dispatch()
        self._dispatching = asyncio.Lock()
        self._turns: dict[Tile, asyncio.Lock] = {}
        self._open: dict[str, _OpenPart] = {}
        self._placing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-canvas")
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-seal")
        self.records: dict[str, PartRecord] = {}
        """What became of each part that is sealed, by its name; those of earlier runs included."""
        self.placed = 0
        """Tiles, those of earlier runs included."""
        self.empty = 0
        self.failed: dict[Tile, TileFailed] = {}
        """Tiles that could not be had, by tile."""

    @property
    def is_complete(self) -> bool:
        """Whether no more tiles failed than may."""
        return len(self.failed) <= self._max_failures

    @property
    def tags(self) -> dict[str, str]:
        """GDAL metadata of the output, with the counts so far."""
        counts = {"PLACED": self.placed, "EMPTY": self.empty, "FAILED": len(self.failed)}
        return {**self._tags, **{f"MOSAIC_TILES_{name}": str(count) for name, count in counts.items()}}

    async def run(self, records: Mapping[str, PartRecord]) -> None:
        """Fetch, place and seal.

        Args:
            records: parts that an earlier run finished.
        """
        self.records.update(records)
        self.placed = sum(record.placed for record in records.values())
        self.empty = sum(record.empty for record in records.values())
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(tasks))
                async with asyncio.TaskGroup() as fetchers:
                    for _ in range(self._fetchers):
                        fetchers.create_task(self._fetch())
                await self._queue.put(None)
        finally:
            await self._close()

    async def _dispatch(self) -> AsyncIterator[tuple[_OpenPart, Tile]]:
        """Give tile after tile, part after part; a new part waits here until there is room for its canvas.

        Waiting here and not in the writer cannot lock up: tiles of open parts are out already and need no room.
        """
        for part in self._grid.parts():
            if part.name in self.records:
                continue
            await self._room.acquire()
            tiles = self._grid.tiles(part)
            opened = self._open[part.name] = _OpenPart(part, tiles, waiting=len(tiles))
            for tile in tiles:
                yield opened, tile

    async def _fetch(self) -> None:
        while True:
            async with self._dispatching:
                item = await anext(self._tiles, None)
            if item is None:
                return
            opened, tile = item
            async with self._turn(tile):
                await self._fetch_tile(opened, tile)

    @asynccontextmanager
    async def _turn(self, tile: Tile) -> AsyncIterator[None]:
        """Let only one part at a time ask for a tile that several parts touch; the others find it in the folder."""
        if len(self._grid.touches(tile)) == 1:
            yield
        else:
            async with self._turns.setdefault(tile, asyncio.Lock()):
                yield

    async def _fetch_tile(self, opened: _OpenPart, tile: Tile) -> None:
        if tile in self.failed:
            await self._queue.put(_Arrival(opened, tile, failure=self.failed[tile]))
        elif self._work.has_tile(tile):
            async with self._client.permit():
                await self._queue.put(await self._from_folder(opened, tile))
        else:
            await self._ask(opened, tile)

    async def _from_folder(self, opened: _OpenPart, tile: Tile) -> _Arrival:
        """Read a tile that an earlier run, or another part, left; the writer may have found it unreadable meanwhile."""
        try:
            return _Arrival(opened, tile, await self._work.read_tile(tile))
        except FileNotFoundError:
            return _Arrival(opened, tile, failure=self.failed.get(tile) or self._failure(tile, "its body is gone"))

    async def _ask(self, opened: _OpenPart, tile: Tile) -> None:
        try:
            async with self._client.get(self._source.url(tile)) as answer:
                if answer.body:
                    self._on_event(TileFetched(tile, len(answer.body)))
                await self._work.write_tile(tile, answer.body)
                await self._queue.put(_Arrival(opened, tile, answer.body))
        except RequestError as error:
            failure = self._failure(tile, error.message, status=error.status, attempts=error.attempts)
            await self._queue.put(_Arrival(opened, tile, failure=failure))

    def _failure(self, tile: Tile, reason: str, *, status: int | None = None, attempts: int = 1) -> TileFailed:
        return TileFailed(tile, redact(self._source.url(tile)), reason, status, attempts)

    async def _write(self, tasks: asyncio.TaskGroup) -> None:
        """Place what arrives; the only task that changes a part."""
        while (arrival := await self._queue.get()) is not None:
            await self._settle(arrival)
            arrival.opened.waiting -= 1
            if not arrival.opened.waiting:
                tasks.create_task(self._seal(arrival.opened))

    async def _settle(self, arrival: _Arrival) -> None:
        opened, tile, failure = arrival.opened, arrival.tile, arrival.failure
        if arrival.body:
            try:
                await self._in(self._placing, self._place, opened, tile, arrival.body)
            except TileError as error:
                failure = self._failure(tile, error.message, status=200)
        if failure is not None:
            opened.failed += 1
            if tile not in self.failed:
                self.failed[tile] = failure
                await self._work.drop_tiles([tile])
                self._on_event(failure)
        elif self._grid.touches(tile)[0] == (opened.part.row, opened.part.col):  # counted once, in its first part
            if arrival.body:
                opened.placed += 1
                self.placed += 1
            else:
                opened.empty += 1
                self.empty += 1
            self._on_event(TilePlaced(tile) if arrival.body else TileEmpty(tile))

    def _place(self, opened: _OpenPart, tile: Tile, body: bytes) -> None:
        """Decode and place one tile, on the canvas thread."""
        pixels, mask = decode(body, self._profile)
        if mask is not None and self._encoding.mask != "none" and not mask.any():
            return  # what lies under the mask is nobody's data; so a part without data needs no file
        of_tile, of_part = self._grid.overlap(tile, opened.part)
        rows, cols = of_tile.toslices()
        if opened.canvas is None:
            part = opened.part
            transform = self._grid.transform(part)
            opened.canvas = Canvas(part.height, part.width, self._grid.part_levels, transform, self._encoding)
        opened.canvas.place(pixels[:, rows, cols], None if mask is None else mask[rows, cols], of_part)

    async def _seal(self, opened: _OpenPart) -> None:
        """Turn a full canvas into a part COG; a part that lacks too many tiles keeps its bodies for the next run."""
        part = opened.part
        if self.is_complete or not opened.failed:
            nbytes = await self._in(self._sealing, self._seal_canvas, opened)
            record = PartRecord(placed=opened.placed, empty=opened.empty, failed=opened.failed, nbytes=nbytes)
            await self._work.finish_part(part, record)
            self.records[part.name] = record
            self._on_event(PartSealed(part.name, nbytes))
            if not opened.failed:
                done = [tile for tile in opened.tiles if self._is_done_with(tile)]
                for tile in done:
                    self._turns.pop(tile, None)
                await self._work.drop_tiles(done)
        elif opened.canvas is not None:
            await self._in(self._placing, opened.canvas.close)
        del self._open[part.name]
        self._room.release()

    def _seal_canvas(self, opened: _OpenPart) -> int:
        """Seal on the sealing thread and give the COG's size; no file where there is no data."""
        canvas = opened.canvas
        if canvas is None:
            return 0
        if outline := self._grid.outline():
            canvas.cut(outline)
        path = self._work.part_path(opened.part)
        if self._grid.is_single:
            canvas.seal(path, tags=self.tags)
        else:
            canvas.seal(path, top=self._work.top_path(opened.part))
        return path.stat().st_size

    def _is_done_with(self, tile: Tile) -> bool:
        """Whether no part needs the tile's body any more."""
        names = (f"{row}-{col}" for row, col in self._grid.touches(tile))
        return all(name in self.records and not self.records[name].failed for name in names)

    async def _in(self, executor: ThreadPoolExecutor, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *args)

    async def _close(self) -> None:
        """Wait for what the threads have begun, then free what is left."""
        for executor in (self._placing, self._sealing):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        for opened in self._open.values():
            if opened.canvas is not None:
                opened.canvas.close()
