"""What a run will do, decided before it does it: tiles, pixels, encoding, parts, memory, time.

Making a plan requests one tile and writes no file but a temporary one, to see what encoding that tile costs.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.budget import memory_needed
from mosaic_async.build.cost import LARGE_HEAD, ProfileCost, head_bytes, profile_costs
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import prepare
from mosaic_async.build.probe import learn_first
from mosaic_async.errors import RequestError, SourceError, TileError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Cover, Tile
from mosaic_async.geo.grid import Grid
from mosaic_async.http.client import Client
from mosaic_async.http.emptiness import EmptyRules
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.form import TileFormat


@dataclass(frozen=True, kw_only=True)
class MosaicPlan:
    """What a run will do."""

    zoom: int
    tile_size: int
    """Pixels per side."""
    tiles: int
    parts: int
    part_size: int
    """Pixels per side."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    resolution: float
    """Width of a pixel in units of the CRS: in Web Mercator metres at the equator."""
    crs: str
    """AUTHORITY:CODE or WKT of the output's coordinate system."""
    bounds: Bounds
    """West, south, east, north in degrees."""
    count: int
    """Bands of data."""
    dtype: str
    mask: str
    raw_bytes: int
    """Of the full-resolution pixels."""
    estimated_bytes: int
    """Of the output, if all tiles compress as well as the one that was requested; it may not be typical."""
    head_bytes: int
    """Of the headers of one file, which readers need before its first pixel; 0 for a collection."""
    download_bytes: int | None
    """Estimated from that tile; None when it was empty."""
    profiles: dict[str, ProfileCost]
    """What each profile that can hold such pixels costs; empty where bands and dtype are guessed."""
    memory: int
    """Maximum bytes that the run needs, the processes of its source included."""
    usual_memory: int
    """Bytes that it takes as a rule, with memory that processes share counted once."""
    seconds: float | None
    """Estimated from the time that tile took and the requested concurrency; None when it was empty."""
    requests: int
    """Made for this plan."""
    assumed: bool
    """Whether bands and dtype are guessed, because the requested tile is empty."""

    @property
    def is_past_one_file(self) -> bool:
        """Whether a collection serves readers better than one file."""
        return self.head_bytes > LARGE_HEAD

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {**asdict(self), "bounds": list(self.bounds)}


async def make_plan(job: Job, effort: Effort) -> MosaicPlan:
    """Request the tile in the centre and work everything else out.

    Raises:
        SourceError: the tile is refused or is not a tile; where it is empty, bands and dtype are guessed.
    """
    effort = effort.towards(job.source)
    cover = await asyncio.to_thread(Cover.of, job.area, job.matrix, max_tiles=effort.max_tiles)
    middle = next(cover.outward())
    async with _client(job, effort) as client:
        client.call_empty(EmptyRules.of(job.empty))
        started = time.monotonic()
        body = await _fetch(client, job, middle)
        seconds = time.monotonic() - started
    if body:
        tile_format = await asyncio.to_thread(learn_first, body, middle, job)
    else:
        tile_format = TileFormat(size=job.known_tile_size or 256, count=3, dtype="uint8")
    layout = prepare(job, effort, cover, tile_format)
    grid, encoding = layout.grid, layout.encoding
    own = memory_needed(grid, encoding, tile_format, effort.in_flight)
    raw = math.ceil(grid.width * grid.height * encoding.pixel_bytes)
    try:
        costs = await asyncio.to_thread(profile_costs, job, cover, body, tile_format) if body else {}
    except TileError as error:
        raise SourceError(f"the tile in the centre is not usable: {error}") from error
    return MosaicPlan(
        zoom=cover.zoom,
        tile_size=tile_format.size,
        tiles=cover.count,
        parts=grid.part_count,
        part_size=grid.part_size,
        width=grid.width,
        height=grid.height,
        resolution=grid.resolution,
        crs=grid.crs,
        bounds=grid.bounds,
        count=encoding.count,
        dtype=encoding.dtype,
        mask=encoding.mask,
        raw_bytes=raw,
        estimated_bytes=costs[job.profile].nbytes if costs else raw,
        head_bytes=0 if job.collection else _head_bytes(grid, encoding),
        profiles=dict(costs),
        download_bytes=len(body) * cover.count if body else None,
        memory=own + job.source.memory,
        usual_memory=own + (job.source.usual_memory or job.source.memory),
        seconds=_download_seconds(seconds, cover.count, effort) if body else None,
        requests=client.requests,
        assumed=not body,
    )


def _client(job: Job, effort: Effort) -> Client:
    pace = replace(effort.pace, concurrency=1)
    return Client(pace, headers=job.source.headers, allow_hosts=effort.allow_hosts)


async def _fetch(client: Client, job: Job, tile: Tile) -> bytes:
    check = partial(check_answer, tile=tile, tile_format=None, matrix=job.matrix, border=job.border)
    try:
        async with client.get(job.url(tile), check=check) as answer:
            return answer.body
    except RequestError as error:
        raise SourceError(
            f"the tile in the centre could not be fetched: {error.message}", hint=error.marked_hint or "check the URL"
        ) from error


def _head_bytes(grid: Grid, encoding: Encoding) -> int:
    size, images = grid.block_size, encoding.images(0)
    return head_bytes(grid.width, grid.height, block_size=size, levels=grid.levels, images=images)


def _download_seconds(seconds: float, tiles: int, effort: Effort) -> float:
    """Return the seconds that all tiles take where one takes `seconds`, at the concurrency and rate of the effort."""
    at_most = 1 / effort.rate if effort.rate else 0
    return max(seconds / effort.in_flight, at_most) * tiles
