"""The grid that a tile URL or a TileJSON names, where it is not Web Mercator's.

It knows nothing of what the grid is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from mosaic_async.geo.grid_names import WEB_MERCATOR, crs_named, crs_of_set

_SETS = frozenset({"tilematrixset", "tilematrixsetid", "tms"})
"""Parameters whose value is the name of a tile matrix set, in any case and with or without `_`."""
_SYSTEMS = frozenset({"crs", "srs", "bboxsr", "imagesr", "tilematrix"})
"""Parameters that name a coordinate system; that of `tilematrix` is before a zoom, as GeoServer names matrices."""
_EPSG = re.compile(r"(?<![a-z0-9])epsg[:_-]?(\d{4,6})(?!\d)", re.IGNORECASE)
_PLACE = re.compile(r"\{[^}]*\}")
_NATIONAL = re.compile(r"(4258|4326|2056|2154|21781|2583[1-5]|27700|28992|3006|3035|3067|31370|326\d\d|327\d\d)")
"""Codes that some servers write as a folder before the zoom."""
_FLAGS = ("", "true", "false", "0", "1")
"""Values of `tms` that say from where rows are counted."""


def grid_in_url(template: str) -> str | None:
    """Return the matrix set or coordinate system that a URL names, as it stands there; None for Web Mercator."""
    parts = urlsplit(template)
    names = [*_in_path(parts.path), *_in_query(parts.query)]
    return next((name for name in names if not is_web_mercator(name)), None)


def grid_in_tilejson(document: Mapping[str, Any]) -> str | None:
    """Return the matrix set or coordinate system that a TileJSON names; None for Web Mercator."""
    names = [document.get(key) for key in ("tileMatrixSet", "tileMatrixSetURI", "tileMatrixSetId", "crs", "srs")]
    texts = [_text(name) for name in names if name]
    return next((text for text in texts if not is_web_mercator(text)), None)


def is_web_mercator(name: str) -> bool:
    """Return whether a matrix set or coordinate system is known to be Web Mercator's."""
    return WEB_MERCATOR in (crs_named(name), crs_of_set(name))


def _in_path(path: str) -> list[str]:
    segments = [unquote(segment) for segment in path.split("/")]
    names = [segment for segment in segments if crs_of_set(segment)]
    names += [f"EPSG:{match[1]}" for segment in segments if "://" not in segment for match in _EPSG.finditer(segment)]
    before_zoom = [before for before, place in pairwise(segments) if _PLACE.match(place)][:1]
    return names + [f"EPSG:{code}" for code in before_zoom if _NATIONAL.fullmatch(code)]


def _in_query(query: str) -> list[str]:
    names = []
    for key, value in parse_qsl(query):
        kind = key.lower().replace("_", "")
        if kind in _SETS and value.lower() not in _FLAGS and not _PLACE.search(value):
            names.append(value)
        elif kind in _SYSTEMS:
            names.append(f"EPSG:{value}" if value.isdigit() else _PLACE.sub("", value).rstrip(":"))
    return [name for name in names if name]


def _text(name: Any) -> str:
    """Return the name in a text or, as in old GeoJSON, in an object; of a matrix set, its id."""
    if isinstance(name, Mapping):
        inner = name.get("properties", name)
        name = inner.get("name") or inner.get("id") or inner.get("identifier") or inner.get("uri") or "an unnamed grid"
    return str(name)
