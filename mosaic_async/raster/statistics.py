"""Statistics of the valid pixels of each band, as GDAL's metadata has them: viewers stretch pictures by them.

They come from an overview where one has enough pixels, and then say that they are approximate, as GDAL's own do. This
module knows nothing of where the pixels come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader

ENOUGH = 250_000
"""Pixels that an overview has at least if it stands for the image; QGIS looks at as many."""


@dataclass
class _Band:
    """The valid pixels of a band so far."""

    total: int = 0
    """Pixels, those without data included."""
    valid: int = 0
    least: float = math.inf
    most: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared differences from the mean."""

    def add(self, pixels: NDArray[Any], mask: NDArray[np.uint8]) -> None:
        """Count pixels, (height, width), and their mask, 0 where invalid; values that are not finite are not valid."""
        values = pixels[mask > 0]
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        self.total += pixels.size
        if not values.size:
            return
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))
        mean = float(values.mean(dtype=np.float64))
        squares = float(np.square(values - np.float64(mean)).sum())
        both = self.valid + values.size
        apart = mean - self.mean
        self.squares += squares + apart * apart * self.valid * values.size / both
        self.mean += apart * values.size / both
        self.valid = both

    def tags(self, *, is_exact: bool) -> dict[str, str]:
        """Return GDAL's metadata of the band; nothing if it has no valid pixel."""
        if not self.valid:
            return {}
        numbers = {
            "MINIMUM": self.least,
            "MAXIMUM": self.most,
            "MEAN": self.mean,
            "STDDEV": math.sqrt(self.squares / self.valid),
            "VALID_PERCENT": 100 * self.valid / self.total,
        }
        how = {} if is_exact else {"STATISTICS_APPROXIMATE": "YES"}
        return {**how, **{f"STATISTICS_{name}": f"{number:.14g}" for name, number in numbers.items()}}


class Statistics:
    """Of the valid pixels of an image, gathered piece by piece.

    Args:
        bands: how many have data, an alpha band not counted.
    """

    def __init__(self, bands: int) -> None:
        self._bands = [_Band() for _ in range(bands)]

    def add(self, source: DatasetReader, *, height: int, width: int) -> None:
        """Count the pixels of a raster, but for its padding.

        Args:
            source: the raster.
            height: pixels that are not padding.
            width: as for the height.
        """
        shown = (slice(height), slice(width))
        for index, band in enumerate(self._bands, start=1):
            band.add(source.read(index)[shown], source.read_masks(index)[shown])

    def tags(self, *, is_exact: bool) -> list[Mapping[str, str]]:
        """Return the metadata of each band.

        Args:
            is_exact: whether all pixels of the image were counted, and not those of an overview.
        """
        return [band.tags(is_exact=is_exact) for band in self._bands]


def of_levels(path: str | Path, *, bands: int, height: int, width: int, levels: int) -> list[Mapping[str, str]]:
    """Return the metadata of each band, from the smallest level that has enough pixels.

    Args:
        path: a raster, whose levels may be padded.
        bands: how many have data, an alpha band not counted.
        height: pixels that are not padding.
        width: as for the height.
        levels: overviews that it has.
    """
    enough = (level for level in range(levels, 0, -1) if (height >> level) * (width >> level) >= ENOUGH)
    level = next(enough, 0)
    found = Statistics(bands)
    with rasterio.open(path, **({"overview_level": level - 1} if level else {})) as source:
        found.add(source, height=-(-height >> level), width=-(-width >> level))
    return found.tags(is_exact=not level)
