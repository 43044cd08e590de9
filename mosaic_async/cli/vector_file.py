"""The polygons of a file that GDAL reads, in the file's own coordinate system (extra `vector`).

It knows nothing of areas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from pyogrio.raw import read

from mosaic_async.errors import UsageError


def polygons_in(path: Path, layer: str | None) -> dict[str, Any]:
    """Return all features of a layer as GeoJSON whose `crs` is that of the file.

    Args:
        path: the file, or the folder of a file geodatabase.
        layer: its name; None: the only one with geometries.

    Raises:
        UsageError: the file cannot be read, has no polygons or coordinate system, or several layers.
    """
    try:
        meta, _, geometries, _ = read(path, layer=_layer(path, layer), columns=[], force_2d=True)
        shapes = shapely.from_wkb([one for one in geometries if one is not None])
    except (DataSourceError, DataLayerError, shapely.errors.GEOSException) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not meta["crs"]:
        raise UsageError(f"{path} has no coordinate system", hint="write one into the file, such as EPSG:4326")
    found = [shapely.geometry.mapping(shape) for shape in shapes if not shape.is_empty]
    name = {"type": "name", "properties": {"name": meta["crs"]}}
    return {"type": "GeometryCollection", "geometries": found, "crs": name}


def _layer(path: Path, layer: str | None) -> str:
    layers = {str(name): kind for name, kind in pyogrio.list_layers(path) if kind is not None}
    if layer is None and len(layers) == 1:
        return next(iter(layers))
    if layer in layers:
        return str(layer)
    names = ", ".join(layers) or "none with geometries"
    raise UsageError(f"{path} has the layers {names}", hint=f"choose one of them: {path}:LAYER")
