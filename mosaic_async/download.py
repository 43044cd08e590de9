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
from mosaic_async.encoding import Encoding
from mosaic_async.errors import TileError
from mosaic_async.events import Event, OnEvent, PartSealed, TileEmpty, TileFailed, TileFetched, TilePlaced
from mosaic_async.grid import Grid, Part, Tile
from mosaic_async.http import Answer, Client, redact
from mosaic_async.sources import TileSource
from mosaic_async.tile import TileProfile, decode
from mosaic_async.workdir import WorkFolder

QUEUE_SIZE = 16
"""Bodies that wait for the writer at most; more would only be more memory, since the writer takes one at a time."""
OPEN_PARTS = 3
"""Canvases in memory at most: one being sealed, one with late tiles, one being filled."""


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
    """How it ended with one tile of one part: a body, an empty body where there is no data, or an error."""

    part: _OpenPart
    tile: Tile
    body: bytes = b""
    error: TileError | None = None


class Download:
    """Fetch all tiles of a grid and leave a COG in the work folder for each part that has data."""

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
        tags: Callable[[Download], Mapping[str, str]],
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
        self._queue: asyncio.Queue[_Arrival | None] = asyncio.Queue(QUEUE_SIZE)
        self._room = asyncio.Semaphore(OPEN_PARTS)
        self._tiles = self._dispatch()
        self._dispatching = asyncio.Lock()
        self._turns: dict[Tile, asyncio.Lock] = {}
        self._open: dict[str, _OpenPart] = {}
        self._placing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-canvas")
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-seal")
        self._finished: set[str] = set()
        self.placed = 0
        self.empty = 0
        self.failed: dict[Tile, TileFailed] = {}
        """Tiles that could not be had, by tile."""

    async def run(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Fetch, place and seal; parts that `records` calls finished are not touched.

        Args:
            records: what `WorkFolder.finished_parts` gave.
        """
        for name, record in records.items():
            self._finished.add(name)
            self.placed += record["placed"]
            self.empty += record["empty"]
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
            if part.name in self._finished:
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
            part, tile = item
            async with self._turn(tile):
                await self._fetch_tile(part, tile)

    @asynccontextmanager
    async def _turn(self, tile: Tile) -> AsyncIterator[None]:
        """Let only one part at a time ask for a tile that several parts touch; the others find it in the folder."""
        if len(self._grid.touches(tile)) == 1:
            yield
        else:
            async with self._turns.setdefault(tile, asyncio.Lock()):
                yield

    async def _fetch_tile(self, part: _OpenPart, tile: Tile) -> None:
        if tile in self.failed:
            await self._queue.put(_Arrival(part, tile, error=TileError(self.failed[tile].reason)))
        elif self._work.has_tile(tile):
            async with self._client.permit():
                await self._hand_on(part, tile, await self._work.read_tile(tile))
        else:
            try:
                async with self._client.get(self._source.url(tile)) as answer:
                    await self._work.write_tile(tile, checked_body(answer))
                    await self._hand_on(part, tile, answer.body)
            except TileError as error:
                await self._queue.put(_Arrival(part, tile, error=error))

    async def _hand_on(self, part: _OpenPart, tile: Tile, body: bytes) -> None:
        if body:
            self._on_event(TileFetched(tile, len(body)))
        await self._queue.put(_Arrival(part, tile, body))

    async def _write(self, tasks: asyncio.TaskGroup) -> None:
        """Place what arrives; the only task that changes a part."""
        while (arrival := await self._queue.get()) is not None:
            part = arrival.part
            event = await self._settle(arrival)
            self._on_event(event)
            part.waiting -= 1
            if not part.waiting:
                tasks.create_task(self._seal(part))

    async def _settle(self, arrival: _Arrival) -> Event:
        part, tile, error = arrival.part, arrival.tile, arrival.error
        if error is None and arrival.body:
            try:
                await self._in(self._placing, self._place, part, tile, arrival.body)
            except TileError as unreadable:
                error = unreadable
                await self._work.drop_tiles([tile])
        is_first = self._grid.touches(tile)[0] == (part.part.row, part.part.col)
        if error is not None:
            part.failed += 1
            url = redact(self._source.url(tile))
            return self.failed.setdefault(tile, TileFailed(tile, url, error.reason, error.status, error.attempts))
        if arrival.body:
            part.placed += is_first
            return TilePlaced(tile)
        part.empty += is_first
        return TileEmpty(tile)

    def _place(self, opened: _OpenPart, tile: Tile, body: bytes) -> None:
        """Decode and place one tile, on the canvas thread."""
        pixels, mask = decode(body, self._profile)
        of_tile, of_part = self._grid.overlap(tile, opened.part)
        rows, cols = of_tile.toslices()
        if opened.canvas is None:
            part = opened.part
            transform = self._grid.transform(part)
            opened.canvas = Canvas(part.height, part.width, self._grid.part_levels, transform, self._encoding)
        opened.canvas.place(pixels[:, rows, cols], None if mask is None else mask[rows, cols], of_part)

    async def _seal(self, opened: _OpenPart) -> None:
        """Turn a full canvas into a part COG; a part that lacks too many tiles keeps its bodies for the next run."""
        if opened.failed and len(self.failed) > self._max_failures:
            if opened.canvas is not None:
                await self._in(self._placing, opened.canvas.close)
        else:
            self.placed += opened.placed
            self.empty += opened.empty
            nbytes = await self._in(self._sealing, self._seal_canvas, opened)
            record = {"placed": opened.placed, "empty": opened.empty, "failed": opened.failed, "bytes": nbytes}
            await self._work.finish_part(opened.part, record)
            self._on_event(PartSealed(opened.part.name, nbytes))
            if not opened.failed:
                self._finished.add(opened.part.name)
                await self._work.drop_tiles(tile for tile in opened.tiles if self._is_done_with(tile))
        del self._open[opened.part.name]
        self._room.release()

    def _seal_canvas(self, opened: _OpenPart) -> int:
        """Seal on the sealing thread and give the COG's size; no file where there is no data."""
        canvas = opened.canvas
        if canvas is None:
            return 0
        if canvas.is_blank:
            canvas.close()
            return 0
        if outline := self._grid.outline():
            canvas.cut(outline)
        path = self._work.part_path(opened.part)
        if self._grid.is_single:
            canvas.seal(path, tags=self._tags(self))
        else:
            canvas.seal(path, top=self._work.top_path(opened.part))
        return path.stat().st_size

    def _is_done_with(self, tile: Tile) -> bool:
        self._turns.pop(tile, None)
        return all(f"{row}-{col}" in self._finished for row, col in self._grid.touches(tile))

    async def _in(self, executor: ThreadPoolExecutor, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *args)

    async def _close(self) -> None:
        """Wait for what the threads have begun, then free what is left."""
        for executor in (self._placing, self._sealing):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        for opened in self._open.values():
            if opened.canvas is not None:
                opened.canvas.close()


def checked_body(answer: Answer) -> bytes:
    """Give the body of an answer; empty only where the server says that there is no data.

    Raises:
        TileError: status 200 without a body.
    """
    if not answer.body and not answer.is_empty:
        raise TileError("the body is empty", status=answer.status)
    return answer.body
