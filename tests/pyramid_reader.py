"""Reads every level of a file with GDAL, for comparing files and for comparing with an oracle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio


@dataclass
class Level:
    """Pixels and mask of one level."""

    pixels: np.ndarray
    mask: np.ndarray
    """255 where valid."""


def read_levels(path: Path) -> list[Level]:
    """Read full resolution, then each overview."""
    with rasterio.open(path) as dataset:
        count = len(dataset.overviews(1))
        levels = [Level(dataset.read(), dataset.dataset_mask())]
    for index in range(count):
        with rasterio.open(path, overview_level=index) as dataset:
            levels.append(Level(dataset.read(), dataset.dataset_mask()))
    return levels


def assert_same_levels(found: Path, expected: Path) -> None:
    """Compare all levels of two files, pixels and masks."""
    ours, theirs = read_levels(found), read_levels(expected)
    assert len(ours) == len(theirs)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_array_equal(one.mask, other.mask, f"mask of level {index}")
        np.testing.assert_array_equal(one.pixels, other.pixels, f"pixels of level {index}")
