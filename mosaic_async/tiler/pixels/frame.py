"""The tile to fill: its place, its pixels, and how data are resampled to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rasterio.crs import CRS
from rasterio.windows import Window

from mosaic_async.errors import UsageError

_WEB_MERCATOR = CRS.from_epsg(3857)
_TOLERANCE = 0.005


class TooLargeError(UsageError):
    """The files of a scene have more bands than a tile may hold, which only reading tells."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The tile to fill, and how to resample to it."""

    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top in `crs`."""
    crs: CRS
    width: int
    height: int
    padding: int = 0
    """Pixels that are read around the tile, so that tiles meet."""
    resampling: str = "nearest"
    """Resampling from the data's resolution to the tile's."""
    reprojection: str = "nearest"
    """Resampling from the data's reference system to the tile's."""
    max_values: int | None = None
    """Maximum values of one scene in the tile, pixels times bands; None: no limit."""
    options: tuple[tuple[str, Any], ...] = ()
    """Further options of rio-tiler's `Reader.part`: nodata, unscale."""

    @cached_property
    def is_mercator(self) -> bool:
        """Whether it is a tile of Web Mercator, whose numbers are those of rio-tiler."""
        return bool(self.crs == _WEB_MERCATOR)

    @property
    def warping(self) -> dict[str, float]:
        """Options of a warp: pixels of the data by which a pixel may lie beside its place, and the size of the kernel.

        GDAL otherwise chooses the kernel for each chunk, by the box around it, which is larger where grids are turned.
        """
        return {} if self.is_mercator else {"tolerance": _TOLERANCE, "XSCALE": 1, "YSCALE": 1}

    def check(self, bands: int) -> None:
        """Check that a scene with this number of bands fits.

        Raises:
            TooLargeError: it does not.
        """
        values = bands * self.width * self.height
        if self.max_values is not None and values > self.max_values:
            raise TooLargeError(
                f"a tile of {values:,} values is too large: the limit is {self.max_values:,}",
                hint="request a smaller `tilesize` or fewer bands",
            )

    @property
    def nearest(self) -> Frame:
        """The same tile for flags and classes, which cannot be averaged."""
        return replace(self, resampling="nearest", reprojection="nearest")

    @property
    def whole(self) -> Window:
        """All pixels."""
        return Window(0, 0, self.width, self.height)

    def bounds_of(self, window: Window) -> tuple[float, float, float, float]:
        """Return the bounds of a window."""
        left, bottom, right, top = self.bounds
        across, up = (right - left) / self.width, (top - bottom) / self.height
        return (
            left + across * window.col_off,
            top - up * (window.row_off + window.height),
            left + across * (window.col_off + window.width),
            top - up * window.row_off,
        )
