"""The area in a file: GeoJSON, any format of GDAL, or the extent of a raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import rasterio
from rasterio.errors import RasterioError

from mosaic_async.cli import extras
from mosaic_async.cli.parsing import json_object
from mosaic_async.errors import UsageError

_JSON = (".json", ".geojson")
_INSIDE = 0.1
"""Pixels."""


def area_in(place: str) -> dict[str, Any]:
    """Return the area in a file as GeoJSON.

    Args:
        place: path of a GeoJSON, `-` for one from stdin, or FILE[:LAYER] of another format.

    Raises:
        UsageError: the file does not exist, or holds no area.
    """
    path, layer = Path(place), None
    if place == "-" or path.suffix.lower() in _JSON:
        return _geojson(place)
    if not path.exists() and ":" in place:
        before, _, layer = place.rpartition(":")
        path = Path(before)
    if not path.exists():
        raise UsageError(f"{path} not found", hint="the area is a file with polygons, or set --bounds W S E N")
    found: dict[str, Any] = extras.vector().polygons_in(path, layer)
    return found


def extent_of(raster: Path) -> dict[str, Any]:
    """Return the extent of a raster as GeoJSON in its own coordinate system, from which a clip makes the same extent.

    The corners lie a tenth of a pixel inside, because the edges are exact to a centimetre once they are in degrees.

    Raises:
        UsageError: the raster cannot be read, or has no coordinate system.
    """
    try:
        with rasterio.open(raster) as dataset:
            crs, transform, (height, width) = dataset.crs, dataset.transform, dataset.shape
    except RasterioError as error:
        raise UsageError(f"{raster} cannot be read: {error}") from error
    if crs is None:
        raise UsageError(f"{raster} has no coordinate system", hint="set --bounds W S E N or --area")
    left, top, right, lower = _INSIDE, _INSIDE, width - _INSIDE, height - _INSIDE
    corners = [(left, top), (left, lower), (right, lower), (right, top), (left, top)]
    ring = [list(transform @ corner) for corner in corners]
    return {"type": "Polygon", "coordinates": [ring], "crs": {"properties": {"name": crs.to_wkt()}}}


def _geojson(place: str) -> dict[str, Any]:
    try:
        with click.open_file(place, encoding="utf-8") as file:
            return json_object(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from error
