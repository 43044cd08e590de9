"""Polygons in degrees become polygons of a grid of tiles, with edges that follow the straight lines in degrees.

RFC 7946 draws an edge straight in longitude and latitude; in most projections that is a curve. So edges get more
corners until none is further than a share of a pixel from where it should be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np

from mosaic_async.geo.area import Polygon
from mosaic_async.geo.cells import Edges, Floats, Integers

TOLERANCE = 0.1 / 4096
"""Share of a tile: a tenth of the smallest pixel."""
_MAX_PIECES = 4096
"""Pieces that an edge is cut into at once; more where these are still not straight."""

Projection = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""From longitudes and latitudes in degrees to columns and rows, in tiles."""


def outline(polygons: Iterable[Polygon], project: Projection, tolerance: float = TOLERANCE) -> Edges:
    """Return the edges of polygons on a grid.

    Args:
        polygons: closed rings in degrees.
        project: from degrees to the grid.
        tolerance: maximum distance between an edge and the line that is straight in degrees, in tiles.
    """
    rings = [(number, ring[:-1]) for number, polygon in enumerate(polygons) for ring in polygon]
    sizes = [len(ring) for _, ring in rings]
    corners = np.array(list(chain.from_iterable(ring for _, ring in rings)), dtype=np.float64).reshape(-1, 2)
    ring = np.repeat(np.arange(len(rings)), sizes)
    x, y, ring = _refined(corners[:, 0], corners[:, 1], ring, project, tolerance)
    polygon = np.array([number for number, _ in rings], dtype=np.int64)[ring]
    after = _successors(ring)
    return Edges(polygon, x, y, x[after], y[after])


def _refined(
    longitude: Floats, latitude: Floats, ring: Integers, project: Projection, tolerance: float
) -> tuple[Floats, Floats, Integers]:
    """Return the corners of rings on the grid, with those that keep edges close to straight lines in degrees."""
    is_open = np.ones(len(ring), dtype=np.bool_)
    while is_open.any():
        after = _successors(ring)
        east, north = longitude[after] - longitude, latitude[after] - latitude
        pieces = np.ones(len(ring), dtype=np.int64)
        far = _distance(longitude[is_open], latitude[is_open], east[is_open], north[is_open], project)
        pieces[is_open] = np.clip(np.ceil(np.sqrt(far / tolerance)), 1, _MAX_PIECES).astype(np.int64)
        corner = np.repeat(np.arange(len(ring)), pieces)
        share = (np.arange(len(corner)) - (np.cumsum(pieces) - pieces)[corner]) / pieces[corner]
        longitude, latitude = longitude[corner] + share * east[corner], latitude[corner] + share * north[corner]
        ring, is_open = ring[corner], (pieces > 1)[corner]
    x, y = project(longitude, latitude)
    return x, y, ring


def _distance(longitude: Floats, latitude: Floats, east: Floats, north: Floats, project: Projection) -> Floats:
    """Return how far edges that are straight on the grid are from those that are straight in degrees, in tiles.

    Three points are compared, because a curve that is the same on both sides of its middle crosses its chord there.
    """
    x, y = project(longitude, latitude)
    dx, dy = (end - start for start, end in zip((x, y), project(longitude + east, latitude + north), strict=True))
    length = np.hypot(dx, dy)
    far = np.zeros(len(x))
    for share in (0.25, 0.5, 0.75):
        ax, ay = project(longitude + share * east, latitude + share * north)
        ax, ay = ax - x, ay - y
        with np.errstate(divide="ignore", invalid="ignore"):
            across = np.where(length > 0, np.abs(dx * ay - dy * ax) / length, np.hypot(ax, ay))
        far = np.maximum(far, across)
    return far


def _successors(ring: Integers) -> Integers:
    """Return the index of the corner that follows each corner of closed rings."""
    after = np.arange(1, len(ring) + 1)
    is_last = np.append(ring[1:] != ring[:-1], True)[: len(ring)]
    is_first = np.append(True, ring[1:] != ring[:-1])[: len(ring)]
    after[is_last] = np.flatnonzero(is_first)
    return after
