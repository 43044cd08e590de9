"""Reflectance from counts, with the metadata of a scene's item.

Sources, in this order: scale and offset of the raster extension (or of STAC 1.1's bands); the entries of a Landsat MTL
file among the item's properties, REFLECTANCE_MULT_BAND_n and REFLECTANCE_ADD_BAND_n with the sun's elevation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mosaic_async.errors import SourceError
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.scenes.scene import Scene

REFLECTANCES = ("float", "integer")
"""`float`: reflectance as float32. `integer`: 10,000 times that in 16 bits, clipped to 0 to 65535 and truncated, as in
awspds-mosaic, whose colour formulas expect it."""
_SUN = ("view:sun_elevation", "SUN_ELEVATION", "eo:sun_elevation")
_FACTOR = 10_000


def factors(scene: Scene, asset: str, bands: Sequence[int]) -> list[tuple[float, float]]:
    """Return (scale, offset) for bands of a file: reflectance is scale * count + offset.

    Args:
        scene: the scene.
        asset: the asset name of the file.
        bands: numbers from 1; empty: all bands that the item describes.

    Raises:
        SourceError: the item has no scale and offset for a band.
    """
    scales = scene.files[asset].scales or _of_mtl(scene.properties, asset)
    found = [scales[number - 1] for number in bands if number <= len(scales)] if bands else list(scales)
    if not found or len(found) < len(bands):
        raise SourceError(
            f"the item of {scene.name} has no scale and offset for {asset}",
            hint="``reflectance`` requires raster:bands with scale and offset; leave it out to get counts",
        )
    return found


def is_known(scene: Scene) -> bool:
    """Return whether the item has scale and offset for any of its files."""
    return any(file.scales or _of_mtl(scene.properties, asset) for asset, file in scene.files.items())


def reflectance(pixels: Pixels, known: Sequence[tuple[float, float]], form: str) -> Pixels:
    """Convert counts to reflectance.

    Args:
        pixels: counts.
        known: (scale, offset) of each band.
        form: one of `REFLECTANCES`.
    """
    unit = _FACTOR if form == "integer" else 1
    scale = np.array([unit * scale for scale, _ in known]).reshape(-1, 1, 1)
    offset = np.array([unit * offset for _, offset in known]).reshape(-1, 1, 1)
    values = pixels.data * scale + offset
    if form == "integer":
        return Pixels(np.clip(np.where(pixels.valid, values, 0), 0, 65535).astype(np.uint16), pixels.valid)
    return Pixels(values.astype(np.float32), pixels.valid)


def _of_mtl(properties: Mapping[str, Any], asset: str) -> tuple[tuple[float, float], ...]:
    number = re.search(r"(\d+)$", asset)
    if not number:
        return ()
    multiplier = properties.get(f"REFLECTANCE_MULT_BAND_{int(number[1])}")
    addend = properties.get(f"REFLECTANCE_ADD_BAND_{int(number[1])}")
    elevation = next((properties[name] for name in _SUN if properties.get(name) is not None), None)
    if multiplier is None or addend is None or elevation is None or float(elevation) <= 0:
        return ()
    height = math.sin(math.radians(float(elevation)))
    return ((float(multiplier) / height, float(addend) / height),)
