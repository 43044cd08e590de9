"""From a source and an area to one validated COG: the functions that users call.

Nothing here prints or touches the loop's policy. Exceptions that leave are of `errors`, never an ExceptionGroup.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mosaic_async.build.job import Effort, Job, OnError
from mosaic_async.build.plan import MosaicPlan, make_plan
from mosaic_async.build.preflight import room_hint
from mosaic_async.build.run import Run
from mosaic_async.build.work_folder import work_path
from mosaic_async.errors import MosaicError, ResourceError, UsageError
from mosaic_async.events import Event, MosaicReport, OnEvent
from mosaic_async.geo.area import Area
from mosaic_async.http.limits import Concurrency
from mosaic_async.raster.encoding import MaskMode, OverviewResampling
from mosaic_async.sources.source import TileSource, open_source

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


async def build_mosaic(
    source: str | Path | TileSource,
    area: Sequence[float] | Mapping[str, Any],
    output: str | Path,
    *,
    zoom: int | None = Job.zoom,
    tile_size: int | None = Job.tile_size,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    concurrency: Concurrency = Effort.concurrency,
    rate: float | None = Effort.rate,
    attempts: int = Effort.attempts,
    timeout: float = Effort.timeout,
    memory: int = Effort.memory,
    profile: str = Job.profile,
    creation_options: Mapping[str, str] | None = None,
    overview_resampling: OverviewResampling = Job.overview_resampling,
    nodata: float | None = Job.nodata,
    dtype: str | None = Job.dtype,
    mask: MaskMode = Job.mask,
    clip: bool = Job.clip,
    part_size: int | None = Job.part_size,
    max_tiles: int = Effort.max_tiles,
    max_failures: int | str = Effort.max_failures,
    on_error: OnError = Effort.on_error,
    max_outage: float = Effort.max_outage,
    allow_hosts: Collection[str] = Effort.allow_hosts,
    check_disk: bool = Effort.check_disk,
    overwrite: bool = Effort.overwrite,
    resume: bool = Effort.resume,
    stop: asyncio.Event | None = None,
    on_event: OnEvent | None = None,
) -> MosaicReport:
    """Fetch all tiles of an area and write one validated Cloud Optimized GeoTIFF.

    A run that ends early, even by `kill -9`, is continued by the same call: finished tiles are not asked for again.
    Until the output is complete everything lies in `OUTPUT.work` beside it. So an output with holes that were accepted
    is completed by the same call with `overwrite`: only the tiles that failed are asked for.

    Args:
        source: an XYZ template, the URL or path of a TileJSON, or a `TileSource`.
        area: `(west, south, east, north)` in degrees, west above east across the antimeridian; or GeoJSON polygons.
        output: the file to write.
        zoom: z of the tiles; None: where the data have their own resolution, if the source says so.
        tile_size: pixels a side of a tile; None: what the source says or the first tile has.
        headers: sent with every request; may hold secrets, which are kept nowhere.
        params: query parameters added to every tile's URL.
        concurrency: requests in flight at most; "auto" looks for what the server can do, up to 256.
        rate: requests a second at most; None does not limit.
        attempts: tries a tile, the first included; a 500 gets 3 at most, a body that is no such tile 2.
        timeout: seconds an attempt may take; 30 s for a tile are normal for a tiler at work.
        memory: bytes the run may need; it decides the size of the parts.
        profile: how to compress: rio-cogeo's names, deflate, zstd, lzw, webp, jpeg, lerc, raw, ...
        creation_options: of GDAL's COG driver, such as LEVEL, QUALITY, PREDICTOR, BLOCKSIZE, BIGTIFF.
        overview_resampling: average, nearest, mode or rms.
        nodata: value of pixels without data; makes `mask="auto"` mean nodata.
        dtype: of the output; None: as the tiles. Values are rounded and cut to its range.
        mask: how pixels without data are marked: internal, alpha, nodata, none; auto keeps what the tiles say.
        clip: cut to the area's pixels, polygons included; False keeps whole tiles.
        part_size: pixels a side of the parts that the output is made of; None: as the memory allows.
        max_tiles: refuse to ask for more.
        max_failures: tiles that may fail and stay holes without data, or a share of all, such as "0.5%".
        on_error: what becomes of a tile whose attempts are used up: "park" asks once more when all others are there;
            "fail" ends the run with the first one too many; "nodata" does as "park" and accepts any number of holes.
        max_outage: seconds that the server may be away before the run ends.
        allow_hosts: hosts that redirects, and a TileJSON's template, may lead to beside the source's; headers never do.
        check_disk: refuse to start where the disk has less room than the first tile makes one expect.
        overwrite: replace the output; False refuses if it exists.
        resume: go on where an earlier call stopped; False drops what it left.
        stop: set it to end early: what is under way arrives and is kept, then `StoppedError` is raised.
        on_event: called with each `Event`; it must be quick.

    Returns:
        What was done.

    Raises:
        UsageError: an argument is wrong.
        SourceError: the source is unreachable, refuses, or sends no tiles.
        IncompleteError: more than `max_failures` tiles failed; the rest is kept for the next call.
        StoppedError: `stop` was set; all that arrived is kept for the next call.
        ResourceError: too little disk or memory.
        RefusedError: an absurd area.
        WorkFolderError: the work folder belongs to another job, or is in use.
    """
    effort = Effort(
        concurrency=concurrency,
        rate=rate,
        attempts=attempts,
        timeout=timeout,
        memory=memory,
        max_tiles=max_tiles,
        max_failures=max_failures,
        on_error=on_error,
        max_outage=max_outage,
        allow_hosts=allow_hosts,
        check_disk=check_disk,
        overwrite=overwrite,
        resume=resume,
    )
    path = await asyncio.to_thread(_checked_output, Path(output), overwrite=overwrite)
    job = Job(
        source=await open_source(source, headers=headers, params=params, allow_hosts=allow_hosts),
        area=Area.parse(area),
        zoom=zoom,
        tile_size=tile_size,
        profile=profile,
        creation_options=creation_options or {},
        overview_resampling=overview_resampling,
        nodata=nodata,
        dtype=dtype,
        mask=mask,
        clip=clip,
        part_size=part_size,
    )
    run = Run(job, effort, path, on_event or _ignore, stop)
    try:
        return await run.build()
    except (BaseExceptionGroup, OSError, ResourceError) as error:
        raise _sole(error, path, run.disk_needed) from error


async def plan_mosaic(
    source: str | Path | TileSource,
    area: Sequence[float] | Mapping[str, Any],
    *,
    zoom: int | None = Job.zoom,
    tile_size: int | None = Job.tile_size,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    concurrency: Concurrency = Effort.concurrency,
    rate: float | None = Effort.rate,
    attempts: int = Effort.attempts,
    timeout: float = Effort.timeout,
    memory: int = Effort.memory,
    profile: str = Job.profile,
    creation_options: Mapping[str, str] | None = None,
    overview_resampling: OverviewResampling = Job.overview_resampling,
    nodata: float | None = Job.nodata,
    dtype: str | None = Job.dtype,
    mask: MaskMode = Job.mask,
    clip: bool = Job.clip,
    part_size: int | None = Job.part_size,
    max_tiles: int = Effort.max_tiles,
    allow_hosts: Collection[str] = Effort.allow_hosts,
) -> MosaicPlan:
    """Say what `build_mosaic` would do. It asks for one tile, the one in the centre, and writes nothing.

    Args and errors are those of `build_mosaic`.
    """
    effort = Effort(
        concurrency=concurrency,
        rate=rate,
        attempts=attempts,
        timeout=timeout,
        memory=memory,
        max_tiles=max_tiles,
        allow_hosts=allow_hosts,
    )
    job = Job(
        source=await open_source(source, headers=headers, params=params, allow_hosts=allow_hosts),
        area=Area.parse(area),
        zoom=zoom,
        tile_size=tile_size,
        profile=profile,
        creation_options=creation_options or {},
        overview_resampling=overview_resampling,
        nodata=nodata,
        dtype=dtype,
        mask=mask,
        clip=clip,
        part_size=part_size,
    )
    return await make_plan(job, effort)


def _ignore(event: Event) -> None:
    """Listen to nothing."""


def _blocking(function: Callable[_Params, Coroutine[Any, Any, _Result]]) -> Callable[_Params, _Result]:
    """Make a function that waits for a coroutine, also where a loop is running already, as in Jupyter."""

    @wraps(function)
    def call(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        run = _run_in_thread if _loop_is_running() else asyncio.run
        return run(function(*args, **kwargs))

    return call


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run on a loop of its own in a thread, and pass an interrupt on."""
    started: Future[Callable[[], object]] = Future()
    done: Future[_Result] = Future()

    async def tracked() -> _Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await coroutine

    def work() -> None:
        try:
            done.set_result(asyncio.run(tracked()))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            done.set_exception(error)

    thread = threading.Thread(target=work, name="mosaic-async")
    thread.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        started.result()()
        raise
    finally:
        thread.join()


