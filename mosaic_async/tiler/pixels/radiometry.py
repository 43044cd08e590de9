"""Reflectance from counts, and counts of one meaning from counts of several.

What counts mean, `tiler.scenes.archives` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mosaic_async.errors import SourceError
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.scenes.archives import Meaning, meaning_of
from mosaic_async.tiler.scenes.scene import Scene

REFLECTANCES = ("float", "integer")
"""`float`: reflectance as float32. `integer`: 10,000 times that in 16 bits, clipped to 0 to 65535 and truncated, as in
awspds-mosaic, whose colour formulas expect it."""
_FACTOR = 10_000


def factors(scene: Scene, asset: str, bands: Sequence[int]) -> list[Meaning]:
    """Return what the counts of bands of a file mean: reflectance is scale * count + offset.

    Args:
        scene: the scene.
        asset: the asset name of the file.
        bands: numbers from 1; empty: all bands that the item describes.

    Raises:
        SourceError: neither the item nor a rule has scale and offset for a band.
    """
    file = scene.files[asset]
    numbers = bands or range(1, max(len(file.scales), len(file.bands), 1) + 1)
    found = [meaning for number in numbers if (meaning := meaning_of(scene, asset, number))]
    if len(found) < len(numbers):
        raise SourceError(
            f"the item has no scale and offset for {asset}",
            hint="``reflectance`` requires raster:bands with scale and offset; leave it out to get counts",
        )
    return found


def is_known(scene: Scene) -> bool:
    """Return whether the item, or a rule of its archive, has scale and offset for any of its files."""
    return any(meaning_of(scene, asset, 1) for asset in scene.files)


def shifted(pixels: Pixels, shifts: Sequence[int]) -> Pixels:
    """Add a number to the counts of each band, and keep within the data type."""
    if not any(shifts):
        return pixels
    data = pixels.data.astype(np.float64 if pixels.data.dtype.kind == "f" else np.int64)
    data += np.array(shifts).reshape(-1, 1, 1)
    if pixels.data.dtype.kind != "f":
        limits = np.iinfo(pixels.data.dtype)
        np.clip(data, limits.min, limits.max, out=data)
    return Pixels(data.astype(pixels.data.dtype), pixels.valid)


def reflectance(pixels: Pixels, known: Sequence[Meaning], form: str) -> Pixels:
    """Convert counts to reflectance.

    Args:
        pixels: counts.
        known: what the counts of each band mean.
        form: one of `REFLECTANCES`.
    """
    unit = _FACTOR if form == "integer" else 1
    scale = np.array([unit * one.scale for one in known]).reshape(-1, 1, 1)
    offset = np.array([unit * one.offset for one in known]).reshape(-1, 1, 1)
    values = pixels.data * scale + offset
    if form == "integer":
        return Pixels(np.clip(np.where(pixels.valid, values, 0), 0, 65535).astype(np.uint16), pixels.valid)
    return Pixels(values.astype(np.float32), pixels.valid)
