"""From a source and an area to one validated COG: the functions that users call.

Nothing here prints or touches the loop's policy. Exceptions that leave are of `errors`, never an ExceptionGroup.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mosaic_async.build.blocking import blocking
from mosaic_async.build.bucket_output import bucket_of
from mosaic_async.build.crew import Crew
from mosaic_async.build.crew_run import CrewRun
from mosaic_async.build.description import description_of
from mosaic_async.build.job import Effort, Job, NotFound, OnError
from mosaic_async.build.output_path import output_path
from mosaic_async.build.plan import MosaicPlan, make_plan
from mosaic_async.build.report_pages import write_pages
from mosaic_async.build.run import Run
from mosaic_async.build.shard import Shard
from mosaic_async.build.shard_run import ShardRun
from mosaic_async.build.sole_error import sole_error
from mosaic_async.build.verify import SAMPLE, VerifyReport, verify
from mosaic_async.errors import ResourceError, UsageError
from mosaic_async.events import MosaicReport, OnEvent
from mosaic_async.events.listeners import listening
from mosaic_async.geo.area import Area
from mosaic_async.geo.matrix import MatrixSet
from mosaic_async.http.emptiness import spelled
from mosaic_async.http.limits import Concurrency
from mosaic_async.raster.encoding import MaskMode, OverviewChoice
from mosaic_async.safety.redaction import learn
from mosaic_async.sources.matrix_sets import matrix_set_for
from mosaic_async.sources.opening import opened_source
from mosaic_async.sources.source import TileSource


async def build_mosaic(
    source: str | Path | TileSource,
    area: Sequence[float] | Mapping[str, Any],
    output: str | Path,
    *,
    zoom: int | None = Job.zoom,
    tms: str | Path | Mapping[str, Any] | None = None,
    tile_size: int | None = Job.tile_size,
    tile_border: int | None = Job.tile_border,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    concurrency: Concurrency = Effort.concurrency,
    rate: float | None = Effort.rate,
    attempts: int = Effort.attempts,
    timeout: float = Effort.timeout,
    memory: int = Effort.memory,
    profile: str = Job.profile,
    creation_options: Mapping[str, str] | None = None,
    overview_resampling: OverviewChoice = Job.overview_resampling,
    nodata: float | None = Job.nodata,
    dtype: str | None = Job.dtype,
    decode: str | None = Job.decode,
    mask: MaskMode = Job.mask,
    clip: bool = Job.clip,
    all_touched: bool = Job.all_touched,
    part_size: int | None = Job.part_size,
    empty: Sequence[str] = Job.empty,
    collection: bool = Job.collection,
    max_tiles: int = Effort.max_tiles,
    max_failures: int | str = Effort.max_failures,
    on_error: OnError = Effort.on_error,
    not_found: NotFound = Effort.not_found,
    sparse: bool = Effort.sparse,
    max_outage: float = Effort.max_outage,
    allow_hosts: Collection[str] = Effort.allow_hosts,
    ca: str | Path | None = None,
    check_disk: bool = Effort.check_disk,
    stac: bool = Effort.stac,
    work: str | Path | None = Effort.work,
    overwrite: bool = Effort.overwrite,
    resume: bool = Effort.resume,
    shard: str | None = Effort.shard,
    crew: Crew | None = None,
    stop: asyncio.Event | None = None,
    on_event: OnEvent | None = None,
    progress: bool = False,
    report_page: bool | str = False,
) -> MosaicReport:
    """Fetch all tiles of an area and write one validated Cloud Optimized GeoTIFF.

    If a run ends early, even by `kill -9`, the same call resumes it and does not request finished tiles again. Until
    the output is complete, everything is kept in `OUTPUT.work` beside it. For an output with accepted holes, the same
    call with `overwrite` retries the failed tiles only.

    Args:
        source: a tile URL with placeholders; the URL or path of a TileJSON, of a WMTS's capabilities, of a tileset of
            OGC API Tiles, or of an ArcGIS service; a folder of tiles, an MBTiles or a PMTiles; or a `TileSource`.
        area: `(west, south, east, north)` in degrees, west above east across the antimeridian; or GeoJSON polygons,
            whose edges are straight in degrees (RFC 7946).
        output: file to write; with `collection`, the folder.
        zoom: z of the tiles; None: the zoom of the data's own resolution, if the source states one.
        tms: tile matrix set of the tiles: a name such as WorldCRS84Quad, the file or URL of its JSON, or its document;
            None: the one that the source states, or Web Mercator. The output is in its coordinate system.
        tile_size: tile width in pixels; None: as the source states, or as the first tile has.
        tile_border: pixels to cut off at each side of a tile, beside `tile_size`; None: as `buffer=` in the URL says.
        headers: sent with every request; secrets in them are stored nowhere.
        params: fill placeholders of the URL such as `{apikey}`, choose in a description that offers several layers,
            or are added to the query of every tile's URL.
        secrets: secret texts of the URL by name, such as a token in its path; `{NAME}` in the URL stands for the text.
            They are shown nowhere, and the job resumes when they change, after it compared one tile.
        concurrency: maximum requests in flight; "auto" adapts to the server, up to 256.
        rate: maximum requests per second; None: unlimited.
        attempts: maximum attempts per tile, the first included; at most 3 after a 500, 2 after a wrong body.
        timeout: seconds per attempt; a busy tiler may well take 30 s.
        memory: memory budget in bytes; it decides the size of the parts.
        profile: compression, by rio-cogeo's names: deflate, zstd, lzw, webp, jpeg, lerc, raw, ...
        creation_options: options of GDAL's COG driver, such as LEVEL, QUALITY, PREDICTOR, BLOCKSIZE, BIGTIFF.
        overview_resampling: average, nearest, mode or rms; auto is average, but nearest for values that are packed into
            colours, and mode for class codes and for tiles that share a colour table.
        nodata: value of pixels without data; if set, `mask="auto"` means nodata.
        dtype: data type of the output; None: that of the tiles. Values are rounded and cut to its range.
        decode: how values are packed into the colours of the tiles, "terrain-rgb" or "terrarium", or four numbers: the
            factors of red, green and blue, and what is added. The output has the values as float32, heights in metres;
            None writes the tiles' own colours.
        mask: how to mark pixels without data: internal, alpha, nodata, none; auto follows the tiles.
        clip: cut the output to the area's pixels, polygons included; False keeps whole tiles.
        all_touched: with `clip`, keep all pixels that the polygons touch; False keeps those with their centre inside.
        part_size: part width in pixels; None: as the memory budget allows.
        empty: what else means that a tile has no data: a status such as "403", "header:NAME=VALUE", "sha256:DIGEST" of
            a body, or the path of a file with such a body. These always do: 204, 404, a 200 without a body, a 400 that
            calls the tile outside of the matrix, a bucket's 403 AccessDenied, and `X-VE-Tile-Info: no-tile`. All but
            204, headers and bodies are only a doubt, which a second request has to confirm.
        collection: write a folder instead of a file: the parts as COGs of their own, with a STAC Collection of Items, a
            MosaicJSON and a tile index of GDAL, each of which opens as one mosaic. Requires the extra `stac`.
        max_tiles: refuse areas with more tiles than this.
        max_failures: tiles that may fail and stay holes without data, or their share, such as "0.5%".
        on_error: what happens to a tile that has used up its attempts: "park" retries it when all others have
            arrived; "fail" ends the run at the first one beyond `max_failures`; "nodata" retries it as "park" does,
            and accepts any number of holes.
        not_found: what a tile is that the server does not find (404, and what else is only a doubt, as in `empty`).
            All such tiles are requested once more at the end, with one that had data, to tell them from a source that
            is gone. "empty" counts the rest as empty and reports their number; "fail" lets them fail.
        sparse: do not refuse a source where nearly no tile of a first sample has data.
        max_outage: seconds to wait for an unavailable server before the run ends.
        allow_hosts: other hosts that redirects and a TileJSON's template may lead to; headers are not sent there.
        ca: PEM file of certificate authorities to trust beside those of the system.
        check_disk: refuse to start if the disk has less room than the first tile suggests.
        stac: write a STAC Item of the output beside it, under its name with the suffix `.json`. Requires the extra
            `stac`; a collection has its items anyway.
        work: folder for what is under way, if the output is in a bucket; None: `~/.cache/mosaic-async`.
        overwrite: replace the output if it exists; False refuses. A folder is replaced if it is a collection or empty.
        resume: resume an earlier call; False deletes what it left.
        shard: "I/N" builds share I (from 0) of N of the output's parts and leaves them in `OUTPUT.work`, which all
            shares use, from any number of processes or machines at once. When they have ended, the same call without
            it builds what is missing and writes the output. `concurrency` and `rate` are those of this process:
            divide what the server may get by N.
        crew: other processes that build the parts, as `mosaic_async.cluster.crew_at` yields them; None: this one.
        stop: set it to end early: requests under way arrive and are kept, then `StoppedError` is raised.
        on_event: called with each `Event`; it must be quick. The logger `mosaic_async` has the incidents too.
        progress: show a progress bar, of the notebook or of the terminal.
        report_page: when the run has ended, complete or not, write `OUTPUT.report.html`, a page with a preview, a map
            of the tiles and all that happened, and `OUTPUT.report.json`; a text is shown as the command that ran.

    Returns:
        What the run did.

    Raises:
        UsageError: an argument is wrong.
        SourceError: the source is unreachable, refuses, or sends no tiles.
        IncompleteError: more than `max_failures` tiles failed; all others are kept for the next call.
        StoppedError: `stop` was set; all tiles that arrived are kept for the next call.
        ResourceError: too little disk or memory.
        RefusedError: the area is invalid or has too many tiles.
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
        not_found=not_found,
        sparse=sparse,
        max_outage=max_outage,
        allow_hosts=allow_hosts,
        check_disk=check_disk,
        work=work,
        stac=stac,
        overwrite=overwrite,
        resume=resume,
        shard=shard,
    )
    describe = await asyncio.to_thread(description_of, is_collection=collection, has_item=stac)
    bucket = await asyncio.to_thread(bucket_of, output, effort, collection=collection, has_crew=crew is not None)
    kind = {"collection": collection, "stac": stac, "overwrite": overwrite}
    path = bucket.name if bucket else await asyncio.to_thread(output_path, output, **kind)
    learn((secrets or {}).values())
    async with opened_source(
        source, headers=headers, params=params, allow_hosts=allow_hosts, secrets=secrets, tile_size=tile_size, ca=ca
    ) as found:
        grid = await matrix_set_for(found, tms)
        job = Job(
            source=found,
            area=_area(area, grid),
            zoom=zoom,
            tms=grid,
            tile_size=tile_size,
            tile_border=tile_border,
            profile=profile,
            creation_options=creation_options or {},
            overview_resampling=overview_resampling,
            nodata=nodata,
            dtype=dtype,
            decode=decode,
            mask=mask,
            clip=clip,
            all_touched=all_touched,
            part_size=part_size,
            empty=await asyncio.to_thread(spelled, empty),
            collection=collection,
        )
        with listening(on_event, progress=progress) as hear:
            run: Run | ShardRun | CrewRun
            if crew is not None:
                run = CrewRun(job, effort, path, crew, on_event=hear, stop=stop, describe=describe)
            elif effort.shard is None:
                run = Run(job, effort, path, hear, stop, describe=describe, bucket=bucket)
            else:
                run = ShardRun(job, effort, path, Shard.parse(effort.shard), on_event=hear, stop=stop)
            try:
                return await run.build()
            except (BaseExceptionGroup, OSError, ResourceError) as error:
                raise sole_error(error, path, run.disk_needed) from error
            finally:
                if report_page and isinstance(run, Run):
                    await write_pages(run.account, command=report_page)


