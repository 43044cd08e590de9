"""Pictures of a page as data URLs: the output in small, and maps with a pixel per cell."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader, MemoryFile

from mosaic_async.raster.environment import pinned

_SIDES = (1024, 512, 256)
"""Pixels of the longer side; the first whose file is small enough is taken."""
_MOST_BYTES = 900_000
_CUT = (2, 98)
"""Percentiles of the valid pixels that become black and white."""
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_BACKGROUND = 255
_PNG = b"\x89PNG\r\n\x1a\n"


def preview(path: Path) -> str:
    """Return a small picture of a raster as a data URL.

    Raises:
        RasterioError: it cannot be read.
    """
    with pinned(), rasterio.open(path) as source:
        for side in _SIDES:
            picture = _jpeg(_stretched(source, side))
            if len(picture) <= _MOST_BYTES:
                break
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"


def png(indexes: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> str:
    """Return a picture of palette indexes, (rows, columns), as a data URL."""
    rows, columns = indexes.shape
    lines = np.pad(indexes, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter, none
    pieces = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(value for colour in palette for value in colour)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in pieces
    ]
    return f"data:image/png;base64,{base64.b64encode(_PNG + b''.join(chunks)).decode()}"


def _stretched(source: DatasetReader, side: int) -> NDArray[np.uint8]:
    """Return red, green and blue, (3, height, width)."""
    scale = min(1.0, side / max(source.height, source.width))
    shape = (max(1, round(source.height * scale)), max(1, round(source.width * scale)))
    valid = source.dataset_mask(out_shape=shape) > 0
    planes = []
    for band in _bands(source):
        pixels = source.read(band, out_shape=shape, resampling=Resampling.nearest).astype(np.float64)
        shown = valid & np.isfinite(pixels)
        low, high = np.percentile(pixels[shown], _CUT) if shown.any() else (0.0, 1.0)
        grey = np.clip((np.where(shown, pixels, low) - low) / (high - low or 1.0), 0, 1) * 255
        planes.append(np.where(shown, grey, _BACKGROUND).astype(np.uint8))
    return np.stack(planes if len(planes) == 3 else planes[:1] * 3)


def _bands(source: DatasetReader) -> Sequence[int]:
    """Return the bands that are red, green and blue; the first three where none are named, or the only one."""
    colours = source.colorinterp
    if all(colour in colours for colour in _COLOURS):
        return [colours.index(colour) + 1 for colour in _COLOURS]
    data = [index for index, colour in enumerate(colours, start=1) if colour is not ColorInterp.alpha]
    return data[:3] if len(data) >= 3 else data[:1]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    _, height, width = pixels.shape
    size = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    with MemoryFile(ext=".jpg") as file:
        with file.open(driver="JPEG", QUALITY=80, transform=Affine(2, 0, 0, 0, -2, 0), **size) as target:
            target.write(pixels)
        return bytes(file.getbuffer())
