"""The workers of a Dask cluster as a crew: which part is built when, and what happens when workers die.

A part is one task. Only as many are submitted as the cluster can build at once, so neither the scheduler nor this
process ever holds all parts of a continent. It knows nothing of tiles.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

from distributed import Client, KilledWorker
from distributed.client import FutureCancelledError

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.budget import least_memory
from mosaic_async.build.crew import CrewResult
from mosaic_async.build.make_part import PartsMade
from mosaic_async.build.pulse import pulsing
from mosaic_async.cluster.post import Inbox
from mosaic_async.cluster.site import TILER_MEMORY, Site, TilerOrder, build_part, memory_of, stop_site
from mosaic_async.cluster.slots import Slots
from mosaic_async.errors import MosaicError, ResourceError, SourceError
from mosaic_async.events import OnEvent, Pulse, WorkerShare
from mosaic_async.geo.grid import Part

_MEMORY = 0.6
"""Of a worker's limit, for what it builds: Dask pauses a worker at 0.8 and kills it at 0.95 of it."""
_UNLIMITED = 2**62
"""Bytes, of a worker that has no limit."""
_LOOK = 1.0
"""Seconds between two looks at which workers there are."""
_ARRIVAL = 30.0
"""Seconds for a first worker to come."""
_ABSENCE = 600.0
"""Seconds without any worker; a batch system may need them to start another."""
_SETUPS = 3
"""How often the workers are set up while one of them dies."""
_LEAVING = 10.0
"""Seconds for the workers to clear up."""
_DEATHS = 5
"""How often Dask may give a part up, each time after it has killed four workers."""


@dataclass
class _Progress:
    """What a run on the cluster has done so far; it grows with the failures and the workers, not with the parts."""

    made: PartsMade = field(default_factory=lambda: PartsMade(records={}))
    """Of all parts together, without their records."""
    published: int = 0
    """Parts."""
    tiles: Counter[str] = field(default_factory=Counter)
    """By the address of the worker."""
    parts: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    """How often Dask gave a part up, by its name."""

    def add(self, worker: str, made: PartsMade) -> None:
        """Add what a worker has made; what it has found somebody else has built."""
        if not made.found:
            self.published += len(made.records)
            self.parts[worker] += len(made.records)
            self.tiles[worker] += sum(record.placed + record.empty for record in made.records.values())
        so_far = self.made
        self.made = replace(
            so_far,
            found=so_far.found + made.found,
            failed=(*so_far.failed, *made.failed) if made.failed else so_far.failed,
            hints=Counter(so_far.hints) + Counter(made.hints),
            requests=so_far.requests + made.requests,
            retries=so_far.retries + made.retries,
            retried=Counter(so_far.retried) + Counter(made.retried),
            bytes_received=so_far.bytes_received + made.bytes_received,
        )


