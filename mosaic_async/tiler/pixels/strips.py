"""Strips of a tile: parts that are composed one after the other, so that few pixels of each scene are held at once.

It knows nothing of scenes and selections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rasterio.windows import Window

from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels

_LEAST_ROWS = 32
"""Rows of a strip: the warps of narrower ones cost more than their memory is worth."""


def strips_of(frame: Frame, row_bytes: float, limit: float) -> Iterator[Window]:
    """Cut a tile into strips of equal height.

    Args:
        frame: the tile.
        row_bytes: bytes of a row in all scenes.
        limit: bytes of a strip in all scenes, as far as rows allow.
    """
    rows = frame.height if row_bytes * frame.height <= limit else max(_LEAST_ROWS, int(limit // row_bytes))
    for top in range(0, frame.height, rows):
        yield Window(0, top, frame.width, min(rows, frame.height - top))


def joined(parts: Sequence[tuple[Window, Pixels | None]], *, is_valid: bool) -> Pixels | None:
    """Put strips together; None if none has pixels.

    Args:
        parts: the strips from the top down, and their pixels; None where no scene reaches.
        is_valid: whether a pixel that no scene reaches has a value, 0.
    """
    if len(parts) == 1:
        return parts[0][1]
    found = [pixels for _, pixels in parts if pixels is not None]
    if not found:
        return None
    bands, dtype = len(found[0].data), np.result_type(*(pixels.data for pixels in found))
    data, valid = [], []
    for window, pixels in parts:
        shape = (bands, window.height, window.width)
        data.append(np.zeros(shape, dtype) if pixels is None else pixels.data)
        valid.append(np.full(shape, is_valid) if pixels is None else pixels.valid)
    return Pixels(np.concatenate(data, axis=1), np.concatenate(valid, axis=1))
