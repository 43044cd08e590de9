"""Half the pixels per side: one step of an average overview, with GDAL's numbers.

With a mask, GDAL computes the same numbers pixel by pixel, which for three bands of bytes takes twenty times as long as
NumPy (docs/decisions.md). It does not know files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_async.raster.form import Mask, Pixels

_WIDE = {"uint8": "uint16", "uint16": "uint32", "uint32": "uint64", "int8": "int16", "int16": "int32", "int32": "int64"}
"""The dtype that holds the sum of four values."""


def is_exact(dtype: str, *, masked: bool) -> bool:
    """Return whether `halve` returns GDAL's numbers to the last bit.

    GDAL adds float32 in another order without a mask, and float64 in another order with one.
    """
    return dtype in _WIDE or (dtype == "float32" and masked)


def halve(pixels: Pixels, mask: Mask | None) -> tuple[Pixels, Mask | None]:
    """Average the valid pixels of each square of four.

    Args:
        pixels: (bands, height, width); height and width are even.
        mask: (height, width), 0 where invalid; None if all pixels are valid.

    Returns:
        The averages, (bands, height / 2, width / 2), rounded half away from zero, 0 where none of the four pixels is
        valid; and their mask, 255 where any of the four is valid.
    """
    if pixels.dtype.kind == "f":
        means = (_sums_of_four(pixels, np.dtype("float64")) / 4).astype(pixels.dtype)
    else:
        sums = _sums_of_four(pixels, np.dtype(_WIDE[pixels.dtype.name]))
        sums += 2
        if pixels.dtype.kind == "i":
            sums -= sums < 2
        sums >>= 2
        means = sums.astype(pixels.dtype)
    if mask is None or mask.all():
        return means, None if mask is None else np.full(means.shape[1:], 255, np.uint8)
    counts = _sums_of_four((mask > 0)[np.newaxis], np.dtype("uint8"))[0]
    _average_valid(means, pixels, mask, counts)
    return means, np.where(counts > 0, np.uint8(255), np.uint8(0))


def _sums_of_four(pixels: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Add the four pixels of each square; rows first, because a row is contiguous in memory."""
    rows = pixels[:, 0::2].astype(dtype)
    rows += pixels[:, 1::2]
    return np.asarray(rows[:, :, 0::2] + rows[:, :, 1::2])


def _average_valid(means: Pixels, pixels: Pixels, mask: Mask, counts: NDArray[np.uint8]) -> None:
    """Compute the averages again where one, two or three of the four pixels are invalid."""
    means[:, counts == 0] = 0
    rows, cols = np.nonzero((counts > 0) & (counts < 4))
    divisors = counts[rows, cols].astype(np.int64)
    total = np.zeros((pixels.shape[0], len(rows)), np.float64 if pixels.dtype.kind == "f" else np.int64)
    for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
        valid = mask[2 * rows + row, 2 * cols + col] > 0
        total += np.where(valid, pixels[:, 2 * rows + row, 2 * cols + col], 0)
    if pixels.dtype.kind == "f":
        means[:, rows, cols] = total / divisors
    else:
        means[:, rows, cols] = np.sign(total) * ((abs(total) + divisors // 2) // divisors)
