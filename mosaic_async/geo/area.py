"""The requested area: a box or polygons in degrees, checked and normalised.

It does not know zooms or tiles. Longitudes may exceed 180, so that an area across the antimeridian keeps its shape.
Latitudes are cut where the tiles end, by default at the edge of the Web Mercator square.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rasterio.crs import CRS

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.grid_names import DEGREES
from mosaic_async.geo.systems import Ring, ring_in_degrees, system

MAX_LATITUDE = 85.0511287798066
"""Degrees; where Web Mercator's square ends."""

Bounds = tuple[float, float, float, float]
"""West, south, east, north in degrees."""
Polygon = list[Ring]
"""The outer ring, then the holes, in degrees; in pieces the last corner of a ring repeats the first."""
_HAIR = 1e-10
"""Degrees; a hundredth of a millimetre."""
_COLLECTIONS = {"FeatureCollection": "features", "GeometryCollection": "geometries"}


@dataclass(frozen=True)
class Area:
    """The area to cover: its bounding box, and its polygons unless it is that box."""

    west: float
    """Degrees, from -180 up to 180."""
    south: float
    east: float
    """Degrees; greater than `west`, so above 180 where the area crosses the antimeridian."""
    north: float
    polygons: tuple[Polygon, ...] | None = None
    """Corners in degrees; None if the area is the box itself."""

    def __post_init__(self) -> None:
        if not self.south < self.north or not self.west < self.east:
            raise RefusedError(
                f"the area {self.bounds} is empty after cutting it at the tiles' latitudes (Web Mercator: ±85.0511)",
                hint="bounds are west south east north in degrees",
            )
        if self.east - self.west > 360:
            raise RefusedError(f"the area {self.bounds} is wider than the world")

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in degrees."""
        return (self.west, self.south, self.east, self.north)

    @property
    def has_slopes(self) -> bool:
        """Whether an edge of a polygon is neither a meridian nor a parallel: only such edges are curves on a grid."""
        rings = (ring for polygon in self.polygons or () for ring in polygon)
        return any(
            start[0] != end[0] and start[1] != end[1] for ring in rings for start, end in pairwise([*ring, ring[0]])
        )

    @classmethod
    def parse(cls, area: Sequence[float] | Mapping[str, Any], *, latitudes: float = MAX_LATITUDE) -> Area:
        """Read `(west, south, east, north)` in degrees, or a GeoJSON object with polygons.

        What has a member `crs`, as GeoJSON had before RFC 7946, is in that coordinate system.

        Args:
            area: what a user gives.
            latitudes: degrees north and south of the equator at which it is cut.

        Raises:
            UsageError: the argument is neither four numbers nor GeoJSON polygons.
            RefusedError: a coordinate is not finite, the edges are in the wrong order, or the area lies outside
                ±85.0511 degrees of latitude.
        """
        if isinstance(area, Mapping):
            return _of_polygons(list(_polygons(area, None)), latitudes)
        try:
            west, south, east, north = (float(value) for value in area)
        except (TypeError, ValueError) as error:
            raise UsageError(f"bounds must be four numbers, west south east north, got {area!r}") from error
        _check_degrees(west, south, east, north)
        if south >= north:
            raise RefusedError(
                f"south {south} is not below north {north}", hint="bounds are west south east north in degrees"
            )
        if west == east:
            raise RefusedError(f"west and east are both {west}, the area has no width")
        if west > east:  # across the antimeridian, as RFC 7946 section 5.2 writes it
            east += 360
        return cls(west, max(south, -latitudes), east, min(north, latitudes))

    def pieces(self, latitudes: float = MAX_LATITUDE) -> Iterator[Polygon]:
        """Yield each polygon, or the box, cut at ±180 degrees and at ±`latitudes`; longitudes run from -180 to 180."""
        limits = ((0, -180.0, 1), (0, 180.0, -1), (1, -latitudes, 1), (1, latitudes, -1))
        west, south, east, north = self.bounds
        box: Polygon = [[(west, south), (east, south), (east, north), (west, north), (west, south)]]
        for polygon in (box,) if self.polygons is None else self.polygons:
            for shift in (-360.0, 0.0, 360.0):
                rings = [_cut([(x + shift, y) for x, y in ring], limits) for ring in polygon]
                if rings[0]:
                    yield [ring for ring in rings if ring]


def _of_polygons(polygons: list[Polygon], latitudes: float) -> Area:
    if not polygons:
        raise UsageError("the GeoJSON has no polygons", hint="use Polygon or MultiPolygon geometries")
    corners = [corner for polygon in polygons for ring in polygon for corner in ring]
    west, east = min(x for x, _ in corners), max(x for x, _ in corners)
    south, north = min(y for _, y in corners), max(y for _, y in corners)
    _check_degrees(west, south, east, north)
    return Area(west, max(south, -latitudes), east, min(north, latitudes), tuple(polygons))


def _check_degrees(west: float, south: float, east: float, north: float) -> None:
    if not all(math.isfinite(value) for value in (west, south, east, north)):
        raise RefusedError(f"bounds must be finite, got {(west, south, east, north)}")
    if min(west, east) < -360 or max(west, east) > 360 or min(south, north) < -90 or max(south, north) > 90:
        raise RefusedError(
            f"{(west, south, east, north)} are not degrees of longitude and latitude",
            hint="coordinates are longitude, latitude in degrees (EPSG:4326), not metres",
        )


def _polygons(geojson: Mapping[str, Any], outer: CRS | None) -> Iterator[Polygon]:
    """Yield polygons in degrees, whatever coordinate system they, or what holds them (`outer`), name."""
    kind = geojson.get("type")
    try:
        crs = _system_of(geojson.get("crs")) or outer
        if kind in _COLLECTIONS:
            for member in geojson[_COLLECTIONS[kind]]:
                yield from _polygons(member, crs)
        elif kind == "Feature":
            yield from _polygons(geojson["geometry"] or {"type": "GeometryCollection", "geometries": []}, crs)
        elif kind == "Polygon":
            yield _in_degrees(crs, _rings(geojson["coordinates"]))
        elif kind == "MultiPolygon":
            for coordinates in geojson["coordinates"]:
                yield _in_degrees(crs, _rings(coordinates))
        else:
            raise UsageError(f"a GeoJSON {kind!r} is not an area", hint="use Polygon, MultiPolygon or a Feature")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"malformed GeoJSON {kind}: {error!r}") from error


def _system_of(member: Any) -> CRS | None:
    """Return the coordinate system that a member `crs` names; None without one."""
    if member is None:
        return None
    try:
        return system(str(member["properties"]["name"]))
    except (KeyError, TypeError) as error:
        raise UsageError("the GeoJSON's `crs` names no coordinate system", hint="write it in degrees") from error


def _in_degrees(crs: CRS | None, polygon: Polygon) -> Polygon:
    return polygon if crs is None or crs == system(DEGREES) else [ring_in_degrees(crs, ring) for ring in polygon]


def _rings(coordinates: Sequence[Sequence[Sequence[float]]]) -> Polygon:
    """Return a polygon's rings without heights; it has an outer ring, and each ring has three corners or more."""
    polygon = [[(_snapped(float(corner[0])), float(corner[1])) for corner in ring] for ring in coordinates]
    if not polygon or any(len(ring) < 3 for ring in polygon):
        raise ValueError("a polygon needs rings of at least three corners")
    if not all(math.isfinite(value) for ring in polygon for corner in ring for value in corner):
        raise RefusedError("the GeoJSON has coordinates that are not finite numbers")
    return polygon


