"""One zoom of a tile matrix set: where its tiles lie in its coordinate system; by default that is Web Mercator.

It does not know areas, pixels or servers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Self, TypeVar

import mercantile
import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from mosaic_async.errors import UsageError
from mosaic_async.geo.area import MAX_LATITUDE, Bounds
from mosaic_async.geo.grid_names import DEGREES, WEB_MERCATOR
from mosaic_async.geo.straight import Floats
from mosaic_async.geo.systems import from_degrees, is_degrees, ring_in_degrees, system

MAX_ZOOM = 24
WORLD = mercantile.CE
"""Circumference of the equator in EPSG:3857 metres."""
_Number = TypeVar("_Number", float, Floats)


class Tile(NamedTuple):
    """A tile as a server counts it; equal to mercantile's, and not limited to 2^z columns and rows."""

    x: int
    y: int
    z: int


@dataclass(frozen=True, kw_only=True)
class TileMatrix:
    """The tiles of one zoom: columns and rows of equal rectangles in a coordinate system."""

    zoom: int
    crs: str
    """AUTHORITY:CODE, or WKT."""
    left: float
    """West edge of the first column, in units of the CRS."""
    top: float
    """North edge of the first row."""
    width: float
    """Of a tile, in units of the CRS."""
    height: float
    columns: int
    rows: int
    is_south_up: bool = False
    """Whether the server counts rows from the south; here they are always counted from the north."""
    name: str = ""
    """Its identifier in requests, where that is not the zoom."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the matrix that `dataclasses.asdict` took apart."""
        return cls(**values)

    @cached_property
    def system(self) -> CRS:
        """The coordinate system."""
        return system(self.crs)

    @cached_property
    def is_mercator(self) -> bool:
        """Whether the tiles are those of Web Mercator's square."""
        if self.crs != WEB_MERCATOR or not 0 <= self.zoom <= MAX_ZOOM:
            return False
        other = web_mercator(self.zoom)
        names = ("left", "top", "width", "height", "columns", "rows")
        return all(math.isclose(getattr(self, name), getattr(other, name), rel_tol=1e-9) for name in names)

    @cached_property
    def is_upright(self) -> bool:
        """Whether meridians and parallels are columns and rows, so that a box in degrees is one of tiles."""
        return self.crs == WEB_MERCATOR or is_degrees(self.system)

    @cached_property
    def wraps(self) -> bool:
        """Whether the last column and the first one are neighbours."""
        period = WORLD if self.crs == WEB_MERCATOR else 360 if is_degrees(self.system) else math.inf
        return math.isclose(self.columns * self.width, period, rel_tol=1e-12)

    @property
    def extent(self) -> Bounds:
        """West, south, east and north edge of all tiles, in units of the CRS."""
        right, lower = self.left + self.columns * self.width, self.top - self.rows * self.height
        return self.left, lower, right, self.top

    @property
    def latitudes(self) -> float:
        """Degrees north and south of the equator that the coordinate system has places for."""
        return MAX_LATITUDE if self.crs == WEB_MERCATOR else 90.0

    @property
    def unit(self) -> str:
        """Name of the CRS's unit."""
        return "degree" if is_degrees(self.system) else str(self.system.linear_units)

    def shares(self, longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
        """Return how far places lie from the left and the top, as shares of the whole matrix."""
        if self.is_mercator:
            return x_share(longitude), 0.5 - np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2)) / (2 * np.pi)
        x, y = (longitude, latitude) if self.crs == DEGREES else from_degrees(self.system, longitude, latitude)
        return (x - self.left) / (self.width * self.columns), (self.top - y) / (self.height * self.rows)

    def to_tiles(self, longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
        """Return the columns and rows of places, in tiles."""
        x, y = self.shares(longitude, latitude)
        return x * self.columns, y * self.rows

    def tile(self, column: int, row: int) -> Tile:
        """Return the tile as the server counts it; columns continue past the last one where the matrix wraps."""
        return Tile(column % self.columns, self.rows - 1 - row if self.is_south_up else row, self.zoom)

    def place(self, tile: Tile) -> tuple[int, int]:
        """Return the column and row of a tile."""
        return tile.x, self.rows - 1 - tile.y if self.is_south_up else tile.y

    def bounds_of(self, tile: Tile) -> Bounds:
        """Return the west, south, east and north edge of a tile, in units of the CRS."""
        column, row = self.place(tile)
        west, north = self.left + column * self.width, self.top - row * self.height
        return west, north - self.height, west + self.width, north

    def ring_of(self, tile: Tile) -> list[tuple[float, float]]:
        """Return the outline of a tile in degrees."""
        west, south, east, north = self.bounds_of(tile)
        corners = [(west, south), (east, south), (east, north), (west, north), (west, south)]
        if self.crs == WEB_MERCATOR:
            west, south, east, north = mercantile.bounds(*self.place(tile), tile.z)
            return [(west, south), (east, south), (east, north), (west, north), (west, south)]
        return corners if self.crs == DEGREES else ring_in_degrees(self.system, corners)

    def degrees(self, bounds: Bounds) -> Bounds:
        """Return the box in degrees around a box in units of the CRS; west exceeds east across the antimeridian."""
        if self.crs == WEB_MERCATOR:
            west, north = mercantile.lnglat(bounds[0], bounds[3])
            east, south = mercantile.lnglat(bounds[2], bounds[1])
        elif is_degrees(self.system):
            west, south, east, north = bounds
            turns = 360 * math.floor((west + 180) / 360)
            west, east = west - turns, east - turns
        else:
            west, south, east, north = transform_bounds(self.system, "EPSG:4326", *bounds, densify_pts=101)
        return west, south, east - 360 if east > 180 + 1e-9 else east, north


@dataclass(frozen=True, kw_only=True)
class MatrixSet:
    """The grids of all zooms, in one coordinate system."""

    name: str
    matrices: tuple[TileMatrix, ...]
    """In order of their zooms."""
    tile_size: int
    """Pixels per side, where a server is not told otherwise."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the set that `dataclasses.asdict` took apart, also after it was stored as JSON."""
        return cls(**{**values, "matrices": tuple(TileMatrix.from_dict(one) for one in values["matrices"])})

    @property
    def is_mercator(self) -> bool:
        """Whether the tiles are those of Web Mercator, in its order."""
        return all(matrix.is_mercator and not matrix.is_south_up for matrix in self.matrices)

    @property
    def latitudes(self) -> float:
        """Degrees north and south of the equator that the coordinate system has places for."""
        return self.matrices[0].latitudes

    def matrix(self, zoom: int) -> TileMatrix:
        """Return the grid of a zoom.

        Raises:
            UsageError: the set does not have this zoom.
        """
        found = next((matrix for matrix in self.matrices if matrix.zoom == zoom), None)
        if found is None:
            lowest, highest = self.matrices[0].zoom, self.matrices[-1].zoom
            raise UsageError(
                f"the tile matrix set {self.name} has no zoom {zoom}", hint=f"its zooms are {lowest} to {highest}"
            )
        return found

    def zoom_like(self, zoom: int, tile_size: int) -> int:
        """Return the lowest zoom whose tiles of `tile_size` have the resolution of the set's own tiles at a zoom."""
        finest = self.matrix(zoom).width / self.tile_size
        return next(one.zoom for one in self.matrices if one.zoom == zoom or one.width / tile_size <= finest * 1.01)


@lru_cache(maxsize=MAX_ZOOM + 1)
def web_mercator(zoom: int) -> TileMatrix:
    """Return the tiles of Web Mercator's square.

    Raises:
        UsageError: the zoom is not from 0 to 24.
    """
    if not 0 <= zoom <= MAX_ZOOM:
        raise UsageError(f"zoom must be from 0 to {MAX_ZOOM}, got {zoom}")
    count, size = 2**zoom, WORLD / 2**zoom
    return TileMatrix(
        zoom=zoom, crs=WEB_MERCATOR, left=-WORLD / 2, top=WORLD / 2, width=size, height=size, columns=count, rows=count
    )


def x_share(longitude: _Number) -> _Number:
    """Return the share of the world's width that lies between -180 degrees and a longitude."""
    return longitude / 360 + 0.5


def y_share(latitude: float) -> float:
    """Return the share of the Web Mercator square that lies north of a latitude."""
    return 0.5 - float(mercantile.xy(0, latitude)[1] / WORLD)
