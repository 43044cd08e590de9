"""One run of a job whose parts a crew builds; what the crew leaves out is fetched here, and the output is made here."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from mosaic_async.build.crew import Crew, CrewResult
from mosaic_async.build.description import Describe
from mosaic_async.build.drawing import draw_shared
from mosaic_async.build.identity import Identity
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.preflight import check_room
from mosaic_async.build.run import Run
from mosaic_async.build.run_client import RetryTally, run_client
from mosaic_async.build.shard import Shard
from mosaic_async.build.shared_folder import SharedFolder
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import IncompleteError, UsageError
from mosaic_async.events import MosaicReport, OnEvent, PieceDropped, RunStarted
from mosaic_async.geo.cover import Cover, Tile
from mosaic_async.http.client import Client


class CrewRun:
    """One run of one job with a crew.

    Args:
        job: what to build.
        effort: of all workers together.
        output: the file to make, in a folder that all workers share.
        crew: builds the parts.
        on_event: called with what happens.
        stop: once set, no more tiles are requested.
        describe: as for `Run`.

    Raises:
        UsageError: the effort cannot be divided.
    """

    def __init__(
        self,
        job: Job,
        effort: Effort,
        output: Path,
        crew: Crew,
        *,
        on_event: OnEvent,
        stop: asyncio.Event | None = None,
        describe: Describe | None = None,
    ) -> None:
        if effort.concurrency == "auto":
            raise UsageError(
                "concurrency auto cannot be divided among workers", hint="set a number; all workers share it"
            )
        self.disk_needed: int | None = None
        """Bytes, estimated; None when not known yet."""
        self._job = job
        self._effort = effort
        self._output = output.absolute()
        self._crew = crew
        self._on_event = on_event
        self._stop = stop or asyncio.Event()
        self._describe = describe

    async def build(self) -> MosaicReport:
        """Make the output and return the report.

        Raises:
            MosaicError: as documented for `build_mosaic`; or a group with one of them in it.
            OSError: what the disk says.
        """
        started, result = time.monotonic(), None
        if self._effort.overwrite or not self._output.exists():  # the run below tells what is wrong with it
            result = await self._build_parts()
        seconds = time.monotonic() - started
        effort = replace(self._effort, resume=True)
        run = Run(self._job, effort, self._output, self._on_event, self._stop, describe=self._describe)
        try:
            report = await run.build()
        except IncompleteError as error:
            if result is not None and error.report is not None:
                error.report = _with(error.report, result, seconds)
            raise
        finally:
            self.disk_needed = run.disk_needed or self.disk_needed
        return report if result is None else _with(report, result, seconds)

    async def _build_parts(self) -> CrewResult:
        memory = min(self._effort.memory, await self._crew.memory())
        effort = replace(self._effort, memory=memory)
        cover = await asyncio.to_thread(Cover.of, self._job.area, self._job.matrix, max_tiles=effort.max_tiles)
        identity = await asyncio.to_thread(Identity.of, self._job)
        if not effort.resume:
            old = await WorkFolder.open(self._output, identity.label, resume=False, on_drop=self._note_dropped)
            await old.remove()
            await old.close()
        folder = await SharedFolder.open(self._output, identity.label)
        try:
            return await self._build_in(folder, effort, cover, identity)
        finally:
            folder.close()

    async def _build_in(self, folder: SharedFolder, effort: Effort, cover: Cover, identity: Identity) -> CrewResult:
        work = await WorkFolder.open(folder.place_of("crew"), identity.label, on_drop=self._note_dropped)
        proved, retried = work.arrivals.prove, RetryTally(self._on_event)
        try:
            async with run_client(self._job, effort, retried, on_event=self._on_event, on_proof=proved) as client:
                blueprint, state = await draw_shared(
                    self._job,
                    effort,
                    cover,
                    identity,
                    client=client,
                    folder=folder,
                    work=work,
                    on_event=self._on_event,
                )
                blueprint = replace(blueprint, first=await _proved(work, client))
            self.disk_needed = state.disk
            if state.disk and effort.check_disk:
                await asyncio.to_thread(check_room, folder.path, state.disk)
        finally:
            await work.remove()
            await work.close()
        grid = blueprint.layout.grid
        every = Shard(0, 1).parts(grid)
        whole = {part: record for part in every if (record := await folder.find(part)) and not record.missing}
        settled = sum(record.placed + record.empty for record in whole.values())
        self._on_event(RunStarted(cover.count, len(every), len(whole), settled))
        result = await self._crew.make(
            blueprint,
            [part for part in every if part not in whole],
            output=self._output,
            layout=state.layout,
            stop=self._stop,
            on_event=self._on_event,
        )
        made = result.made
        made = replace(
            made,
            requests=made.requests + client.requests,
            retries=made.retries + client.retries,
            retried=Counter(made.retried) + Counter(retried.most()),
            bytes_received=made.bytes_received + client.bytes_received,
        )
        return replace(result, made=made)

    def _note_dropped(self, name: str, reason: str) -> None:
        self._on_event(PieceDropped(name, reason))


async def _proved(work: WorkFolder, client: Client) -> dict[Tile, bytes]:
    """Return the bodies that have arrived, but for those that may belong to other requests."""
    await client.prove()
    proved = [tile for tile in work.spool if work.arrivals.are_proved([tile])]
    return {tile: body for tile in proved if (body := await work.spool.read(tile)) is not None}


def _with(report: MosaicReport, result: CrewResult, seconds: float) -> MosaicReport:
    """Return the report of a whole run: the crew's share, and what was left for this process."""
    made = result.made
    retried = Counter(report.retried) + Counter(made.retried)
    return replace(
        report,
        requests=report.requests + made.requests,
        retries=report.retries + made.retries,
        retried=dict(retried.most_common()),
        bytes_received=report.bytes_received + made.bytes_received,
        seconds=report.seconds + seconds,
        seconds_by_stage={"crew": seconds, **report.seconds_by_stage},
        parts_resumed=report.parts_resumed - result.published,
        workers=result.workers,
    )
