"""Which zoom of Web Mercator's quadtree a level of a server is, by its tiles' width and its corner.

It knows nothing of how servers describe levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mosaic_async.geo.cover import MAX_ZOOM, WORLD

_TOLERANCE = 1e-6
"""Share of a tile's width; servers round scales to eight digits or more."""
_ROUNDED = 1e-3
"""The same where a level has exactly as many columns as its zoom: servers round scales of high zooms to centimetres."""
_CORNER = 1.0
"""Metres; GeoServer writes its corner with eight digits."""
PIXEL = 0.00028
"""Metres per pixel of a display, by which OGC's scale denominators are counted."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a pyramid of tiles."""

    name: str
    resolution: float
    """Metres per pixel."""
    tile_size: int
    """Pixels per side."""
    left: float
    """Metres of the first tile's upper left corner."""
    top: float
    columns: int | None = None
    """Tiles from west to east; None where the server does not state it."""

    @property
    def zoom(self) -> int | None:
        """The zoom of these tiles; None for another grid."""
        span = self.resolution * self.tile_size
        if not (span > 0 and math.isfinite(span)):
            return None
        zoom = round(math.log2(WORLD / span))
        tolerance = _ROUNDED if self.columns == 2.0**zoom else _TOLERANCE
        is_quadtree = 0 <= zoom <= MAX_ZOOM and abs(WORLD / 2**zoom / span - 1) < tolerance
        is_at_corner = abs(self.left + WORLD / 2) < _CORNER and abs(self.top - WORLD / 2) < _CORNER
        return zoom if is_quadtree and is_at_corner else None


def levels_by_zoom(levels: Iterable[Level]) -> dict[int, Level] | None:
    """Return the level of each zoom, the lowest first; None if any is of another grid, or the sizes differ."""
    listed = list(levels)
    if len({level.tile_size for level in listed}) != 1:
        return None
    found = {level.zoom: level for level in listed}
    if None in found or len(found) != len(listed):
        return None
    return {zoom: found[zoom] for zoom in sorted(zoom for zoom in found if zoom is not None)}
