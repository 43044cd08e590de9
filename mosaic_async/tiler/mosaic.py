"""Scenes as a MosaicJSON: read one, or make one of a folder of STAC items or COGs.

It knows nothing of rendering. Asset paths are absolute, so that the document can be read from anywhere.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rasterio
from cogeo_mosaic.mosaic import MosaicJSON
from rasterio.errors import RasterioError
from rasterio.features import bounds as bounds_of
from rasterio.warp import transform_geom
from rio_tiler.io import Reader, STACReader

from mosaic_async.errors import SourceError

_QUADKEY_LEVELS = 3
"""Zooms between the data's own and the index's: a cell of 8 x 8 tiles lists few scenes that do not touch a tile."""
_MAX_ZOOM_SPAN = 7
_COG_SUFFIXES = {".tif", ".tiff"}


@dataclass(frozen=True)
class Mosaic:
    """A MosaicJSON and what its assets are."""

    document: dict[str, Any]
    """MosaicJSON 0.0.3."""
    assets: tuple[str, ...]
    """Asset names of the STAC items; empty where the assets are plain files, whose bands have numbers."""

    @property
    def is_stac(self) -> bool:
        """Whether the mosaic's assets are STAC items."""
        return bool(self.assets)

    @property
    def digest(self) -> str:
        """What names the same scenes from run to run."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:16]


def open_mosaic(source: str | Path) -> Mosaic:
    """Read a MosaicJSON (also gzipped) or a STAC item, collection or ItemCollection, or list a folder of items or COGs.

    Scenes keep the order of their paths; with a pixel selection that depends on it, the first comes first.

    Raises:
        SourceError: nothing there that is one of these.
    """
    path = Path(source)
    if path.is_dir():
        return _of_folder(path)
    document = _read_json(path)
    if "mosaicjson" in document:
        return _of_document(document, path.parent.absolute())
    items = list(_items(document, path))
    if not items:
        raise SourceError(f"{path} is no MosaicJSON and has no STAC items")
    return _of_items(items)


def _of_folder(folder: Path) -> Mosaic:
    items = []
    for path in sorted(folder.rglob("*.json")):
        document = _read_json(path)
        if _is_item(document):
            items.append((str(path.absolute()), document))
    if items:
        return _of_items(items)
    cogs = sorted(path.absolute() for path in folder.rglob("*") if path.suffix.lower() in _COG_SUFFIXES)
    if not cogs:
        raise SourceError(f"{folder} has neither STAC items nor GeoTIFFs")
    return Mosaic(_document(_features_of_cogs(cogs), _maxzoom_of_cogs(cogs)), ())


def _of_document(document: dict[str, Any], folder: Path) -> Mosaic:
    """Make relative asset paths absolute and look into the first asset."""
    try:
        prefix = document.pop("asset_prefix", None) or ""
        document["tiles"] = {
            key: [_absolute(prefix + name, folder) for name in names] for key, names in document["tiles"].items()
        }
        valid = MosaicJSON(**document).model_dump(exclude_none=True, mode="json")
        first = next((name for names in document["tiles"].values() for name in names), None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"the MosaicJSON is malformed: {error}") from error
    if first is None:
        raise SourceError("the MosaicJSON lists no scene")
    return Mosaic(valid, _asset_names(first) if urlsplit(first).path.endswith(".json") else ())


def _of_items(items: Iterable[tuple[str, Mapping[str, Any]]]) -> Mosaic:
    features, zooms, names = [], [], ()
    for location, item in items:
        with STACReader(location) as reader:
            zooms.append(reader.maxzoom)
            names = names or tuple(reader.assets)
        features.append(_feature(location, item["geometry"]))
    return Mosaic(_document(features, max(zooms)), names)


def _document(features: list[dict[str, Any]], maxzoom: int) -> dict[str, Any]:
    mosaic = MosaicJSON.from_features(
        features,
        minzoom=max(0, maxzoom - _MAX_ZOOM_SPAN),
        maxzoom=maxzoom,
        quadkey_zoom=max(0, maxzoom - _QUADKEY_LEVELS),
        accessor=lambda feature: feature["properties"]["path"],
        quiet=True,
    )
    document: dict[str, Any] = mosaic.model_dump(exclude_none=True, mode="json")
    return document


def _feature(location: str, geometry: Mapping[str, Any]) -> dict[str, Any]:
    """Make a footprint that cogeo-mosaic can index: it takes single polygons without heights only."""
    if geometry["type"] == "Polygon" and all(len(corner) == 2 for ring in geometry["coordinates"] for corner in ring):
        outline = geometry
    else:
        west, south, east, north = bounds_of(geometry)
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        outline = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "properties": {"path": location}, "geometry": outline}


def _features_of_cogs(paths: Iterable[Path]) -> list[dict[str, Any]]:
    features = []
    for path in paths:
        try:
            with rasterio.open(path) as dataset:
                west, south, east, north = dataset.bounds
                ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
                box = {"type": "Polygon", "coordinates": [ring]}
                features.append(_feature(str(path), transform_geom(dataset.crs, "EPSG:4326", box)))
        except RasterioError as error:
            raise SourceError(f"{path} cannot be read: {error}") from error
    return features


def _maxzoom_of_cogs(paths: Iterable[Path]) -> int:
    zooms: list[int] = []
    for path in paths:
        with Reader(str(path)) as reader:
            zooms.append(reader.maxzoom)
    return max(zooms)


def _items(document: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Follow a STAC item, or a collection or catalogue to its items."""
    if _is_item(document):
        yield str(path.absolute()), document
    for link in document.get("links", ()):
        if link.get("rel") in ("item", "child") and not urlsplit(link["href"]).scheme:
            target = (path.parent / link["href"]).resolve()
            yield from _items(_read_json(target), target)


def _is_item(document: Mapping[str, Any]) -> bool:
    return document.get("type") == "Feature" and "stac_version" in document and "assets" in document


def _asset_names(location: str) -> tuple[str, ...]:
    try:
        with STACReader(location) as reader:
            return tuple(reader.assets)
    except Exception as error:  # whatever the reader's HTTP client and parser raise means the same here
        raise SourceError(f"the first scene of the MosaicJSON, {location}, cannot be read: {error}") from error


def _absolute(name: str, folder: Path) -> str:
    return name if urlsplit(name).scheme or Path(name).is_absolute() else str(folder / name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError as error:
        raise SourceError(f"there is no {path}") from error
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path} cannot be read as JSON: {error}") from error
    return document if isinstance(document, dict) else {}
