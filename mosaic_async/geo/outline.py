"""Polygons in degrees become polygons of a grid of tiles, with edges that follow the straight lines in degrees.

RFC 7946 draws an edge straight in longitude and latitude; in most projections that is a curve.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np

from mosaic_async.geo.area import Polygon
from mosaic_async.geo.cells import Edges
from mosaic_async.geo.straight import Projection, straightened, successors

TOLERANCE = 0.1 / 4096
"""Share of a tile: a tenth of the smallest pixel."""


def outline(polygons: Iterable[Polygon], project: Projection, tolerance: float = TOLERANCE) -> Edges:
    """Return the edges of polygons on a grid.

    Args:
        polygons: closed rings in degrees.
        project: from longitude and latitude to columns and rows, in tiles.
        tolerance: maximum distance between an edge and the line that is straight in degrees, in tiles.
    """
    rings = [(number, ring[:-1]) for number, polygon in enumerate(polygons) for ring in polygon]
    corners = np.array(list(chain.from_iterable(ring for _, ring in rings)), dtype=np.float64).reshape(-1, 2)
    ring = np.repeat(np.arange(len(rings)), [len(ring) for _, ring in rings])
    x, y, ring = straightened(corners[:, 0], corners[:, 1], ring, project, tolerance)
    polygon = np.array([number for number, _ in rings], dtype=np.int64)[ring]
    after = successors(ring)
    return Edges(polygon, x, y, x[after], y[after])
