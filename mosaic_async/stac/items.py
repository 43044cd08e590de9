"""Searches for scenes, in a STAC API or in files.

The only user of pystac-client and cql2. It knows nothing of seasons, cells or documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import cql2
import shapely
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests import RequestException
from shapely.geometry import shape

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.safety.redaction import learn_request, scrub
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.footprint import outline_of
from mosaic_async.sources.item_files import OnBad, Scene, link_of, read_scenes, refuse
from mosaic_async.sources.outlines import box_of
from mosaic_async.sources.remote_json import prepare
from mosaic_async.sources.stac_query import Item, Search

_TIMEOUT = 60.0


class _ApiIO(StacApiIO):
    """Requests pages whose size and nesting have an end."""

    def __init__(self, headers: Mapping[str, str], attempts: int) -> None:
        super().__init__(headers=dict(headers), timeout=_TIMEOUT)
        prepare(self.session, attempts)

    def json_loads(self, txt: str, *_: Any, **__: Any) -> dict[str, Any]:
        page = parse(txt)
        if not isinstance(page, dict):
            raise TypeError("a page is not an object")
        return page


def search_api(
    url: str,
    search: Search,
    *,
    headers: Mapping[str, str] | None = None,
    attempts: int = 5,
    on_bad: OnBad = refuse,
) -> Iterator[Scene]:
    """Search a STAC API, page by page; each item is returned once.

    Pages are followed by their `next` links alone, so the API need not count its items.

    Args:
        url: of the API, or of its `/search`.
        search: what to look for.
        headers: sent with every request.
        attempts: maximum per page.
        on_bad: called for each item that is malformed; the others are returned.

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
                try:
                    scene = Scene(item, _self_of(item, root))
                except SourceError as error:
                    on_bad(f"an item of {scrub(root)}", error)
                    continue
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


def search_files(path: str | Path, search: Search, *, on_bad: OnBad = refuse) -> Iterator[Scene]:
    """Search files as an API would, in the order of their paths; each item is returned once.

    Args:
        path: a folder, a STAC item, collection, catalogue or item collection (also gzipped), newline-delimited items,
            or stac-geoparquet.
        search: what to look for.
        on_bad: called for each scene that cannot be used; the others are returned.

    Raises:
        SourceError: a file cannot be read, or items are missing or malformed.
        UsageError: the filter is not CQL2 or does not fit the items, or stac-geoparquet lacks its reader.
    """
    filtered = expression(search.filter) if search.filter else None
    place = _place(search)
    seen: set[tuple[Any, Any]] = set()
    for scene in read_scenes(Path(path), on_bad):
        item = scene.item
        key = (item.get("collection"), item.get("id"))
        try:
            is_new = key not in seen and search.accepts(item)
            is_near = is_new and (place is None or place.intersects(outline_of(item)))
        except SourceError as error:
            on_bad(str(scene.location or item["id"]), error)
            continue
        if is_near and (filtered is None or _matches(filtered, item)):
            seen.add(key)
            yield scene


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


def _self_of(item: Item, root: str) -> str:
    """Return an item's own URL; where the API leaves the link out, it is the one of the standard."""
    own = link_of(item, "self")
    if own:
        return urljoin(f"{root}/", own)
    collection, name = quote(str(item.get("collection")), safe=""), quote(str(item["id"]), safe="")
    return f"{root}/collections/{collection}/items/{name}"


def _words(error: Exception) -> str:
    """Shorten a foreign error to one line without secrets."""
    return scrub(" ".join(str(error).split()))[:300]