class DaskCrew:
    """Workers of a Dask cluster that build parts.

    Args:
        client: asynchronous, of the running loop.
        tiler: scenes that each worker renders by itself; None: the source answers all workers.
    """

    def __init__(self, client: Client, tiler: TilerOrder | None = None) -> None:
        self._client = client
        self._tiler = tiler
        self._threads: dict[str, int] = {}
        """By the address of the worker."""
        self._looked, self._manned = -math.inf, time.monotonic()
        """When the workers were counted, and when there were any; of a monotonic clock."""

    async def memory(self) -> int:
        """Return the bytes that a part may take on any of the workers.

        Raises:
            ResourceError: no worker comes, or one is too small for any part.
        """
        with _talking():
            await self._wait_for_a_worker()
            limits: dict[str, tuple[int | None, int]] = await self._client.run(memory_of, on_error="ignore")
        if not limits:
            raise _no_workers()
        share = _MEMORY - (TILER_MEMORY if self._tiler else 0.0)
        bytes_of = {
            worker: int(limit * share / threads) if limit else _UNLIMITED for worker, (limit, threads) in limits.items()
        }
        worker, least = min(bytes_of.items(), key=lambda one: one[1])
        if least < least_memory():
            limit, threads = limits[worker]
            needed = math.ceil(least_memory() * threads / share / 2**20)
            raise ResourceError(
                f"worker {worker} has {(limit or 0) / 2**20:,.0f} MiB for {threads} threads, which is too little",
                hint=f"start workers with --memory-limit {needed}MiB or more, or with fewer --nthreads",
            )
        return least

    async def _wait_for_a_worker(self) -> None:
        for _ in range(int(_ARRIVAL / _LOOK)):
            if await self._client.nthreads():
                return
            await asyncio.sleep(_LOOK)

    async def make(
        self,
        blueprint: Blueprint,
        parts: Sequence[Part],
        *,
        output: Path,
        layout: str,
        stop: asyncio.Event,
        on_event: OnEvent,
    ) -> CrewResult:
        """Build parts and publish them, as `build.crew.Crew` describes.

        Raises:
            MosaicError: as `make_part` raises, whichever worker did.
            SourceError: the scheduler is gone.
            ResourceError: workers die again and again over the same part.
        """
        name, inbox, progress = f"mosaic-{secrets.token_hex(6)}", Inbox(on_event), _Progress()
        site = Site(name, blueprint, output, layout=layout, tiler=self._tiler)

        def is_over() -> bool:
            return stop.is_set() or (blueprint.effort.on_error == "fail" and bool(progress.made.failed))

        try:
            with _talking():
                self._client.subscribe_topic(name, inbox.take)
                await self._set_up(site)
            async with pulsing(partial(self._pulse, inbox), on_event, stop):
                await self._build_all(name, parts, blueprint.effort.in_flight, progress, is_over)
        finally:
            await self._leave(name)
        shares = [WorkerShare(worker, count, progress.tiles[worker]) for worker, count in progress.parts.items()]
        return CrewResult(
            made=progress.made,
            published=progress.published,
            workers=tuple(sorted(shares, key=lambda share: share.worker)),
        )

    async def _set_up(self, site: Site) -> None:
        """Set the workers up, again if one dies meanwhile; Dask itself sets up those that come later."""
        for left in reversed(range(_SETUPS)):
            try:
                await self._client.register_plugin(site, name=site.name)
            except OSError:
                if not left or self._client.status != "running":
                    raise
                await asyncio.sleep(_LOOK)
            else:
                return

    async def _leave(self, name: str) -> None:
        """Take back what the workers have for a run; of a cluster that is gone nothing is left."""
        with suppress(OSError, RuntimeError, TimeoutError, MosaicError):
            self._client.unsubscribe_topic(name)
            async with asyncio.timeout(_LEAVING):
                await self._client.unregister_worker_plugin(name)

    def _pulse(self, inbox: Inbox) -> Pulse:
        return inbox.pulse(lambda worker: worker in self._threads)

    async def _build_all(
        self, name: str, parts: Sequence[Part], most: int, progress: _Progress, is_over: Callable[[], bool]
    ) -> None:
        """Keep the cluster busy until all parts are built, or until the run is over."""
        slots, waiting = Slots(most), deque(parts)
        async with asyncio.TaskGroup() as group:
            under_way: set[asyncio.Task[None]] = set()
            while under_way or (waiting and not is_over()):
                await self._look(name, is_over=is_over())
                while waiting and not is_over() and (share := slots.take(sum(self._threads.values()))):
                    part = waiting.popleft()
                    under_way.add(group.create_task(self._build_with(slots, share, name, part, progress)))
                if under_way:
                    _, under_way = await asyncio.wait(under_way, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(_LOOK)

    async def _look(self, name: str, *, is_over: bool) -> None:
        """Learn at times which workers there are; stop each, if the run is over: new ones do not know it.

        Raises:
            SourceError: the scheduler is gone.
            ResourceError: all workers are gone, and none comes.
        """
        now = time.monotonic()
        if now < self._looked + _LOOK:
            return
        with _talking():
            self._threads = await self._client.nthreads()
            if is_over:
                await self._client.run(stop_site, name, on_error="ignore")
        self._looked = time.monotonic()
        if self._threads:
            self._manned = now
        elif now > self._manned + _ABSENCE:
            raise _no_workers()

    async def _build_with(self, slots: Slots, share: Fraction, name: str, part: Part, progress: _Progress) -> None:
        try:
            await self._build(name, part, share, progress)
        finally:
            slots.give_back(share)

    async def _build(self, name: str, part: Part, share: Fraction, progress: _Progress) -> None:
        """Build one part, on whatever worker, again if workers die over it."""
        while True:
            key = f"{name}-{part.name}-{secrets.token_hex(2)}"
            future = self._client.submit(build_part, name, part.row, part.col, share, key=key, pure=False)
            try:
                worker, made = await future
            except KilledWorker as error:
                progress.deaths[part.name] += 1
                if progress.deaths[part.name] >= _DEATHS:
                    raise ResourceError(
                        f"workers die again and again over part {part.name}: {error}",
                        hint="start them with more memory; the same call resumes with the finished parts",
                    ) from error
            except FutureCancelledError as error:
                if self._client.status != "running":
                    raise _lost(error) from error
            else:
                progress.add(worker, made)
                return
            finally:
                future.release()


@contextmanager
def _talking() -> Iterator[None]:
    """Talk with the scheduler in the block.

    Raises:
        SourceError: it is gone.
    """
    try:
        yield
    except MosaicError:
        raise
    except (OSError, RuntimeError) as error:  # what Dask raises once the connection is lost
        raise _lost(error) from error


def _no_workers() -> ResourceError:
    return ResourceError("the Dask cluster has no workers", hint="start some with `dask worker`, then re-run")


def _lost(error: BaseException) -> SourceError:
    return SourceError(
        f"the Dask scheduler is gone: {error}", hint="start it again; the same call resumes with the finished parts"
    )
