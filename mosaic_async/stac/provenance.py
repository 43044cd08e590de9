"""The scenes of a mosaic in an area: ids, dates and footprints, as GeoJSON (extra `stac`).

It knows nothing of pixels: a scene that is listed here may be hidden by others everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mercantile
import rasterio
import shapely
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import SourceError
from mosaic_async.geo.area import Area
from mosaic_async.safety.redaction import scrub
from mosaic_async.sources.footprint import outline_of
from mosaic_async.sources.item_files import read_scenes
from mosaic_async.sources.outlines import box_of
from mosaic_async.sources.remote_json import get_json
from mosaic_async.sources.stac_files import read_document, resolve_href
from mosaic_async.sources.stac_query import Item, moment_of

_AT_ONCE = 16
_TIMEOUT = 60.0
_ATTEMPTS = 4


def scenes_of(
    mosaic: str | Path | Mapping[str, Any],
    area: Sequence[float] | Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the scenes of a mosaic whose footprints share an area with the given one, in the order of the mosaic.

    Args:
        mosaic: a MosaicJSON or its path, or a folder, catalogue or item collection.
        area: `(west, south, east, north)` in degrees, west above east across the antimeridian, or GeoJSON polygons.
        headers: sent to the servers that the mosaic names.

    Returns:
        A GeoJSON FeatureCollection; each feature has the item's id, its collection, datetime and location.

    Raises:
        SourceError: the mosaic or one of its scenes cannot be read.
        UsageError, RefusedError: the area is malformed or absurd.
    """
    place = _shape_of(Area.parse(area))
    shapely.prepare(place)
    features = []
    for location, item in _items(mosaic, place, headers or {}):
        outline = outline_of(item)
        if place.intersects(outline) and place.intersection(outline).area > 0:
            features.append(feature_of(item, outline, location))
    return {"type": "FeatureCollection", "features": features}


def feature_of(item: Item, outline: BaseGeometry, location: str | None) -> dict[str, Any]:
    """Return a scene as a GeoJSON feature."""
    moment = moment_of(item)
    return {
        "type": "Feature",
        "id": item.get("id"),
        "geometry": json.loads(shapely.to_geojson(outline)),
        "properties": {
            "collection": item.get("collection"),
            "datetime": moment.isoformat() if moment else None,
            "location": scrub(location) if location else None,
        },
    }


def _items(
    mosaic: str | Path | Mapping[str, Any], place: BaseGeometry, headers: Mapping[str, str]
) -> Iterator[tuple[str | None, Item]]:
    document: Mapping[str, Any] = {}
    location: str | None = None
    if isinstance(mosaic, Mapping):
        document = mosaic
    elif Path(mosaic).is_file() and Path(mosaic).suffix in (".json", ".gz"):
        document, location = read_document(Path(mosaic)), str(Path(mosaic).absolute())
    if "mosaicjson" not in document:
        if isinstance(mosaic, Mapping):
            raise SourceError("the document is not a MosaicJSON")
        yield from ((scene.location, scene.item) for scene in read_scenes(Path(mosaic)))
        return
    names = _names(document, place)
    prefix = str(document.get("asset_prefix") or "")
    locations = [resolve_href(prefix + name, location) for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # thousands of items may each be a URL
        yield from zip(locations, pool.map(partial(_read, headers=headers), locations), strict=True)


def _names(document: Mapping[str, Any], place: BaseGeometry) -> list[str]:
    """Return the names in the cells that touch a place, each once, in their order."""
    try:
        found: dict[str, None] = {}
        for key, names in document["tiles"].items():
            if not set(key) <= set("0123"):
                raise ValueError(f"{key!r} is not a quadkey")
            if place.intersects(shapely.box(*mercantile.bounds(mercantile.quadkey_to_tile(key)))):
                if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                    raise ValueError(f"the cell {key} is not a list of names")
                found |= dict.fromkeys(names)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"the MosaicJSON is malformed: {error!r}") from error
    return list(found)


def _read(location: str, headers: Mapping[str, str]) -> Item:
    """Read a STAC item, or make one from the georeference of a plain file."""
    try:
        if urlsplit(location).path.lower().endswith((".tif", ".tiff", ".jp2", ".vrt")):
            with rasterio.open(location) as dataset:
                bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
            return {"id": Path(urlsplit(location).path).stem, "bbox": list(bounds), "properties": {}}
        if urlsplit(location).scheme in ("http", "https"):
            item = get_json(location, timeout=_TIMEOUT, headers=headers, attempts=_ATTEMPTS)
        else:
            item = read_document(Path(location))
    except (OSError, RasterioError, ValueError) as error:
        raise SourceError(f"the scene {scrub(location)} cannot be read: {type(error).__name__}") from error
    if not isinstance(item, dict) or "id" not in item:
        raise SourceError(f"the scene {scrub(location)} is not a STAC item")
    return item


def _shape_of(area: Area) -> BaseGeometry:
    if area.polygons is None:
        west, south, east, north = area.bounds
        return box_of((west, south, east - 360 if east > 180 else east, north))
    return shapely.union_all([shapely.Polygon(rings[0], rings[1:]).buffer(0) for rings in area.pieces()])
