"""What encodings cost, measured on one tile.

It knows nothing of requests and of where files of a run go.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from affine import Affine
from rasterio.windows import Window

from mosaic_async.build.job import Job
from mosaic_async.build.layout import choose_encoding
from mosaic_async.errors import TileError, UsageError
from mosaic_async.geo.cover import Cover
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.fitting import fit
from mosaic_async.raster.form import Reading, TileFormat
from mosaic_async.raster.tile import read

_COMMON_PROFILES = ("deflate", "zstd", "lzw", "webp", "jpeg", "lerc", "raw")
_ANYWHERE = Affine(2, 0, 0, 0, -2, 0)
LARGE_HEAD = 16 * 2**20
"""Bytes of headers from which a collection serves readers better than one file; some read all of them first."""
_BLOCK_ENTRY = 12
"""Bytes of a block's offset and size in a BigTIFF."""
_DIRECTORY = 600
"""Bytes of an image's other tags."""
_OVERVIEWS = 4 / 3
"""All levels together, in multiples of the first."""


@dataclass(frozen=True, kw_only=True)
class ProfileCost:
    """What an encoding costs, measured on one tile, overviews included; that tile may not be typical."""

    nbytes: int
    """Of the output."""
    seconds: float
    """Of one core."""


def head_bytes(width: int, height: int, *, block_size: int, levels: int, images: int) -> int:
    """Return the bytes that the headers of one large file have, which readers need before its first pixel.

    Args:
        width: pixels.
        height: pixels.
        block_size: pixels per side.
        levels: overview levels.
        images: per level: 2 with an internal mask, or else 1.
    """
    blocks = sum(
        math.ceil((width >> level) / block_size) * math.ceil((height >> level) / block_size)
        for level in range(levels + 1)
    )
    return images * (blocks * _BLOCK_ENTRY + (levels + 1) * _DIRECTORY)


def encoded_bytes(body: bytes, tile_format: TileFormat, encoding: Encoding, tiles: int) -> int:
    """Estimate from one tile the bytes of an output of `tiles` tiles; it blocks.

    Raises:
        TileError: the tile cannot be read.
    """
    return _cost(_read(body, tile_format), encoding, tiles).nbytes


def profile_costs(job: Job, cover: Cover, body: bytes, tile_format: TileFormat) -> Mapping[str, ProfileCost]:
    """Encode one tile with each profile that can hold it, that of the job first; it blocks.

    Raises:
        TileError: the tile cannot be read.
    """
    reading = _read(body, tile_format)
    costs = {}
    for profile in dict.fromkeys((job.profile, *_COMMON_PROFILES)):
        options = job.creation_options if profile == job.profile else {}
        try:
            encoding = choose_encoding(replace(job, profile=profile, creation_options=options), cover, tile_format)
        except UsageError:
            continue
        costs[profile] = _cost(reading, encoding, cover.count)
    return costs


def _read(body: bytes, tile_format: TileFormat) -> Reading:
    """Read a tile of the form that all have so far.

    Raises:
        TileError: it cannot be read, or is wider.
    """
    reading = read(body, tile_format)
    if tile_format.joined(reading.form) != tile_format:
        raise TileError("the tile is wider than the first one")
    return reading


def _cost(reading: Reading, encoding: Encoding, tiles: int) -> ProfileCost:
    """Encode one tile as the output will be, in a block of its own size, and multiply.

    GDAL writes a temporary file, which is deleted at once: sealing reads a file back, and checks it, from a disk only.
    """
    size = reading.form.size
    alone = replace(encoding, block_size=size, options={**encoding.options, "NUM_THREADS": "1"})
    with TemporaryDirectory(prefix="mosaic-async-") as folder, Canvas(size, size, 0, _ANYWHERE, alone) as canvas:
        path = Path(folder) / "tile.tif"
        canvas.place(*fit(reading, alone), Window(0, 0, size, size))
        started = time.perf_counter()
        canvas.seal(path)
        seconds = time.perf_counter() - started
        return ProfileCost(
            nbytes=math.ceil(path.stat().st_size * tiles * _OVERVIEWS),
            seconds=round(seconds * tiles * _OVERVIEWS, 1),
        )
