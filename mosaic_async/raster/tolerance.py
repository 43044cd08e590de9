"""How far two readings of the same pixels may differ: not at all without loss, and by the codec's own error otherwise.

The error of JPEG and WebP depends on the picture, from 1 of smooth colours to 130 of a chequerboard. So it is measured
on the picture itself: its pixels are encoded once more, and the reading may differ half as much again (measured over
seven kinds of pictures and all qualities, see docs/decisions.md).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader, MemoryFile

from mosaic_async.raster.environment import pinned
from mosaic_async.raster.form import Mask, Pixels

_PICTURES = {"JPEG": "JPEG_QUALITY", "WEBP": "WEBP_LEVEL"}
"""Codecs for pictures, and GDAL's name of their quality."""
_MARGIN, _FLOOR = 1.5, 2.0
"""Factor on the measured error, and what is added to it for pictures that have almost none."""
_FEW = 256
"""Pixels; the mean error of fewer is left to chance."""
_ROUNDING = 4
"""Units in the last place by which sums of floats differ when they are added in another order."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """What storing a level may change."""

    largest: float = 0.0
    """Error of any pixel that LERC was allowed."""
    picture: str | None = None
    """JPEG or WEBP if it is lossy; None otherwise."""
    quality: str = ""
    photometric: str = ""
    has_nodata: bool = False
    drops_hidden: bool = False
    """Whether the colours of transparent pixels are lost, as LERC and WebP lose them."""

    @classmethod
    def of(cls, dataset: DatasetReader, base: Codec | None = None, quality: str | None = None) -> Self:
        """Read the codec of an open level.

        Args:
            dataset: the level.
            base: codec of the full resolution, which also records what overviews do not.
            quality: of an overview that does not record it.
        """
        told = dataset.tags(ns="IMAGE_STRUCTURE")
        name = told.get("COMPRESSION", "").removeprefix("YCbCr ")
        errors = [float(told[key]) for key in ("MAX_Z_ERROR", "MAX_Z_ERROR_OVERVIEW") if key in told]
        errors += [base.largest] if base else []
        quality = quality or (base.quality if base else None) or "100"
        is_lossy = name in _PICTURES and told.get("COMPRESSION_REVERSIBILITY") != "LOSSLESS"
        return cls(
            largest=max(errors, default=0.0),
            picture=name if is_lossy else None,
            quality=told.get(_PICTURES[name], quality) if is_lossy else "",
            photometric=str(dataset.profile.get("photometric") or "MINISBLACK"),
            has_nodata=dataset.nodata is not None,
            drops_hidden=ColorInterp.alpha in dataset.colorinterp and name.startswith(("LERC", "WEBP")),
        )

    @property
    def is_lossless(self) -> bool:
        """Whether all pixels are stored as they are."""
        return not self.largest and self.picture is None

    def error(self, pixels: Pixels, valid: NDArray[np.bool_]) -> float:
        """Return the root of the mean square by which the codec changes valid pixels, (bands, height, width)."""
        with warnings.catch_warnings(), pinned(), MemoryFile(ext=".tif") as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**self._profile(pixels)) as dataset:
                dataset.write(pixels)
            with memory.open() as dataset:
                again = dataset.read()
        return _mean(np.abs(again.astype(np.float64) - pixels)[:, valid])

    def _profile(self, pixels: Pixels) -> dict[str, Any]:
        count, height, width = pixels.shape
        assert self.picture is not None
        return {
            "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype,
            "compress": self.picture, _PICTURES[self.picture]: self.quality, "photometric": self.photometric,
            "interleave": "pixel", "tiled": True, "blockxsize": 256, "blockysize": 256,
        }  # fmt: skip


def difference(
    codec: Codec, expected: tuple[Pixels, Mask], found: tuple[Pixels, Mask], *, largest: float | None = None
) -> str | None:
    """Return how two readings differ, in words; None if they are equal as far as they must.

    Args:
        codec: what stores `found`.
        expected: pixels, (bands, height, width), and their mask, (height, width) and 0 where invalid.
        found: the same of the other reading.
        largest: the allowed error of any pixel; None: that of the codec.
    """
    (pixels, mask), (others, other_mask) = expected, found
    compares_masks = codec.is_lossless or not codec.has_nodata  # with errors, values turn into nodata and back
    if compares_masks and np.any(wrong := (mask > 0) != (other_mask > 0)):
        return f"the masks of {np.count_nonzero(wrong):,} pixels differ"
    valid = (mask > 0) & (other_mask > 0)
    errors = _errors(pixels, others)[:, valid]
    if codec.picture is not None:
        return _beyond_error(codec, pixels, valid, errors)
    allowed = (codec.largest if largest is None else largest) + _rounding_of(pixels)
    if np.any(beyond := ~(errors <= allowed).all(axis=0)):
        return f"{np.count_nonzero(beyond):,} pixels differ, by up to {errors.max():g}"
    return None


def _beyond_error(codec: Codec, pixels: Pixels, valid: NDArray[np.bool_], errors: NDArray[np.float64]) -> str | None:
    mean = _mean(errors)
    if np.count_nonzero(valid) < _FEW or mean <= _FLOOR:
        return None
    allowed = _MARGIN * codec.error(pixels, valid) + _FLOOR
    return f"pixels differ by {mean:.1f} on average, the codec's error is {allowed:.1f}" if mean > allowed else None


def _mean(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2))) if errors.size else 0.0


def _errors(expected: Pixels, found: Pixels) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        errors = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    is_equal = (expected == found) | (_is_nan(expected) & _is_nan(found))
    return np.asarray(np.where(is_equal, 0.0, np.nan_to_num(errors, nan=np.inf)))


def _is_nan(pixels: Pixels) -> NDArray[np.bool_]:
    return np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, bool)


def _rounding_of(expected: Pixels) -> float:
    if expected.dtype.kind != "f":
        return 0.0
    finite = expected[np.isfinite(expected)]
    return float(_ROUNDING * np.spacing(np.abs(finite).max(initial=0)))
