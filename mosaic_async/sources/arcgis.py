"""The description of an ArcGIS MapServer or ImageServer: the URL of its cached tiles, or of the maps that it draws.

It knows nothing of how the document is fetched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import mercantile

from mosaic_async.errors import SourceError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import WORLD
from mosaic_async.geo.grid_names import WEB_MERCATOR
from mosaic_async.http.server_words import words_of
from mosaic_async.safety.redaction import one_line
from mosaic_async.sources.description import Description, is_url
from mosaic_async.sources.grid_signs import is_web_mercator
from mosaic_async.sources.mercator_levels import Level, levels_by_zoom
from mosaic_async.sources.source import TileSource

_SERVICE = re.compile(r"/(Map|Image)Server/?$", re.IGNORECASE)
_MAX_WORDS = 200
_MAP = "bbox={bbox-epsg-3857}&bboxSR=3857&imageSR=3857&size={width},{height}&f=image"
_EXPORT = {"map": f"export?{_MAP}&format=png32&transparent=true", "image": f"exportImage?{_MAP}&format=tiff"}
_TILE_SIZE = 256
"""Pixels per side of maps that the server draws."""


def is_service(location: str) -> bool:
    """Return whether a URL is that of a MapServer or ImageServer."""
    return _SERVICE.search(urlsplit(location).path) is not None


def as_json(location: str) -> str:
    """Return the URL of a service's description as JSON, which is a page otherwise."""
    parts = urlsplit(location)
    query = [(name, value) for name, value in parse_qsl(parts.query) if name.lower() != "f"]
    return parts._replace(path=parts.path.rstrip("/"), query=urlencode([*query, ("f", "json")])).geturl()


def arcgis_source(described: Description, document: Mapping[str, Any]) -> TileSource:
    """Return the source of a service.

    Raises:
        SourceError: the server refuses to describe it, or the document is malformed.
    """
    if "error" in document:
        words = one_line(words_of(document), _MAX_WORDS)
        raise SourceError(f"{described.name} does not describe itself: {words}", hint="check the URL and its token")
    if not is_url(described.location):
        raise SourceError(
            f"{described.name} describes a service of ArcGIS, and does not say where it is",
            hint="pass the URL of the service, which ends in /MapServer or /ImageServer",
        )
    parts = urlsplit(described.location)
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name.lower() != "f"])
    base = parts._replace(query="").geturl().rstrip("/")
    try:
        bounds = _bounds(document.get("fullExtent") or document.get("extent"))
        info = document.get("tileInfo")
        if info and document.get("singleFusedMapCache", True):
            return _cached(described, f"{base}/tile/{{TileMatrix}}/{{y}}/{{x}}", query, document, bounds)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{described.name} has a malformed tileInfo: {error!r}") from error
    kind = "image" if base.lower().endswith("imageserver") else "map"
    token = f"&{query}" if query else ""
    maxzoom = _maxzoom(document)
    return described.source(f"{base}/{_EXPORT[kind]}{token}", tile_size=_TILE_SIZE, bounds=bounds, maxzoom=maxzoom)


def _cached(
    described: Description, template: str, query: str, document: Mapping[str, Any], bounds: Bounds | None
) -> TileSource:
    """Return the source of a cache of tiles, whose levels may begin at any zoom."""
    info = document["tileInfo"]
    left, top, size = float(info["origin"]["x"]), float(info["origin"]["y"]), int(info["rows"])
    coarsest, finest = float(document.get("minScale") or math.inf), float(document.get("maxScale") or 0)
    system = _system(info.get("spatialReference"))
    levels = levels_by_zoom(
        Level(name=str(lod["level"]), resolution=float(lod["resolution"]), tile_size=size, left=left, top=top)
        for lod in info["lods"]
        if finest * (1 - 1e-6) <= float(lod.get("scale") or 1) <= coarsest * (1 + 1e-6)
    )
    is_ours = levels is not None and is_web_mercator(system)
    zooms = [*(levels or ())] if is_ours else []
    return described.source(
        f"{template}?{query}" if query else template,
        tile_size=size,
        bounds=bounds,
        zooms=(zooms[0], zooms[-1]) if zooms else None,
        grid=WEB_MERCATOR if is_ours else system if not is_web_mercator(system) else f"{system} with levels of its own",
        matrices={zoom: levels[zoom].name for zoom in zooms} if levels else {},
    )


def _system(reference: Any) -> str:
    """Return the name of a spatial reference; the latest code counts."""
    found = reference if isinstance(reference, Mapping) else {}
    code = found.get("latestWkid") or found.get("wkid")
    return f"EPSG:{code}" if code else str(found.get("wkt") or "an unknown system")


def _bounds(extent: Any) -> Bounds | None:
    """Return an extent in degrees; None where its system is not known here."""
    if not isinstance(extent, Mapping):
        return None
    try:
        west, south, east, north = (float(extent[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    except (KeyError, TypeError, ValueError):
        return None
    if not (south < north and west < east and all(map(math.isfinite, (west, south, east, north)))):
        return None
    system = _system(extent.get("spatialReference"))
    if is_web_mercator(system):
        (west, south), (east, north) = mercantile.lnglat(west, south), mercantile.lnglat(east, north)
    elif system != "EPSG:4326":
        return None
    return (max(west, -180.0), south, min(east, 180.0), north)


def _maxzoom(document: Mapping[str, Any]) -> int | None:
    """Return the zoom of the resolution of images in Web Mercator; None for those that are drawn from anything else."""
    system = _system((document.get("extent") or {}).get("spatialReference"))
    size = document.get("pixelSizeX")
    if not is_web_mercator(system) or not isinstance(size, int | float) or not size > 0:
        return None
    return max(0, math.ceil(math.log2(WORLD / _TILE_SIZE / size) - 1e-6))
