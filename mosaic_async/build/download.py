"""From tiles to part COGs: fetchers, a bounded queue, one writer, and sealing beside them.

Fetchers share one source of orders, so tasks are as many as requests, never as tiles. Bodies in memory are at most
concurrency + queue size + 1: a fetcher holds its permit until the queue has taken the body. What the writer finds
unreadable goes back to the fetchers. Tiles whose attempts are used up are parked: when all others are there, the parts
that lack them are gone through once more, slowly. It knows nothing of what becomes of the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from mosaic_async.build.body_checks import check_answer, max_body
from mosaic_async.build.budget import queue_size
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import Layout
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.tile_queue import OpenPart, Order, Orders
from mosaic_async.build.work_folder import PartRecord, WorkFolder
from mosaic_async.errors import RequestError, TileError
from mosaic_async.events import (
    OnEvent,
    PartSealed,
    SceneSkipped,
    TileEmpty,
    TileFailed,
    TileFetched,
    TileParked,
    TilePlaced,
)
from mosaic_async.geo.cover import Tile
from mosaic_async.http.client import Check, Client
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.tile import decode
from mosaic_async.redaction import redact

_SWEEP_SHARE = 4
"""Parked tiles are asked for again by this many times fewer at once: their server is in trouble."""
_MAX_BODIES = 2
"""Of one tile: what cannot be read twice cannot be read."""


@dataclass(frozen=True)
class _Arrival:
    """How it ended with an order: a body, an empty body where there is no data, or a failure."""

    order: Order
    body: bytes = b""
    attempts: int = 0
    """That the body took; 0 for one from the folder."""
    failure: TileFailed | None = None
    is_passing: bool = False
    """Whether the failure may be gone later."""


class Download:
    """Fetch all tiles of a grid and leave a COG in the work folder for each part that has data.

    Args:
        job: what to fetch.
        effort: how hard to try.
        layout: where tiles go and how they are stored.
        client: makes the requests.
        work: keeps tiles and parts; parts that are finished there are not touched.
        scenes: counts what tiles are made of.
        stop: once set, no more tiles are requested, and `run` ends when those under way are settled.
        on_event: called with every tile, once, and every part.
    """

    def __init__(
        self,
        job: Job,
        effort: Effort,
        layout: Layout,
        *,
        client: Client,
        work: WorkFolder,
        scenes: SceneTally,
        stop: asyncio.Event | None,
        on_event: OnEvent,
    ) -> None:
        self._job = job
        self._effort = effort
        self._grid = layout.grid
        self._encoding = layout.encoding
        self._tile_format = layout.tile_format
        self._client = client
        self._work = work
        self._scenes = scenes
        self._stop = stop
        self._on_event = on_event
        self._max_failures = effort.allowed_failures(layout.grid.cover.count)
        self._queue: asyncio.Queue[_Arrival | None] = asyncio.Queue(queue_size(self._tile_format))
        self._orders = Orders(self._grid, lambda: self.is_stopped)
        self._turns: dict[Tile, asyncio.Lock] = {}
        self._placing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-canvas")
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-seal")
        self.records: dict[str, PartRecord] = {}
        """What became of each part that is sealed, by its name; those of earlier runs included."""
        self.placed = 0
        """Tiles, those of earlier runs included."""
        self.empty = 0
        self.failed: dict[Tile, TileFailed] = {}
        """Tiles that could not be had, by tile."""
        self._parked: dict[Tile, TileFailed] = {}
        """Tiles that are asked for once more when all others are there."""
        self._missed: dict[Tile, _Arrival] = {}
        """Tiles that this pass asked for in vain; other parts that they touch must know before they are settled."""
        self._swept: frozenset[Tile] = frozenset()
        """Those that are being asked for once more."""
        self._lacking: set[str] = set()
        """Parts that were given up for lack of parked tiles; their other tiles are counted already."""

    @property
    def is_complete(self) -> bool:
        """Whether no more tiles failed than may."""
        return len(self.failed) <= self._max_failures

    @property
    def tags(self) -> dict[str, str]:
        """GDAL metadata of the output, with the counts so far."""
        counts = {"PLACED": self.placed, "EMPTY": self.empty, "FAILED": len(self.failed)}
        return {**self._job.tags(), **{f"MOSAIC_TILES_{name}": str(count) for name, count in counts.items()}}

    async def run(self, records: Mapping[str, PartRecord]) -> None:
        """Fetch, place and seal.

        Args:
            records: parts that an earlier run finished.
        """
        self.records.update(records)
        self.placed = sum(record.placed for record in records.values())
        self.empty = sum(record.empty for record in records.values())
        self._client.limit_body(max_body(self._tile_format))
        try:
            # Twice as many fetchers as permits: a tile that backs off keeps its task but not its permit.
            await self._pass(2 * self._effort.in_flight)
            if self._parked and not self.is_stopped:
                self._swept, self._parked, self._missed = frozenset(self._parked), {}, {}
                await self._pass(max(1, self._effort.in_flight // _SWEEP_SHARE))
            self.failed.update(self._parked)
        finally:
            await self._close()

    @property
    def is_stopped(self) -> bool:
        """Whether it was asked to end early."""
        if self._effort.on_error == "fail" and not self.is_complete:
            return True
        return self._stop is not None and self._stop.is_set()

    async def _pass(self, fetchers: int) -> None:
        """Go once through all parts that are not there, or only through those that lack parked tiles."""
        is_wanted = self._lacking.__contains__ if self._swept else lambda name: name not in self.records
        self._orders.begin(part for part in self._grid.parts() if is_wanted(part.name))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write(tasks))
            async with asyncio.TaskGroup() as group:
                for _ in range(fetchers):
                    group.create_task(self._fetch())
            await self._queue.put(None)

    async def _fetch(self) -> None:
        while (order := await self._orders.next()) is not None:
            async with self._turn(order.tile):
                await self._fetch_tile(order)

    @asynccontextmanager
    async def _turn(self, tile: Tile) -> AsyncIterator[None]:
        """Let only one part at a time ask for a tile that several parts touch; the others find it in the folder."""
        if len(self._grid.touches(tile)) == 1:
            yield
        else:
            async with self._turns.setdefault(tile, asyncio.Lock()):
                yield

    async def _fetch_tile(self, order: Order) -> None:
        tile = order.tile
        if tile in self._missed:  # another part has tried
            await self._queue.put(replace(self._missed[tile], order=order))
        elif tile in self.failed:  # it came, and could not be read
            await self._queue.put(_Arrival(order, failure=self.failed[tile]))
        elif not self._work.has_tile(tile) or not await self._from_folder(order):
            await self._ask(order)

    async def _from_folder(self, order: Order) -> bool:
        """Hand on a tile that an earlier run, or another part, left, and tell whether there was one."""
        async with self._client.permit():
            body = await self._work.read_tile(order.tile)
            if body is not None:
                await self._queue.put(_Arrival(order, body))
        return body is not None

    async def _ask(self, order: Order) -> None:
        tile, attempts = order.tile, self._effort.attempts - order.attempts
        try:
            async with self._client.get(
                self._job.source.url(tile), check=self._check(tile), attempts=attempts
            ) as answer:
                if answer.body:
                    self._on_event(TileFetched(tile, len(answer.body)))
                await self._work.write_tile(tile, answer.body)
                if not order.bodies:  # a second body is of the same scenes
                    for scene in self._scenes.note(answer.headers):
                        self._on_event(SceneSkipped(scene, tile))
                await self._queue.put(_Arrival(order, answer.body, answer.attempts))
        except RequestError as error:
            made = order.attempts + error.attempts
            failure = self._failure(tile, error.message, status=error.status, attempts=made)
            self._missed[tile] = _Arrival(order, failure=failure, is_passing=error.is_passing)
            await self._queue.put(self._missed[tile])

    def _check(self, tile: Tile) -> Check:
        return lambda answer: check_answer(answer, tile, self._tile_format)

    def _failure(self, tile: Tile, reason: str, *, status: int | None = None, attempts: int = 1) -> TileFailed:
        return TileFailed(tile, redact(self._job.source.url(tile)), reason, status, attempts)

    async def _write(self, tasks: asyncio.TaskGroup) -> None:
        """Place what arrives; the only task that changes a part."""
        while (arrival := await self._queue.get()) is not None:
            opened = arrival.order.opened
            again = await self._settle(arrival)
            if again is None:
                opened.waiting -= 1
                if not opened.waiting:
                    tasks.create_task(self._seal(opened))
            await self._orders.settle(again)

    async def _settle(self, arrival: _Arrival) -> Order | None:
        """Place a tile, or take note that it is empty or failed; give an order where it is to be asked for again."""
        order, failure = arrival.order, arrival.failure
        if arrival.body:
            try:
                await self._in(self._placing, self._place, order.opened, order.tile, arrival.body)
            except TileError as error:
                await self._work.drop_tiles([order.tile])
                attempts = order.attempts + arrival.attempts
                bodies = order.bodies + bool(arrival.attempts)
                if bodies < _MAX_BODIES and attempts < self._effort.attempts:
                    return replace(order, bodies=bodies, attempts=attempts)
                failure = self._failure(order.tile, error.message, status=200, attempts=attempts)
        if failure is None:
            self._note_placed(order, has_data=bool(arrival.body))
        else:
            self._note_failure(order, failure, is_passing=arrival.is_passing)
        return None

    def _note_placed(self, order: Order, *, has_data: bool) -> None:
        """Count a tile once, in the first part that it touches, and in the first pass that goes through it."""
        opened, tile = order.opened, order.tile
        if self._grid.touches(tile)[0] != (opened.part.row, opened.part.col):
            return
        opened.placed += has_data
        opened.empty += not has_data
        if self._swept and tile not in self._swept:
            return
        self.placed += has_data
        self.empty += not has_data
        self._on_event(TilePlaced(tile) if has_data else TileEmpty(tile))

    def _note_failure(self, order: Order, failure: TileFailed, *, is_passing: bool) -> None:
        """Park a tile, or count it as failed; tell it once, whatever number of parts it touches."""
        tile = failure.tile
        parks = is_passing and self._effort.on_error != "fail" and not self._swept
        order.opened.parked += parks
        order.opened.failed += not parks
        if tile in self.failed or tile in self._parked:
            return
        if parks:
            self._parked[tile] = failure
            self._on_event(TileParked(tile, failure.reason))
        else:
            self.failed[tile] = failure
            self._on_event(failure)

    def _place(self, opened: OpenPart, tile: Tile, body: bytes) -> None:
        """Decode and place one tile, on the canvas thread."""
        pixels, mask = decode(body, self._tile_format)
        if mask is not None and self._encoding.mask != "none" and not mask.any():
            return  # what lies under the mask is nobody's data; so a part without data needs no file
        of_tile, of_part = self._grid.overlap(tile, opened.part)
        rows, cols = of_tile.toslices()
        if opened.canvas is None:
            part = opened.part
            transform = self._grid.transform(part)
            opened.canvas = Canvas(part.height, part.width, self._grid.part_levels, transform, self._encoding)
        opened.canvas.place(pixels[:, rows, cols], None if mask is None else mask[rows, cols], of_part)

    async def _seal(self, opened: OpenPart) -> None:
        """Turn a full canvas into a part COG; a part that lacks too many tiles keeps its bodies for later."""
        part = opened.part
        if not opened.parked and (self.is_complete or not opened.failed):
            nbytes = await self._in(self._sealing, self._seal_canvas, opened)
            record = PartRecord(placed=opened.placed, empty=opened.empty, failed=opened.failed, nbytes=nbytes)
            if self._scenes:
                await self._work.save_scenes(self._scenes.as_dict())
            await self._work.finish_part(part, record)
            self.records[part.name] = record
            self._on_event(PartSealed(part.name, nbytes))
            if not opened.failed:
                done = [tile for tile in opened.tiles if self._is_done_with(tile)]
                for tile in done:
                    self._turns.pop(tile, None)
                await self._work.drop_tiles(done)
        else:
            self._lacking.add(part.name)
            if opened.canvas is not None:
                await self._in(self._placing, opened.canvas.close)
        await self._orders.close(opened)

    def _seal_canvas(self, opened: OpenPart) -> int:
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
        for opened in self._orders.open.values():
            if opened.canvas is not None:
                opened.canvas.close()
