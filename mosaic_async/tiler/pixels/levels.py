"""Tiles whose pixels are those of a file, or of one of its overviews: they are read and not resampled.

GDAL chooses an overview by the ratio of sizes, which is not a whole number where the file's size is not a multiple of
the overview's factor: far from the corner it would take the neighbour of a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from mosaic_async.tiler.pixels.datasets import Stack
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.scenes.raster_file import open_raster

_HAIR = 1e-3
"""Pixels by which a tile may lie beside the pixels of a file."""
_MAX_PIXELS = 2**24
"""Pixels to read per band for a tile: more are left to GDAL, which keeps fewer of them in memory."""


@dataclass(frozen=True)
class _Place:
    """Where a tile lies in the pixels of a file."""

    step: int
    """Pixels of the file per pixel of the tile."""
    column: int
    """Of the tile's left edge, in pixels of the file."""
    row: int


@dataclass(frozen=True)
class _Axis:
    """The rows, or columns, of a file that a window of a tile takes."""

    count: int
    """Of the window."""
    indices: NDArray[np.int64]
    """In the file, for those rows of the window that it touches."""
    inside: slice
    """Those rows of the window."""

    @classmethod
    def of(cls, start: int, count: int, step: int, size: int) -> Self:
        """Take every `step`th row, from the middle of each group of as many.

        Args:
            start: the row of the file at the window's edge.
            count: rows of the window.
            step: rows of the file per row of the window.
            size: rows of the file.
        """
        first = start + np.arange(count) * step
        (touching,) = np.nonzero((first + step > 0) & (first < size))
        inside = slice(int(touching[0]), int(touching[-1]) + 1) if touching.size else slice(0, 0)
        return cls(count, np.clip(first + step // 2, 0, size - 1)[inside], inside)

    @property
    def span(self) -> tuple[int, int]:
        """The first row to read, and the one behind the last."""
        return int(self.indices[0]), int(self.indices[-1]) + 1


def read_level(
    stack: Stack, bands: tuple[int, ...], nodata: float | None, frame: Frame, window: Window
) -> Pixels | None:
    """Read a window of a tile from the pixels of a file; None where others are wanted, or the file's own are.

    Where a pixel of the tile holds several of them and resampling is `nearest`, the one at its centre counts, or the
    last one before the file's edge.

    Args:
        stack: a single file.
        bands: numbers from 1.
        nodata: the value of pixels without data; None: as the file says.
        frame: the tile.
        window: a window of the tile's pixels.
    """
    place = _place_of(stack, frame)
    if place is None or place.step == 1:
        return None
    factor, level = _nearest_overview(stack.dataset, place)
    rest = place.step // factor
    is_exact = frame.resampling == "nearest" and window.width * window.height * rest**2 <= _MAX_PIXELS
    if rest > 1 and not is_exact:
        return None
    with _opened(stack, level) as dataset:
        if dataset.shape != (-(-stack.dataset.height // factor), -(-stack.dataset.width // factor)):
            return None
        rows = _Axis.of(place.row // factor + window.row_off * rest, window.height, rest, dataset.height)
        columns = _Axis.of(place.column // factor + window.col_off * rest, window.width, rest, dataset.width)
        return _picked(dataset, bands, stack.nodata if nodata is None else nodata, rows, columns)


def _place_of(stack: Stack, frame: Frame) -> _Place | None:
    """Return where a tile lies in a file whose pixels make up those of the tile; None if they do not."""
    dataset, transform = stack.dataset, stack.dataset.transform
    if frame.options or stack.turn or stack.band is not None or transform.b or transform.d or dataset.crs != frame.crs:
        return None
    left, bottom, right, top = frame.bounds
    across, down = (right - left) / frame.width / transform.a, (bottom - top) / frame.height / transform.e
    column, row = (left - transform.c) / transform.a, (top - transform.f) / transform.e
    found = _Place(round(across), round(column), round(row))
    drift = (abs(across - found.step) * frame.width, abs(down - found.step) * frame.height)
    is_there = max(*drift, abs(column - found.column), abs(row - found.row)) < _HAIR
    return found if is_there and found.step >= 1 else None


def _nearest_overview(dataset: DatasetReader, place: _Place) -> tuple[int, int | None]:
    """Return the factor and number of the smallest overview whose pixels make up those of a tile."""
    found = [
        (factor, level)
        for level, factor in enumerate(dataset.overviews(1))
        if not (place.step % factor or place.column % factor or place.row % factor)
    ]
    return max(found, default=(1, None))


@contextmanager
def _opened(stack: Stack, level: int | None) -> Iterator[DatasetReader]:
    if level is None:
        yield stack.dataset
    else:
        with open_raster(stack.names[0], level) as dataset:
            yield dataset


def _picked(
    dataset: DatasetReader, bands: tuple[int, ...], nodata: float | None, rows: _Axis, columns: _Axis
) -> Pixels:
    shape = (len(bands), rows.count, columns.count)
    data, valid = np.zeros(shape, dataset.dtypes[0]), np.zeros(shape, bool)
    if rows.indices.size and columns.indices.size:
        found = dataset.read(bands, window=Window.from_slices(rows.span, columns.span), masked=True)
        picked = np.s_[:, (rows.indices - rows.span[0])[:, None], columns.indices - columns.span[0]]
        place = (slice(None), rows.inside, columns.inside)
        data[place] = found.data[picked]
        valid[place] = ~np.ma.getmaskarray(found)[picked] if nodata is None else data[place] != nodata
        if data.dtype.kind == "f":
            valid &= ~np.isnan(data)
    return Pixels(data, valid)
