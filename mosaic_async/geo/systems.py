"""Coordinate systems by name or WKT, and the way from and to degrees.

Only this module and `projection` ask PROJ, through rasterio. Names come from files and servers, so GDAL never sees one
that it could take for a URL or a file.
"""

from __future__ import annotations

import math
import re
from functools import partial

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from mosaic_async.errors import UsageError
from mosaic_async.geo.grid_names import DEGREES, crs_named
from mosaic_async.geo.straight import Floats, straightened

Ring = list[tuple[float, float]]
"""X and y of each corner."""
_TOLERANCE = 1e-7
"""Degrees, a centimetre."""
_WKT = re.compile(r"\s*(PROJ|GEOG|GEOD|BOUND|COMPD?|COMPOUND|ENG|LOCAL)_?(CRS|CS)\s*\[", re.IGNORECASE)


def system(name: str) -> CRS:
    """Return a coordinate system by any spelling of its code, or by its WKT.

    Raises:
        UsageError: it is not known.
    """
    try:
        if _WKT.match(name):
            return CRS.from_wkt(name)
        if code := crs_named(name):
            return CRS.from_string(code)
    except CRSError as error:
        raise UsageError(f"the coordinate system {name[:60]!r} is not known to PROJ") from error
    raise UsageError(f"{name[:60]!r} is not a coordinate system", hint="write EPSG:CODE")


def is_degrees(crs: CRS) -> bool:
    """Return whether coordinates are longitude and latitude in degrees, of whatever datum."""
    return bool(crs.is_geographic)


def to_degrees(crs: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return longitude and latitude on WGS 84 of places in a system."""
    return _transformed(crs, CRS.from_string(DEGREES), x, y)


def from_degrees(crs: CRS, longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
    """Return the places, east and north, of longitudes and latitudes on WGS 84; infinite outside of the system."""
    return _transformed(CRS.from_string(DEGREES), crs, longitude, latitude)


def ring_in_degrees(crs: CRS, ring: Ring) -> Ring:
    """Return a ring whose edges are straight in a system as one whose edges are straight in degrees.

    Longitudes continue past 180 degrees where the ring crosses the antimeridian. Around a pole, it goes along the
    antimeridian to the pole and back.

    Raises:
        UsageError: a corner has no place in degrees.
    """
    x, y = (np.array(values) for values in zip(*ring[: -1 if ring[0] == ring[-1] else None], strict=True))
    one = np.zeros(len(x), dtype=np.int64)
    longitude, latitude, _ = straightened(x, y, one, partial(to_degrees, crs), _TOLERANCE, period=360)
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        raise UsageError("an area has corners outside of its coordinate system")
    longitude = np.unwrap(np.append(longitude, longitude[0]), period=360)
    corners = list(zip(longitude.tolist(), [*latitude.tolist(), float(latitude[0])], strict=True))
    if abs(longitude[-1] - longitude[0]) > 180:
        pole = math.copysign(90.0, float(latitude.mean()))
        corners += [(corners[-1][0], pole), (corners[0][0], pole)]
    turns = 360 * round(float(longitude.min() + longitude.max()) / 720)
    return [(one - turns, other) for one, other in corners]


def _transformed(source: CRS, target: CRS, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    if not len(x):
        return x, y
    found_x, found_y = transform(source, target, x.tolist(), y.tolist())
    return np.array(found_x), np.array(found_y)
