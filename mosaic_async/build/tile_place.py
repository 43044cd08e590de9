"""Where a tile must lie, and whether what came says the same: headers, the georeference of a TIFF.

It knows nothing of how a body is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mosaic_async.errors import MisplacedTileError, TileError, UsageError
from mosaic_async.events import zxy
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid_names import DEGREES, crs_named
from mosaic_async.geo.matrix import TileMatrix
from mosaic_async.geo.systems import is_degrees, system
from mosaic_async.safety.redaction import one_line
from mosaic_async.sources.source import TILE_HEADER

_LEAST_SIDE = 128
"""Pixels per side of the smallest tile."""
_MAX_WORDS = 120
"""Characters of the server's own words in a message."""
_MERCATOR_PROJECTION = 7
"""Of GeoTIFF, where a file defines its projection itself."""


@dataclass(frozen=True)
class TilePlace:
    """The place of one tile."""

    matrix: TileMatrix
    tile: Tile
    border: int = 0
    """Pixels at each side that it has beside its place."""

    def check_projection(self, *, is_geographic: bool, code: int | None, projection: int | None) -> None:
        """Require that a TIFF is in the coordinate system of the tiles, or does not say in which it is.

        Args:
            is_geographic: whether it is in degrees.
            code: of EPSG; None where the file defines its system itself.
            projection: number of the projection that it defines.

        Raises:
            TileError: it is in another one.
        """
        if code is not None:
            if not _is_same(f"EPSG:{code}", self.matrix.crs):
                raise TileError(f"the tile is in EPSG:{code}, not in {self._crs}")
        elif is_geographic and not is_degrees(self.matrix.system):
            raise TileError(f"the tile is in degrees, not in {self._crs}")
        elif self.matrix.is_mercator and projection not in (None, _MERCATOR_PROJECTION):
            raise TileError(f"the tile is in a projection of its own, not in {self._crs}")

    def check_headers(self, headers: Mapping[str, str], *, is_placed: bool) -> bool:
        """Compare the place in headers of OGC API, TiTiler and stores, and return whether these or the body have one.

        A body that proves its own place overrules headers in another system. The tile's size in pixels is unknown here,
        but at least 128.

        Raises:
            TileError: the headers name another system or place.
        """
        if (name := headers.get(TILE_HEADER)) is not None:
            is_placed = self._check_name(name)
        bbox, crs = headers.get("Content-Bbox"), headers.get("Content-Crs")
        is_same = crs is not None and _is_same(crs, self.matrix.crs)
        if is_placed and not is_same:
            return True
        if crs and not is_same:
            raise TileError(f"the tile is in {crs_named(crs) or one_line(crs, _MAX_WORDS)!r}, not in {self._crs}")
        if bbox is None:
            return is_placed
        found = _four_numbers(bbox)
        slack = self.matrix.width / _LEAST_SIDE * (1 + 2 * self.border)
        if not _is_close(found, self.matrix.bounds_of(self.tile), slack) and not any(
            _is_close(found, box, pixel / _LEAST_SIDE) for box, pixel in self._spellings(is_stated=is_same)
        ):
            self.check_bounds(found, side=_LEAST_SIDE)
        return True

    def _check_name(self, name: str) -> bool:
        if name != zxy(self.tile):
            raise MisplacedTileError(f"the server sent {one_line(name, _MAX_WORDS)!r} and not tile {zxy(self.tile)}")
        return True

    def check_bounds(self, found: Sequence[float], *, side: int) -> None:
        """Require that all four edges, in units of the CRS, are those of the tile with its border, within half a pixel.

        Raises:
            MisplacedTileError: they are not.
        """
        if not self._is_at(found, side):
            places = " ".join(f"{value:.6g}" if math.isfinite(value) else str(value) for value in found)
            name = zxy(self.tile)
            raise MisplacedTileError(f"the server sent another place than tile {name}: {places} in {self._crs}")

    def _is_at(self, found: Sequence[float], side: int) -> bool:
        share = self.border / (side - 2 * self.border)
        across, up = self.matrix.width * share, self.matrix.height * share
        west, south, east, north = self.matrix.bounds_of(self.tile)
        return _is_close(found, (west - across, south - up, east + across, north + up), self.matrix.width / side)

    def _spellings(self, *, is_stated: bool) -> list[tuple[Bounds, float]]:
        """Return the boxes that a header may write beside the one in the CRS, and the tile's width in their units."""
        if not self.matrix.is_upright:
            return []
        west, south, east, north = self.matrix.bounds_of(self.tile)
        if is_stated:  # as EPSG orders the axes
            return [((south, west, north, east), self.matrix.width)] if is_degrees(self.matrix.system) else []
        box = self.matrix.degrees((west, south, east, north))
        return [(box, box[2] - box[0])]

    @property
    def _crs(self) -> str:
        return self.matrix.crs if len(self.matrix.crs) < _MAX_WORDS else "the coordinate system of the tiles"


def _four_numbers(bbox: str) -> Bounds:
    try:
        west, south, east, north = (float(value) for value in bbox.split(","))
    except ValueError as error:
        raise TileError("the answer's Content-Bbox is not four numbers") from error
    return west, south, east, north


@lru_cache(maxsize=64)
def _is_same(text: str, crs: str) -> bool:
    """Return whether a text names a coordinate system; the names are those of few servers."""
    name = crs_named(text)
    if name is None or name == crs:
        return name is not None
    if DEGREES in (name, crs):
        return False
    try:
        return bool(system(name) == system(crs))
    except UsageError:
        return False


def _is_close(found: Sequence[float], expected: Sequence[float], pixel: float) -> bool:
    """Return whether four edges are equal within half a pixel; NaN is not."""
    slack = abs(pixel) / 2
    return all(abs(a - b) <= slack for a, b in zip(found, expected, strict=True))
