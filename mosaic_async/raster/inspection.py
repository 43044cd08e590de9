"""Reads a whole COG against itself: every block decodes, and every overview is what the level above it gives.

Without loss, overviews must be equal to the last bit; the codec's error is allowed otherwise. It knows nothing of tiles
and servers.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from mosaic_async.raster.environment import pinned
from mosaic_async.raster.fitting import mask_mode
from mosaic_async.raster.form import Mask, Pixels
from mosaic_async.raster.halving import halve, is_exact
from mosaic_async.raster.tiff import TILE_HEIGHT, TILE_WIDTH, Image
from mosaic_async.raster.tolerance import Codec, difference

_SQUARE = 1024
"""Pixels per side of the squares of an overview that are made again at once; at least one block."""


@dataclass(frozen=True)
class BlockFault:
    """A block that is not what it must be."""

    level: int
    """0 is the full resolution."""
    row: int
    """In blocks of the level."""
    col: int
    reason: str


@dataclass(frozen=True)
class _Level:
    """An open level of the file."""

    number: int
    dataset: DatasetReader
    mask: str
    """How it marks pixels without data: internal, alpha, nodata, none."""

    @classmethod
    def of(cls, number: int, dataset: DatasetReader) -> Self:
        return cls(number, dataset, mask_mode(dataset))

    @property
    def block(self) -> int:
        return int(self.dataset.block_shapes[0][0])

    def read(self, window: Window) -> tuple[Pixels, Mask]:
        """Read all bands, an alpha band included, and which pixels are valid."""
        return self.dataset.read(window=window), self.dataset.dataset_mask(window=window)

    def read_above(self, window: Window) -> tuple[Pixels, Mask]:
        """Read what a window of the next smaller level is made of; the last row and column are repeated if odd."""
        twice = Window(2 * window.col_off, 2 * window.row_off, 2 * window.width, 2 * window.height)
        inside = twice.intersection(Window(0, 0, self.dataset.width, self.dataset.height))
        pixels, mask = self.read(inside)
        extra = ((0, int(twice.height - inside.height)), (0, int(twice.width - inside.width)))
        return np.pad(pixels, ((0, 0), *extra), mode="edge"), np.pad(mask, extra, mode="edge")


def inspect(
    path: Path, images: list[Image], resampling: str | None, quality: str | None = None
) -> Iterator[BlockFault]:
    """Yield the blocks of a COG that are not what they must be; this decodes all of them.

    Args:
        path: the COG.
        images: its headers.
        resampling: how its overviews were made; None leaves their values unchecked.
        quality: of lossy overviews, where the file itself does not tell.

    Raises:
        OSError, RasterioError: the file cannot be read at all.
    """
    yield from _mask_faults(path, images)
    with pinned(), ExitStack() as stack:
        numbers = sorted({image.level for image in images})
        levels = [_Level.of(number, stack.enter_context(_opened(path, number))) for number in numbers]
        base = Codec.of(levels[0].dataset)
        for level in levels:
            bad = set()
            for fault in _undecoded(level):
                bad.add((fault.row, fault.col))
                yield fault
            if level.number and resampling is not None:
                above = levels[level.number - 1]
                codecs = (Codec.of(above.dataset, base, quality), Codec.of(level.dataset, base, quality))
                stale = _stale(above, level, resampling, codecs)
                yield from (fault for fault in stale if (fault.row, fault.col) not in bad)


def _opened(path: Path, level: int) -> Any:
    return rasterio.open(path, driver="GTiff", **({"overview_level": level - 1} if level else {}))


def _mask_faults(path: Path, images: list[Image]) -> Iterator[BlockFault]:
    """Decode all masks here: readers take a mask that they cannot decode for "all valid"."""
    with path.open("rb") as file:
        for image in images:
            if image.is_mask:
                size = image.number(TILE_WIDTH) * image.number(TILE_HEIGHT) // 8
                for (row, col), count in np.ndenumerate(image.counts):
                    if count and not _is_mask(_block(file, int(image.offsets[row, col]), int(count)), size):
                        yield BlockFault(image.level, row, col, "the mask cannot be decoded")


def _block(file: BinaryIO, start: int, count: int) -> bytes:
    if not 0 <= start <= os.fstat(file.fileno()).st_size - count:  # a damaged header can claim any size
        return b""
    file.seek(start)
    return file.read(count)


def _is_mask(data: bytes, size: int) -> bool:
    decoder = zlib.decompressobj()
    try:
        return len(decoder.decompress(data, size + 1)) == size and decoder.eof
    except zlib.error:
        return False


def _undecoded(level: _Level) -> Iterator[BlockFault]:
    height, width = level.dataset.shape
    for row, col in product(range(-(-height // level.block)), range(-(-width // level.block))):
        try:
            level.dataset.read(window=_window(level, row, col))
        except (RasterioError, CPLE_BaseError) as error:
            yield BlockFault(level.number, row, col, f"the block cannot be decoded: {error}")


def _window(level: _Level, row: int, col: int) -> Window:
    top, left = row * level.block, col * level.block
    height, width = level.dataset.shape
    return Window(left, top, min(level.block, width - left), min(level.block, height - top))


def _stale(above: _Level, level: _Level, resampling: str, codecs: tuple[Codec, Codec]) -> Iterator[BlockFault]:
    """Yield the blocks of an overview that differ from what the level above it gives."""
    upper, codec = codecs
    is_lossless = upper.is_lossless and codec.is_lossless
    if not is_lossless and (resampling != "average" or codec.has_nodata):
        return  # errors decide which pixel a mode takes, what is nodata, or how far nearest lies from its neighbours
    if resampling == "mode" and codec.drops_hidden:
        return  # GDAL counts the colours of transparent pixels too
    largest = upper.largest + codec.largest + (0 if is_lossless else 1)
    height, width = level.dataset.shape
    step = max(_SQUARE, level.block)
    for top, left in product(range(0, height, step), range(0, width, step)):
        square = Window(left, top, min(step, width - left), min(step, height - top))
        try:
            expected, found = _halved(above, above.read_above(square), resampling), level.read(square)
        except (RasterioError, CPLE_BaseError):  # each block that cannot be read is a fault already
            continue
        for part in _blocks_in(square, level.block):
            reason = difference(codec, _cut(expected, part), _cut(found, part), largest=largest)
            if reason:
                place = (top + part[0].start) // level.block, (left + part[1].start) // level.block
                yield BlockFault(level.number, *place, f"the overview differs from the level above: {reason}")


def _blocks_in(square: Window, block: int) -> Iterator[tuple[slice, slice]]:
    for row_off, col_off in product(range(0, int(square.height), block), range(0, int(square.width), block)):
        yield slice(row_off, row_off + block), slice(col_off, col_off + block)


def _cut(reading: tuple[Pixels, Mask], part: tuple[slice, slice]) -> tuple[Pixels, Mask]:
    return reading[0][:, *part], reading[1][part]


def _halved(level: _Level, source: tuple[Pixels, Mask], resampling: str) -> tuple[Pixels, Mask]:
    """Make an overview with the project's own rule where that is GDAL's to the last bit, and by GDAL elsewhere."""
    pixels, mask = source
    masked = level.mask == "internal"
    if resampling == "average" and level.mask in ("internal", "none") and is_exact(pixels.dtype.name, masked=masked):
        with np.errstate(all="ignore"):  # damaged floats overflow
            means, valid = halve(pixels, mask if masked else None)
        return means, np.full(means.shape[1:], 255, np.uint8) if valid is None else valid
    return _by_gdal(level.dataset, pixels, mask if masked else None, resampling)


def _by_gdal(like: DatasetReader, pixels: Pixels, mask: Mask | None, resampling: str) -> tuple[Pixels, Mask]:
    count, height, width = pixels.shape
    profile: Mapping[str, Any] = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype,
        "nodata": like.nodata, "crs": like.crs, "transform": like.transform, "interleave": "pixel",
        "photometric": "MINISBLACK", "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with pinned(), MemoryFile(ext=".tif") as memory:
        with memory.open(**profile) as dataset:
            dataset.colorinterp = like.colorinterp
            dataset.write(pixels)
            if mask is not None:
                dataset.write_mask(mask)
        with rasterio.open(memory.name, "r+") as dataset:
            dataset.build_overviews([2], Resampling[resampling])
        with rasterio.open(memory.name, overview_level=0) as overview:
            return overview.read(), overview.dataset_mask()
