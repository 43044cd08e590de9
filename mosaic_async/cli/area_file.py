"""The area in a file: GeoJSON, or any format of GDAL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mosaic_async.cli import extras
from mosaic_async.cli.parsing import json_object
from mosaic_async.errors import UsageError

_JSON = (".json", ".geojson")


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


def _geojson(place: str) -> dict[str, Any]:
    try:
        with click.open_file(place, encoding="utf-8") as file:
            return json_object(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from error
