"""Fits pixels into the encoding of an output, whatever form they have: those of tiles, and those of its own files.

Nothing is rounded but to a dtype that the user sets. It knows nothing of where pixels go.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from mosaic_async.errors import TileError
from mosaic_async.raster.encoding import Encoding, StoredMask
from mosaic_async.raster.form import Mask, Palette, Pixels, Reading
from mosaic_async.raster.meaning import as_mask, form_of, palette_of, with_gaps


def fit(reading: Reading, encoding: Encoding) -> tuple[Pixels, Mask | None]:
    """Return pixels, (bands, height, width), and their mask, (height, width), as an encoding stores them.

    The encoding is that of a form which holds the reading's form. What lies under a mask stays as it is, but nodata
    values and the colours of a palette become 0 there, as where nothing is placed.

    Raises:
        TileError: single bands lack data in some pixels, and the encoding has one mask for all bands.
    """
    form = reading.form
    keeps_indices = encoding.palette is not None
    if keeps_indices and not _begins_with(encoding.palette, form.palette):
        raise TileError("the tile has colours of its own, the output has a colour table")
    pixels = reading.pixels if keeps_indices else reading.in_bands(encoding.count)
    pixels = converted(pixels, np.dtype(encoding.dtype))
    if encoding.mask == "nodata":
        if reading.gaps is not None and not is_same_value(form.nodata, encoding.nodata):
            pixels = np.where(reading.gaps, np.asarray(encoding.nodata).astype(pixels.dtype), pixels)
    elif encoding.mask != "none":
        if reading.gaps is not None:
            raise TileError(
                "single bands lack data in some pixels, which one mask for all bands cannot mark; set a nodata value"
            )
        if reading.mask is not None and (form.nodata is not None or (form.palette and not keeps_indices)):
            pixels = np.where(reading.mask > 0, pixels, np.zeros((), pixels.dtype))
    return pixels, reading.mask


def _begins_with(palette: Palette | None, begin: Palette | None) -> bool:
    if begin is None or palette is None:
        return False
    return begin is palette or _stored_colors(palette)[: len(begin)] == [color[:3] for color in begin]


def encoding_of(dataset: DatasetReader) -> Encoding:
    """Return the bands, dtype and mask of a file that this package has written."""
    mask = mask_mode(dataset)
    count = dataset.count - (mask == "alpha")
    return Encoding(
        count=count,
        dtype=dataset.dtypes[0],
        mask=mask,
        nodata=dataset.nodata,
        colorinterp=tuple(band.name for band in dataset.colorinterp[:count]),
        palette=palette_of(dataset),
    )


def is_fit(dataset: DatasetReader, encoding: Encoding) -> bool:
    """Return whether a file of this package has exactly the bands, dtype and mask of an encoding."""
    found = encoding_of(dataset)
    return (
        (found.count, found.dtype, found.mask) == (encoding.count, encoding.dtype, encoding.mask)
        and found.all_colors == encoding.all_colors
        and is_same_value(found.nodata, encoding.nodata)
        and _stored_colors(found.palette) == _stored_colors(encoding.palette)
    )


def _stored_colors(palette: Palette | None) -> list[tuple[int, int, int]]:
    """Return colours as the colour table of a TIFF has them: 256, without opacity."""
    colors = [color[:3] for color in palette or ()]
    return colors + [(0, 0, 0)] * (256 - len(colors))


def read_stored(dataset: DatasetReader, window: Window | None = None) -> Reading:
    """Read pixels that this package has stored."""
    mode = mask_mode(dataset)
    form = form_of(dataset, mask_band=mode == "alpha")
    pixels = dataset.read(list(range(1, dataset.count + (mode != "alpha"))), window=window)
    if mode == "nodata":
        return with_gaps(form, pixels, None)
    if mode == "none":
        return Reading(form, pixels)
    return Reading(form, pixels, as_mask(dataset.read_masks(1, window=window)))


def mask_mode(dataset: DatasetReader) -> StoredMask:
    """Return how a dataset marks pixels without data: internal, alpha, nodata or none."""
    flags = dataset.mask_flag_enums[0]
    if ColorInterp.alpha in dataset.colorinterp:
        return "alpha"
    if MaskFlags.per_dataset in flags:
        return "internal"
    return "nodata" if MaskFlags.nodata in flags else "none"


def converted(pixels: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Convert to a dtype: round for integers and clip to the range; NaN becomes 0."""
    if pixels.dtype == dtype or dtype.kind == "f":
        return pixels.astype(dtype, copy=False)
    if pixels.dtype.kind == "f":
        pixels = np.rint(np.nan_to_num(pixels, nan=0.0))
    limits = np.iinfo(dtype)
    return np.clip(pixels, limits.min, limits.max).astype(dtype)


def is_same_value(one: float | None, other: float | None) -> bool:
    """Return whether two nodata values mark the same pixels."""
    return one == other or (one is not None and other is not None and bool(np.isnan(one) and np.isnan(other)))
