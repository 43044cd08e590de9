"""Scenes as a MosaicJSON: read one, or make one from a folder of STAC items or COGs.

It knows nothing of rendering. Asset paths are absolute, so that any process can read the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, Self
from urllib.parse import urlsplit
from weakref import finalize

import mercantile
from cogeo_mosaic.mosaic import MosaicJSON
from shapely.geometry.base import BaseGeometry

from mosaic_async.cloud.address import is_address
from mosaic_async.errors import SourceError
from mosaic_async.raster import whole_file
from mosaic_async.sources.access import origins_of, use
from mosaic_async.sources.bad_scenes import DEFAULT, BadScenes
from mosaic_async.sources.bucket import objects_at, read_object
from mosaic_async.sources.item_files import PARQUET, Scene, is_lines, items_in, read_scenes
from mosaic_async.sources.item_folder import paths_in, write_items
from mosaic_async.sources.outlines import cell_count, cells_of, mosaic_document
from mosaic_async.sources.stac_files import is_item, read_document, resolve_href
from mosaic_async.sources.tile_index import is_tile_index, rasters_in
from mosaic_async.tiler.scenes.facts import (
    SceneFacts,
    facts_of_item,
    facts_of_raster,
    file_behind,
    hosts_of,
    raster_assets,
)
from mosaic_async.tiler.scenes.kept_facts import KeptFacts
from mosaic_async.tiler.scenes.raster_file import SUFFIXES, is_named_raster, is_raster, is_readable_raster
from mosaic_async.tiler.scenes.scene import may_name, read_item

_INDEX_LEVELS = 3
"""Zooms between the data and the index: a cell of 8 x 8 tiles lists few scenes that miss a tile."""
_MAX_CELLS = 100_000
"""Maximum cells of the index, summed over all scenes; a coarser index keeps below it."""
_MAX_ZOOM_SPAN = 7
_AT_ONCE = 16
"""Documents of a bucket that are read at once."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """Headers for the servers that scenes are read from."""

    headers: Mapping[str, str] = field(repr=False)
    origins: tuple[str, ...] = ()
    """Where they go (scheme, host and port), beside the URLs that the user's own files name."""
    file: Path
    """GDAL's configuration file, to be written."""

    def grant(self, names: Iterable[str]) -> tuple[str, ...]:
        """Let requests to the origins, and to those of more URLs, take the headers; return all origins."""
        origins = tuple(sorted({*self.origins, *origins_of(names)}))
        use(self.headers, origins, self.file)
        return origins


