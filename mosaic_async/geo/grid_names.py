"""What servers call coordinate systems and tile matrix sets: one name for each, whatever the spelling.

It knows no coordinates and nothing of URLs.
"""

from __future__ import annotations

import re
from functools import lru_cache

WEB_MERCATOR = "EPSG:3857"
DEGREES = "EPSG:4326"
"""Longitude and latitude of WGS 84, in whatever order."""
_SPELLINGS = (
    re.compile(r"<?https?://(?:www\.)?opengis\.net/def/crs/(\w+)/[\w.]+/(\w+)>?", re.IGNORECASE),
    re.compile(r"urn:(?:x-)?ogc:def:crs:(\w+):[\w.:]*?(\w+)", re.IGNORECASE),
    re.compile(r"\[?(epsg|esri|iau|iau_2015|ogc|crs|osgeo):{1,2}(\w+)\]?", re.IGNORECASE),
)
_ALIASES = {
    WEB_MERCATOR: "epsg:3785 epsg:900913 epsg:102100 epsg:102113 esri:102100 esri:102113 osgeo:41001",
    DEGREES: "ogc:crs84 crs:84 crs:crs84 ogc:84",
}
_CANONICAL = {alias.upper(): name for name, aliases in _ALIASES.items() for alias in aliases.split()}
_SETS = {
    "webmercatorquad": WEB_MERCATOR,
    "global_webmercator": WEB_MERCATOR,
    "global_mercator": WEB_MERCATOR,
    "global-mercator": WEB_MERCATOR,
    "webmercator": WEB_MERCATOR,
    "pm": WEB_MERCATOR,
    "worldcrs84quad": DEGREES,
    "wgs1984quad": DEGREES,
    "googlecrs84quad": DEGREES,
    "inspirecrs84quad": DEGREES,
    "global_geodetic": DEGREES,
    "global-geodetic": DEGREES,
    "globalcrs84pixel": DEGREES,
    "globalcrs84scale": DEGREES,
    "cdb1globalgrid": DEGREES,
    "gnosisglobalgrid": DEGREES,
    "canadiannad83_lcc": "EPSG:3978",
    "europeanetrs89_laeaquad": "EPSG:3035",
    "linzantarticamaptilegrid": "EPSG:5482",
    "nztm2000quad": "EPSG:2193",
    "upsantarcticwgs84quad": "EPSG:5042",
    "upsarcticwgs84quad": "EPSG:5041",
    "utm31wgs84quad": "EPSG:32631",
    "worldmercatorwgs84quad": "EPSG:3395",
}
"""The CRS of tile matrix sets that have a name everywhere, in lower case."""
_LIMITED = re.compile(r"(googlemapscompatible|pm)(_?level\d+|_\d+_\d+)?")
"""Sets of Web Mercator that end at a zoom, as NASA and IGN name them."""


@lru_cache(maxsize=256)
def crs_named(text: str) -> str | None:
    """Return AUTHORITY:CODE of the coordinate system that a text names, alone; None if it names none.

    All systems with the coordinates of Web Mercator are `WEB_MERCATOR`, and CRS84 is `DEGREES`.
    """
    text = text.strip()
    for spelling in _SPELLINGS:
        if match := spelling.fullmatch(text):
            name = f"{match[1]}:{match[2]}".upper()
            return _CANONICAL.get(name, name)
    return None


@lru_cache(maxsize=256)
def crs_of_set(name: str) -> str | None:
    """Return AUTHORITY:CODE of a tile matrix set with a well-known name; None for any other text."""
    lower = name.strip().lower().rpartition("/")[2]
    return WEB_MERCATOR if _LIMITED.fullmatch(lower) else _SETS.get(lower)
