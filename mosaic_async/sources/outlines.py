"""Places in degrees: cut at ±180, enlarged, and the cells of a zoom that they touch.

It knows nothing of items, rasters or documents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import mercantile
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import RefusedError, SourceError
from mosaic_async.geo.area import MAX_LATITUDE
from mosaic_async.geo.cover import WORLD

Box = tuple[float, float, float, float]
"""West, south, east, north in degrees; west is not above east."""
MAX_CELLS = 2_000_000
"""Maximum number of candidate cells, over all scenes."""
_HAIR = 1e-9
"""Share of a cell by which it is drawn smaller: a footprint that only touches its edge is not in it."""
_WORLD = shapely.box(-180, -90, 180, 90)
_SQUARE = shapely.box(-180, -MAX_LATITUDE, 180, MAX_LATITUDE)


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


def capped_cells(
    outlines: Sequence[BaseGeometry], reaches: Sequence[BaseGeometry], zoom: int, most: int | None
) -> dict[str, list[int]]:
    """Return the cells that scenes reach, with a maximum number of scenes each.

    Where that leaves scenes out, those whose outlines share an area with the cell come before those that are only near.

    Args:
        outlines: of the scenes, in degrees.
        reaches: the same with a margin, see `footprint.reach_of`.
        zoom: of the cells.
        most: maximum number of scenes per cell; None or 0: all.
    """
    cells = cells_of(reaches, zoom)
    if not most or max(map(len, cells.values()), default=0) <= most:
        return cells
    inside = cells_of(outlines, zoom)
    return {key: _first(found, inside.get(key, []), most) for key, found in cells.items()}


def _first(found: list[int], inside: list[int], most: int) -> list[int]:
    near = [one for one in found if one not in inside]
    return sorted([*inside, *near][:most])


def cell_count(outlines: Sequence[BaseGeometry], zoom: int) -> int:
    """Return an upper bound of the cells of footprints, from their boxes; quick."""
    left, top, right, bottom = _ranges(outlines, zoom)
    return int(((right - left + 1) * (bottom - top + 1)).sum())


def within_the_world(geometry: BaseGeometry) -> BaseGeometry:
    """Return a geometry whose longitudes may run past ±180 cut there, with longitudes from -180 to 180."""
    west, _, east, _ = geometry.bounds
    if west >= -180 and east <= 180:
        return geometry
    turns = range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1)
    return shapely.union_all([translate(geometry, -360 * turn).intersection(_WORLD) for turn in turns])


def enlarged(geometry: BaseGeometry, share: float) -> BaseGeometry:
    """Return the part of a geometry that Web Mercator shows, with a margin: a share of the longer side of its parts."""
    flat = shapely.transform(geometry.intersection(_SQUARE), _to_mercator)
    if flat.area == 0:
        return shapely.Polygon()
    west, south, east, north = shapely.bounds(shapely.get_parts(flat)).T
    margin = share * float(np.maximum(east - west, north - south).max())
    return within_the_world(shapely.transform(shapely.buffer(flat, margin, join_style="mitre"), _to_degrees))


def boxes_of(geometry: BaseGeometry) -> tuple[Box, ...]:
    """Return west, south, east, north of each part of a geometry."""
    boxes = shapely.bounds(shapely.get_parts(geometry)).tolist()
    return tuple((west, south, east, north) for west, south, east, north in boxes)


def metres_of(box: Box) -> Box:
    """Return a box of degrees in metres of EPSG:3857."""
    corners = _to_mercator(np.clip(np.array(box).reshape(2, 2), (-360, -MAX_LATITUDE), (360, MAX_LATITUDE)))
    left, bottom, right, top = (float(value) * WORLD / 360 for value in corners.ravel())
    return (left, bottom, right, top)


def _to_mercator(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return degrees as Web Mercator in degrees of the equator."""
    return np.column_stack([corners[:, 0], np.degrees(np.arctanh(np.sin(np.radians(corners[:, 1]))))])


def _to_degrees(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([corners[:, 0], np.degrees(np.arctan(np.sinh(np.radians(corners[:, 1]))))])


def mosaic_document(
    outlines: Sequence[BaseGeometry],
    zooms: tuple[int, int, int],
    tiles: Mapping[str, Sequence[str]],
    *,
    name: str | None = None,
    asset_type: str | None = None,
) -> dict[str, Any]:
    """Return a MosaicJSON, see version 0.0.3 of its specification.

    Args:
        outlines: of all scenes, in degrees.
        zooms: lowest and highest zoom of the tiles, and the zoom of the cells.
        tiles: names of scenes by quadkey of a cell.
        name: of the mosaic; None: no name.
        asset_type: what the names are, COG or STAC; None: not stated.

    Raises:
        SourceError: no scene is in any tile.
    """
    if not tiles:
        raise SourceError("all scenes lie outside of Web Mercator's latitudes, ±85.0511 degrees")
    minzoom, maxzoom, quadkey_zoom = zooms
    west, south, east, north = (float(value) for value in shapely.total_bounds(outlines))
    return {
        "mosaicjson": "0.0.3",
        **({} if name is None else {"name": name}),
        "version": "1.0.0",
        "minzoom": minzoom,
        "maxzoom": maxzoom,
        "quadkey_zoom": quadkey_zoom,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, minzoom],
        **({} if asset_type is None else {"asset_type": asset_type}),
        "tiles": tiles,
    }


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