class TemporaryFolder:
    """A folder that is deleted with this object."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="mosaic-async-items-"))
        finalize(self, rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True)
class Mosaic:
    """A MosaicJSON and the kind of its assets."""

    document: dict[str, Any]
    """MosaicJSON 0.0.3."""
    assets: tuple[str, ...]
    """Asset names of the STAC items; empty for plain files, whose bands have numbers."""
    hosts: tuple[str, ...] = ()
    """Hosts and buckets that the scenes are read from; this machine is not listed."""
    notes: tuple[str, ...] = ()
    """Scenes that are left out, and why, in words for people."""
    origins: tuple[str, ...] = ()
    """Servers that take the user's headers: scheme, host and port."""
    home: str | None = None
    """Folder that was made for this run and holds items; None: the items are where they were found."""
    folder: TemporaryFolder | None = field(default=None, repr=False, compare=False)
    """The same, if it is deleted with the mosaic."""

    def as_dict(self) -> dict[str, Any]:
        """Return the mosaic as JSON types, for another process of this run."""
        return {name: getattr(self, name) for name in ("document", "assets", "hosts", "notes", "origins", "home")}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Return the mosaic of `as_dict`; other entries do not matter."""
        assets, hosts, notes, origins = (tuple(given[name]) for name in ("assets", "hosts", "notes", "origins"))
        return cls(given["document"], assets, hosts, notes, origins, given["home"])

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
        """The same name for the same scenes in every run, wherever the items without a file of their own are kept."""
        text = json.dumps(self.document, sort_keys=True)
        if self.home is not None:
            text = text.replace(json.dumps(self.home).strip('"'), "items")
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_mosaic(
    source: str | Path,
    *,
    max_bad_scenes: int | str = DEFAULT,
    home: str | Path | None = None,
    items: Path | None = None,
    cache: str | Path | None = None,
    access: Access | None = None,
) -> Mosaic:
    """Read a MosaicJSON (also gzipped), scenes in files, or a folder of either.

    Scenes keep the order of their paths, or of their file, which decides for pixel selections such as `first`.

    Args:
        source: a MosaicJSON; a STAC item, collection, catalogue or item collection, newline-delimited items or
            stac-geoparquet; a tile index of GDAL; a raster; or a folder of items or rasters. What a file is, its
            content tells. In a bucket (s3://): a MosaicJSON, an item, a raster, or a prefix of items or rasters.
        max_bad_scenes: scenes that may be unusable and are left out, as a number or a share such as `5%`.
        home: a folder made for this run, whose path does not count for the mosaic's digest.
        items: a folder made for this run for items that share a file; None: one that lasts as long as the mosaic.
        cache: folder for what later calls need not read again of a folder's files; None keeps nothing.
        access: headers for the servers that the source names.

    Raises:
        SourceError: the source is not one of these, it is malformed, or too many scenes are unusable.
    """
    path, bad = Path(source), BadScenes(max_bad_scenes)
    if isinstance(source, str) and is_address(source):
        return _of_bucket(source, bad, access)
    if path.is_dir():
        kept = KeptFacts.of(path, Path(cache) if cache else None)
        made = _of_folder(path, bad, items, kept, access)
        kept.save()
        return made
    if is_raster(path):
        return _of_scenes(_usable([str(path.absolute())], facts_of_raster, bad), bad)
    if is_tile_index(path):
        names = rasters_in(path)
        origins = access.grant(names) if access else ()
        return replace(_of_scenes(_usable(names, facts_of_raster, bad), bad), origins=origins)
    if path.suffix not in PARQUET and not is_lines(path) and "mosaicjson" in (document := read_document(path)):
        made = _of_document(document, str(path.absolute()), bad, access)
        return replace(made, home=str(Path(home).absolute()) if home else None)
    scenes = list(read_scenes(path, bad.add))
    if not scenes and not bad.reasons:
        raise SourceError(
            f"{path} is not a MosaicJSON and has no STAC items",
            hint="use a MosaicJSON, or STAC items or rasters in files; a search requires ``api`` or ``items``",
        )
    return _of_granted(scenes, access, lambda: _of_items(scenes, bad, items))


def _of_granted(scenes: Sequence[Scene], access: Access | None, index: Callable[[], Mosaic]) -> Mosaic:
    """Index items with the headers for the servers that they name."""
    hrefs = (str(asset.get("href")) for scene in scenes for asset in (scene.item.get("assets") or {}).values())
    origins = access.grant(hrefs) if access else ()
    return replace(index(), origins=origins)


def _of_folder(folder: Path, bad: BadScenes, items: Path | None, kept: KeptFacts, access: Access | None) -> Mosaic:
    scenes = list(items_in(folder, bad.add))
    rasters = sorted(str(path.absolute()) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if scenes or (bad.reasons and not rasters):
        return _of_granted(scenes, access, lambda: _of_items(scenes, bad, items, kept))
    if not rasters:
        raise SourceError(f"{folder} has neither STAC items nor GeoTIFFs")
    return _of_scenes(_usable(rasters, lambda name: _known_raster(name, kept), bad), bad)


def _known_raster(name: str, kept: KeptFacts) -> SceneFacts:
    if known := kept.get(Path(name)):
        return SceneFacts.from_dict(name, known)
    facts = facts_of_raster(name)
    kept.put(Path(name), facts.as_dict())
    return facts


def _known_item(name: str, item: Mapping[str, Any], kept: KeptFacts | None) -> SceneFacts:
    if kept is None:
        return facts_of_item(name, item)
    if known := kept.get(Path(name)):
        return SceneFacts.from_dict(name, known)
    facts = facts_of_item(name, item)
    behind = file_behind(name, item)
    if behind is None or not urlsplit(behind).scheme:  # a file on a server may change without a trace
        kept.put(Path(name), facts.as_dict(), [Path(behind)] if behind else [])
    return facts


def _of_items(scenes: Sequence[Scene], bad: BadScenes, folder: Path | None, kept: KeptFacts | None = None) -> Mosaic:
    """Index items; those that share a file are written into a folder."""
    if all(scene.is_alone for scene in scenes):
        items = {str(scene.location): scene.item for scene in scenes}
        return _of_scenes(_usable(items, lambda name: _known_item(name, items[name], kept), bad), bad)
    temporary = None if folder else TemporaryFolder()
    home = folder or (temporary.path if temporary else Path())
    named = dict(zip(paths_in(home, scenes), scenes, strict=True))

    def facts(name: str) -> SceneFacts:
        write_items([(name, named[name])], None, whole_file.write)
        return facts_of_item(name, named[name].absolute())

    return replace(_of_scenes(_usable(named, facts, bad), bad), home=str(home.absolute()), folder=temporary)


def _usable(names: Iterable[str], facts: Callable[[str], SceneFacts], bad: BadScenes) -> list[SceneFacts]:
    found = []
    for name in names:
        try:
            found.append(facts(name))
        except SourceError as error:
            bad.add(name, error)
    bad.check(len(found))
    return found


def _of_bucket(source: str, bad: BadScenes, access: Access | None) -> Mosaic:
    """Read what a name in a bucket stands for: a MosaicJSON, or items or rasters."""
    names = objects_at(source)
    rasters = sorted(name for name in names if is_named_raster(name))
    if len(names) == 1 and not rasters:
        document = read_object(names[0])
        if isinstance(document, dict) and "mosaicjson" in document:
            return _of_document(document, names[0], bad, access)
    items = _items_among(names, bad)
    if items:
        scenes = {name: Scene(item, name, name) for name, item in items.items()}
        return _of_granted(
            list(scenes.values()),
            access,
            lambda: _of_scenes(_usable(scenes, lambda name: _facts_in_bucket(scenes[name]), bad), bad),
        )
    if not rasters:
        bad.check(0)
        raise SourceError(
            f"{source} has no MosaicJSON, STAC items or GeoTIFFs",
            hint="name a MosaicJSON, an item, a GeoTIFF, or a prefix of items or GeoTIFFs",
        )
    return _of_scenes(_usable(rasters, facts_of_raster, bad), bad)


def _items_among(names: Iterable[str], bad: BadScenes) -> dict[str, dict[str, Any]]:
    """Read the items among objects, in the order in which a folder has them."""
    documents = sorted(
        (name for name in names if name.endswith((".json", ".geojson"))), key=lambda name: name.split("/")
    )
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        reads = [pool.submit(read_object, name) for name in documents]
    found = {}
    for name, read in zip(documents, reads, strict=True):
        try:
            document = read.result()
        except SourceError as error:
            bad.add(name, error)
            continue
        if isinstance(document, dict) and is_item(document):
            found[name] = document
    return found


def _facts_in_bucket(scene: Scene) -> SceneFacts:
    """Read the facts of an item in a bucket, without what it may not name."""
    location, item = str(scene.location), scene.absolute()
    assets = {name: asset for name, asset in item["assets"].items() if may_name(location, str(asset["href"]))}
    return facts_of_item(location, {**item, "assets": assets})


def _of_document(document: dict[str, Any], location: str, bad: BadScenes, access: Access | None) -> Mosaic:
    """Make relative asset paths absolute and read what the first scene is."""
    try:
        prefix = document.pop("asset_prefix", None) or ""
        document["tiles"] = {
            key: [resolve_href(prefix + name, location) for name in names] for key, names in document["tiles"].items()
        }
        valid = MosaicJSON(**document).model_dump(exclude_none=True, mode="json")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"the MosaicJSON is malformed: {error}") from error
    names = dict.fromkeys(name for names in document["tiles"].values() for name in names)
    if not names:
        raise SourceError("the MosaicJSON lists no scene")
    if is_address(location) and (strange := [name for name in names if not may_name(location, name)]):
        raise SourceError(f"the MosaicJSON {location} names {strange[0]}, which is not on a public server")
    origins = access.grant(names) if access else ()
    assets = _assets(names, document.get("asset_type"), bad)
    hosts = hosts_of([*names, *(str(asset["href"]) for asset in assets.values())])
    return Mosaic(valid, tuple(assets), tuple(sorted(hosts)), bad.notes, origins)


def _assets(names: Iterable[str], kind: Any, bad: BadScenes) -> dict[str, Mapping[str, Any]]:
    """Return the rasters of the first scene that is a readable item; none if scenes are rasters.

    Args:
        names: of the scenes.
        kind: the document's `asset_type`: `STAC`, `COG` or anything else, which leaves it to the scene.
        bad: takes items that cannot be read.
    """
    for name in names:
        if kind != "STAC" and (kind == "COG" or is_named_raster(name)):
            return {}
        try:
            return _rasters_of(name)
        except SourceError as error:
            if kind != "STAC" and not name.endswith(".json") and is_readable_raster(name):
                return {}
            bad.add(name, error)
    bad.check(0)
    return {}


def _rasters_of(name: str) -> dict[str, Mapping[str, Any]]:
    try:
        assets = raster_assets(read_item(name))
    except Exception as error:  # all errors of the HTTP client and the parser mean the same here
        raise SourceError(f"the scene {name} of the MosaicJSON cannot be read: {error}") from error
    if not assets:
        raise SourceError(f"the scene {name} of the MosaicJSON has no raster asset")
    return assets


def _of_scenes(scenes: Sequence[SceneFacts], bad: BadScenes) -> Mosaic:
    maxzoom = max(scene.maxzoom for scene in scenes)
    reaches = [scene.reach for scene in scenes]
    zoom = _index_zoom(reaches, maxzoom)
    tiles = {key: [scenes[one].location for one in found] for key, found in cells_of(reaches, zoom).items()}
    document = mosaic_document(reaches, (max(0, maxzoom - _MAX_ZOOM_SPAN), maxzoom, zoom), tiles)
    hosts = sorted(frozenset().union(*(scene.hosts for scene in scenes)))
    return Mosaic(document, scenes[0].assets, tuple(hosts), notes=bad.notes)


def _index_zoom(reaches: Sequence[BaseGeometry], maxzoom: int) -> int:
    """Choose the zoom of the index: a few levels above the data, coarser where scenes are large."""
    for zoom in range(max(0, maxzoom - _INDEX_LEVELS), 0, -1):
        if cell_count(reaches, zoom) <= _MAX_CELLS:
            return zoom
    return 0
