"""From requests to part COGs in the work folder: fetchers, a bounded queue, one writer, and sealing beside them.

Fetchers share one source of orders, so there are as many tasks as requests in flight, never as many as tiles. Bodies in
memory are at most concurrency + queue size + 1: a fetcher holds its permit until the queue has taken the body. What the
writer finds unreadable goes back to the fetchers. Tiles whose attempts are used up are parked: when all others have
arrived, a slow second pass goes through the parts that lack them. What became of each tile is the ledger's to know; it
knows nothing of what becomes of the parts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.body_checks import check_answer, max_body
from mosaic_async.build.budget import queue_size
from mosaic_async.build.handover import Handover
from mosaic_async.build.layout import Layout
from mosaic_async.build.ledger import Ledger
from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.part_writer import PartWriter
from mosaic_async.build.recheck import recheck
from mosaic_async.build.same_bytes import SameBytesTally
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.tile_queue import Ending, OpenPart, Order, Orders
from mosaic_async.build.to_its_end import to_its_end
from mosaic_async.build.witness import Witness
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import RequestError, TileError
from mosaic_async.events import OnEvent, PartSealed, PieceDropped, SceneSkipped, TileFailed, TileFetched, TilesDiffer
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part, part_name
from mosaic_async.http.client import Answer, Check, Client
from mosaic_async.safety.redaction import scrub

_SWEEP_SHARE = 4
"""A second pass makes this many times fewer requests at once: the server of parked tiles is in trouble."""
_MAX_BODIES = 2
"""Per tile: a server that sends an unreadable body twice will send it again."""


class Download:
    """Fetch all tiles of a grid and leave a COG in the work folder for each part that has data.

    Args:
        blueprint: what to fetch, and how hard to try.
        parts: writes them; it knows where tiles go and how they are stored.
        client: makes the requests.
        work: keeps tiles and parts; parts that are finished there are not touched.
        scenes: counts what tiles are made of.
        stop: once set, no more tiles are requested, and `run` ends when those under way are settled.
        on_event: called with every tile, once, and every part.
        handover: which parts to build, and where they go when they are finished; None: all, and they stay.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        parts: PartWriter,
        *,
        client: Client,
        work: WorkFolder,
        scenes: SceneTally,
        stop: asyncio.Event | None,
        on_event: OnEvent,
        handover: Handover | None = None,
    ) -> None:
        self._job = job = blueprint.job
        self._effort = effort = blueprint.effort
        self._parts = parts
        self._grid = parts.layout.grid
        self._client = client
        self._work = work
        self._scenes = scenes
        self._stop = stop
        self._on_event = on_event
        self._handover = handover
        self.ledger = Ledger(
            self._grid,
            handover.parts if handover else None,
            max_failures=effort.allowed_failures(self._grid.cover.count),
            parks=effort.on_error != "fail",
            fails_not_found=effort.not_found == "fail",
        )
        self.hints: Counter[str] = Counter()
        """What helps against failures that stay, by how many tiles have them."""
        self.same_bytes = SameBytesTally()
        self._witness = Witness(job, client, lambda: self.ledger.any_placed() or blueprint.known)
        self._queue: asyncio.Queue[Ending | None] = asyncio.Queue(queue_size(parts.layout.tile_format))
        self._orders = Orders(self.ledger.tiles, lambda: self.is_stopped, lambda: self.layout.open_parts(job, effort))
        self._turns: dict[Tile, asyncio.Lock] = {}

    @property
    def layout(self) -> Layout:
        """Where tiles go and how they are stored; it holds all tiles so far."""
        return self._parts.layout

    def resume(self, records: Mapping[str, PartRecord]) -> None:
        """Take over the parts that an earlier run closed, and the forms of the tiles that it met."""
        self.ledger.resume(records)
        self._parts.widen(record.form for record in records.values() if record.form)

    @property
    def is_stopped(self) -> bool:
        """Whether the run ends early: it was stopped, or a tile too many has failed."""
        if self._effort.on_error == "fail" and not self.ledger.is_complete:
            return True
        return self._stop is not None and self._stop.is_set()

    @property
    def tags(self) -> dict[str, str]:
        """GDAL metadata of the output, with the counts so far."""
        return {**self._job.tags(self.layout.encoding), **self.ledger.tags, **self._scenes.tags}

    async def run(self) -> None:
        """Fetch, place and seal what the ledger still wants."""
        self._client.limit_body(max_body(self.layout.tile_format))
        in_flight = self._effort.in_flight
        try:
            await self._drop_unproved()
            await self._withdraw(self.ledger.disputed())
            await self._drop_done(self._work.spool)  # a killed run may have left what it had just finished with
            # Twice as many fetchers as permits: a tile that backs off keeps its task but not its permit.
            await self._pass(2 * in_flight)
            await self._replace_doubtful()
            if self.ledger.parked and not self.is_stopped:
                await self._sweep()
                await self._replace_doubtful()
            await self._widen_parts()
            self.ledger.end()
            if self._handover is not None:
                await self._handover.finish(self.ledger.closed)
        finally:
            await self._parts.close()

    async def _sweep(self) -> None:
        """Request parked tiles again, slowly if their server was in trouble."""
        await self._witness.check()
        in_trouble = self.ledger.parked > self.ledger.doubted
        self.ledger.begin_sweep()
        await self._pass(max(1, self._effort.in_flight // (_SWEEP_SHARE if in_trouble else 1)))

    async def _pass(self, fetchers: int) -> None:
        """Go once through all parts that the ledger wants."""
        self._orders.begin(self.ledger.wanted())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write(tasks))
            async with asyncio.TaskGroup() as group:
                for _ in range(fetchers):
                    group.create_task(self._fetch())
            await self._queue.put(None)

    async def _replace_doubtful(self) -> None:
        """Request again the tiles whose answers may belong to other requests, and make their parts again."""
        await self._client.prove()
        while doubted := self._client.take_doubted():
            doubtful = self._kept(cast("set[Tile]", self._client.take_doubtful()))
            await self._withdraw(doubtful)
            self._work.arrivals.withdraw(doubted)
            if doubtful:
                await self._pass(2 * self._effort.in_flight)
            await self._client.prove()
        await self._work.spool.sync()

    async def _drop_unproved(self) -> None:
        """Check the answers that an earlier run was killed before it had proved, and drop those that may be wrong."""
        doubtful = await recheck(self._job, self._client, self._work.arrivals, self._is_kept)
        if doubtful:
            reason = "an earlier run was killed before it had proved that they are the requested ones"
            self._on_event(PieceDropped(f"{len(doubtful)} tiles", reason))
            await self._withdraw(doubtful)
        await self._work.spool.drop_unproved()
        await self._work.spool.sync()

    async def _widen_parts(self) -> None:
        """Make the parts again that were sealed before the first of the widest tiles; most from their own pixels."""
        while not self.is_stopped and (narrow := self.narrow_parts()):
            lost: list[Part] = []
            for part in reversed(narrow):  # so that an output that holds them can be cut off behind what it has left
                if self.is_stopped:
                    return
                form = self.ledger.records[part.name].form
                if form is not None and await self._parts.can_remake(part, form):
                    record = self.ledger.remake(part, *await self._parts.remake(part, form))
                    await to_its_end(self._work.parts.declare, part, record)
                    await self._parts.forget(part)
                else:  # its pixels are not exact
                    lost.append(part)
            if lost:
                await self._withdraw({tile for part in lost for tile in self._grid.tiles(part)})
                await self._pass(self._effort.in_flight)
                await self._replace_doubtful()

    def narrow_parts(self) -> list[Part]:
        """Return the parts that are not encoded as the others."""
        forms = {name: record.form for name, record in self.ledger.records.items() if record.nbytes and record.form}
        narrow = {form for form in set(forms.values()) if self._parts.is_narrow(form)}
        away = self._handover.done if self._handover else ()
        parts = [part for part in self.ledger.parts if part.name not in away]
        return [part for part in parts if forms.get(part.name) in narrow or self._parts.is_foreign(part)]

    def _kept(self, tiles: Iterable[Tile]) -> set[Tile]:
        """Return the tiles that something was kept of; one that was only not found is requested again anyway."""
        return set(filter(self._is_kept, tiles))

    def _is_kept(self, tile: Tile) -> bool:
        return tile in self._work.spool or self.ledger.is_used(tile)

    async def _withdraw(self, tiles: Collection[Tile]) -> None:
        """Drop the bodies of tiles, and the parts that they are in."""
        for part in self.ledger.withdraw(tiles):
            if self._handover is not None:
                self._handover.withdraw(part)
            await self._parts.revoke(part)
        await self._work.spool.withdraw(tiles, files=map(self._spool_file, tiles))

    async def _fetch(self) -> None:
        while (order := await self._orders.next()) is not None:
            async with self._turn(order.tile):
                await self._fetch_tile(order)

    @asynccontextmanager
    async def _turn(self, tile: Tile) -> AsyncIterator[None]:
        """Let one part at a time request a shared tile; the others find it in the folder."""
        if len(self._grid.touches(tile)) == 1:
            yield
        else:
            async with self._turns.setdefault(tile, asyncio.Lock()):
                yield

    async def _fetch_tile(self, order: Order) -> None:
        if self.ledger.is_missing(order.tile):  # another part has tried
            await self._queue.put(Ending(order, is_missing=True))
        elif self.ledger.is_empty(order.tile):  # one answer decides for all parts
            await self._queue.put(Ending(order))
        elif order.tile not in self._work.spool or not await self._from_folder(order):
            await self._request(order)

    async def _from_folder(self, order: Order) -> bool:
        """Hand on a tile that an earlier run, or another part, left; return whether it is there."""
        async with self._client.permit():
            body = await self._work.spool.read(order.tile)
            if body is not None:
                await self._queue.put(Ending(order, body))
        return body is not None

    async def _request(self, order: Order) -> None:
        tile, attempts = order.tile, self._effort.attempts - order.attempts
        url = self._job.url(tile)
        try:
            async with self._client.get(url, check=self._check(tile), attempts=attempts, label=tile) as answer:
                if not answer.is_doubted:
                    await self._take(order, answer)
        except RequestError as error:
            attempts, is_passing = order.attempts + error.attempts, error.is_passing
            failure = TileFailed(tile, scrub(url), error.message, error.status, attempts, is_passing)
            if error.marked_hint and not is_passing:
                self.hints[error.marked_hint] += 1
            self._miss(failure, is_passing=is_passing)
            await self._queue.put(Ending(order, is_missing=True))
        else:
            if answer.is_doubted:
                await self._not_find(order, answer)

    async def _take(self, order: Order, answer: Answer) -> None:
        """Keep an answer and hand it on."""
        tile = order.tile
        self._witness.note_found(tile, has_data=bool(answer.body))
        if answer.body:
            self._on_event(TileFetched(tile, len(answer.body), order.attempts + answer.attempts, answer.seconds))
            self.same_bytes.note(answer.body)
        await self._work.spool.write(tile, answer.body, file=self._spool_file(tile), arrival=answer.arrival)
        if not order.bodies:  # a second body is of the same scenes
            if self._handover is not None:
                self._handover.note_scenes(tile, answer.headers)
            for scene in self._scenes.note(answer.headers):
                self._on_event(SceneSkipped(scene, tile))
        arrival = Ending(order, answer.body, answer.attempts, status=answer.status, empty=answer.empty)
        await self._queue.put(arrival)

    async def _not_find(self, order: Order, answer: Answer) -> None:
        """Doubt that a tile is empty, and after many in a row that the source is still there."""
        self._witness.note_not_found()
        if answer.arrival is not None:
            self._work.arrivals.note(answer.arrival, order.tile, None)
        if self.ledger.has_data(order.tile):
            await self._queue.put(Ending(order, attempts=answer.attempts, status=answer.status))
            return
        url, attempts = scrub(self._job.url(order.tile)), order.attempts + answer.attempts
        failure = TileFailed(order.tile, url, answer.reason, answer.status, attempts)
        event = self.ledger.not_find(failure, answer.empty or "not found")
        if event is not None:
            self._on_event(event)
        await self._queue.put(Ending(order, is_missing=self.ledger.is_missing(order.tile)))
        if self._witness.is_due:
            await self._witness.check()

    def _spool_file(self, tile: Tile) -> str:
        """Return the name of the first part that needs the tile."""
        return part_name(*self._grid.touches(tile)[0])

    def _check(self, tile: Tile) -> Check:
        job = self._job
        return lambda answer: check_answer(answer, tile, self.layout.tile_format, job.matrix, job.border)

    def _miss(self, failure: TileFailed, *, is_passing: bool = False) -> None:
        if (event := self.ledger.miss(failure, is_passing=is_passing)) is not None:
            self._on_event(event)

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

    async def _settle(self, arrival: Ending) -> Order | None:
        """Place a tile, or note that it is empty or missing; return an order where it has to be requested again."""
        part, tile = arrival.order.opened.part, arrival.order.tile
        if arrival.is_missing:
            self.ledger.lack(part, tile)
            return None
        kind, has_data = arrival.empty or "no content", False
        if arrival.body:
            try:
                kind, has_data = "transparent", await self._place(part, tile, arrival.body)
            except TileError as error:
                return await self._reject(arrival, error)
        elif self.ledger.has_data(tile):
            return await self._reject(arrival, TileError("another part has its data, but now it has none"))
        if (event := self.ledger.settle(tile, has_data=has_data, kind=kind)) is not None:
            self._on_event(event)
        return None

    async def _place(self, part: Part, tile: Tile, body: bytes) -> bool:
        """Place a tile, and return whether it has a valid pixel."""
        before = self.layout.encoding
        has_data = await self._parts.place(part, tile, body)
        after = self.layout.encoding
        if after != before:
            self._on_event(TilesDiffer(tile, after.count, after.dtype, after.mask))
            self.layout.check_memory(self._job, self._effort)
        return has_data

    async def _reject(self, arrival: Ending, error: TileError) -> Order | None:
        """Drop a body that cannot be used; return the order for another one, if the tile may have it."""
        order = arrival.order
        await self._work.spool.drop([order.tile])
        bodies, attempts = order.bodies + bool(arrival.attempts), order.attempts + arrival.attempts
        if bodies < _MAX_BODIES and attempts < self._effort.attempts:
            return replace(order, bodies=bodies, attempts=attempts)
        url = scrub(self._job.url(order.tile))
        self._miss(TileFailed(order.tile, url, error.message, arrival.status, attempts))
        self.ledger.lack(order.opened.part, order.tile)
        return None

    async def _seal(self, opened: OpenPart) -> None:
        """Turn a full canvas into a part COG; a part that lacks too many tiles keeps its bodies for later."""
        part, is_sealable = opened.part, self.ledger.is_sealable(opened.part)
        if self.ledger.has_not_found(opened.tiles):
            await self._witness.check()
        if self.ledger.record(part, 0).missing:
            await self._parts.keep(part)
        cog = await self._parts.seal(part, tags=self.tags) if is_sealable else await self._parts.drop(part)
        await self.save_tallies()
        await self._work.spool.sync()
        await to_its_end(self._work.parts.declare, part, self.ledger.record(part, *cog))
        if is_sealable:
            self.ledger.finish(part, *cog)
            self._on_event(PartSealed(part.name, cog.nbytes))
        else:
            self.ledger.give_up(part)
        await self._drop_done(opened.tiles)
        await self._orders.close(opened)
        if is_sealable and not (record := self.ledger.records[part.name]).missing:
            await self._parts.stitch(part, cog)
            if self._handover is not None:
                await self._handover.offer(part, record)

    async def save_tallies(self) -> None:
        """Keep what is known of the scenes of tiles, and of the values of their pixels."""
        scenes = self._handover.scenes() if self._handover else self._scenes.as_dict()
        await self._work.save_tallies(scenes, self._parts.few_values.as_dict())

    async def _drop_done(self, tiles: Iterable[Tile]) -> None:
        """Delete the bodies that no part needs any more."""
        done = [tile for tile in tiles if self.ledger.is_done_with(tile)]
        for tile in done:
            self._turns.pop(tile, None)
        await self._work.spool.drop(done)