build_mosaic_sync = _blocking(build_mosaic)
"""`build_mosaic` for code that does not await; it works inside a running loop, as in Jupyter, too."""


def _checked_output(output: Path, *, overwrite: bool) -> Path:
    output = output.absolute()
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}", hint="make it first")
    if output.is_dir():
        raise UsageError(f"{output} is a folder", hint="give the name of a file")
    if output.exists() and not overwrite:
        hint = "choose another name, or give ``overwrite``"
        if (work := work_path(output)).exists():
            hint += f"; what is kept in {work.name} is not asked for again"
        raise UsageError(f"{output} exists", hint=hint)
    return output


def _sole(error: BaseException, output: Path, needed: int | None) -> BaseException:
    """Give the one error that ended a run: ours before others, the disk's in our words, and never a group."""
    leaves: list[BaseException] = []
    pending = [error]
    while pending:
        first = pending.pop(0)
        if isinstance(first, BaseExceptionGroup):
            pending += first.exceptions
        else:
            leaves.append(first)
    leaf = next((leaf for leaf in leaves if isinstance(leaf, MosaicError)), leaves[0])
    if isinstance(leaf, ResourceError) and needed is not None:
        return ResourceError(leaf.message, hint=room_hint(output.parent, needed))
    if not isinstance(leaf, OSError):
        return leaf
    is_full = leaf.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = room_hint(output.parent, needed) if is_full else "may files be written there?"
    return ResourceError(f"{leaf.filename or output}: {leaf.strerror or leaf}", hint=hint)
