"""What each worker has for the parts of one output: the plan, a place to work, and a tiler if scenes are the source.

Dask sets it up on every worker, on those that join late and on those that replace a killed one too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker
from yarl import URL

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.budget import BLOCK_CACHE
from mosaic_async.build.make_part import PartsMade, make_part
from mosaic_async.build.shared_folder import SharedFolder
from mosaic_async.cluster.post import Outbox
from mosaic_async.errors import MosaicError, ResourceError, UsageError, WorkFolderError
from mosaic_async.raster.block_cache import small_block_cache
from mosaic_async.sources.extras import required

TILER_MEMORY = 0.3
"""Of a worker's limit, for the tilers that it starts; Dask does not count them."""


@dataclass(frozen=True, kw_only=True)
class TilerOrder:
    """Scenes that every worker renders by itself, with a tiler of its own."""

    mosaic: str
    """As `local_tiler` takes it; every worker has to be able to read it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `local_tiler`, but for its processes and their memory."""


class Site(WorkerPlugin):
    """What one worker has for one output.

    Args:
        name: of this run, unique on the cluster.
        blueprint: what the parts are made by.
        output: the file to make, in a folder that all workers share.
        layout: the name for how the output is divided into parts.
        tiler: the scenes that this worker has to render; None: the source is one that answers all workers.
    """

    def __init__(
        self, name: str, blueprint: Blueprint, output: Path, *, layout: str, tiler: TilerOrder | None = None
    ) -> None:
        self.name = name
        self._blueprint = blueprint
        self._output = output
        self._layout = layout
        self._tiler = tiler
        self._host = socket.gethostname()

    async def setup(self, worker: Worker) -> None:
        """Make ready what the parts need.

        Raises:
            MosaicError: this worker cannot build them; so does each part that it starts nevertheless, because Dask
                sends parts to a worker that joined late and could not be set up.
        """
        self._open, self._builds = AsyncExitStack(), set[asyncio.Task[PartsMade]]()
        self._fault: MosaicError | None = None
        try:
            await self._settle(worker)
        except MosaicError as error:
            await self._open.aclose()
            self._fault = error
            raise
        except OSError as error:
            await self._open.aclose()
            self._fault = ResourceError(f"worker {worker.address} cannot build: {error}", hint="check its folders")
            raise self._fault from error

    async def _settle(self, worker: Worker) -> None:
        # `replace` makes the source anew, so that this process learns its secrets and never tells them.
        self._source = replace(self._blueprint.job.source)
        self._folder = SharedFolder(self._output, self._blueprint.label)
        self._folder.divide(self._layout)
        self._check(worker)
        self._scratch = Path(worker.local_directory) / self.name
        self._stop = asyncio.Event()
        if self._tiler:
            self._source = await self._open.enter_async_context(self._tiler_of(worker))
        self._outbox = Outbox(lambda batch: worker.log_event(self.name, (worker.address, batch)))
        post = asyncio.create_task(self._outbox.keep_flushing())
        self._open.push_async_callback(_end, [post])

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002 - Dask passes it
        """Leave nothing behind: after a part that ended the run, the others are under way still."""
        await _end(self._builds)
        await self._open.aclose()

    def stop(self) -> None:
        """Request no more tiles."""
        self._stop.set()

    async def build(self, row: int, col: int, share: Fraction) -> PartsMade:
        """Build one part and publish it.

        Args:
            row: of the part, in the grid of parts.
            col: of the part.
            share: what it may take of the concurrency and of the rate.

        Raises:
            MosaicError: as `make_part` raises, or this worker could not be set up.
        """
        if self._fault is not None:
            raise self._fault
        build = asyncio.create_task(self._build(row, col, share))
        self._builds.add(build)
        build.add_done_callback(self._builds.discard)
        return await build

    async def _build(self, row: int, col: int, share: Fraction) -> PartsMade:
        part = f"{row}-{col}"
        made, plan = PartsMade(records={}), self._plan(share)
        try:
            await self._keep_apart(plan.effort.rate)
            with small_block_cache(BLOCK_CACHE):
                made = await make_part(
                    plan,
                    (row, col),
                    scratch=self._scratch,
                    published=self._folder,
                    stop=self._stop,
                    on_event=self._outbox.of(part),
                )
            return made
        finally:
            self._outbox.close(part, made.requests, made.bytes_received)
            self._outbox.flush()

    async def _keep_apart(self, rate: float | None) -> None:
        """Wait for the time between two requests: the part that had this share before may just have made one."""
        if rate is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1 / rate):
                    await self._stop.wait()

    def _plan(self, share: Fraction) -> Blueprint:
        effort = self._blueprint.effort
        rate = None if effort.rate is None else effort.rate * float(share)
        effort = replace(effort, concurrency=max(1, int(effort.in_flight * share)), rate=rate)
        job = replace(self._blueprint.job, source=self._source)
        return replace(self._blueprint, job=job, effort=effort.towards(self._source))

    def _check(self, worker: Worker) -> None:
        if not self._folder.path.is_dir():
            raise WorkFolderError(
                f"worker {worker.address} does not find {self._folder.path}",
                hint="write OUTPUT to a folder that all workers share under the same path",
            )
        host = URL(self._blueprint.job.source.template).host or ""
        if self._tiler is None and _is_loopback(host) and socket.gethostname() != self._host:
            raise UsageError(
                f"worker {worker.address} cannot reach {host}, which is another machine there",
                hint="use an address that all workers reach",
            )

    def _tiler_of(self, worker: Worker) -> Any:
        assert self._tiler is not None
        tiler = required("mosaic_async.tiler", extra="tiler", what="scenes")
        limit = worker.memory_manager.memory_limit
        return tiler.local_tiler(
            self._tiler.mosaic,
            **self._tiler.options,
            workers=worker.state.nthreads,
            memory=None if limit is None else int(limit * TILER_MEMORY),
        )


async def build_part(name: str, row: int, col: int, share: Fraction) -> tuple[str, PartsMade]:
    """Build one part on the worker that runs this task, and return the worker's address too."""
    worker = get_worker()
    site = worker.plugins[name]
    assert isinstance(site, Site)
    return worker.address, await site.build(row, col, share)


def stop_site(name: str, dask_worker: Worker) -> None:
    """Stop what a worker builds for a run."""
    if isinstance(site := dask_worker.plugins.get(name), Site):
        site.stop()


def memory_of(dask_worker: Worker) -> tuple[int | None, int]:
    """Return a worker's limit of memory in bytes, and how many tasks it does at once."""
    return dask_worker.memory_manager.memory_limit, dask_worker.state.nthreads


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    under_way = list(tasks)
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.wait(under_way)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
