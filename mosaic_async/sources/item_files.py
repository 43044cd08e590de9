"""STAC items in files: folders, items, collections, catalogues, item collections, lines, stac-geoparquet.

The only user of rustac. It knows nothing of searches, servers or pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.stac_files import is_item, linked_documents, read_document, resolve_href, text_of
from mosaic_async.sources.stac_query import Item

OnBad = Callable[[str, SourceError], None]
"""Takes the path or name of a scene that cannot be used, and why; it may raise to stop."""
PARQUET = (".parquet", ".geoparquet")
_LINES = (".ndjson", ".jsonl", ".geojsonl")


def is_lines(path: Path) -> bool:
    """Return whether a file has an item per line, by its name; it may be gzipped."""
    return Path(path.name.removesuffix(".gz")).suffix in _LINES


def refuse(_: str, error: SourceError) -> None:
    """Stop at the first scene that cannot be used.

    Raises:
        SourceError: always.
    """
    raise error


@dataclass(frozen=True)
class Scene:
    """A STAC item and where it was found.

    Raises:
        SourceError: the item is malformed.
    """

    item: Item
    location: str | None
    """Path or URL of the item; None when it has none of its own, as inside an item collection."""
    file: str | None = None
    """Path of the file that it was read from; None when an API returned it."""

    def __post_init__(self) -> None:
        if not isinstance(self.item, Mapping) or "id" not in self.item:
            raise SourceError(f"not a STAC item: {json.dumps(self.item)[:100]}", hint="an item is an object with an id")
        links, assets = self.item.get("links") or [], self.item.get("assets") or {}
        if not isinstance(self.item.get("properties") or {}, Mapping):
            raise SourceError(f"the item {self.item['id']} is malformed: its properties are not an object")
        if not isinstance(assets, Mapping) or not all(isinstance(asset, Mapping) for asset in assets.values()):
            raise SourceError(f"the item {self.item['id']} is malformed: its assets are not objects")
        if not isinstance(links, list) or not all(isinstance(link, Mapping) for link in links):
            raise SourceError(f"the item {self.item['id']} is malformed: its links are not a list of objects")

    @property
    def is_alone(self) -> bool:
        """Whether its file has this item alone, at its own location."""
        return self.file is not None and self.file == self.location

    def asset(self, name: str) -> str:
        """Return the absolute path or URL of one of its assets.

        Raises:
            UsageError: the item does not have this asset.
            SourceError: the asset has no usable href.
        """
        assets = self.item.get("assets") or {}
        if name not in assets:
            raise UsageError(f"{self.item.get('id')} has no asset {name}", hint=f"it has {', '.join(assets)}")
        try:
            return resolve_href(str(assets[name]["href"]), self.location or self.file)
        except (KeyError, ValueError) as error:
            raise SourceError(f"the asset {name} of {self.item.get('id')} has no usable href: {error!r}") from error

    def absolute(self) -> dict[str, Any]:
        """Return a copy of the item with absolute hrefs, which can be moved."""
        assets = self.item.get("assets") or {}
        return {
            **self.item,
            "assets": {name: {**asset, "href": self.asset(name)} for name, asset in assets.items()},
            "links": [link for link in self.item.get("links") or () if _is_absolute(link)],
        }


def read_scenes(path: Path, on_bad: OnBad = refuse) -> Iterator[Scene]:
    """Read all items at a path, in the order of their paths or as they stand in the file.

    Args:
        path: a folder, a STAC item, collection, catalogue or item collection (also gzipped), newline-delimited items,
            or stac-geoparquet.
        on_bad: called for each scene that cannot be used; the others are read.

    Raises:
        SourceError: the path cannot be read or has no items.
        UsageError: stac-geoparquet lacks its reader.
    """
    if path.is_dir():
        scene = None
        for scene in items_in(path, on_bad):
            yield scene
        if scene is None:
            raise SourceError(f"{path} has no STAC items", hint="use a folder of items, a catalogue or an API")
    elif path.suffix in PARQUET:
        yield from _features(_read_parquet(path), path, on_bad)
    elif is_lines(path):
        yield from _features({"features": _lines(path, on_bad)}, path, on_bad)
    else:
        yield from _followed(path, on_bad)


def items_in(folder: Path, on_bad: OnBad) -> Iterator[Scene]:
    """Read the items in a folder and below, in the order of their paths; other JSON is passed over."""
    for file in sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".geojson")):
        try:
            document = read_document(file)
            scene = _alone(document, file) if is_item(document) else None
        except SourceError as error:
            on_bad(str(file), error)
            continue
        if scene is not None:
            yield scene


def _followed(path: Path, on_bad: OnBad) -> Iterator[Scene]:
    """Follow a collection or catalogue to its items, each file once."""
    for file, document in linked_documents(path, on_bad):
        if "features" in document:
            yield from _features(document, file, on_bad)
            continue
        try:
            if not is_item(document):
                raise SourceError(f"{file} is not a STAC item, collection, catalogue or item collection")
            scene = _alone(document, file)
        except SourceError as error:
            on_bad(str(file), error)
            continue
        yield scene


def _alone(item: Item, file: Path) -> Scene:
    path = str(file.absolute())
    return Scene(item, path, path)


def _lines(path: Path, on_bad: OnBad) -> Iterator[Any]:
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        try:
            if line.strip():
                yield parse(line)
        except ValueError as error:
            name = f"line {number} of {path}"
            on_bad(name, _caused(SourceError(f"{name} is not JSON: {error}"), error))


def _caused(error: SourceError, cause: Exception) -> SourceError:
    error.__cause__ = cause
    return error


def _features(document: Mapping[str, Any], path: Path, on_bad: OnBad) -> Iterator[Scene]:
    """Read an item collection; an item's location is its `self` link, if it has one."""
    features = document.get("features")
    if not isinstance(features, Iterable) or isinstance(features, str | Mapping):
        raise SourceError(f"{path} is not an item collection: its features are not a list")
    for number, item in enumerate(features, start=1):
        try:
            scene = _feature(item, path)
        except SourceError as error:
            on_bad(f"item {number} of {path}", error)
            continue
        yield scene


def _feature(item: Any, path: Path) -> Scene:
    file = str(path.absolute())
    scene = Scene(item, None, file)
    try:
        own = link_of(item, "self")
        return Scene(item, resolve_href(own, file), file) if own else scene
    except ValueError as error:
        raise SourceError(f"the item {item['id']} in {path} has a malformed link: {error}") from error


def _read_parquet(path: Path) -> Mapping[str, Any]:
    try:
        import rustac  # noqa: PLC0415 - large, and few need it
    except ImportError as error:
        raise UsageError(
            f"stac-geoparquet requires the extra `geoparquet` ({error})", hint="pip install 'mosaic-async[geoparquet]'"
        ) from error
    try:
        found: Mapping[str, Any] = rustac.read_sync(str(path), set_self_link=False)
    except Exception as error:  # whatever the Rust reader meets
        raise SourceError(f"{path} cannot be read as stac-geoparquet: {error}") from error
    return found


def link_of(item: Item, relation: str) -> str | None:
    """Return the href of an item's link; None without one."""
    links: Iterable[Mapping[str, Any]] = item.get("links") or ()
    return next((str(link["href"]) for link in links if link.get("rel") == relation and link.get("href")), None)


def _is_absolute(link: Mapping[str, Any]) -> bool:
    try:
        return bool(urlsplit(str(link.get("href"))).scheme)
    except ValueError:
        return False
