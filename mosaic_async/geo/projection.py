"""Points between coordinate reference systems, where each point may fail, and systems that repeat around the world.

It knows nothing of tiles and scenes.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform

Values = NDArray[np.float64]
DEGREES = CRS.from_epsg(4326)
"""Longitude and latitude."""
_CYLINDRICAL = frozenset({"cea", "eqc", "merc", "mill", "webmerc"})
"""Projections of PROJ whose x grows with the longitude alone."""


def transformed(source: CRS, target: CRS, x: Values, y: Values) -> tuple[Values, Values]:
    """Return points in another reference system; NaN for points that it cannot show.

    Args:
        source: reference system of the points.
        target: reference system of the result.
        x: easting, or degrees of longitude; any shape.
        y: northing, or degrees of latitude; the same shape.
    """
    found = _transformed(source, target, np.asarray(x, float).ravel(), np.asarray(y, float).ravel())
    known = np.isfinite(found).all(axis=0)
    east, north = np.where(known, found, np.nan)
    return east.reshape(np.shape(x)), north.reshape(np.shape(x))


def _transformed(source: CRS, target: CRS, x: Values, y: Values) -> Values:
    """Return (2, points); a set that fails as a whole is halved until the points that fail are alone."""
    if not len(x):
        return np.empty((2, 0))
    try:
        return np.array(transform(source, target, x, y))
    except (CPLE_BaseError, RasterioError):  # of one point
        if len(x) == 1:
            return np.full((2, 1), np.nan)
        half = len(x) // 2
        parts = [_transformed(source, target, x[part], y[part]) for part in (slice(half), slice(half, None))]
        return np.concatenate(parts, axis=1)


def true_degrees(source: CRS, x: Values, y: Values, tolerance: float) -> tuple[Values, Values]:
    """Return longitudes and latitudes of points; NaN for points outside of the projection.

    A projection can return a place also for a point beside its map of the world. Such a point does not return to where
    it was.

    Args:
        source: reference system of the points.
        x: easting; any shape.
        y: northing; the same shape.
        tolerance: distance at which a point that returned is another point, in units of `source`.
    """
    longitude, latitude = transformed(source, DEGREES, x, y)
    x_again, y_again = transformed(DEGREES, source, longitude, latitude)
    away = x_again - x
    if (around := period(source)) is not None:
        away -= around * np.round(away / around)
    is_true = np.hypot(away, y_again - y) <= tolerance
    return np.where(is_true, longitude, np.nan), np.where(is_true, latitude, np.nan)


@lru_cache(maxsize=256)
def period(crs: CRS) -> float | None:
    """Return the distance after which the x of a reference system shows the same place again; None if none does."""
    if crs.is_geographic:
        return float(round(2 * math.pi / crs.units_factor[1], 9))
    parameters = crs.to_dict()
    if parameters.get("proj") not in _CYLINDRICAL:
        return None
    middle = float(parameters.get("lon_0", 0))
    quarter = middle + 90 if middle < 90 else middle - 90
    x, _ = transformed(DEGREES, crs, np.array([middle, quarter]), np.zeros(2))
    return float(4 * abs(x[1] - x[0]))
