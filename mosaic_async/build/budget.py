"""The memory of a run: what is open at once, how long queues may get, and the parts that keep within it.

It knows nothing of requests and of what is written.
"""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import replace
from pathlib import Path

from mosaic_async.errors import ResourceError, UsageError
from mosaic_async.geo.grid import Grid
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.form import TileFormat

OPEN_PARTS = 4
"""Maximum canvases in memory: one being sealed, one waiting for that, one with late tiles, one being filled."""
QUEUE_SIZE = 16
"""Maximum bodies that wait for the writer; it takes one at a time, so more would only cost memory."""
BLOCK_CACHE = 64 * 2**20
"""Bytes of GDAL's block cache; enough for the blocks that one tile touches, in any dtype."""
MAX_PART_BLOCKS = 8
"""Per side. In larger parts only the sealing of the last one, which overlaps with nothing, takes longer."""
_STATUS = Path("/proc/self/status")
_QUEUE_BYTES = 64 * 2**20
_BASE_MEMORY = 162 * 2**20
"""Bytes: the interpreter with its libraries, and what the codecs need (docs/performance.md)."""


def queue_size(tile_format: TileFormat) -> int:
    """Return how many bodies may wait for the writer: fewer where tiles are large."""
    return max(1, min(QUEUE_SIZE, _QUEUE_BYTES // tile_format.nbytes))


def memory_needed(
    grid: Grid, encoding: Encoding, tile_format: TileFormat, in_flight: int, parts: int = OPEN_PARTS
) -> int:
    """Return the bytes that a run holds at most: canvases with overviews, bodies with their pixels, and the rest."""
    height, width = min(grid.part_size, grid.height), grid.widest_part
    canvases = 1 if grid.is_single else parts
    bodies = min(in_flight + queue_size(tile_format) + 1, grid.cover.count)
    cache = min(BLOCK_CACHE, grid.height * grid.width * encoding.pixel_bytes)
    pixels = canvases * height * width * encoding.pixel_bytes * 4 / 3
    return math.ceil(pixels + bodies * (tile_format.nbytes + tile_format.size**2) + cache + _BASE_MEMORY)


def open_parts(grid: Grid, encoding: Encoding, tile_format: TileFormat, *, memory: int, in_flight: int) -> int:
    """Return how many parts may be open at once, at most `OPEN_PARTS`; 0 if not even one fits into the memory.

    The size of the parts is chosen for the first tile, and a later one may be wider.
    """
    counts = range(OPEN_PARTS, 0, -1)
    return next((n for n in counts if memory_needed(grid, encoding, tile_format, in_flight, n) <= memory), 0)


def least_memory() -> int:
    """Return the bytes below which no run fits, whatever its tiles are."""
    return _BASE_MEMORY + BLOCK_CACHE


def choose_grid(
    grid: Grid,
    encoding: Encoding,
    tile_format: TileFormat,
    *,
    part_size: int | None,
    memory: int,
    beside: int = 0,
    in_flight: int,
) -> Grid:
    """Return the grid in the largest parts that keep a run within its memory.

    Args:
        grid: the output, in parts of any size.
        encoding: how it is stored.
        tile_format: what its tiles look like.
        part_size: pixels per side that the user sets; None: as the memory allows.
        memory: bytes that the run may need.
        beside: bytes of them that the processes of its source take.
        in_flight: maximum requests in flight.

    Raises:
        UsageError: the part size is not a power of two of blocks, or is smaller than a tile.
        ResourceError: not even the smallest parts fit; the message says how much memory is needed.
    """
    smallest = max(1, tile_format.size // encoding.block_size)
    if part_size is not None:
        return replace(grid, part_blocks=_blocks_of(part_size, smallest, encoding.block_size))
    blocks = max(MAX_PART_BLOCKS, smallest)
    while True:
        grid = replace(grid, part_blocks=blocks)
        needed = memory_needed(grid, encoding, tile_format, in_flight) + beside
        if needed <= memory:
            return grid
        if blocks == smallest:
            least = math.ceil(needed / 2**20)
            raise ResourceError(
                f"memory of {memory / 2**20:,.0f} MiB is too small: at least {least:,} MiB is needed",
                hint="raise ``memory``, or lower ``concurrency``",
            )
        blocks //= 2


def _blocks_of(part_size: int, smallest: int, block_size: int) -> int:
    blocks, rest = divmod(part_size, block_size)
    if rest or blocks < smallest or blocks & (blocks - 1):
        raise UsageError(
            f"parts of {part_size} pixels do not fit blocks of {block_size} pixels and the size of the tiles",
            hint=f"use {smallest * block_size} times a power of two",
        )
    return blocks


def peak_rss() -> int:
    """Return the most bytes that this process has had in memory; it blocks.

    Linux adds the parent's memory at the fork to `ru_maxrss`, but not to the status, which in some containers lacks it.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
