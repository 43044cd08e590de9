"""What the pixels of tiles are: size, bands, dtype, nodata and colours, and the form that unlike tiles have in common.

The common form holds the pixels of all tiles exactly, and does not depend on their order. It knows nothing of bytes and
files.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import TileError

Pixels = NDArray[Any]
Mask = NDArray[np.uint8]
Palette = tuple[tuple[int, int, int, int], ...]
"""Red, green, blue and opacity by index."""

RGB = ("red", "green", "blue")
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""Narrow ones first, and integers before floats."""
_PICTURE_DTYPES = frozenset(("uint8", "uint16"))
_NAMES_DIFFER = ""
"""The name of a band that tiles name differently."""


@dataclass(frozen=True, kw_only=True)
class TileFormat:
    """What tiles look like: at first those like the first one, later the least form that holds all of them."""

    size: int
    """Pixels per side, without a border."""
    count: int
    """Bands of data, without a mask band; 3 with a palette."""
    dtype: str
    dtypes: tuple[str, ...] = ()
    """Those of the tiles, sorted, if they differ."""
    nodata: float | None = None
    """The value of pixels without data in each band; None without one, or if tiles differ in it."""
    nodata_differs: bool = False
    mask_band: bool | None = None
    """Whether the last band of a data file is its mask; None decides by its colour interpretation."""
    colorinterp: tuple[str, ...] = ()
    """Colour interpretation of the data bands; empty if a format does not have any."""
    descriptions: tuple[str | None, ...] = ()
    """Names of the data bands."""
    scales: tuple[tuple[float, float], ...] = ()
    """Factor of each data band, and what is added, that make its numbers what they measure; empty without any."""
    palette: Palette | None = None
    """The one that all tiles share; None: some have colours of their own."""
    border: int = 0
    """Pixels that tiles have at each side beside those, and that are cut off."""
    decode: str | None = None
    """How values are packed into the colours of the tiles; None: they are colours, or plain values."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TileFormat:
        """Make a format from the result of `dataclasses.asdict`, also after it was stored as JSON."""
        tuples = {name: tuple(values[name]) for name in ("dtypes", "colorinterp", "descriptions")}
        tuples["scales"] = tuple(map(tuple, values["scales"]))
        palette = None if values["palette"] is None else tuple(map(tuple, values["palette"]))
        return cls(**{**values, **tuples, "nodata": same_nan(values["nodata"]), "palette": palette})

    @property
    def side(self) -> int:
        """Pixels per side of a tile as it comes."""
        return self.size + 2 * self.border

    @property
    def nbytes(self) -> int:
        """Uncompressed bytes per tile."""
        return self.side * self.side * self.count * np.dtype(self.dtype).itemsize

    def joined(self, other: TileFormat) -> TileFormat:
        """Return the least form that holds tiles of both.

        Numbers stay as they are, in a dtype that holds all of them. Grey becomes three equal colours beside colours.

        Raises:
            TileError: no form holds both.
        """
        if other == self:
            return self
        if other.size != self.size:
            raise TileError(f"the tile's size is {_square(other)}, the first tile's was {_square(self)}")
        wide, narrow = (self, other) if self.count >= other.count else (other, self)
        if wide.count != narrow.count and not _is_grey_beside(narrow, wide):
            raise TileError(f"the tile's band count is {other.count}, the first tile's was {self.count}")
        if self.scales != other.scales:
            found, first = _shown(other.scales), _shown(self.scales)
            raise TileError(f"the tile's numbers are scaled by {found}, the first tile's were by {first}")
        dtypes = {*self.all_dtypes, *other.all_dtypes}
        is_same = self.nodata == other.nodata or self.nodata is other.nodata  # NaN is one object here
        differs = self.nodata_differs or other.nodata_differs or not is_same
        alike = (wide, narrow) if wide.count == narrow.count else (wide,)
        return replace(
            wide,
            dtype=_common_dtype(dtypes),
            dtypes=tuple(sorted(dtypes)) if len(dtypes) > 1 else (),
            nodata=None if differs else self.nodata,
            nodata_differs=differs,
            colorinterp=_common_colors([form.colorinterp for form in alike]),
            descriptions=_common_names([form.descriptions for form in alike]),
            palette=_common_palette(self.palette, other.palette),
        )

    @property
    def all_dtypes(self) -> tuple[str, ...]:
        """Those of the tiles."""
        return self.dtypes or (self.dtype,)


@dataclass(frozen=True, eq=False)
class Reading:
    """The pixels of a tile, or of a window of a file, in their own form."""

    form: TileFormat
    pixels: Pixels
    """(bands, height, width); one band of indices with a palette."""
    mask: Mask | None = None
    """(height, width), 255 where any band is valid; None if all pixels are valid."""
    gaps: NDArray[np.bool_] | None = None
    """(bands, height, width), where a band lacks data; None if no pixel is valid in some bands only."""

    @property
    def has_data(self) -> bool:
        """Whether any pixel is valid."""
        return self.mask is None or bool(self.mask.any())

    @property
    def colors(self) -> Pixels:
        """The pixels with indices replaced by colours."""
        if self.form.palette is None:
            return self.pixels
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.form.palette)] = np.array(self.form.palette, np.uint8)[:, :3]
        return np.ascontiguousarray(np.moveaxis(table[self.pixels[0]], -1, 0))

    def in_bands(self, count: int) -> Pixels:
        """Return the pixels in that many bands: indices become colours, and grey three equal colours."""
        pixels = self.colors
        return np.repeat(pixels, count, axis=0) if len(pixels) == 1 else pixels

    def without_border(self, border: int) -> Reading:
        """Return the reading without that number of pixels at each side; its form knows of them."""
        if not border:
            return self
        size = self.form.size - 2 * border
        inner = slice(border, border + size)
        return replace(self.cut(inner, inner), form=replace(self.form, size=size, border=border))

    def cut(self, rows: slice, columns: slice) -> Reading:
        """Return a window of the reading."""
        mask = None if self.mask is None else self.mask[rows, columns]
        gaps = None if self.gaps is None else self.gaps[:, rows, columns]
        return Reading(self.form, self.pixels[:, rows, columns], mask, gaps)


def same_nan(nodata: float | None) -> float | None:
    """Return a nodata value, with one object for NaN, so that formats compare."""
    return math.nan if nodata is not None and math.isnan(nodata) else nodata


def _is_grey_beside(narrow: TileFormat, wide: TileFormat) -> bool:
    """Return whether one form is the grey of pictures and the other has their colours; measurements have neither."""
    is_picture = _PICTURE_DTYPES.issuperset({*narrow.all_dtypes, *wide.all_dtypes})
    return narrow.count == 1 and wide.colorinterp == RGB and is_picture


def _shown(scales: tuple[tuple[float, float], ...]) -> str:
    return "; ".join(f"{factor:g} and {added:g}" for factor, added in dict.fromkeys(scales)) or "1 and 0"


def _square(form: TileFormat) -> str:
    return f"{form.size} x {form.size}"


def _common_dtype(dtypes: Collection[str]) -> str:
    """Return the first dtype that holds every number of all.

    Raises:
        TileError: none does.
    """
    found = next((name for name in _DTYPES if all(_holds(name, dtype) for dtype in dtypes)), None)
    if found is None:
        raise TileError(
            f"no dtype holds the numbers of all tiles exactly: {', '.join(sorted(dtypes))}; "
            "request tiles of one dtype, for example by an expression"
        )
    return found


def _holds(name: str, other: str) -> bool:
    wide, narrow = np.dtype(name), np.dtype(other)
    if narrow.kind == "f":
        return wide.kind == "f" and wide.itemsize >= narrow.itemsize
    limits = np.iinfo(narrow)
    if wide.kind == "f":
        return bool(limits.bits - (narrow.kind == "i") <= np.finfo(wide).nmant + 1)
    return bool(np.iinfo(wide).min <= limits.min and limits.max <= np.iinfo(wide).max)


def _common_colors(found: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    different = {colors for colors in found if colors}
    if len(different) > 1:
        return RGB if RGB in different else ("undefined",) * len(next(iter(different)))
    return next(iter(different), ())


def _common_names(found: Sequence[tuple[str | None, ...]]) -> tuple[str | None, ...]:
    named = [names for names in found if any(name is not None for name in names)]
    if len(named) < 2:
        return named[0] if named else found[0]
    return tuple(
        first if first == second or second is None else second if first is None else _NAMES_DIFFER
        for first, second in zip(*named, strict=True)
    )


def _common_palette(one: Palette | None, other: Palette | None) -> Palette | None:
    """Return the longer of two palettes if it begins with the other: encoders leave out the last, unused colours."""
    if one is None or other is None:
        return None
    short, long = sorted((one, other), key=len)
    return long if long[: len(short)] == short else None