def _snapped(longitude: float) -> float:
    """Return ±180 for what is meant to be it: Natural Earth's Russia ends at 180.00000000000006 degrees."""
    return math.copysign(180.0, longitude) if abs(abs(longitude) - 180) < _HAIR else longitude


def _cut(ring: Ring, limits: Sequence[tuple[int, float, int]]) -> Ring:
    """Cut a ring at each limit and close it; the result is empty if nothing remains.

    Args:
        ring: the corners.
        limits: axis (0 for the first coordinate), value, and 1 to keep the side above the value or -1 the side below.
    """
    for axis, value, side in limits:
        ring = _cut_half(ring, axis, value, side)
    return ring if ring[:1] == ring[-1:] else [*ring, ring[0]]


def _cut_half(ring: Ring, axis: int, limit: float, side: int) -> Ring:
    """Cut a ring by one line (Sutherland and Hodgman 1974)."""
    kept: Ring = []
    for start, end in zip(ring[-1:] + ring[:-1], ring, strict=True):
        start_in, end_in = (side * (corner[axis] - limit) >= 0 for corner in (start, end))
        if start_in != end_in:
            share = (limit - start[axis]) / (end[axis] - start[axis])
            crossing = [start[i] + share * (end[i] - start[i]) for i in (0, 1)]
            crossing[axis] = limit
            kept.append((crossing[0], crossing[1]))
        if end_in:
            kept.append(end)
    extent = {corner[axis] for corner in kept}
    return kept if len(extent) > 1 else []  # a ring that only touches the line has no area
