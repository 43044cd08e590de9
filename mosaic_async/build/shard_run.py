"""One run of a shard: it builds its share of the parts into the folder that all shards share, and makes no output.

Any number of shards run at once; a run without a shard waits for all of them, then builds what is missing and stitches.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mosaic_async.build.budget import BLOCK_CACHE, peak_rss
from mosaic_async.build.drawing import draw_shared
from mosaic_async.build.failed_tiles import way_out
from mosaic_async.build.identity import Identity
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import Layout
from mosaic_async.build.make_part import PartsMade, make_parts
from mosaic_async.build.part_record import EMPTY
from mosaic_async.build.preflight import check_files, check_room
from mosaic_async.build.pulse import pulsing
from mosaic_async.build.run_client import RetryTally, pulse_of, run_client
from mosaic_async.build.shard import Shard
from mosaic_async.build.shared_folder import SharedFolder
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import IncompleteError, StoppedError
from mosaic_async.events import MosaicReport, OnEvent, PieceDropped
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Part
from mosaic_async.raster.block_cache import small_block_cache


class ShardRun:
    """One run of one shard of a job.

    Args:
        job: what to build.
        effort: how hard this shard tries.
        output: the file that a run without a shard makes in the end.
        shard: the share.
        on_event: called with what happens.
        stop: once set, no more tiles are requested.
    """

    def __init__(
        self,
        job: Job,
        effort: Effort,
        output: Path,
        shard: Shard,
        *,
        on_event: OnEvent,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.disk_needed: int | None = None
        """Bytes, estimated; None when not known yet."""
        self._job = job
        self._effort = effort.towards(job.source)
        self._output = output
        self._shard = shard
        self._on_event = on_event
        self._stop = stop

    async def build(self) -> MosaicReport:
        """Build the parts of the share and return the report.

        Raises:
            MosaicError: as documented for `build_mosaic`; or a group with one of them in it.
            OSError: what the disk says.
        """
        check_files(self._effort.in_flight)
        job = self._job
        cover = await asyncio.to_thread(Cover.of, job.area, job.matrix, max_tiles=self._effort.max_tiles)
        identity = await asyncio.to_thread(Identity.of, job)
        folder = await SharedFolder.open(self._output, identity.label)
        try:
            work = await WorkFolder.open(
                folder.place_of(f"{self._shard.index}-{self._shard.count}"),
                identity.label,
                resume=self._effort.resume,
                on_drop=lambda *piece: self._on_event(PieceDropped(*piece)),
            )
            try:
                with small_block_cache(BLOCK_CACHE):
                    return await self._build_in(folder, work, cover, identity)
            finally:
                await work.close()
        finally:
            folder.close()

    async def _build_in(self, folder: SharedFolder, work: WorkFolder, cover: Cover, identity: Identity) -> MosaicReport:
        started, retried, on_event = time.monotonic(), RetryTally(self._on_event), self._on_event
        proved = work.arrivals.prove
        async with (
            run_client(self._job, self._effort, retried, on_event=on_event, on_proof=proved) as client,
            pulsing(partial(pulse_of, client), on_event, self._stop),
        ):
            blueprint, state = await draw_shared(
                self._job, self._effort, cover, identity, client=client, work=work, folder=folder, on_event=on_event
            )
            self.disk_needed = state.disk
            if state.disk and self._effort.check_disk:
                await asyncio.to_thread(check_room, folder.path, state.disk)
            share = self._shard.parts(blueprint.layout.grid)
            made = await make_parts(
                blueprint, share, client=client, work=work, published=folder, stop=self._stop, on_event=on_event
            )
        is_finished = len(made.records) == len(share)
        if is_finished:
            await work.remove()
        seconds = time.monotonic() - started
        report = await asyncio.to_thread(
            self._report, replace(made, retried=retried.most()), share, blueprint.layout, seconds
        )
        allowed = self._effort.allowed_failures(cover.count)
        if len(made.failed) > allowed:
            raise IncompleteError(
                f"{report.tiles_failed:,} of {report.tiles_total:,} tiles of shard {self._shard} failed",
                report=report,
                hint=way_out(made.failed, Counter(made.hints)),
            )
        if not is_finished:
            raise StoppedError(
                f"stopped with {len(made.records):,} of {len(share):,} parts of shard {self._shard}",
                report=report,
                hint="the same call resumes from here",
            )
        return report

    def _report(self, made: PartsMade, share: Sequence[Part], layout: Layout, seconds: float) -> MosaicReport:
        """Return what the shard did; its tiles are those that its parts count."""
        grid, records = layout.grid, made.records.values()
        counted = [grid.count_tiles(part) for part in share]
        kinds = {str(kind): sum(record.count(kind) for record in records) for kind in EMPTY}
        return MosaicReport(
            output=self._output,
            bounds=grid.bounds,
            zoom=grid.cover.zoom,
            tile_size=grid.tile_size,
            width=grid.width,
            height=grid.height,
            tiles_total=sum(counted),
            tiles_placed=sum(record.placed for record in records),
            tiles_empty=sum(record.empty for record in records),
            tiles_failed=len(made.failed),
            tiles_not_found=kinds["not found"],
            empty_kinds={kind: count for kind, count in kinds.items() if count},
            same_bytes=made.same_bytes,
            requests=made.requests,
            retries=made.retries,
            retried=dict(made.retried),
            bytes_received=made.bytes_received,
            bytes_written=sum(record.nbytes for record in records),
            seconds=seconds,
            seconds_by_stage={},
            parts_total=len(share),
            parts_resumed=made.found,
            peak_rss=(peak := peak_rss()),
            peak_memory=peak,
            failed=made.failed,
        )
