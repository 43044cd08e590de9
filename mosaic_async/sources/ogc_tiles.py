"""OGC API Tiles: a tileset, or a list of them, and the URL that it leads to.

It knows nothing of how the documents are fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mercantile

from mosaic_async.errors import SourceError
from mosaic_async.geo.area import MAX_LATITUDE, Bounds
from mosaic_async.geo.cover import MAX_ZOOM
from mosaic_async.sources.description import Description
from mosaic_async.sources.formats import preferred
from mosaic_async.sources.grid_signs import is_web_mercator
from mosaic_async.sources.placeholders import is_template, with_values
from mosaic_async.sources.source import TileSource

_TILESETS = ("/tilesets-map", "/tilesets-coverage")
"""How relations end that lead to a list of tilesets with pixels."""
_LAST_LATITUDE = 90.01


def next_link(document: Mapping[str, Any]) -> str | None:
    """Return the URL of the document to read instead: of a list the tileset, of a collection the list; None: this one.

    Raises:
        SourceError: a list has no tileset with pixels in Web Mercator.
    """
    if isinstance(document.get("tilesets"), list):
        return _tileset(document["tilesets"])
    if _items(document):
        return None
    return next((str(link["href"]) for link in _links(document) if str(link.get("rel", "")).endswith(_TILESETS)), None)


def ogc_source(described: Description, document: Mapping[str, Any]) -> TileSource:
    """Return the source of a tileset.

    Raises:
        SourceError: its tiles are vectors, it has no tiles, or its limits are those of another grid.
    """
    if document.get("dataType") == "vector":
        raise SourceError(f"the tiles of {described.name} are vectors, which have no pixels")
    items = {str(link.get("type", "")): str(link["href"]) for link in reversed(_items(document))}
    if not items:
        raise SourceError(
            f"{described.name} links to no tiles of images", hint="use the URL of a tileset, such as …/map/tiles"
        )
    name = _set_of(document)
    template, _ = with_values(items[preferred([*items])], {"tileMatrixSetId": name.rpartition("/")[2]})
    limits = _limits(document.get("tileMatrixSetLimits"))
    boxes = _boxes(document.get("boundingBox"))
    bounds = next((box for box in boxes if _fits(box, limits)), None)
    if boxes and bounds is None and is_web_mercator(name or str(document.get("crs"))):
        raise SourceError(f"{described.name} states limits that are not those of its bounds in Web Mercator")
    return described.source(
        template,
        zooms=(min(limits), max(limits)) if limits else None,
        bounds=bounds,
        grid=name or _other(str(document.get("crs") or "")),
    )


def _set_of(document: Mapping[str, Any]) -> str:
    """Return the name of a tileset's matrix set; empty where only its CRS is stated."""
    return str(document.get("tileMatrixSetURI") or document.get("tileMatrixSetId") or "")


def _other(crs: str) -> str | None:
    """Return a CRS that is not Web Mercator; None otherwise, so that the URL may still name another set."""
    return None if not crs or is_web_mercator(crs) else crs


def _tileset(tilesets: Sequence[Any]) -> str:
    """Return the URL of the tileset in Web Mercator, that of the well-known set before others of its CRS."""
    sets = [one for one in tilesets if isinstance(one, Mapping) and one.get("dataType") != "vector"]
    names = [_set_of(one) or str(one.get("crs") or "") for one in sets]
    found = [
        str(link["href"])
        for one, name in zip(sets, names, strict=True)
        for link in _links(one)
        if link.get("rel") == "self" and is_web_mercator(name)
    ]
    if not found:
        raise SourceError(
            f"the list has no tileset with pixels in Web Mercator, but {', '.join(names) or 'none'}",
            hint="use the URL of one tileset",
        )
    return next((url for url in found if "webmercatorquad" in url.lower()), found[0])


def _links(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    links = document.get("links")
    return [link for link in links if isinstance(link, Mapping) and "href" in link] if isinstance(links, list) else []


def _items(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the links to tiles that are images; TiTiler calls the relation `tile`."""
    links = [link for link in _links(document) if link.get("rel") in ("item", "tile")]
    return [
        link for link in links
        if is_template(str(link["href"])) and str(link.get("type", "image/")).startswith("image/")
    ]  # fmt: skip


def _limits(stated: Any) -> dict[int, tuple[int, int, int, int]]:
    """Return the first and last column and row of each zoom; Web Mercator's matrices are named by their zoom."""
    found = {}
    for one in stated if isinstance(stated, list) else ():
        name = str(one.get("tileMatrix")) if isinstance(one, Mapping) else ""
        if name.isdecimal() and int(name) <= MAX_ZOOM:
            sides = (one.get(f"{end}Tile{axis}") for axis in ("Col", "Row") for end in ("min", "max"))
            first, last, top, lower = (side if isinstance(side, int) else -1 for side in sides)
            found[int(name)] = (first, last, top, lower)
    return found


def _boxes(box: Any) -> list[Bounds]:
    """Return what a bounding box may mean in degrees: latitude comes first in EPSG:4326, and many write it last."""
    if not isinstance(box, Mapping):
        return []
    crs = str(box.get("crs") or "CRS84")
    try:
        (west, south), (east, north) = (map(float, box[corner][:2]) for corner in ("lowerLeft", "upperRight"))
    except (KeyError, IndexError, TypeError, ValueError):
        return []
    boxes = [(west, south, east, north)]
    if crs.endswith("4326"):
        boxes.append((south, west, north, east))
    elif not crs.endswith("CRS84"):
        return []
    return [one for one in boxes if one[1] < one[3] and max(abs(one[1]), abs(one[3])) <= _LAST_LATITUDE]


def _fits(box: Bounds, limits: Mapping[int, tuple[int, int, int, int]]) -> bool:
    """Return whether the tile in the middle of a box is within the limits of each zoom, or next to them."""
    west, south, east, north = box
    latitude = max(-MAX_LATITUDE, min((south + north) / 2, MAX_LATITUDE))
    for zoom, (first, last, top, lower) in limits.items():
        middle = mercantile.tile((west + east) / 2, latitude, zoom)
        is_stated = min(first, last, top, lower) >= 0
        if is_stated and not (first - 1 <= middle.x <= last + 1 and top - 1 <= middle.y <= lower + 1):
            return False
    return True