async def plan_mosaic(
    source: str | Path | TileSource,
    area: Sequence[float] | Mapping[str, Any],
    *,
    zoom: int | None = Job.zoom,
    tms: str | Path | Mapping[str, Any] | None = None,
    tile_size: int | None = Job.tile_size,
    tile_border: int | None = Job.tile_border,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    concurrency: Concurrency = Effort.concurrency,
    rate: float | None = Effort.rate,
    attempts: int = Effort.attempts,
    timeout: float = Effort.timeout,
    memory: int = Effort.memory,
    profile: str = Job.profile,
    creation_options: Mapping[str, str] | None = None,
    overview_resampling: OverviewChoice = Job.overview_resampling,
    nodata: float | None = Job.nodata,
    dtype: str | None = Job.dtype,
    decode: str | None = Job.decode,
    mask: MaskMode = Job.mask,
    clip: bool = Job.clip,
    all_touched: bool = Job.all_touched,
    part_size: int | None = Job.part_size,
    empty: Sequence[str] = Job.empty,
    collection: bool = Job.collection,
    max_tiles: int = Effort.max_tiles,
    allow_hosts: Collection[str] = Effort.allow_hosts,
    ca: str | Path | None = None,
) -> MosaicPlan:
    """Estimate what `build_mosaic` takes. It fetches one tile, the one in the centre, and keeps no files.

    Arguments and errors are those of `build_mosaic`.
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
    learn((secrets or {}).values())
    async with opened_source(
        source, headers=headers, params=params, allow_hosts=allow_hosts, secrets=secrets, tile_size=tile_size, ca=ca
    ) as found:
        grid = await matrix_set_for(found, tms)
        job = Job(
            source=found,
            area=_area(area, grid),
            zoom=zoom,
            tms=grid,
            tile_size=tile_size,
            tile_border=tile_border,
            profile=profile,
            creation_options=creation_options or {},
            overview_resampling=overview_resampling,
            nodata=nodata,
            dtype=dtype,
            decode=decode,
            mask=mask,
            clip=clip,
            all_touched=all_touched,
            part_size=part_size,
            empty=await asyncio.to_thread(spelled, empty),
            collection=collection,
        )
        return await make_plan(job, effort)


async def verify_mosaic(
    output: str | Path,
    *,
    source: str | Path | TileSource | None = None,
    sample: int = SAMPLE,
    seed: int | None = None,
    headers: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    concurrency: Concurrency = Effort.concurrency,
    rate: float | None = Effort.rate,
    attempts: int = Effort.attempts,
    timeout: float = Effort.timeout,
    max_outage: float = Effort.max_outage,
    allow_hosts: Collection[str] = Effort.allow_hosts,
    ca: str | Path | None = None,
) -> VerifyReport:
    """Check an output: against its digest, against itself, and against its source.

    Every block is decoded, masks included. Every overview is made again from the level above it. The digest, which
    outputs of `build_mosaic` record, proves that all blocks are those that were published. With a source, tiles are
    requested again and compared pixel by pixel: exactly if the output is stored without loss, and within the codec's
    error otherwise.

    Args:
        output: the file to check.
        source: where the tiles came from, as for `build_mosaic`; None requests nothing.
        sample: tiles to draw at random, and as many of those at the edges.
        seed: makes the draw repeatable.
        headers: sent with every request.
        params: query parameters added to the URL of every tile.
        secrets: as for `build_mosaic`.
        concurrency: maximum requests in flight.
        rate: maximum requests per second; None: no limit.
        attempts: maximum attempts per tile.
        timeout: seconds per attempt.
        max_outage: seconds that the server may be unavailable.
        allow_hosts: hosts that redirects, and a TileJSON's template, may lead to; headers are not sent there.
        ca: PEM file of certificate authorities to trust beside those of the system.

    Returns:
        What was checked and what differs; `is_sound` sums it up.

    Raises:
        UsageError: an argument is wrong, or the file does not record what a comparison requires.
        SourceError: the source is unreachable, or refuses.
    """
    if sample < 1:
        raise UsageError(f"sample must be 1 or more, got {sample}")
    effort = Effort(
        concurrency=concurrency,
        rate=rate,
        attempts=attempts,
        timeout=timeout,
        max_outage=max_outage,
        allow_hosts=allow_hosts,
    )
    learn((secrets or {}).values())
    path = Path(output)
    try:
        if source is None:
            return await verify(path, None, effort, sample=sample, seed=seed)
        async with opened_source(
            source, headers=headers, params=params, allow_hosts=allow_hosts, secrets=secrets, ca=ca
        ) as found:
            return await verify(path, found, effort, sample=sample, seed=seed)
    except (BaseExceptionGroup, OSError) as error:
        raise sole_error(error, path, None) from error


def _area(area: Sequence[float] | Mapping[str, Any], grid: MatrixSet | None) -> Area:
    return Area.parse(area) if grid is None else Area.parse(area, latitudes=grid.latitudes)


build_mosaic_sync = blocking(build_mosaic)
"""`build_mosaic` for code that does not await; it also works inside a running loop, as in Jupyter."""
