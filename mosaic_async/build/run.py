"""One run of a job, stage by stage: probe, download, assemble, report.

It owns the order of things and the work folder's life; each stage's own work is elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.bucket_output import BucketOutput
from mosaic_async.build.bucket_shelf import open_scattered, publish_in
from mosaic_async.build.budget import BLOCK_CACHE, peak_rss
from mosaic_async.build.collection_folder import cogs_in, gather, publish_folder
from mosaic_async.build.conservation import check_blocks, check_tiles
from mosaic_async.build.description import Describe, describe_beside, describe_inside, place_beside
from mosaic_async.build.download import Download
from mosaic_async.build.drawing import draw
from mosaic_async.build.failed_tiles import way_out, write_account
from mosaic_async.build.history import History
from mosaic_async.build.identity import Identity
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import Layout
from mosaic_async.build.output_path import check_absent
from mosaic_async.build.part_writer import AnyAssembly, PartWriter
from mosaic_async.build.preflight import check_files, check_room, scratch_bytes
from mosaic_async.build.pulse import pulsing
from mosaic_async.build.renewal import keep_sample
from mosaic_async.build.run_client import RetryTally, pulse_of, run_client
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.to_its_end import to_its_end
from mosaic_async.build.tree_memory import TreeMemory
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import IncompleteError, SourceError, StoppedError
from mosaic_async.events import (
    Event,
    MosaicReport,
    OnEvent,
    OverviewsChosen,
    PieceDropped,
    RunStarted,
    Stitching,
    StitchProgress,
)
from mosaic_async.events.pages.cells import TileMap
from mosaic_async.events.pages.document import Account
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid
from mosaic_async.http.client import Client
from mosaic_async.raster.assembly import Assembly, OnProgress, is_output, publish
from mosaic_async.raster.block_cache import small_block_cache
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.few_values import FewValues
from mosaic_async.raster.scattered import Scattered


class _NothingToKeepError(SourceError):
    """The run came to its end and what it leaves is of no use to another."""


class Run:
    """One run of a job towards one output."""

    def __init__(
        self,
        job: Job,
        effort: Effort,
        output: Path,
        on_event: OnEvent,
        stop: asyncio.Event | None = None,
        *,
        describe: Describe | None = None,
        bucket: BucketOutput | None = None,
    ) -> None:
        self.disk_needed: int | None = None
        """Bytes, estimated; None when not known yet."""
        self.account: Account | None = None
        """What there is to report; None before the download."""
        self._history: History | None = None
        self._listener = on_event
        self._on_event = self._hear
        self._retried = RetryTally(self._hear)
        self._scenes = SceneTally()
        self._few_values = FewValues()
        self._stop = stop
        self._describe = describe
        self._bucket = bucket
        self._job = job
        self._effort = effort.towards(job.source)
        self._output = output
        self._seconds: dict[str, float] = {}
        self._bytes_written = 0
        self._tree = TreeMemory()

    async def build(self) -> MosaicReport:
        """Make the output and return the report.

        Raises:
            MosaicError: as documented for `build_mosaic`; or a group with one of them in it.
            OSError: what the disk says.
        """
        check_files(self._effort.in_flight)
        job, effort = self._job, self._effort
        cover = await asyncio.to_thread(Cover.of, job.area, job.matrix, max_tiles=effort.max_tiles)
        identity = await asyncio.to_thread(Identity.of, job)
        if self._bucket is not None:
            self._output = self._bucket.path_for(identity.label)
            await asyncio.to_thread(self._bucket.open, identity.label, resume=effort.resume)
        work = await WorkFolder.open(self._output, identity.label, resume=effort.resume, on_drop=self._note_dropped)
        try:
            if report := self._published(work):
                await self._clean_up(report, work)
                return report
            absent = partial(check_absent, self._output) if self._bucket is None else self._bucket.check_absent
            await asyncio.to_thread(absent, overwrite=self._effort.overwrite)
            async with self._tree.watched(is_wanted=job.source.memory > 0):
                with small_block_cache(BLOCK_CACHE):
                    return await self._build_in(work, cover, identity.credentials)
        except Exception as error:
            if work.is_new or isinstance(error, _NothingToKeepError):
                await self._remove(work)  # with other arguments it would belong to another job
            raise
        finally:
            await work.close()

    async def _build_in(self, work: WorkFolder, cover: Cover, credentials: str) -> MosaicReport:
        self._scenes, self._few_values = SceneTally(await work.read_scenes()), FewValues(await work.read_values())
        job, effort, retried, proved = self._job, self._effort, self._retried, work.arrivals.prove
        self._history = history = History.of(cover, await work.read_history())

        async def keep() -> None:
            history.settle(requests=client.requests, retries=client.retries, bytes_received=client.bytes_received)
            await work.save_history(await asyncio.to_thread(history.as_dict))

        async with (
            run_client(job, effort, retried, on_event=self._on_event, on_proof=proved) as client,
            pulsing(partial(pulse_of, client), self._on_event, self._stop, keep),
        ):
            with self._stage("probe"):
                layout, state = await draw(
                    job,
                    effort,
                    cover,
                    credentials,
                    client=client,
                    work=work,
                    scenes=self._scenes,
                    on_event=self._on_event,
                )
            grid, self.disk_needed = layout.grid, state.disk
            if self.disk_needed and effort.check_disk:
                needed = scratch_bytes(grid, self.disk_needed) if self._bucket else self.disk_needed
                await asyncio.to_thread(check_room, work.path, needed)
            await keep_sample(work, credentials)
            await work.save_state({**state.as_dict(), "credentials": credentials}, layout=state.layout)
            assembly = await self._open_assembly(layout, work, state.layout)
            download = Download(
                Blueprint(job=job, effort=effort, layout=layout, label=work.label),
                PartWriter(job, layout, work.parts, assembly, self._few_values),
                client=client,
                work=work,
                scenes=self._scenes,
                stop=self._stop,
                on_event=self._on_event,
            )
            try:
                resumed = await self._download(download, grid, work, assembly)
            except BaseException:
                await self._report(grid, download, client, 0)
                raise
            finally:
                await keep()
        ledger = download.ledger
        is_whole = len(ledger.records) == grid.part_count and not download.narrow_parts()
        is_stopped = download.is_stopped and not is_whole
        is_finished = ledger.is_complete and not is_stopped
        if is_finished:
            with self._stage("finish"):
                check_tiles(grid, ledger)
                made = await self._assemble(download, work, assembly)
                files = await asyncio.to_thread(cogs_in, made) if self._job.collection else [made]
                count = assembly.blocks_with_data if isinstance(assembly, Scattered) else None
                await asyncio.to_thread(check_blocks, made, files, ledger, count=count)
                self._bytes_written = sum([(await asyncio.to_thread(file.stat)).st_size for file in files])
                await self._publish(made, grid, await self._report(grid, download, client, resumed), work, assembly)
        report = await self._report(grid, download, client, resumed)
        if is_finished:
            await self._clean_up(report, work)
        else:
            await asyncio.to_thread(write_account, report, work.failed, self._job.matrix)
        if not ledger.is_complete:
            raise IncompleteError(
                f"{report.tiles_failed:,} of {report.tiles_total:,} tiles failed",
                report=report,
                hint=f"{way_out(report.failed, download.hints)}; details in {work.path.name}/{work.failed.name}",
            )
        if is_stopped:
            done = report.tiles_placed + report.tiles_empty
            raise StoppedError(
                f"stopped with {done:,} of {report.tiles_total:,} tiles, which are kept in {work.path.name}",
                report=report,
                hint="the same call resumes from here",
            )
        return report

    def _published(self, work: WorkFolder) -> MosaicReport | None:
        """Return the report of a run that put this output in its place and was killed right after that.

        A command that replaces its output does not stop there if it can fill holes, or is to begin anew.
        """
        published = work.published if self._bucket is None else self._bucket.published
        if published is None:
            return None
        report = MosaicReport.from_dict(published)
        if self._effort.overwrite and (report.failed or not self._effort.resume):
            return None
        return replace(report, requests=0, retries=0, retried={}, bytes_received=0, seconds=0.0, seconds_by_stage={})

    async def _publish(
        self, made: Path, grid: Grid, report: MosaicReport, work: WorkFolder, assembly: AnyAssembly | None
    ) -> None:
        """Rename what was made to the output; before that, the folder records which file this is."""
        if self._bucket is not None:
            told = self._stitch_progress()
            await publish_in(self._bucket, made, report, assembly, overwrite=self._effort.overwrite, on_progress=told)
            return
        is_folder = self._job.collection
        if self._describe is not None:
            files = self._describe(made, grid, report)
            await to_its_end(describe_inside if is_folder else describe_beside, made if is_folder else work.path, files)
        await work.announce(made, report.as_dict())
        try:
            publishing = publish_folder if is_folder else publish
            await to_its_end(publishing, made, self._output, overwrite=self._effort.overwrite)
        except Exception:
            await work.withdraw()
            raise

    async def _clean_up(self, report: MosaicReport, work: WorkFolder) -> None:
        """Leave the output, and nothing of the work unless that can still fill holes."""
        await asyncio.to_thread(place_beside, work.path, self._output)
        await asyncio.to_thread(write_account, report, work.failed, self._job.matrix)
        if not report.failed:
            await self._remove(work)
        elif self._bucket is None:
            await work.withdraw()
        else:
            await asyncio.to_thread(self._bucket.withdraw)

    async def _remove(self, work: WorkFolder) -> None:
        if self._bucket is not None:
            await asyncio.to_thread(self._bucket.remove)
        await work.remove()

    def _include(self, tallies: Mapping[str, Any]) -> None:
        """Count what other processes know of the parts that they have made."""
        if tallies:
            self._scenes.include(SceneTally(tallies["scenes"]))
            self._few_values.include(FewValues(tallies["values"]))

    def _note_dropped(self, name: str, reason: str) -> None:
        self._on_event(PieceDropped(name, reason))

    def _hear(self, event: Event) -> None:
        if self._history is not None:
            self._history.hear(event)
        self._listener(event)

    async def _open_assembly(self, layout: Layout, work: WorkFolder, name: str) -> AnyAssembly | None:
        """Return the output as far as an earlier run has stitched it; None if each part is an output as it is."""
        if layout.grid.in_parts or is_output(layout.grid):
            return None
        if self._bucket is not None:
            return await open_scattered(self._bucket, layout, work, name, self._note_dropped)
        return await asyncio.to_thread(Assembly, layout.grid, layout.encoding, work.path, work.label)

    async def _download(self, download: Download, grid: Grid, work: WorkFolder, assembly: AnyAssembly | None) -> int:
        """Download what is missing and return how many parts an earlier run finished."""
        ledger = download.ledger
        stitched = assembly.stitched if assembly else set()
        names = {part.name for part in grid.parts() if (part.row, part.col) in stitched}
        download.resume(
            await work.parts.adopt(grid.parts(), self._note_dropped, stitched=names, on_tallies=self._include)
        )
        resumed = len(ledger.records)
        if assembly:
            whole = {name: record.nbytes for name, record in ledger.records.items() if not record.missing}
            parts = {
                (part.row, part.col): work.parts.cog(part) if whole[part.name] else None
                for part in grid.parts()
                if part.name in whole
            }
            await asyncio.to_thread(assembly.use, download.layout.encoding)
            await asyncio.to_thread(assembly.resume, parts)
        self._on_event(RunStarted(ledger.total, grid.part_count, resumed, ledger.placed + ledger.empty))
        self._explain_overviews(download.layout.encoding)
        with self._stage("download"):
            try:
                await download.run()
            finally:
                await download.save_tallies()
        return resumed

    def _explain_overviews(self, encoding: Encoding) -> None:
        reason = self._job.why_no_average(encoding)
        if reason:
            self._on_event(OverviewsChosen(encoding.overview_resampling, reason))

    async def _assemble(self, download: Download, work: WorkFolder, assembly: AnyAssembly | None) -> Path:
        """Make one file of the parts, or one folder."""
        layout = download.layout
        grid, records = layout.grid, download.ledger.records
        with_data = [part for part in grid.parts() if records[part.name].nbytes]
        if grid.in_parts:  # polygons may have cut out all that a part has
            with_data = [part for part in with_data if records[part.name].blocks]
        parts = {(part.row, part.col): work.parts.cog(part) for part in with_data}
        if not parts:
            raise _NothingToKeepError(
                "no tile has a single valid pixel", hint="compare the area with what the source covers"
            )
        self._on_event(Stitching(len(parts)))
        if grid.in_parts:
            made = work.path / "collection"
            await to_its_end(gather, made, work.parts.folder, list(parts.values()))
            return made
        if assembly is None:
            return parts[0, 0]
        keep_parts = bool(download.ledger.failed)
        await asyncio.to_thread(assembly.use, layout.encoding)
        return await to_its_end(
            assembly.finish, parts, download.tags, keep_parts=keep_parts, on_progress=self._stitch_progress()
        )

    def _stitch_progress(self) -> OnProgress:
        loop = asyncio.get_running_loop()

        def on_progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._on_event, StitchProgress(done, total))

        return on_progress

    async def _report(self, grid: Grid, download: Download, client: Client, resumed: int) -> MosaicReport:
        ledger = download.ledger
        report = MosaicReport(
            output=self._output,
            bounds=grid.bounds,
            zoom=grid.cover.zoom,
            tile_size=grid.tile_size,
            width=grid.width,
            height=grid.height,
            tiles_total=grid.cover.count,
            tiles_placed=ledger.placed,
            tiles_empty=ledger.empty,
            tiles_failed=len(ledger.failed),
            tiles_not_found=ledger.not_found,
            empty_kinds={str(kind): count for kind, count in ledger.empty_kinds.items()},
            same_bytes=await asyncio.to_thread(download.same_bytes.most),
            averaged_values=self._few_values.count if grid.levels else 0,
            tile_dtypes=download.layout.tile_format.dtypes,
            requests=client.requests,
            retries=client.retries,
            retried=self._retried.most(),
            bytes_received=client.bytes_received,
            bytes_written=self._bytes_written,
            seconds=sum(self._seconds.values()),
            seconds_by_stage=dict(self._seconds),
            parts_total=grid.part_count,
            parts_resumed=resumed,
            peak_rss=(own := await asyncio.to_thread(peak_rss)),
            peak_memory=self._tree.peak or own,
            failed=tuple(ledger.failed.values()),
            scenes=self._scenes.report(),
            address=None if self._bucket is None else str(self._bucket.address),
        )
        await self._note_account(report, download, client)
        return report

    async def _note_account(self, report: MosaicReport, download: Download, client: Client) -> None:
        history = self._history
        if history is not None:
            history.settle(requests=client.requests, retries=client.retries, bytes_received=client.bytes_received)
            cover = download.layout.grid.cover
            tile_map = await asyncio.to_thread(TileMap.of, cover, download.ledger.fates, history.marks)
            self.account = Account(report=report, error=None, history=history.facts(), map=tile_map)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = time.monotonic() - started
