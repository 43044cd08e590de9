"""A warp of one dataset to a tile: the same numbers as rio-tiler, by the shortest way.

GDAL warps several bands at once, and twice as fast without masks. The pixels stay the same only where all bands have
the same mask, or all pixels are valid, around the tile; so the masks are checked first, strip by strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from mosaic_async.tiler.pixels.datasets import Cover, Stack
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.raster_facts import stackable

_STRIP = 128
"""Rows of the blocks in which GDAL warps: strips with the same ends get the same pixels whatever is read with them."""
_MARGINS = {"nearest": 2.0, "bilinear": 3.0}
"""Source pixels that a kernel reads beyond a box, and one more; other kernels always use the masks."""
_EXACT = ("uint8", "int16", "uint16")
"""Types for which GDAL's kernels with and without masks return the same numbers (tested)."""
_NEARLY_SAME = 1.1
"""Source pixels per tile pixel below which they count as being as large."""
_POINTS = 9
_MAX_DECIMATION = 3.0
"""Source pixels per tile pixel up to which checking the masks pays: it has to read them."""


@dataclass(frozen=True)
class Warp:
    """The grid that a dataset is warped to before it is resampled to the size of the tile."""

    frame: Frame
    transform: Affine
    """Transform of the grid, padding included."""
    width: int
    height: int
    """Size of the tile in pixels of the data, if those are smaller than the tile's; without padding."""

    @classmethod
    def of(cls, stack: Stack, frame: Frame) -> Warp:
        """Choose the grid as `rio_tiler.utils.get_vrt_transform` does, whose slow part is remembered here.

        In other grids than Web Mercator's, data that are hardly finer than the tile go there in one step, as gdalwarp
        does it.
        """
        left, bottom, right, top = frame.bounds
        own = from_bounds(left, bottom, right, top, frame.width, frame.height)
        across, down = stack.resolution(frame.crs)
        if abs(across) > abs(own.a):
            across = own.a
        if abs(down) > abs(own.e):
            down = own.e
        width, height = max(1, round((right - left) / across)), max(1, round((bottom - top) / down))
        if not frame.is_mercator and max(width / frame.width, height / frame.height) < _NEARLY_SAME:
            width, height = frame.width, frame.height
        transform = from_bounds(left, bottom, right, top, width, height)
        return cls(frame, transform @ Affine.translation(-frame.padding, -frame.padding), width, height)

    @property
    def is_larger(self) -> bool:
        """Whether the grid has other pixels than the tile."""
        return (self.width, self.height) != (self.frame.width, self.frame.height)

    def read(self, stack: Stack, bands: tuple[int, ...], window: Window) -> Pixels | None:
        """Read a window of the tile; None for a stack whose bands have different masks.

        Args:
            stack: the dataset.
            bands: numbers from 1.
            window: a window of the tile's pixels.
        """
        if not self._is_worth_looking(stack):
            return self._masked(stack, bands, window) if len(stack.names) == 1 else None
        if self.is_larger:
            return self._by_cover(self._covers(stack, [self.frame.whole])[0], stack, bands, window)
        strips = list(self._strips(window))
        whole, *covers = self._covers(stack, [window, *strips])
        if whole in (Cover.FULL, Cover.NONE):
            return self._by_cover(whole, stack, bands, window)
        parts = []
        for cover, pairs in groupby(zip(strips, covers, strict=True), key=lambda pair: pair[1]):
            part = self._by_cover(cover, stack, bands, _joined([strip for strip, _ in pairs]))
            if part is None:
                return None
            parts.append(part)
        if len(parts) == 1:
            return parts[0]
        return Pixels(
            np.concatenate([part.data for part in parts], axis=1),
            np.concatenate([part.valid for part in parts], axis=1),
        )

    def _is_worth_looking(self, stack: Stack) -> bool:
        """Return whether checking the masks can pay.

        If the pixels of a tile are nearly as large as an overview's, GDAL chooses the overview by the last digit of
        sizes, which a stack rounds differently from its files.
        """
        return (
            self.frame.reprojection in _MARGINS
            and self._decimation <= _MAX_DECIMATION
            and not any(0.85 < self._decimation / factor < 1.1 for factor in stack.dataset.overviews(1))
            and stack.dataset.dtypes[0] in _EXACT
            and stackable(stack.names[0])
        )

    @property
    def _decimation(self) -> float:
        return self.width / self.frame.width

    def _covers(self, stack: Stack, windows: list[Window]) -> list[Cover]:
        """Return which source pixels around windows of the tile are valid, padding included."""
        padding = self.frame.padding
        outlines = [
            _outline(
                self.frame.bounds_of(
                    Window(
                        window.col_off - padding,
                        window.row_off - padding,
                        window.width + 2 * padding,
                        window.height + 2 * padding,
                    )
                )
            )
            for window in windows
        ]
        x, y = (np.array(axis) for axis in zip(*outlines, strict=True))
        return stack.cover(x, y, self.frame.crs, _MARGINS[self.frame.reprojection])

    def _strips(self, window: Window) -> Iterator[Window]:
        """Cut a window where GDAL's blocks end; the first block starts with the padding."""
        row, end = window.row_off, window.row_off + window.height
        while row < end:
            below = min((row + self.frame.padding) // _STRIP * _STRIP + _STRIP - self.frame.padding, end)
            yield Window(window.col_off, row, window.width, below - row)
            row = below

    def _by_cover(self, cover: Cover, stack: Stack, bands: tuple[int, ...], window: Window) -> Pixels | None:
        if cover is Cover.NONE:
            shape = (len(bands), window.height, window.width)
            return Pixels(np.zeros(shape, stack.dataset.dtypes[0]), np.zeros(shape, bool))
        if cover is Cover.FULL and not self.is_larger:  # GDAL shrinks larger images by their mask in any case
            return self._unmasked(stack, bands, window)
        if cover is Cover.UNEVEN and len(stack.names) > 1:
            return None
        return self._masked(stack, bands, window)

    def _masked(self, stack: Stack, bands: tuple[int, ...], window: Window) -> Pixels:
        nodata = stack.dataset.nodata
        data = self._warped(stack.dataset, stack.warped_dtype, bands, window, nodata)
        valid = data != nodata
        if np.issubdtype(data.dtype, np.floating):
            valid &= ~np.isnan(data)
        return Pixels(data, valid)

    def _unmasked(self, stack: Stack, bands: tuple[int, ...], window: Window) -> Pixels:
        data = self._warped(stack.bare, stack.bare.dtypes[0], bands, window, None)
        if (data == stack.dataset.nodata).any():  # GDAL changes a mean that happens to equal nodata
            return self._masked(stack, bands, window)
        return Pixels(data, np.ones(data.shape, bool))

    def _warped(
        self, dataset: DatasetReader, dtype: str, bands: tuple[int, ...], window: Window, nodata: float | None
    ) -> np.ndarray:
        padding = self.frame.padding
        options = {} if nodata is None else {"nodata": nodata, "src_nodata": nodata}
        with WarpedVRT(
            dataset,
            crs=self.frame.crs,
            transform=self.transform,
            width=self.width + 2 * padding,
            height=self.height + 2 * padding,
            dtype=dtype,
            add_alpha=False,
            resampling=Resampling[self.frame.reprojection],
            **self.frame.warping,
            **options,
        ) as vrt:
            if not self.is_larger:
                place = Window(window.col_off + padding, window.row_off + padding, window.width, window.height)
                return vrt.read(bands, window=place)  # type: ignore[no-any-return]
            whole = vrt.read(
                bands,
                window=Window(padding, padding, self.width, self.height),
                out_shape=(len(bands), self.frame.height, self.frame.width),
                resampling=Resampling[self.frame.resampling],
            )
            return whole[(slice(None), *window.toslices())]  # type: ignore[no-any-return]


def _outline(bounds: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of points along the four sides of a box."""
    left, bottom, right, top = bounds
    along, up = np.linspace(left, right, _POINTS), np.linspace(bottom, top, _POINTS)
    x = np.concatenate([along, along, np.full(_POINTS, left), np.full(_POINTS, right)])
    y = np.concatenate([np.full(_POINTS, bottom), np.full(_POINTS, top), up, up])
    return x, y


def _joined(strips: list[Window]) -> Window:
    first, last = strips[0], strips[-1]
    return Window(first.col_off, first.row_off, first.width, last.row_off + last.height - first.row_off)
