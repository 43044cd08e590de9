"""OGC API Tiles: a tileset, or a list of them, and the URL that it leads to.

It knows nothing of how the documents are fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mosaic_async.errors import SourceError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import MAX_ZOOM
from mosaic_async.sources.description import Description
from mosaic_async.sources.formats import preferred
from mosaic_async.sources.grid_signs import is_web_mercator
from mosaic_async.sources.placeholders import with_values
from mosaic_async.sources.source import TileSource

_TILESETS = ("/tilesets-map", "/tilesets-coverage")
"""How relations end that lead to a list of tilesets with pixels."""
_DEGREES = ("CRS84",)


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
        SourceError: its tiles are vectors, or it has no tiles.
    """
    if document.get("dataType") == "vector":
        raise SourceError(f"the tiles of {described.name} are vectors, which have no pixels")
    items = {str(link.get("type", "")): str(link["href"]) for link in reversed(_items(document))}
    name = str(document.get("tileMatrixSetURI") or document.get("tileMatrixSetId") or document.get("crs") or "")
    template, _ = with_values(items[preferred([*items])], {"tileMatrixSetId": name.rpartition("/")[2]})
    zooms = sorted(_zooms(document.get("tileMatrixSetLimits")))
    return described.source(
        template,
        zooms=(zooms[0], zooms[-1]) if zooms else None,
        bounds=_bounds(document.get("boundingBox")),
        grid=name or None,
    )


def _tileset(tilesets: Sequence[Any]) -> str:
    sets = [one for one in tilesets if isinstance(one, Mapping) and one.get("dataType") != "vector"]
    names = [str(one.get("tileMatrixSetURI") or one.get("tileMatrixSetId") or one.get("crs") or "") for one in sets]
    for one, name in zip(sets, names, strict=True):
        own = next((link for link in _links(one) if link.get("rel") == "self"), None)
        if is_web_mercator(name) and own is not None:
            return str(own["href"])
    raise SourceError(
        f"the list has no tileset with pixels in Web Mercator, but {', '.join(names) or 'none'}",
        hint="use the URL of one tileset",
    )


def _links(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    links = document.get("links")
    return [link for link in links if isinstance(link, Mapping) and "href" in link] if isinstance(links, list) else []


def _items(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the links to tiles that are images."""
    links = [link for link in _links(document) if link.get("rel") == "item" and "{" in str(link["href"])]
    return [link for link in links if str(link.get("type", "image/")).startswith("image/")]


def _zooms(limits: Any) -> list[int]:
    """Return the zooms whose matrices have limits; Web Mercator's are named by their number."""
    names = [str(one.get("tileMatrix")) for one in limits if isinstance(one, Mapping)] if limits else []
    return [int(name) for name in names if name.isdecimal() and int(name) <= MAX_ZOOM]


def _bounds(box: Any) -> Bounds | None:
    if not isinstance(box, Mapping) or not str(box.get("crs", "CRS84")).endswith(_DEGREES):
        return None
    try:
        west, south, east, north = (
            float(box[corner][axis]) for corner in ("lowerLeft", "upperRight") for axis in (0, 1)
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return (west, south, east, north) if south < north else None
