"""An image that takes colours whatever its data type: one way for TiTiler's routes and for the notebook's."""

from __future__ import annotations

from typing import Self

import numpy as np
from color_operations import parse_operations
from rio_tiler.models import ImageData

from mosaic_async.errors import UsageError

_COLOURED = ("uint8", "uint16", "int16")
"""Types that colour operations take as they are."""


class Picture(ImageData):
    """Pixels of a tile, to be coloured and encoded."""

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
