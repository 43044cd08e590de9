"""Values that are packed into the colours of pictures, such as heights, and how they are read.

Neighbouring values can have colours that are far apart, so such colours must not be averaged, and not be stored with
loss. It knows nothing of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import TileError, UsageError
from mosaic_async.raster.form import Reading, TileFormat

_Values = NDArray[np.float64]

_FORMULAS: dict[str, Callable[[_Values, _Values, _Values], _Values]] = {
    "terrain-rgb": lambda red, green, blue: (red * 65536 + green * 256 + blue - 100_000) / 10,
    "terrarium": lambda red, green, blue: red * 256 + green + blue / 256 - 32768,
}
"""Heights in metres, as Mapbox and as Tilezen pack them."""
DECODINGS = tuple(_FORMULAS)


def check_decoding(name: str) -> None:
    """Check that a decoding is known, or is four numbers.

    Raises:
        UsageError: it is neither.
    """
    if name not in _FORMULAS and _factors(name) is None:
        raise UsageError(
            f"decoding {name!r} is not known",
            hint=f"use one of {', '.join(DECODINGS)}, or the factors of red, green and blue and what is added, "
            "such as 65536,256,1,0",
        )


def unpacked_form(form: TileFormat, decode: str) -> TileFormat:
    """Return the form of the values that are packed into tiles.

    Raises:
        TileError: the tiles do not have colours of bytes.
    """
    if form.dtype != "uint8" or form.count not in (1, 3):
        raise TileError(f"the tile has {form.count} bands of {form.dtype}, {decode} is packed into three bytes")
    return TileFormat(
        size=form.size, border=form.border, count=1, dtype="float32", mask_band=form.mask_band, decode=decode
    )


def unpack(reading: Reading, decode: str) -> Reading:
    """Return the values that are packed into the colours of a reading.

    Raises:
        TileError: it does not have colours of bytes.
    """
    form = unpacked_form(reading.form, decode)
    red, green, blue = reading.in_bands(3).astype(np.float64)
    values = _formula(decode)(red, green, blue)
    return replace(reading, form=form, pixels=values.astype(np.float32)[np.newaxis])


def _formula(name: str) -> Callable[[_Values, _Values, _Values], _Values]:
    factors = _factors(name)
    if factors is None:
        return _FORMULAS[name]
    red_factor, green_factor, blue_factor, base = factors
    return lambda red, green, blue: red * red_factor + green * green_factor + blue * blue_factor + base


def _factors(text: str) -> tuple[float, float, float, float] | None:
    """Read four numbers as a style of MapLibre has them; None if they are not."""
    try:
        red, green, blue, base = (float(part) for part in text.split(","))
    except ValueError:
        return None
    return (red, green, blue, base) if all(map(math.isfinite, (red, green, blue, base))) else None
