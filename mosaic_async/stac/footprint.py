"""What a scene covers, and which cells of a zoom that touches.

Footprints may be polygons or multipolygons, with heights, with holes, across ±180 in any of the usual ways. It knows
nothing of searches or documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import antimeridian
import mercantile
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import RefusedError, SourceError
from mosaic_async.geo.area import MAX_LATITUDE
from mosaic_async.sources.stac_query import Item

MAX_CELLS = 2_000_000
"""Maximum number of candidate cells, over all scenes."""
_HAIR = 1e-9
"""Share of a cell by which it is drawn smaller: a footprint that only touches its edge is not in it."""


def outline_of(item: Item) -> BaseGeometry:
    """Return an item's footprint, flat and valid, cut at ±180; without a polygon its bbox.

    Raises:
        SourceError: the item has neither, or they are malformed.
    """
    try:
        geometry = item.get("geometry")
        found = shapely.force_2d(shape(geometry)) if geometry else None
        if found is None or found.is_empty or found.geom_type not in ("Polygon", "MultiPolygon"):
            found = box_of(item["bbox"])
        return _valid(_within_the_world(found))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ShapelyError) as error:
        raise SourceError(f"the footprint of {item.get('id')} is malformed: {error!r}") from error


def box_of(bbox: Sequence[float]) -> BaseGeometry:
    """Return a bbox of four or six numbers as a polygon, or as two where it crosses the antimeridian."""
    west, south, east, north = bbox if len(bbox) == 4 else (*bbox[0:2], *bbox[3:5])
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union_all([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def cells_of(outlines: Sequence[BaseGeometry], zoom: int) -> dict[str, list[int]]:
    """Return the cells that share an area with the footprints.

    Args:
        outlines: in degrees, longitudes from -180 to 180.
        zoom: of the cells.

    Returns:
        By quadkey, in order: the indices of the outlines in it, in order.

    Raises:
        RefusedError: there are more than `MAX_CELLS` candidate cells.
    """
    x, y = _candidates(outlines, zoom)
    boxes = _boxes(x, y, zoom)
    scenes, cells = shapely.STRtree(boxes).query(np.asarray(outlines, dtype=object), predicate="intersects")
    if not len(cells):
        return {}
    order = np.lexsort((scenes, cells))
    hit, starts = np.unique(cells[order], return_index=True)
    found = {
        mercantile.quadkey(int(x[cell]), int(y[cell]), zoom): members.tolist()
        for cell, members in zip(hit, np.split(scenes[order], starts[1:]), strict=True)
    }
    return dict(sorted(found.items()))


def cell_count(outlines: Sequence[BaseGeometry], zoom: int) -> int:
    """Return an upper bound of the cells of footprints, from their boxes; quick."""
    left, top, right, bottom = _ranges(outlines, zoom)
    return int(((right - left + 1) * (bottom - top + 1)).sum())


def _within_the_world(geometry: BaseGeometry) -> BaseGeometry:
    """Return a geometry cut at ±180 if it runs past it or jumps from one side to the other."""
    west, _, east, _ = geometry.bounds
    if west >= -180 and east <= 180 and east - west <= 180:
        return geometry
    if geometry.geom_type == "MultiPolygon":
        parts = [_within_the_world(polygon) for polygon in geometry.geoms]
        return shapely.union_all(parts)
    return antimeridian.fix_polygon(geometry, fix_winding=True, great_circle=False)


def _valid(geometry: BaseGeometry) -> BaseGeometry:
    return geometry if geometry.is_valid else shapely.make_valid(geometry)


def _ranges(outlines: Sequence[BaseGeometry], zoom: int) -> tuple[NDArray[np.int64], ...]:
    """Return first column, first row, last column and last row of the box of each simple part of each outline."""
    bounds = shapely.bounds(shapely.get_parts(np.asarray(outlines, dtype=object)))
    width = 2**zoom
    west, east = (bounds[:, index] / 360 + 0.5 for index in (0, 2))
    south, north = (_y_share(bounds[:, index]) for index in (1, 3))
    limited = [np.clip(np.floor(share * width).astype(np.int64), 0, width - 1) for share in (west, north, east, south)]
    return limited[0], limited[1], limited[2], limited[3]


def _candidates(outlines: Sequence[BaseGeometry], zoom: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if (count := cell_count(outlines, zoom)) > MAX_CELLS:
        raise RefusedError(
            f"the scenes cover {count:,} cells of zoom {zoom}, more than {MAX_CELLS:,}",
            hint="use a lower ``quadkey_zoom``",
        )
    width = 2**zoom
    codes = [
        (np.arange(top, bottom + 1)[:, None] * width + np.arange(left, right + 1)).ravel()
        for left, top, right, bottom in zip(*_ranges(outlines, zoom), strict=True)
    ]
    unique = np.unique(np.concatenate(codes))
    return unique % width, unique // width


def _boxes(x: NDArray[np.int64], y: NDArray[np.int64], zoom: int) -> Any:
    """Return cells as boxes in degrees, `_HAIR` smaller."""
    width = 2**zoom
    west, east = ((x + edge) / width * 360 - 180 for edge in (_HAIR, 1 - _HAIR))
    north, south = (_latitude((y + edge) / width) for edge in (_HAIR, 1 - _HAIR))
    return shapely.box(west, south, east, north)


def _y_share(latitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from the northern edge of the Web Mercator square, as a share of its height."""
    sine = np.sin(np.radians(np.clip(latitude, -MAX_LATITUDE, MAX_LATITUDE)))
    return np.asarray(0.5 - np.arctanh(sine) / (2 * np.pi))


def _latitude(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * share)))))
