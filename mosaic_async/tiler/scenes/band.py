"""One band as a STAC item describes it: names, nodata, scale and offset, unit, data type.

It reads `raster:bands` and `eo:bands` of STAC 1.0, `bands` of 1.1, and what 1.1 states once for all bands of an asset.
It knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Band:
    """What an item says of a band; None: nothing."""

    name: str | None = None
    common_name: str | None = None
    """Such as `red`, see the `eo` extension."""
    nodata: float | None = None
    """May be NaN."""
    scale: float | None = None
    offset: float | None = None
    unit: str | None = None
    dtype: str | None = None
    """Such as `uint16`, as NumPy names it too."""


def bands_of(asset: Mapping[str, Any]) -> tuple[Band, ...]:
    """Return the bands of an asset in the order of its file; empty if the item describes none.

    Raises:
        TypeError, ValueError, AttributeError: the description is malformed.
    """
    described = tuple(_band(parts, asset) for parts in _described(asset))
    if described:
        return described
    common = _band((), asset)
    return () if common == Band() else (common,)


def _described(asset: Mapping[str, Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Yield the objects that describe each band; a single entry of `raster:bands` counts for all."""
    rasters, *named = (asset.get(name) or () for name in ("raster:bands", "bands", "eo:bands"))
    if len(rasters) == 1:
        rasters = [*rasters] * max(1, *map(len, named))
    yield from zip_longest(rasters, *named, fillvalue={})


def _band(parts: Sequence[Mapping[str, Any]], asset: Mapping[str, Any]) -> Band:
    """Merge the descriptions of a band; the asset's own fields count where no description has them."""

    def find(*names: str) -> Any:
        holders = [(part, names) for part in parts] + [(asset, names[1:] if names[0] == "name" else names)]
        found = (holder[name] for holder, keys in holders for name in keys if holder.get(name) is not None)
        return next(found, None)

    return Band(
        name=_text(find("name")),
        common_name=_text(find("eo:common_name", "common_name")),
        nodata=_number(find("nodata", "raster:nodata")),
        scale=_number(find("raster:scale", "scale")),
        offset=_number(find("raster:offset", "offset")),
        unit=_text(find("unit", "raster:unit")),
        dtype=_text(find("data_type", "raster:data_type")),
    )


def _number(value: object) -> float | None:
    """Return a number, which STAC writes as text where JSON has none: `nan`, `inf`, `-inf`."""
    return float(value) if isinstance(value, (int, float, str)) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
