"""Scenes as a MosaicJSON: read one, or make one from a folder of STAC items or COGs.

It knows nothing of rendering. Asset paths are absolute, so that any process can read the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mercantile
import shapely
from cogeo_mosaic.mosaic import MosaicJSON
from rio_tiler.io import STACReader
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import SourceError
from mosaic_async.sources.outlines import cell_count, cells_of
from mosaic_async.sources.stac_files import is_item, linked_documents, read_document, resolve_href
from mosaic_async.tiler.scenes.facts import SceneFacts, facts_of_item, facts_of_raster, hosts_of

_INDEX_LEVELS = 3
"""Zooms between the data and the index: a cell of 8 x 8 tiles lists few scenes that miss a tile."""
_MAX_CELLS = 100_000
"""Maximum cells of the index, summed over all scenes; a coarser index keeps below it."""
_MAX_ZOOM_SPAN = 7
_COG_SUFFIXES = {".tif", ".tiff"}


@dataclass(frozen=True)
class Mosaic:
    """A MosaicJSON and the kind of its assets."""

    document: dict[str, Any]
    """MosaicJSON 0.0.3."""
    assets: tuple[str, ...]
    """Asset names of the STAC items; empty for plain files, whose bands have numbers."""
    hosts: tuple[str, ...] = ()
    """Hosts and buckets that the scenes are read from; this machine is not listed."""

    @property
    def is_stac(self) -> bool:
        """Whether the mosaic's assets are STAC items."""
        return bool(self.assets)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the cells: no scene has a pixel elsewhere; a document's own bounds are a hint."""
        tiles = [mercantile.bounds(mercantile.quadkey_to_tile(key)) for key in self.document["tiles"]]
        west, south, east, north = zip(*tiles, strict=True)
        return (min(west), min(south), max(east), max(north))

    @property
    def digest(self) -> str:
        """The same name for the same scenes in every run."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:16]


def open_mosaic(source: str | Path) -> Mosaic:
    """Read a MosaicJSON (also gzipped), a STAC item, collection or catalogue, or a folder of items or COGs.

    Scenes keep the order of their paths, which decides for pixel selections such as `first`.

    Raises:
        SourceError: the source is not one of these, or it is malformed.
    """
    path = Path(source)
    if path.is_dir():
        return _of_folder(path)
    document = read_document(path)
    if "mosaicjson" in document:
        return _of_document(document, path)
    items = [(str(file.absolute()), found) for file, found in linked_documents(path) if is_item(found)]
    if not items:
        raise SourceError(
            f"{path} is not a MosaicJSON and has no STAC items",
            hint="use a MosaicJSON, a STAC item, collection or catalogue, or a folder of items or COGs",
        )
    return _of_scenes([facts_of_item(location, item) for location, item in items])


def _of_folder(folder: Path) -> Mosaic:
    items = []
    for path in sorted(folder.rglob("*.json")):
        document = read_document(path)
        if is_item(document):
            items.append((str(path.absolute()), document))
    if items:
        return _of_scenes([facts_of_item(location, item) for location, item in items])
    cogs = sorted(path.absolute() for path in folder.rglob("*") if path.suffix.lower() in _COG_SUFFIXES)
    if not cogs:
        raise SourceError(f"{folder} has neither STAC items nor GeoTIFFs")
    return _of_scenes([facts_of_raster(str(path)) for path in cogs])


def _of_document(document: dict[str, Any], path: Path) -> Mosaic:
    """Make relative asset paths absolute and read the kind of the first asset."""
    try:
        prefix = document.pop("asset_prefix", None) or ""
        location = str(path.absolute())
        document["tiles"] = {
            key: [resolve_href(prefix + name, location) for name in names] for key, names in document["tiles"].items()
        }
        valid = MosaicJSON(**document).model_dump(exclude_none=True, mode="json")
        first = next((name for names in document["tiles"].values() for name in names), None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"the MosaicJSON is malformed: {error}") from error
    if first is None:
        raise SourceError("the MosaicJSON lists no scene")
    names = {name for names in document["tiles"].values() for name in names}
    is_stac = urlsplit(first).path.endswith(".json")
    assets = _assets(first) if is_stac else {}
    return Mosaic(valid, tuple(assets), tuple(sorted(hosts_of([*names, *assets.values()]))))


def _of_scenes(scenes: Sequence[SceneFacts]) -> Mosaic:
    maxzoom = max(scene.maxzoom for scene in scenes)
    reaches = [scene.reach for scene in scenes]
    zoom = _index_zoom(reaches, maxzoom)
    west, south, east, north = (float(value) for value in shapely.total_bounds(reaches))
    minzoom = max(0, maxzoom - _MAX_ZOOM_SPAN)
    document = {
        "mosaicjson": "0.0.3",
        "version": "1.0.0",
        "minzoom": minzoom,
        "maxzoom": maxzoom,
        "quadkey_zoom": zoom,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, minzoom],
        "tiles": {key: [scenes[one].location for one in found] for key, found in cells_of(reaches, zoom).items()},
    }
    if not document["tiles"]:
        raise SourceError("all scenes lie outside of Web Mercator's latitudes, ±85.0511 degrees")
    hosts = sorted(frozenset().union(*(scene.hosts for scene in scenes)))
    return Mosaic(document, scenes[0].assets, tuple(hosts))


def _index_zoom(reaches: Sequence[BaseGeometry], maxzoom: int) -> int:
    """Choose the zoom of the index: a few levels above the data, coarser where scenes are large."""
    for zoom in range(max(0, maxzoom - _INDEX_LEVELS), 0, -1):
        if cell_count(reaches, zoom) <= _MAX_CELLS:
            return zoom
    return 0


def _assets(location: str) -> dict[str, str]:
    """Return the hrefs of an item's rasters by asset name."""
    try:
        with STACReader(location) as reader:
            assert reader.item is not None
            return {name: reader.item.assets[name].href for name in reader.assets}
    except Exception as error:  # all errors of the HTTP client and the parser mean the same here
        raise SourceError(f"the first scene of the MosaicJSON, {location}, cannot be read: {error}") from error
