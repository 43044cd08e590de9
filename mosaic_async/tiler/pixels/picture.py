"""An image that takes colours whatever its data type: one way for TiTiler's routes and for the notebook's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import rasterio
from color_operations import parse_operations
from rasterio.io import MemoryFile
from rio_tiler.models import ImageData
from titiler.core.resources.enums import ImageType
from titiler.core.utils import render_image

from mosaic_async.errors import UsageError

_COLOURED = ("uint8", "uint16", "int16")
"""Types that colour operations take as they are."""


class Picture(ImageData):
    """Pixels of a tile, to be coloured and encoded."""

    palette: Sequence[tuple[int, tuple[int, int, int, int]]] | None = None
    """Colours by value; None: its values are quantities."""

    def apply_color_formula(self, color_formula: str | None) -> Self:
        """Apply colour operations in place, to other types than small integers as int16, as awspds-mosaic does.

        Raises:
            UsageError: the formula is malformed, or does not fit the number of bands.
        """
        if self.array.dtype.name not in _COLOURED:
            limits = np.iinfo(np.int16)
            filled = np.clip(np.nan_to_num(self.array.filled(0)), limits.min, limits.max)
            self.array = np.ma.MaskedArray(filled.astype(np.int16), mask=self.array.mask)
        try:
            super().apply_color_formula(color_formula)
        except (ValueError, TypeError, KeyError) as error:
            raise _malformed(error) from error
        return self


def render_tile(
    image: ImageData,
    colormap: Any = None,
    output_format: ImageType | None = None,
    **options: Any,
) -> tuple[bytes, str]:
    """Encode a tile as TiTiler does, but classes with their colour table: in a GeoTIFF they stay classes."""
    palette = getattr(image, "palette", None)
    if not palette or colormap or options.get("rescale") or options.get("color_formula"):
        return render_image(image, colormap=colormap, output_format=output_format, **options)
    if output_format is None or output_format.driver != "GTiff":
        is_picture = output_format is None or output_format.driver in ("PNG", "JPEG", "WEBP")
        return render_image(image, dict(palette) if is_picture else None, output_format, **options)
    return _classes(image, dict(palette)), output_format.mediatype


def _classes(image: ImageData, palette: dict[int, tuple[int, int, int, int]]) -> bytes:
    """Return a GeoTIFF of one band with a colour table and an internal mask."""
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "width": image.width, "height": image.height}
    place = {"crs": image.crs, "transform": image.transform}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile(ext=".tif") as memory:
        with memory.open(**profile, **place) as dataset:
            dataset.write_colormap(1, palette)
            dataset.write(image.data[:1])
            dataset.write_mask(image.mask > 0)
        return bytes(memory.read())


def check_color_formula(text: str) -> None:
    """Check a colour formula on one pixel.

    Raises:
        UsageError: it is malformed.
    """
    try:
        pixel = np.full((3, 1, 1), 0.5)
        for operation in parse_operations(text):
            pixel = operation(pixel)
    except (ValueError, TypeError, KeyError) as error:
        raise _malformed(error) from error


def _malformed(error: Exception) -> UsageError:
    return UsageError(
        f"the colour formula is malformed: {error}",
        hint="write it as `gamma RGB 3.5, saturation 1.7, sigmoidal RGB 15 0.35`",
    )
