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
from urllib3.util import Retry

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.redaction import redact
from mosaic_async.safe_json import parse
from mosaic_async.sources.stac_files import is_item, linked_documents, read_document, resolve_href, text_of
from mosaic_async.sources.stac_query import Item, Search
from mosaic_async.stac.footprint import box_of, outline_of

_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_TIMEOUT = 60.0


@dataclass(frozen=True)
class Scene:
    """A STAC item and where it was found."""

    item: Item
    location: str | None
    """Path or URL of the item; None when it has none of its own, as inside an item collection."""

    def asset(self, name: str) -> str:
        """Give the absolute path or URL of one of its assets.

        Raises:
            UsageError: it has no such asset.
        """
        assets = self.item.get("assets") or {}
        if name not in assets:
            raise UsageError(f"{self.item.get('id')} has no asset {name}", hint=f"it has {', '.join(assets)}")
        return resolve_href(str(assets[name]["href"]), self.location)

    def absolute(self) -> dict[str, Any]:
        """Copy the item with absolute hrefs, so that it can be moved."""
        assets = self.item.get("assets") or {}
        return {
            **self.item,
            "assets": {name: {**asset, "href": self.asset(name)} for name, asset in assets.items()},
            "links": [link for link in self.item.get("links") or () if urlsplit(str(link.get("href"))).scheme],
        }


def search_api(
    url: str, search: Search, *, headers: Mapping[str, str] | None = None, attempts: int = 5
) -> Iterator[Scene]:
    """Ask a STAC API, page after page, each item once.

    Pages are followed by their `next` links alone, so the API need not count what it has.

    Args:
        url: of the API, or of its `/search`.
        search: what to look for.
        headers: sent with every request.
        attempts: tries a page.

    Raises:
        SourceError: it is unreachable, refuses, or answers with no items' JSON.
    """
    root = url.rstrip("/").removesuffix("/search")
    body = search.body()
    if isinstance(search.filter, str):  # most servers read JSON only
        body |= {"filter": expression(search.filter).to_json(), "filter-lang": "cql2-json"}
    seen: set[tuple[Any, Any]] = set()
    try:
        retries = Retry(
            total=attempts - 1, backoff_factor=0.5, status_forcelist=_RETRIED, allowed_methods=None,
            respect_retry_after_header=True,
        )  # fmt: skip
        stac_io = StacApiIO(headers=dict(headers or {}), timeout=_TIMEOUT, max_retries=retries)
        pages = stac_io.get_pages(f"{root}/search", "POST", body)
        for page in pages:
            for item in page["features"]:
                key = (item.get("collection"), item["id"])
                # A server without the query extension ignores `query`, and nothing in its answer tells.
                if key not in seen and search.accepts(item):
                    seen.add(key)
                    yield Scene(item, _self_of(item, root))
    except (APIError, RequestException) as error:
        raise SourceError(
            f"the STAC API at {redact(root)} does not answer the search: {_words(error)}",
            hint="check the URL, and what of the search the API can do",
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{redact(root)} is no STAC API: {error!r}") from error


def search_files(path: str | Path, search: Search) -> Iterator[Scene]:
    """Look through files, in the order of their paths, as an API would; each item once.

    Args:
        path: a folder, a STAC item, collection, catalogue or item collection (also gzipped), newline-delimited items,
            or stac-geoparquet.
        search: what to look for.

    Raises:
        SourceError: there is nothing that can be read.
        UsageError: the filter is no CQL2, or stac-geoparquet lacks its reader.
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
            raise SourceError(f"{path} has no STAC items", hint="give a folder of items, or a catalogue or API")
        yield from items
    elif path.suffix in (".parquet", ".geoparquet"):
        yield from _features(_read_parquet(path), path)
    elif path.suffix in (".ndjson", ".jsonl", ".geojsonl"):
        yield from _features({"features": [parse(line) for line in text_of(path).splitlines() if line]}, path)
    else:
        yield from _followed(path)


def expression(text: str | Mapping[str, Any]) -> cql2.Expr:
    """Read CQL2.

    Raises:
        UsageError: it is none.
    """
    try:
        return cql2.parse_text(text) if isinstance(text, str) else cql2.parse_json(json.dumps(text))
    except (cql2.ParseError, cql2.ValidationError, ValueError) as error:
        raise UsageError(f"the filter is no CQL2: {' '.join(str(error).split())[:200]}") from error


def _matches(filtered: cql2.Expr, item: Item) -> bool:
    try:
        return bool(filtered.matches(dict(item)))
    except Exception:  # noqa: BLE001 - cql2 raises bare ones: a property is missing, which is no match in a database
        return False


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


def _features(document: Mapping[str, Any], path: Path) -> Iterator[Scene]:
    """Give the items of a collection; each is where its own link says, if it has one."""
    try:
        for item in document["features"]:
            own = _link(item, "self")
            yield Scene(item, resolve_href(own, str(path.absolute())) if own else None)
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is no item collection: {error!r}") from error


def _read_parquet(path: Path) -> Mapping[str, Any]:
    try:
        import rustac  # noqa: PLC0415 - large, and few need it
    except ImportError as error:
        raise UsageError(
            f"stac-geoparquet needs the extra `geoparquet` ({error})", hint="pip install 'mosaic-async[geoparquet]'"
        ) from error
    try:
        found: Mapping[str, Any] = rustac.read_sync(str(path), set_self_link=False)
    except Exception as error:  # whatever the Rust reader meets
        raise SourceError(f"{path} cannot be read as stac-geoparquet: {error}") from error
    return found


def _self_of(item: Item, root: str) -> str:
    """Give an item's own URL; an API that leaves the link out has it where the standard puts it."""
    own = _link(item, "self")
    if own:
        return urljoin(f"{root}/", own)
    collection, name = quote(str(item.get("collection")), safe=""), quote(str(item["id"]), safe="")
    return f"{root}/collections/{collection}/items/{name}"


def _link(item: Item, relation: str) -> str | None:
    links: Iterable[Mapping[str, Any]] = item.get("links") or ()
    return next((str(link["href"]) for link in links if link.get("rel") == relation), None)


def _words(error: Exception) -> str:
    """Shorten a foreign error to one line without secrets."""
    return redact(" ".join(str(error).split()))[:300]
