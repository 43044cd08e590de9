"""Scenes as a MosaicJSON: read one, or make one from a folder of STAC items or COGs.

It knows nothing of rendering. Asset paths are absolute, so that any process can read the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cogeo_mosaic.mosaic import MosaicJSON
from rasterio.features import bounds as bounds_of
from rasterio.io import DatasetReader
from rasterio.warp import transform_geom
from rio_tiler.io import Reader, STACReader

from mosaic_async.errors import MosaicError, SourceError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.sources.stac_files import is_item, linked_documents, read_document, resolve_href
from mosaic_async.tiler.scenes.raster_file import open_raster

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
    def digest(self) -> str:
        """The same name for the same scenes in every run."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Scene:
    """The facts of a STAC item or a COG that the index needs."""

    location: str
    outline: Mapping[str, Any]
    """GeoJSON polygon in degrees."""
    maxzoom: int
    assets: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()


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
    return _of_scenes([_read_scene(location, item) for location, item in items])


def _of_folder(folder: Path) -> Mosaic:
    items = []
    for path in sorted(folder.rglob("*.json")):
        document = read_document(path)
        if is_item(document):
            items.append((str(path.absolute()), document))
    if items:
        return _of_scenes([_read_scene(location, item) for location, item in items])
    cogs = sorted(path.absolute() for path in folder.rglob("*") if path.suffix.lower() in _COG_SUFFIXES)
    if not cogs:
        raise SourceError(f"{folder} has neither STAC items nor GeoTIFFs")
    return _of_scenes([_read_scene(str(path)) for path in cogs])


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
    return Mosaic(valid, tuple(assets), tuple(sorted(_hosts([*names, *assets.values()]))))


def _of_scenes(scenes: Sequence[_Scene]) -> Mosaic:
    maxzoom = max(scene.maxzoom for scene in scenes)
    mosaic = MosaicJSON.from_features(
        [{"type": "Feature", "properties": {"path": scene.location}, "geometry": scene.outline} for scene in scenes],
        minzoom=max(0, maxzoom - _MAX_ZOOM_SPAN),
        maxzoom=maxzoom,
        quadkey_zoom=_index_zoom(scenes, maxzoom),
        accessor=lambda feature: feature["properties"]["path"],
        quiet=True,
    )
    hosts = sorted(frozenset().union(*(scene.hosts for scene in scenes)))
    return Mosaic(mosaic.model_dump(exclude_none=True, mode="json"), scenes[0].assets, tuple(hosts))


def _index_zoom(scenes: Sequence[_Scene], maxzoom: int) -> int:
    """Choose the zoom of the index: a few levels above the data, coarser where scenes are large."""
    areas = [Area.parse(bounds_of(scene.outline)) for scene in scenes]
    for zoom in range(max(0, maxzoom - _INDEX_LEVELS), 0, -1):
        if sum(Cover.of(area, zoom, max_tiles=4**zoom).count for area in areas) <= _MAX_CELLS:
            return zoom
    return 0


def _read_scene(location: str, item: Mapping[str, Any] | None = None) -> _Scene:
    """Read what the index needs of a STAC item, or of a COG.

    Raises:
        SourceError: the scene cannot be read or used.
    """
    try:
        if item is None:
            with open_raster(location) as dataset, Reader(None, dataset=dataset) as reader:
                return _Scene(location, _outline_of_cog(dataset), _maxzoom(reader))
        with STACReader(location) as reader:
            outline, zoom = outline_of_item(item["geometry"]), _zoom_of_item(reader)
            hrefs = (asset["href"] for asset in item["assets"].values())
            return _Scene(location, outline, zoom, tuple(reader.assets), _hosts(hrefs))
    except MosaicError as error:
        raise SourceError(f"the scene {location} cannot be used: {error}") from error
    except Exception as error:  # GDAL, pystac, and any error that a malformed document causes
        raise SourceError(f"the scene {location} cannot be read: {type(error).__name__}: {error}") from error


def _hosts(names: Iterable[str]) -> frozenset[str]:
    """Return the hosts and buckets in these names, without users and passwords."""
    return frozenset(host for name in names if (host := urlsplit(name).netloc.rpartition("@")[2]))


def _outline_of_cog(dataset: DatasetReader) -> Mapping[str, Any]:
    if dataset.crs is None:
        raise SourceError("the file has no coordinate reference system")
    outline: dict[str, Any] = transform_geom(dataset.crs, "EPSG:4326", _box(dataset.bounds))
    return _checked(outline)


def outline_of_item(geometry: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a footprint that cogeo-mosaic can index: a single polygon without heights."""
    if geometry is None:
        raise SourceError("the item has no geometry")
    if geometry["type"] == "Polygon" and all(len(corner) == 2 for ring in geometry["coordinates"] for corner in ring):
        return _checked(geometry)
    return _checked(_box(bounds_of(geometry)))


def _checked(outline: Mapping[str, Any]) -> Mapping[str, Any]:
    Area.parse(outline)
    return outline


def _box(bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    west, south, east, north = bounds
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def _zoom_of_item(reader: STACReader) -> int:
    """Return the zoom of the data's own resolution; without the projection extension the file has to say it."""
    if reader.height:
        return _maxzoom(reader)
    assert reader.item is not None
    href = reader.item.assets[next(iter(reader.assets))].get_absolute_href()
    with Reader(href) as asset:
        return _maxzoom(asset)


def _maxzoom(reader: Reader | STACReader) -> int:
    assert reader.maxzoom is not None
    return reader.maxzoom


def _assets(location: str) -> dict[str, str]:
    """Return the hrefs of an item's rasters by asset name."""
    try:
        with STACReader(location) as reader:
            assert reader.item is not None
            return {name: reader.item.assets[name].href for name in reader.assets}
    except Exception as error:  # all errors of the HTTP client and the parser mean the same here
        raise SourceError(f"the first scene of the MosaicJSON, {location}, cannot be read: {error}") from error
