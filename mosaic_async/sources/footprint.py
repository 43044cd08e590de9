"""What a scene covers: its footprint as its item states it, and where its pixels can be.

Footprints may be polygons or multipolygons, with heights, with holes, across ±180 in any of the usual ways. Many have
four corners only, or a bbox of these, and miss the pixels beyond a curved edge: so they are a hint, see `reach_of`. It
knows nothing of searches or documents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import antimeridian
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.geo.systems import system
from mosaic_async.sources.outlines import box_of, enlarged, within_the_world
from mosaic_async.sources.raster_grid import RasterGrid
from mosaic_async.sources.stac_query import Item

_NEAR = 0.01
"""Margin of a bbox where the item states the grid of its pixels too, as a share of the longer side."""
_FAR = 0.1
"""The same where it does not: edges that are straight in the scene's reference system are curved in degrees."""
_CURVED = 1 / 180
"""The further share of that margin per degree of the longer side: edges are curved the more, the longer they are."""
_FARTHEST = 0.3
_SYSTEMS = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")
"""Fields of the projection extension, version 1 or 2, that name the reference system; the first that is set holds."""
_NOMINAL = 1000
"""Pixels per side of a grid of which only the bounds are known."""


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
        return _valid(_continuous(found))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ShapelyError) as error:
        raise SourceError(f"the footprint of {item.get('id')} is malformed: {error!r}") from error


def reach_of(item: Item) -> BaseGeometry:
    """Return where pixels of an item's rasters can be, in degrees: more than its footprint, never less.

    That is the union of the geometry, of the bbox with a margin, and of the grids of `proj:` shape and transform. What
    is malformed is left out, for all are hints.

    Raises:
        SourceError: the item has none of them.
    """
    found = [reach for grid in set(_grids(item)) if (reach := _reach_of_grid(grid)) is not None]
    box = _hint({"geometry": None, "bbox": item.get("bbox")})
    if box is not None:
        found.append(enlarged(box, _NEAR if found else _share(box)))
    if (geometry := _hint({"geometry": item.get("geometry"), "bbox": None})) is not None:
        found.append(geometry)
    if not found:
        raise SourceError(f"the item {item.get('id')} has no usable geometry and no bbox")
    return shapely.union_all(found)


def grid_of(item: Item, asset: Mapping[str, Any] | None = None) -> RasterGrid | None:
    """Return the grid that the projection extension states for an item, or for one of its assets; None without one."""
    return _stated(_grid, item, asset)


def states_grid(item: Item) -> bool:
    """Return whether an item states the grid of any of its rasters."""
    return next(_grids(item), None) is not None


def _hint(item: Item) -> BaseGeometry | None:
    try:
        return outline_of(item)
    except SourceError:
        return None


def _share(outline: BaseGeometry) -> float:
    bounds = shapely.bounds(shapely.get_parts(outline))
    longest = float((bounds[:, 2:] - bounds[:, :2]).max())
    return min(_FAR + _CURVED * longest, _FARTHEST)


def _reach_of_grid(grid: RasterGrid) -> BaseGeometry | None:
    try:
        return grid.reach()
    except (SourceError, ShapelyError, ValueError):
        return None


def _grids(item: Item) -> Iterator[RasterGrid]:
    """Return the grids that the projection extension states for the item and for its assets."""
    for asset in (None, *(item.get("assets") or {}).values()):
        if (grid := grid_of(item, asset) or _stated(_nominal_grid, item, asset)) is not None:
            yield grid


def _stated(
    read: Callable[[CRS, Mapping[str, Any]], RasterGrid | None], item: Item, asset: Mapping[str, Any] | None
) -> RasterGrid | None:
    """Read the fields of an asset, or else of its item; None where they are missing or malformed."""
    stated = {**(item.get("properties") or {}), **(asset or {})}
    try:
        crs = _crs(json.dumps([stated.get(name) for name in _SYSTEMS]))
        return None if crs is None else read(crs, stated)
    except (CRSError, UsageError, TypeError, ValueError, IndexError):
        return None


def _grid(crs: CRS, stated: Mapping[str, Any]) -> RasterGrid | None:
    transform, size = stated.get("proj:transform"), stated.get("proj:shape")
    if not transform or not size:
        return None
    height, width = int(size[0]), int(size[1])
    affine = Affine(*(float(number) for number in transform[:6]))
    is_flat = affine.determinant == 0 or min(width, height) < 1 or not all(map(math.isfinite, affine))
    return None if is_flat else RasterGrid(crs, affine, width, height)


def _nominal_grid(crs: CRS, stated: Mapping[str, Any]) -> RasterGrid | None:
    """Return a grid with the bounds of the raster, whose pixels are not known."""
    bbox = stated.get("proj:bbox")
    if not bbox:
        return None
    left, bottom, right, top = (float(number) for number in (bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])))
    affine = Affine((right - left) / _NOMINAL, 0, left, 0, (bottom - top) / _NOMINAL, top)
    return None if affine.determinant == 0 else RasterGrid(crs, affine, _NOMINAL, _NOMINAL)


@lru_cache(maxsize=1024)
def _crs(stated: str) -> CRS | None:
    """Read the first reference system that is stated; GDAL never sees a text that it could take for a file or a URL."""
    code, number, text, document = json.loads(stated)
    if named := code or (f"EPSG:{number}" if number else None) or text:
        return system(named)
    return CRS.from_user_input(json.dumps(document)) if isinstance(document, dict) else None


def _continuous(geometry: BaseGeometry) -> BaseGeometry:
    """Return a footprint cut at ±180 if it runs past it or jumps from one side to the other."""
    west, _, east, _ = geometry.bounds
    if west < -180 or east > 180:
        return within_the_world(geometry)
    if east - west <= 180:
        return geometry
    if geometry.geom_type == "MultiPolygon":
        parts = [_continuous(polygon) for polygon in geometry.geoms]
        return shapely.union_all(parts)
    return antimeridian.fix_polygon(geometry, fix_winding=True, great_circle=False)


def _valid(geometry: BaseGeometry) -> BaseGeometry:
    return geometry if geometry.is_valid else shapely.make_valid(geometry)
