"""Where scenes are found: a STAC API, or files: items, collections, catalogues, item collections, stac-geoparquet.

The only user of pystac-client, cql2 and rustac. It knows nothing of seasons, cells or documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import cql2
import shapely
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import RequestException
from shapely.geometry import shape

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.redaction import learn_request, scrub
from mosaic_async.safe_json import parse
from mosaic_async.sources.footprint import outline_of
from mosaic_async.sources.outlines import box_of
from mosaic_async.sources.remote_json import bound_body, retries
from mosaic_async.sources.stac_files import is_item, linked_documents, read_document, resolve_href, text_of
from mosaic_async.sources.stac_query import Item, Search

_TIMEOUT = 60.0


@dataclass(frozen=True)
class Scene:
    """A STAC item and where it was found.

    Raises:
        SourceError: the item is malformed.
    """

    item: Item
    location: str | None
    """Path or URL of the item; None when it has none of its own, as inside an item collection."""

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
            return resolve_href(str(assets[name]["href"]), self.location)
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


class _ApiIO(StacApiIO):
    """Requests pages whose size and nesting have an end."""

    def __init__(self, headers: Mapping[str, str], attempts: int) -> None:
        super().__init__(headers=dict(headers), timeout=_TIMEOUT, max_retries=retries(attempts))
        self.session.hooks["response"].append(bound_body)

    def json_loads(self, txt: str, *_: Any, **__: Any) -> dict[str, Any]:
        page = parse(txt)
        if not isinstance(page, dict):
            raise TypeError("a page is not an object")
        return page


def search_api(
    url: str, search: Search, *, headers: Mapping[str, str] | None = None, attempts: int = 5
) -> Iterator[Scene]:
    """Search a STAC API, page by page; each item is returned once.

    Pages are followed by their `next` links alone, so the API need not count its items.

    Args:
        url: of the API, or of its `/search`.
        search: what to look for.
        headers: sent with every request.
        attempts: maximum per page.

    Raises:
        SourceError: the API is unreachable, refuses the search, or does not return items.
    """
    learn_request(url, headers or {})
    root = url.rstrip("/").removesuffix("/search")
    body = search.body()
    if isinstance(search.filter, str):  # most servers read JSON only
        body |= {"filter": expression(search.filter).to_json(), "filter-lang": "cql2-json"}
    seen: set[tuple[Any, Any]] = set()
    try:
        for page in _ApiIO(headers or {}, attempts).get_pages(f"{root}/search", "POST", body):
            for item in page["features"]:
                scene = Scene(item, _self_of(item, root))
                key = (item.get("collection"), item["id"])
                # A server without the query extension ignores `query` and does not say so.
                if key not in seen and search.accepts(item):
                    seen.add(key)
                    yield scene
    except (APIError, RequestException) as error:
        raise SourceError(
            f"the STAC API at {scrub(root)} does not answer the search: {_words(error)}",
            hint="check the URL, and which parts of the search the API supports",
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{scrub(root)} is not a STAC API: {error!r}") from error


def search_files(path: str | Path, search: Search) -> Iterator[Scene]:
    """Search files as an API would, in the order of their paths; each item is returned once.

    Args:
        path: a folder, a STAC item, collection, catalogue or item collection (also gzipped), newline-delimited items,
            or stac-geoparquet.
        search: what to look for.

    Raises:
        SourceError: a file cannot be read, or items are missing or malformed.
        UsageError: the filter is not CQL2 or does not fit the items, or stac-geoparquet lacks its reader.
    """
    filtered = expression(search.filter) if search.filter else None
    place = _place(search)
    seen: set[tuple[Any, Any]] = set()
    for scene in read_scenes(Path(path)):
        item = scene.item
        key = (item.get("collection"), item.get("id"))
        if key in seen or not search.accepts(item):
            continue
        if place is not None and not place.intersects(outline_of(item)):
            continue
        if filtered is not None and not _matches(filtered, item):
            continue
        seen.add(key)
        yield scene


def read_scenes(path: Path) -> Iterator[Scene]:
    """Read all items at a path; see `search_files`."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.suffix in (".json", ".geojson"))
        documents = ((file, read_document(file)) for file in found)
        items = [Scene(document, str(file.absolute())) for file, document in documents if is_item(document)]
        if not items:
            raise SourceError(f"{path} has no STAC items", hint="use a folder of items, a catalogue or an API")
        yield from items
    elif path.suffix in (".parquet", ".geoparquet"):
        yield from _features(_read_parquet(path), path)
    elif path.suffix in (".ndjson", ".jsonl", ".geojsonl"):
        yield from _features({"features": _lines(path)}, path)
    else:
        yield from _followed(path)


