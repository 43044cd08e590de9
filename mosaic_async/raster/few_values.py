"""How many different values each band has, while these are so few that they may be class codes.

An average of class codes is another class. It knows nothing of overviews and files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mosaic_async.raster.form import Mask, Pixels

MOST = 64
"""Different values; legends are shorter, and a band that measures something soon has more."""
_STEP = 8
"""Rows and columns from one pixel of a sample to the next: it shows what most bands that measure something are."""
_Values = frozenset[float]


class FewValues:
    """Collects the different values of each band, and ignores a band as soon as it has more than `MOST`."""

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        """Begin, or continue from what `as_dict` returned."""
        bands = (known or {}).get("bands", {})
        self._bands: dict[int, _Values | None] = {
            int(band): None if values is None else frozenset(values) for band, values in bands.items()
        }
        """By the band's number from 0; None where it has more. Replaced as a whole, since another thread reads it."""

    def note(self, pixels: Pixels, mask: Mask | None, nodata: float | None = None) -> None:
        """Add pixels, (bands, height, width), that are valid by their mask, (height, width), and by a nodata value."""
        known = {band: self._bands.get(band, frozenset()) for band in range(len(pixels))}
        wanted = {band: values for band, values in known.items() if values is not None}
        if wanted:
            found = {band: _with_values_of(values, pixels[band], mask, nodata) for band, values in wanted.items()}
            self._bands = {**self._bands, **found}

    def include(self, other: FewValues) -> None:
        """Add what another process has collected."""
        for band, values in other._bands.items():
            own = self._bands.get(band, frozenset())
            joined = None if own is None or values is None else own | values
            self._bands = {**self._bands, band: joined if joined is not None and len(joined) <= MOST else None}

    @property
    def count(self) -> int:
        """The fewest different values that a band has; 0 if each band has a single one, or more than `MOST`."""
        return min((len(values) for values in self._bands.values() if values and len(values) > 1), default=0)

    def as_dict(self) -> dict[str, Any]:
        """Return what a later run continues from, as JSON types."""
        bands = self._bands.items()
        return {"bands": {str(band): None if values is None else sorted(values) for band, values in bands}}


def _with_values_of(known: _Values, band: Pixels, mask: Mask | None, nodata: float | None) -> _Values | None:
    """Return the values with those of a band, (height, width); None if they are too many."""
    for window in (np.s_[::_STEP, ::_STEP], np.s_[:, :]):
        valid = band[window].ravel() if mask is None else band[window][mask[window] > 0]
        known |= _different(valid) - {nodata}
        if len(known) > MOST:
            return None
    return known


def _different(pixels: Pixels) -> _Values:
    """Return the different numbers of (pixels,); where values are few, most neighbours are the same."""
    changed = pixels[1:][pixels[1:] != pixels[:-1]]
    found = np.unique(np.concatenate([pixels[:1], changed]))
    return frozenset(found[np.isfinite(found)].tolist())
