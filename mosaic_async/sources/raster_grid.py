"""Where the pixels of a raster lie on the map: its outline, also around a pole, across ±180 and at a globe's limb.

It knows nothing of items and files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import SourceError
from mosaic_async.geo.area import MAX_LATITUDE
from mosaic_async.geo.projection import period, true_degrees
from mosaic_async.sources.outlines import enlarged, within_the_world

_SIDE = 32
"""Segments of each side of an outline, and cells per side of a raster whose outline is not enough."""
_POLAR = 80.0
"""Degrees of latitude from which an outline is not enough: few points lie between it and the pole."""
_POLE = 89.9
_AT_THE_LIMB = math.degrees(math.sqrt(4 / _SIDE))
"""Degrees that a cell at the limb of a globe may reach beyond its points: angles there grow with the square root of the
distance to the limb, in radii."""
_MARGIN = 0.01
"""Share of its longer side by which an outline is enlarged: `_SIDE` chords fall short of a curve by less."""
_KERNEL = 2.0
"""Pixels around a raster that also count."""


@dataclass(frozen=True)
class RasterGrid:
    """The place of a raster's pixels."""

    crs: CRS
    transform: Affine
    """From columns and rows to `crs`."""
    width: int
    height: int

    @classmethod
    def of(cls, dataset: DatasetReader) -> RasterGrid:
        """Return the grid of a dataset; one that only control points tie to the map is taken as rio-tiler does.

        Raises:
            SourceError: the dataset has no coordinate reference system.
        """
        points, crs = dataset.gcps
        crs, transform = (crs, from_gcps(points)) if points else (dataset.crs, dataset.transform)
        if crs is None:
            raise SourceError("the file has no coordinate reference system")
        return cls(crs, transform, dataset.width, dataset.height)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of the corners, in `crs`."""
        across, down = np.array([0, 0, self.width, self.width]), np.array([0, self.height, 0, self.height])
        x, y = self._places(across, down)
        return (float(x.min()), float(y.min()), float(x.max()), float(y.max()))

    @property
    def turns(self) -> dict[int, RasterGrid]:
        """The raster moved by whole worlds, by their number: the parts that lie on the map of its reference system.

        A raster with longitudes from 0 to 360 lies there twice: as it is, and 360 degrees further west. Systems that
        do not repeat, and turned rasters, have one.
        """
        around = period(self.crs)
        if around is None or self.transform.b or self.transform.d:
            return {0: self}
        middle = 0.0 if self.crs.is_geographic else float(self.crs.to_dict().get("x_0", 0))
        step = self.transform.a
        found = {}
        for turn in self._turns(around, middle):
            origin = self.transform.c - turn * around
            edges = sorted((middle + sign * around / 2 - origin) / step for sign in (-1, 1))
            first, last = max(0, math.floor(edges[0])), min(self.width, math.ceil(edges[1]))
            moved = Affine(step, 0, origin + first * step, 0, self.transform.e, self.transform.f)
            found[turn] = replace(self, transform=moved, width=last - first)
        return found

    def _turns(self, around: float, middle: float) -> list[int]:
        left, right = sorted((self.transform.c, self.transform.c + self.width * self.transform.a))
        hair = 1e-3 * abs(self.transform.a)
        first = math.floor((left - middle + hair) / around + 0.5)
        last = math.ceil((right - middle - hair) / around - 0.5)
        return list(range(first, max(first, last) + 1))

    def outline(self) -> BaseGeometry:
        """Return what the raster covers, in degrees, cut at ±180; a pole's surroundings up to the pole.

        Raises:
            SourceError: no part of the raster is on the map.
        """
        along = np.linspace(0, 1, _SIDE + 1)[:-1]
        start, end = np.zeros(_SIDE), np.ones(_SIDE)
        across = np.concatenate([along, end, 1 - along, start, [0.0]])
        down = np.concatenate([start, along, end, 1 - along, [0.0]])
        longitude, latitude = self._degrees(across, down)
        if np.isfinite(longitude).all() and np.abs(latitude).max() < _POLAR:
            unrolled = np.unwrap(longitude, period=360)
            if abs(unrolled[-1] - unrolled[0]) < 180:  # otherwise it runs around a pole
                return within_the_world(shapely.make_valid(shapely.Polygon(np.column_stack([unrolled, latitude]))))
        return self._cell_by_cell()

    def reach(self) -> BaseGeometry:
        """Return the outline with a margin: no pixel that is rendered from the raster lies outside.

        Raises:
            SourceError: no part of the raster is on the map.
        """
        return enlarged(self.outline(), _MARGIN + _KERNEL / max(self.width, self.height))

    def resolution(self) -> float:
        """Return the size of a pixel in the middle, in metres of Web Mercator; NaN if that is not on the map."""
        middle = np.array([self.width, self.height]) / 2
        columns, rows = middle[0] + np.array([0, 1, 0]), middle[1] + np.array([0, 0, 1])
        longitude, latitude = self._degrees(columns / self.width, rows / self.height)
        latitude[np.abs(latitude) > MAX_LATITUDE] = np.nan
        x = np.radians(np.unwrap(longitude, period=360))
        y = np.arctanh(np.sin(np.radians(latitude)))
        area = abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))
        return float(6378137 * math.sqrt(area))

    def _degrees(self, across: NDArray[np.float64], down: NDArray[np.float64]) -> tuple[Any, Any]:
        """Return degrees of points in shares of width and height."""
        x, y = self._places(across * self.width, down * self.height)
        a, b, _, d, e, _ = self.transform[:6]
        return true_degrees(self.crs, x, y, tolerance=abs(a) + abs(b) + abs(d) + abs(e))

    def _places(self, columns: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b, c, d, e, f = self.transform[:6]
        return a * columns + b * rows + c, d * columns + e * rows + f

    def _cell_by_cell(self) -> BaseGeometry:
        """Return the union of boxes around the cells of the raster."""
        down, across = np.mgrid[0 : 1 : complex(_SIDE + 1), 0 : 1 : complex(_SIDE + 1)]
        longitude, latitude = self._degrees(across, down)
        corners = [(slice(a, a + _SIDE), slice(b, b + _SIDE)) for a, b in ((0, 0), (0, 1), (1, 1), (1, 0))]
        longitudes = np.stack([longitude[corner].ravel() for corner in corners], axis=1)
        latitudes = np.stack([latitude[corner].ravel() for corner in corners], axis=1)
        known = np.isfinite(longitudes)
        boxes = [
            _box_of_cell(east[there], north[there], is_whole=bool(there.all()))
            for east, north, there in zip(longitudes, latitudes, known, strict=True)
            if there.any()
        ]
        if not boxes:
            raise SourceError("no part of the raster is on the map", hint="check its coordinate reference system")
        return within_the_world(shapely.union_all(boxes))


def _box_of_cell(longitude: NDArray[np.float64], latitude: NDArray[np.float64], *, is_whole: bool) -> BaseGeometry:
    """Return a box around a cell, from those of its corners that are on the map."""
    around = np.unwrap(np.append(longitude, longitude[0]), period=360)
    west, east, south, north = around.min(), around.max(), latitude.min(), latitude.max()
    spare = 0.1 * max(east - west, north - south) if is_whole else _AT_THE_LIMB
    if is_whole and (abs(around[-1] - around[0]) > 180 or np.abs(latitude).max() > _POLE):
        west, east = -180.0, 180.0
        south, north = (south, 90.0) if north > 0 else (-90.0, north)
    return shapely.box(west - spare, max(south - spare, -90), east + spare, min(north + spare, 90))