def expression(text: str | Mapping[str, Any]) -> cql2.Expr:
    """Read CQL2, as text or JSON.

    Raises:
        UsageError: it is not CQL2.
    """
    try:
        return cql2.parse_text(text) if isinstance(text, str) else cql2.parse_json(json.dumps(text))
    except (cql2.ParseError, cql2.ValidationError, ValueError) as error:
        raise UsageError(f"the filter is not CQL2: {' '.join(str(error).split())[:200]}") from error


def _matches(filtered: cql2.Expr, item: Item) -> bool:
    """Return whether an item passes a filter; one that lacks a property does not, as in a database.

    Raises:
        UsageError: the filter cannot be applied to the item's values.
    """
    try:
        left = filtered.reduce(dict(item)).to_json()
    except Exception as error:  # cql2 raises nothing more special
        raise UsageError(f"the filter cannot be applied to {item.get('id')}: {error}") from error
    if isinstance(left, bool):
        return left
    if (wrong := _not_computed(left)) is not None:
        raise UsageError(
            f"the filter cannot be applied to {item.get('id')}: {json.dumps(wrong)[:200]} is neither true nor false",
            hint="compare each property with a value of its own type, and check the names of functions",
        )
    return False


def _not_computed(left: Any) -> Any:
    """Find the part of a reduced filter that has all its values and still no result; None when values are missing."""
    if isinstance(left, dict) and "property" in left:
        return None
    parts = _open_parts(left["args"]) if isinstance(left, dict) and "op" in left else []
    if not parts:
        return left
    return next((wrong for part in parts if (wrong := _not_computed(part)) is not None), None)


def _open_parts(node: Any) -> list[dict[str, Any]]:
    """List the outermost operations and properties in an argument: in lists, intervals and boxes too."""
    if isinstance(node, dict):
        if "op" in node or "property" in node:
            return [node]
        node = list(node.values())
    return [part for one in node for part in _open_parts(one)] if isinstance(node, list) else []


def _place(search: Search) -> Any:
    if search.bbox is not None:
        found = box_of(search.bbox)
    elif search.intersects is not None:
        found = outline_of({"geometry": search.intersects, "id": "intersects"}) if _is_area(search) else None
        found = found if found is not None else shape(search.intersects)
    else:
        return None
    shapely.prepare(found)
    return found


def _is_area(search: Search) -> bool:
    return search.intersects is not None and search.intersects.get("type") in ("Polygon", "MultiPolygon")


def _followed(path: Path) -> Iterator[Scene]:
    """Follow a collection or catalogue to its items, each file once."""
    for file, document in linked_documents(path):
        if is_item(document):
            yield Scene(document, str(file.absolute()))
        elif "features" in document:
            yield from _features(document, file)
        else:
            raise SourceError(f"{file} is not a STAC item, collection, catalogue or item collection")


def _lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        try:
            if line.strip():
                yield parse(line)
        except ValueError as error:
            raise SourceError(f"line {number} of {path} is not JSON: {error}") from error


def _features(document: Mapping[str, Any], path: Path) -> Iterator[Scene]:
    """Read an item collection; an item's location is its `self` link, if it has one."""
    features = document.get("features")
    if not isinstance(features, Iterable) or isinstance(features, str | Mapping):
        raise SourceError(f"{path} is not an item collection: its features are not a list")
    for item in features:
        scene = Scene(item, None)
        try:
            own = _link(item, "self")
            yield Scene(item, resolve_href(own, str(path.absolute()))) if own else scene
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


def _self_of(item: Item, root: str) -> str:
    """Return an item's own URL; where the API leaves the link out, it is the one of the standard."""
    own = _link(item, "self")
    if own:
        return urljoin(f"{root}/", own)
    collection, name = quote(str(item.get("collection")), safe=""), quote(str(item["id"]), safe="")
    return f"{root}/collections/{collection}/items/{name}"


def _link(item: Item, relation: str) -> str | None:
    links: Iterable[Mapping[str, Any]] = item.get("links") or ()
    return next((str(link["href"]) for link in links if link.get("rel") == relation and link.get("href")), None)


def _is_absolute(link: Mapping[str, Any]) -> bool:
    try:
        return bool(urlsplit(str(link.get("href"))).scheme)
    except ValueError:
        return False


def _words(error: Exception) -> str:
    """Shorten a foreign error to one line without secrets."""
    return scrub(" ".join(str(error).split()))[:300]
