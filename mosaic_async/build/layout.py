"""How the output of a job is laid out, once a first tile is known: its encoding, its pixels, and its parts.

It knows nothing of requests and files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mosaic_async.build.budget import MAX_PART_BLOCKS, choose_grid, open_parts
from mosaic_async.build.job import Effort, Job
from mosaic_async.errors import ResourceError
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import COG_UNTILED_SIZE, Grid
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.form import TileFormat

_MIN_BLOCK = 64


class TooWideError(ResourceError):
    """Tiles are wider than the memory was planned for."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What tiles look like, how the output stores them, and where each one goes."""

    tile_format: TileFormat
    encoding: Encoding
    grid: Grid

    def open_parts(self, job: Job, effort: Effort) -> int:
        """Return how many parts may be open at once; 0 if not even one fits into the memory."""
        memory, in_flight = effort.memory - job.source.memory, effort.in_flight
        return open_parts(self.grid, self.encoding, self.tile_format, memory=memory, in_flight=in_flight)

    def check_memory(self, job: Job, effort: Effort) -> None:
        """Check that a part of tiles that are wider than the first one fits into the memory.

        Raises:
            TooWideError: it does not.
        """
        if job.part_size is None and not self.open_parts(job, effort):
            raise TooWideError(
                f"tiles of {self.encoding.count} x {self.encoding.dtype} are wider than the first one, and their parts "
                f"do not fit into memory of {effort.memory / 2**20:,.0f} MiB",
                hint="raise ``memory``; the same call then resumes",
            )

    def of_form(self, job: Job, tile_format: TileFormat) -> Layout:
        """Return the layout for tiles of another form, in the same places.

        Raises:
            UsageError: the job's profile cannot hold such pixels.
        """
        encoding = choose_encoding(job, self.grid.cover, tile_format)
        return replace(self, tile_format=tile_format, encoding=encoding)


def prepare(job: Job, effort: Effort, cover: Cover, tile_format: TileFormat, part_blocks: int | None = None) -> Layout:
    """Lay the output out.

    Args:
        job: what decides its pixels.
        effort: whose memory decides the size of the parts.
        cover: its tiles.
        tile_format: what they look like.
        part_blocks: blocks per side of the parts that an earlier run began with; None: as the memory allows.

    Raises:
        UsageError: the profile cannot hold such pixels, or the part size does not fit.
        ResourceError: not even the smallest parts fit into the memory.
        RefusedError: too many pixels for a GeoTIFF, or none.
    """
    encoding = choose_encoding(job, cover, tile_format)
    grid = _grid(job, cover, tile_format, encoding)
    if part_blocks is not None:
        grid = replace(grid, part_blocks=part_blocks)
    else:
        grid = choose_grid(
            grid,
            encoding,
            tile_format,
            part_size=job.part_size,
            memory=effort.memory,
            beside=job.source.memory,
            in_flight=effort.in_flight,
        )
    grid.check_parts()
    grid.check_outline()
    return Layout(tile_format=tile_format, encoding=encoding, grid=grid)


def choose_encoding(job: Job, cover: Cover, tile_format: TileFormat) -> Encoding:
    """Return the job's encoding, with the first block size that gives the output the overviews a COG must have.

    Blocks exactly as wide as the output would prevent overviews.

    Raises:
        UsageError: the profile cannot hold such pixels.
    """
    encoding = job.encoding(tile_format)
    size = encoding.block_size
    sizes = (size, size // 2, size // 4, 2 * size, 4 * size)
    candidates = (replace(encoding, block_size=size) for size in sizes if size >= _MIN_BLOCK)
    return next((candidate for candidate in candidates if _has_levels(job, cover, tile_format, candidate)), encoding)


def _has_levels(job: Job, cover: Cover, tile_format: TileFormat, encoding: Encoding) -> bool:
    grid = _grid(job, cover, tile_format, encoding)
    return grid.levels > 0 or max(grid.width, grid.height) <= COG_UNTILED_SIZE


def _grid(job: Job, cover: Cover, tile_format: TileFormat, encoding: Encoding) -> Grid:
    """Lay the pixels out, in the largest parts."""
    return Grid(
        cover=cover,
        tile_size=tile_format.size,
        block_size=encoding.block_size,
        part_blocks=max(MAX_PART_BLOCKS, tile_format.size // encoding.block_size),
        clip=job.area if job.clip else None,
        all_touched=job.all_touched,
        in_parts=job.collection,
    )
