"""What the numbers of an opened tile mean: its form, its pixels, and which of them are valid.

GDAL's reading is corrected where it is not what the format means. It knows nothing of where bytes come from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rasterio.dtypes import in_dtype_range
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from mosaic_async.errors import TileError
from mosaic_async.raster.form import RGB, Mask, Palette, Pixels, Reading, TileFormat, same_nan
from mosaic_async.safety.redaction import one_line

_PICTURES = frozenset(("PNG", "JPEG", "WEBP"))
"""Formats that say themselves which band is the mask; a transparent colour is a mask and not a nodata value."""
_NO_COLOR = (0, 0, 0, 0)
_MAX_DESCRIPTION = 200
"""Characters of a band's name."""


def form_of(dataset: DatasetReader, *, mask_band: bool | None) -> TileFormat:
    """Return the form of an opened tile, from its header.

    Args:
        dataset: the tile.
        mask_band: as in `TileFormat`; pictures say it themselves.

    Raises:
        TileError: the tile holds complex numbers.
    """
    if dataset.dtypes[0].startswith("complex"):
        raise TileError("the tile holds complex numbers; request their magnitude or one of their parts")
    if palette := palette_of(dataset):
        return TileFormat(
            size=dataset.width, count=3, dtype="uint8", mask_band=mask_band, colorinterp=RGB, palette=palette
        )
    colors, names = list(dataset.colorinterp), list(dataset.descriptions)
    if (mask := _mask_index(dataset, mask_band=mask_band)) is not None:
        del colors[mask], names[mask]
    return TileFormat(
        size=dataset.width,
        count=len(colors),
        dtype=dataset.dtypes[0],
        nodata=_nodata(dataset),
        mask_band=mask_band,
        colorinterp=tuple(band.name for band in colors),
        descriptions=tuple(map(_shown, names)),
        scales=_scales(dataset, mask),
    )


def read(dataset: DatasetReader, form: TileFormat, *, grey_bits: int = 8) -> Reading:
    """Read the pixels of an opened tile, and which of them are valid.

    Args:
        dataset: the tile.
        form: its form.
        grey_bits: bits per grey sample of a PNG; fewer than 8 are scaled to 8.
    """
    pixels = dataset.read()
    if form.palette is not None:
        pixels, mask = pixels[:1], _opacity_mask(dataset, pixels[0], form.palette)
    elif (index := _mask_index(dataset, mask_band=form.mask_band)) is not None:
        pixels, mask = _without(pixels, index), as_mask(pixels[index])
    else:
        mask = _own_mask(dataset, form)
    if grey_bits < 8:
        pixels *= 255 // (2**grey_bits - 1)
    if form.nodata is None:
        return Reading(form, pixels, mask)
    return with_gaps(form, pixels, mask)


def with_gaps(form: TileFormat, pixels: Pixels, mask: Mask | None) -> Reading:
    """Return a reading whose pixels with the form's nodata value are not valid, each band apart."""
    nodata = np.asarray(form.nodata).astype(pixels.dtype)
    gaps: NDArray[np.bool_] = np.isnan(pixels) if np.isnan(nodata) else pixels == nodata
    if not gaps.any():
        return Reading(form, pixels, mask)
    valid: NDArray[np.bool_] = ~np.all(gaps, axis=0)
    if mask is not None:
        valid &= mask > 0
    is_partial = len(pixels) > 1 and bool((np.any(gaps, axis=0) & valid).any())
    return Reading(form, pixels, as_mask(valid), gaps if is_partial else None)


def as_mask(band: Pixels) -> Mask:
    """Return a mask that is valid where a band is above 0."""
    return np.multiply(band > 0, 255, dtype=np.uint8)


def _mask_index(dataset: DatasetReader, *, mask_band: bool | None) -> int | None:
    """Return the index of the band that is the mask; None without one."""
    if mask_band is not None and dataset.driver not in _PICTURES:
        return dataset.count - 1 if mask_band else None
    colors = dataset.colorinterp
    return next((index for index in reversed(range(len(colors))) if colors[index] is ColorInterp.alpha), None)


def _without(bands: Pixels, index: int) -> Pixels:
    return bands[:-1] if index == len(bands) - 1 else np.delete(bands, index, axis=0)


def _unless_all(mask: Mask | None) -> Mask | None:
    return None if mask is None or mask.all() else mask


def _own_mask(dataset: DatasetReader, form: TileFormat) -> Mask | None:
    """Return the one mask of all bands that a file has: an image inside it, or a colour that is transparent."""
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.alpha in flags:
        return None  # the source says that it is a band of data
    is_one = MaskFlags.per_dataset in flags or (form.nodata is None and MaskFlags.nodata in flags)
    return _unless_all(dataset.read_masks(1)) if is_one else None


def _nodata(dataset: DatasetReader) -> float | None:
    """Return the value that marks pixels without data in each band apart.

    Values that differ between bands mark a pixel together, so they are a mask; a value beyond the dtype marks nothing.
    """
    nodata = dataset.nodata
    if nodata is None or dataset.driver in _PICTURES or not in_dtype_range(nodata, dataset.dtypes[0]):
        return None
    return None if "NODATA_VALUES" in dataset.tags() else same_nan(float(nodata))


def _scales(dataset: DatasetReader, mask: int | None) -> tuple[tuple[float, float], ...]:
    """Return the scales of the bands but the mask."""
    if dataset.driver != "GTiff":
        return ()
    scales = list(zip(dataset.scales, dataset.offsets, strict=True))
    if mask is not None:
        del scales[mask]
    return () if set(scales) == {(1.0, 0.0)} else tuple(scales)


def palette_of(dataset: DatasetReader) -> Palette | None:
    """Return the colours of a dataset of bytes that are indices, alone or with an alpha band; None if they are not."""
    if dataset.count > 2 or dataset.dtypes[0] != "uint8" or dataset.colorinterp[0] is not ColorInterp.palette:
        return None
    if dataset.colorinterp[1:] not in ((), (ColorInterp.alpha,)):
        return None
    colors: dict[int, tuple[int, int, int, int]] = dataset.colormap(1)
    return tuple(colors.get(index, _NO_COLOR) for index in range(max(colors) + 1))


def _opacity_mask(dataset: DatasetReader, indices: Pixels, palette: Palette) -> Mask | None:
    """Return where an index is that of a colour, which is not transparent, and not nodata."""
    opacity = np.zeros(256, np.uint8)
    opacity[: len(palette)] = [color[3] for color in palette]
    if dataset.driver != "PNG" and dataset.nodata is not None and in_dtype_range(dataset.nodata, "uint8"):
        opacity[int(dataset.nodata)] = 0
    mask = as_mask(opacity[indices])
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        mask = np.minimum(mask, as_mask(dataset.read_masks(1)))
    return _unless_all(mask)


def _shown(description: str | None) -> str | None:
    """Return a band's description, which the output repeats, without secrets."""
    return None if description is None else one_line(description, _MAX_DESCRIPTION)
