"""One run of a job, stage by stage: probe, download, assemble, report.

It owns the order of things and the work folder's life; each stage's own work is elsewhere.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

from mosaic_async.assembly import assemble, publish
from mosaic_async.blockcache import small_block_cache
from mosaic_async.cover import Cover
from mosaic_async.download import Download
from mosaic_async.encoding import Encoding
from mosaic_async.errors import IncompleteError, SourceError, UsageError
from mosaic_async.events import MosaicReport, OnEvent, RunStarted, Stitching, TileRetried
from mosaic_async.grid import Grid
from mosaic_async.http import Client, redact
from mosaic_async.plan import Job, choose_grid
from mosaic_async.probe import probe
from mosaic_async.tile import TileProfile
from mosaic_async.workdir import WorkFolder, label_of

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")
_SOFTWARE = f"mosaic-async {version('mosaic-async')}"


class _NothingToKeepError(SourceError):
    """The run came to its end and what it leaves is of no use to another."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How a run goes about its job; nothing of this changes a pixel of a complete output."""

    concurrency: int
    rate: float | None
    """Requests a second; None does not limit."""
    attempts: int
    timeout: float
    """Seconds an attempt."""
    memory: int
    """Bytes."""
    max_tiles: int
    max_failures: int
    overwrite: bool

    def __post_init__(self) -> None:
        if self.max_failures < 0:
            raise UsageError(f"max_failures must be 0 or more, got {self.max_failures}")


class Run:
    """One run of a job towards one output."""

    def __init__(self, job: Job, effort: Effort, output: Path, on_event: OnEvent) -> None:
        self._job = job
        self._effort = effort
        self._output = output
        self._on_event = on_event
        self._seconds: dict[str, float] = {}
        self._bytes_written = 0

    async def build(self, *, resume: bool) -> MosaicReport:
        """Make the output and give the report.

        Raises:
            MosaicError: as documented for `build_mosaic`; or a group with one of them in it.
            OSError: what the disk says.
        """
        cover = await asyncio.to_thread(Cover.of, self._job.area, self._job.zoom, max_tiles=self._effort.max_tiles)
        work = await WorkFolder.open(self._output, label_of(self._job.identity()), resume=resume)
        try:
            with small_block_cache():
                return await self._build_in(work, cover)
        except Exception as error:
            if work.is_new or isinstance(error, _NothingToKeepError):
                await work.remove()  # with mended arguments it would be another job's folder
            raise
        finally:
            work.close()

    async def _build_in(self, work: WorkFolder, cover: Cover) -> MosaicReport:
        async with self._client() as client:
            with self._stage("probe"):
                profile = await self._profile(client, cover, work)
            encoding = self._job.encoding(profile, cover)
            grid = self._grid(cover, profile, encoding, work)
            await work.save_state({"tile": asdict(profile), "part_blocks": grid.part_blocks})
            download = Download(
                grid=grid,
                encoding=encoding,
                profile=profile,
                source=self._job.source,
                client=client,
                work=work,
                concurrency=self._effort.concurrency,
                max_failures=self._effort.max_failures,
                tags=self._tags(),
                on_event=self._on_event,
            )
            resumed = await self._download(download, grid, work)
        if download.is_complete:
            with self._stage("finish"):
                await self._finish(grid, encoding, download, work)
        report = self._report(grid, download, client, resumed)
        if not download.is_complete:
            raise IncompleteError(
                f"{report.tiles_failed:,} of {report.tiles_total:,} tiles failed",
                report=report,
                hint=f"run the same again: only they are asked for, all others are kept in {work.path.name}",
            )
        return report

    def _client(self) -> Client:
        effort = self._effort
        return Client(
            concurrency=effort.concurrency,
            rate=effort.rate,
            attempts=effort.attempts,
            timeout=effort.timeout,
            headers=self._job.source.headers,
            on_retry=lambda url, attempt, reason, wait: self._on_event(TileRetried(redact(url), attempt, reason, wait)),
        )

    async def _profile(self, client: Client, cover: Cover, work: WorkFolder) -> TileProfile:
        """Learn what tiles look like, or remember it from the run that is being continued."""
        if known := work.state.get("tile"):
            return TileProfile.from_dict(known)
        size, batch = self._job.tile_size, self._effort.concurrency
        source, on_event = self._job.source, self._on_event
        return await probe(client, source, cover, work, tile_size=size, batch=batch, on_event=on_event)

    def _grid(self, cover: Cover, profile: TileProfile, encoding: Encoding, work: WorkFolder) -> Grid:
        """Lay the output out, in parts of the size that an earlier run began with."""
        job, effort = self._job, self._effort
        if known := work.state.get("part_blocks"):
            return job.grid(cover, profile, encoding, known)
        return choose_grid(job, cover, profile, encoding, memory=effort.memory, concurrency=effort.concurrency)

    async def _download(self, download: Download, grid: Grid, work: WorkFolder) -> int:
        """Download what is missing and give how many parts were there already."""
        records = await work.finished_parts()
        tiles_resumed = sum(record.placed + record.empty for record in records.values())
        self._on_event(RunStarted(grid.cover.count, grid.part_count, len(records), tiles_resumed))
        with self._stage("download"):
            await download.run(records)
        return len(records)

    async def _finish(self, grid: Grid, encoding: Encoding, download: Download, work: WorkFolder) -> None:
        parts = {
            (part.row, part.col): work.part_path(part) for part in grid.parts() if download.records[part.name].nbytes
        }
        if not parts:
            raise _NothingToKeepError(
                "no tile has a single valid pixel", hint="compare the area with what the source covers"
            )
        self._on_event(Stitching(len(parts)))
        made = await _to_its_end(assemble, grid, encoding, work.path, parts, download.tags)
        self._bytes_written = await _to_its_end(publish, made, self._output, overwrite=self._effort.overwrite)
        await work.remove()

    def _tags(self) -> Mapping[str, str]:
        """Say in the file where its pixels come from."""
        source = self._job.source
        return {
            "TIFFTAG_SOFTWARE": _SOFTWARE,
            "MOSAIC_SOURCE": source.identity or redact(source.template),
            "MOSAIC_ZOOM": str(self._job.zoom),
        }

    def _report(self, grid: Grid, download: Download, client: Client, resumed: int) -> MosaicReport:
        return MosaicReport(
            output=self._output,
            bounds=grid.bounds,
            zoom=self._job.zoom,
            tile_size=grid.tile_size,
            width=grid.width,
            height=grid.height,
            tiles_total=grid.cover.count,
            tiles_placed=download.placed,
            tiles_empty=download.empty,
            tiles_failed=len(download.failed),
            requests=client.requests,
            retries=client.retries,
            bytes_received=client.bytes_received,
            bytes_written=self._bytes_written,
            seconds=sum(self._seconds.values()),
            seconds_by_stage=dict(self._seconds),
            parts_total=grid.part_count,
            parts_resumed=resumed,
            peak_rss=peak_rss(),
            failed=tuple(download.failed.values()),
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = time.monotonic() - started


async def _to_its_end(function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
    """Run in a thread, and when cancelled wait for its end all the same: the folder stays locked while it writes."""
    thread = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise


def peak_rss() -> int:
    """Give the most bytes that this process had in memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
