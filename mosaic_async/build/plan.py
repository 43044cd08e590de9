"""What a run will do, decided before it does it: tiles, pixels, encoding, parts, memory.

Making a plan asks for one tile; everything else is arithmetic.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from affine import Affine
from rasterio.windows import Window

from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.download import OPEN_PARTS, queue_size
from mosaic_async.build.probe import learn_first
from mosaic_async.errors import RequestError, ResourceError, SourceError, TileError, UsageError
from mosaic_async.geo.area import Area, Bounds
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import COG_UNTILED_SIZE, Grid, check_tile_size, default_zoom
from mosaic_async.http.client import Client
from mosaic_async.raster.block_cache import BLOCK_CACHE
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding, MaskMode, OverviewResampling
from mosaic_async.raster.tile import Mask, Pixels, TileFormat, decode
from mosaic_async.redaction import redact
from mosaic_async.sources.source import TileSource

_MAX_PART_BLOCKS = 8
"""Larger parts only make the last one, which nothing overlaps, take longer."""
_MIN_BLOCK = 64
_COMMON_PROFILES = ("deflate", "zstd", "lzw", "webp", "jpeg", "lerc", "raw")
_ANYWHERE = Affine(2, 0, 0, 0, -2, 0)
_BASE_MEMORY = 180 * 2**20 + BLOCK_CACHE
"""Bytes: the interpreter with its libraries, GDAL's cache, and what the codecs need (docs/performance.md)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the user asked for: everything that decides the output's pixels, and nothing else."""

    source: TileSource
    area: Area
    zoom: int
    tile_size: int | None = None
    """Pixels a side; None: the first tile tells."""
    profile: str = "deflate"
    creation_options: Mapping[str, str] = field(default_factory=dict)
    overview_resampling: OverviewResampling = "average"
    nodata: float | None = None
    dtype: str | None = None
    mask: MaskMode = "auto"
    clip: bool = False
    part_size: int | None = None
    """Pixels a side; None: as large as the memory allows."""

    @classmethod
    def of(
        cls,
        source: TileSource,
        area: Area,
        *,
        zoom: int | None,
        tile_size: int | None,
        profile: str,
        creation_options: Mapping[str, str] | None,
        overview_resampling: OverviewResampling,
        nodata: float | None,
        dtype: str | None,
        mask: MaskMode,
        clip: bool,
        part_size: int | None,
    ) -> Job:
        """Fill in what the source knows: the tile size, and the zoom of the data's own resolution.

        Raises:
            UsageError: no zoom is given and the source does not know one, or a tile size that cannot be.
        """
        tile_size = tile_size or source.tile_size
        if tile_size is not None:
            check_tile_size(tile_size)
        if zoom is None:
            if source.maxzoom is None:
                raise UsageError("the source does not say its zooms", hint="set ``zoom``, the z of the tiles")
            # Without a size the server's default is meant, which for every generation of tilers is 256 pixels.
            zoom = default_zoom(source.maxzoom, tile_size or 256)
        return cls(
            source=source,
            area=area,
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

    def identity(self) -> dict[str, Any]:
        """Give everything that decides the output's pixels, as JSON types; a renewed token is the same job."""
        given = asdict(replace(self, source=TileSource(template=self.source.template)))
        given["source"] = self.source.identity or redact(self.source.template)
        given["mask_band"] = self.source.mask_band
        return given

    def encoding(self, tile: TileFormat, cover: Cover) -> Encoding:
        """Decide how the output is stored.

        Raises:
            UsageError: the profile cannot hold such pixels.
        """
        encoding = Encoding.of(
            tile,
            profile=self.profile,
            creation_options=self.creation_options,
            mask=self.mask,
            nodata=self.nodata,
            dtype=self.dtype,
            overview_resampling=self.overview_resampling,
        )
        sizes = (encoding.block_size // divisor for divisor in (1, 2, 4, 0.5, 0.25))
        candidates = (replace(encoding, block_size=int(size)) for size in sizes if size >= _MIN_BLOCK)
        return next((candidate for candidate in candidates if self._has_levels(cover, tile, candidate)), encoding)

    def _has_levels(self, cover: Cover, tile: TileFormat, encoding: Encoding) -> bool:
        """Whether the output gets the overviews that a COG must have; blocks of just its width would prevent them."""
        grid = self.grid(cover, tile, encoding, max(_MAX_PART_BLOCKS, tile.size // encoding.block_size))
        return grid.levels > 0 or max(grid.width, grid.height) <= COG_UNTILED_SIZE

    def grid(self, cover: Cover, tile: TileFormat, encoding: Encoding, part_blocks: int) -> Grid:
        """Lay the output's pixels out."""
        return Grid(
            cover=cover,
            tile_size=tile.size,
            block_size=encoding.block_size,
            part_blocks=part_blocks,
            clip=self.area if self.clip else None,
        )


@dataclass(frozen=True, kw_only=True)
class ProfileCost:
    """What an encoding would cost, measured on one tile, overviews included; that tile may not be typical."""

    nbytes: int
    """Of the output."""
    seconds: float
    """Of one core."""


@dataclass(frozen=True, kw_only=True)
class MosaicPlan:
    """What a run would do."""

    zoom: int
    tile_size: int
    """Pixels a side."""
    tiles: int
    parts: int
    part_size: int
    """Pixels a side."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    resolution: float
    """Metres a pixel at the equator."""
    bounds: Bounds
    """West, south, east, north in degrees."""
    count: int
    """Bands of data."""
    dtype: str
    mask: str
    raw_bytes: int
    """Of the full-resolution pixels."""
    estimated_bytes: int
    """Of the output, as well compressed as the tile that was looked at; it may not be typical."""
    download_bytes: int | None
    """Estimated from that tile; None when it was empty."""
    profiles: dict[str, ProfileCost]
    """What each profile that can hold such pixels would cost; empty where bands and dtype are guessed."""
    memory: int
    """Bytes needed at most."""
    seconds: float | None
    """Estimated from the time that tile took, at the concurrency asked for; None when it was empty."""
    requests: int
    """What making this plan asked for."""
    assumed: bool
    """Whether bands and dtype are guessed, because the tile that was looked at was empty."""

    def as_dict(self) -> dict[str, Any]:
        """Give the plan as JSON types."""
        return {**asdict(self), "bounds": list(self.bounds)}


def memory_needed(grid: Grid, encoding: Encoding, tile: TileFormat, concurrency: int) -> int:
    """Give the bytes that a run holds at most: canvases with overviews, bodies with their pixels, and the rest."""
    height, width = min(grid.part_size, grid.height), min(grid.part_size, grid.width)
    canvases = 1 if grid.is_single else OPEN_PARTS
    bodies = (concurrency + queue_size(tile) + 1) * (tile.nbytes + tile.size**2)
    return math.ceil(canvases * height * width * encoding.pixel_bytes * 4 / 3 + bodies + _BASE_MEMORY)


def choose_grid(job: Job, cover: Cover, tile: TileFormat, encoding: Encoding, *, memory: int, concurrency: int) -> Grid:
    """Lay the output out in the largest parts that keep a run inside its memory.

    Raises:
        UsageError: the job's part size is not blocks times a power of two, or is smaller than a tile.
        ResourceError: not even the smallest parts fit; the message says how much would do.
    """
    smallest = max(1, tile.size // encoding.block_size)
    if job.part_size is not None:
        blocks, rest = divmod(job.part_size, encoding.block_size)
        if rest or blocks < smallest or blocks & (blocks - 1):
            raise UsageError(
                f"parts of {job.part_size} pixels do not fit tiles of {tile.size} and blocks of {encoding.block_size}",
                hint=f"use {smallest * encoding.block_size} times a power of two",
            )
        return job.grid(cover, tile, encoding, blocks)
    blocks = max(_MAX_PART_BLOCKS, smallest)
    while True:
        grid = job.grid(cover, tile, encoding, blocks)
        needed = memory_needed(grid, encoding, tile, concurrency)
        if needed <= memory:
            return grid
        if blocks == smallest:
            raise ResourceError(
                f"{memory / 2**20:,.0f} MiB of memory are too little, {math.ceil(needed / 2**20):,} MiB would do",
                hint="give more ``memory``, or lower ``concurrency``",
            )
        blocks //= 2


async def make_plan(
    job: Job, client: Client, *, max_tiles: int, memory: int, concurrency: int, rate: float | None
) -> MosaicPlan:
    """Look at the tile in the centre and work everything else out.

    Raises:
        SourceError: the tile is refused or is none; an empty one is no error, bands and dtype are guessed then.
    """
    cover = await asyncio.to_thread(Cover.of, job.area, job.zoom, max_tiles=max_tiles)
    middle = next(cover.outward())
    started = time.monotonic()
    try:
        check = partial(check_answer, tile=middle, tile_format=None)
        async with client.get(job.source.url(middle), check=check) as answer:
            body = answer.body
    except RequestError as error:
        raise SourceError(f"the tile in the centre cannot be had: {error}", hint="check the URL") from error
    seconds = max((time.monotonic() - started) / concurrency, 1 / rate if rate else 0) * cover.count
    if body:
        tile = await asyncio.to_thread(learn_first, body, middle, job.source, job.tile_size)
    else:
        tile = TileFormat(driver="GTiff", size=job.tile_size or 256, count=3, dtype="uint8")
    encoding = job.encoding(tile, cover)
    grid = choose_grid(job, cover, tile, encoding, memory=memory, concurrency=concurrency)
    raw = math.ceil(grid.width * grid.height * encoding.pixel_bytes)
    try:
        costs = await asyncio.to_thread(_costs, job, body, tile, cover) if body else {}
    except TileError as error:
        raise SourceError(f"the tile in the centre is not usable: {error}") from error
    return MosaicPlan(
        zoom=job.zoom,
        tile_size=tile.size,
        tiles=cover.count,
        parts=grid.part_count,
        part_size=grid.part_size,
        width=grid.width,
        height=grid.height,
        resolution=grid.resolution,
        bounds=grid.bounds,
        count=encoding.count,
        dtype=encoding.dtype,
        mask=encoding.mask,
        raw_bytes=raw,
        estimated_bytes=costs[job.profile].nbytes if costs else raw,
        profiles=costs,
        download_bytes=len(body) * cover.count if body else None,
        memory=memory_needed(grid, encoding, tile, concurrency),
        seconds=seconds if body else None,
        requests=client.requests,
        assumed=not body,
    )


def encoded_bytes(body: bytes, tile: TileFormat, encoding: Encoding, tiles: int) -> int:
    """Estimate the bytes of the output from one tile.

    Raises:
        TileError: the tile cannot be read.
    """
    pixels, mask = decode(body, tile)
    return _cost(pixels, mask, encoding, tiles).nbytes


def _costs(job: Job, body: bytes, tile: TileFormat, cover: Cover) -> dict[str, ProfileCost]:
    """Encode one tile with each profile that can hold it; that of the job comes first."""
    pixels, mask = decode(body, tile)
    costs = {}
    for profile in dict.fromkeys((job.profile, *_COMMON_PROFILES)):
        options = job.creation_options if profile == job.profile else {}
        try:
            encoding = replace(job, profile=profile, creation_options=options).encoding(tile, cover)
        except UsageError:
            continue
        costs[profile] = _cost(pixels, mask, encoding, cover.count)
    return costs


def _cost(pixels: Pixels, mask: Mask | None, encoding: Encoding, tiles: int) -> ProfileCost:
    """Encode one tile as the output will be, in a block of its own size, and multiply; overviews add a third."""
    size = pixels.shape[1]
    alone = replace(encoding, block_size=size, options={**encoding.options, "NUM_THREADS": "1"})
    with TemporaryDirectory(prefix="mosaic-async-") as folder, Canvas(size, size, 0, _ANYWHERE, alone) as canvas:
        path = Path(folder) / "tile.tif"
        canvas.place(pixels, mask, Window(0, 0, size, size))
        started = time.perf_counter()
        canvas.seal(path)
        seconds = time.perf_counter() - started
        return ProfileCost(
            nbytes=math.ceil(path.stat().st_size * tiles * 4 / 3), seconds=round(seconds * tiles * 4 / 3, 1)
        )
