"""The source of a document that describes tiles, whichever kind it is of.

TileJSON, the capabilities of a WMTS, tilesets of OGC API Tiles, and services of ArcGIS are read. It knows nothing of
stores and templates.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping
from typing import Any

from mosaic_async.errors import SourceError
from mosaic_async.http.server_words import words_in
from mosaic_async.safety.redaction import one_line
from mosaic_async.sources.arcgis import arcgis_source, as_json, is_service
from mosaic_async.sources.description import Description, is_url
from mosaic_async.sources.ogc_tiles import next_link, ogc_source
from mosaic_async.sources.placeholders import size_in_url, with_rows_from_south, with_values
from mosaic_async.sources.source import TileSource, with_query
from mosaic_async.sources.tilejson import TileJson
from mosaic_async.sources.wmts import wmts_source

_MOST_LINKS = 3
"""Documents that lead to a tileset, one after the other."""
_MAX_WORDS = 200
_HEAD = 4096
"""Bytes of a document in XML that name its kind."""
_GET_MAP = (
    "SERVICE=WMS&REQUEST=GetMap&VERSION=1.3.0&LAYERS=…&STYLES=&CRS=EPSG:3857&BBOX={bbox-epsg-3857}"
    "&WIDTH={width}&HEIGHT={height}&FORMAT=image/png"
)


async def described_source(
    location: str, headers: Mapping[str, str], allow_hosts: Collection[str], params: Mapping[str, str]
) -> TileSource:
    """Return the source that a document at a URL or in a file describes, with parameters.

    Raises:
        SourceError: the document cannot be fetched, is of no known kind, or names another host.
        UsageError: it describes several layers, and the parameters do not choose one.
    """
    place = as_json(location) if is_url(location) and is_service(location) else location
    described = await Description.fetch(place, headers, allow_hosts)
    if described.body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return await asyncio.to_thread(_of_xml, described, params)
    for _ in range(_MOST_LINKS):
        document = described.json_object
        if (link := next_link(document)) is None:
            break
        described = await described.follow(link)
    return _of_json(described, described.json_object, params)


def describes_tiles(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON describes tiles: a TileJSON, OGC API Tiles, or a service of ArcGIS."""
    is_tilejson = isinstance(document.get("tiles"), list | str)
    is_tileset = isinstance(document.get("tilesets"), list) or ("links" in document and "dataType" in document)
    return is_tilejson or is_tileset or _is_of_arcgis(document)


def _is_of_arcgis(document: Mapping[str, Any]) -> bool:
    return any(name in document for name in ("tileInfo", "mapName", "singleFusedMapCache", "pixelSizeX"))


def _of_xml(described: Description, params: Mapping[str, str]) -> TileSource:
    head = described.body[:_HEAD].lower()
    if b"wms_capabilities" in head or b"wmt_ms_capabilities" in head:
        raise SourceError(
            f"{described.name} describes a WMS, which has maps and no tiles",
            hint=f"write the URL of a map, such as {described.name}?{_GET_MAP}",
        )
    if b"/wmts/" in head or b"<capabilities" in head:
        return wmts_source(described, params)
    words = one_line(words_in(described.body, "text/xml"), _MAX_WORDS)
    raise SourceError(
        f"{described.name} is not JSON, and not the capabilities of a WMTS" + (f": {words}" if words else ""),
        hint="the URL may be that of a web page; that of a WMTS ends in ?SERVICE=WMTS&REQUEST=GetCapabilities",
    )


def _of_json(described: Description, document: Mapping[str, Any], params: Mapping[str, str]) -> TileSource:
    if _is_of_arcgis(document) or (is_service(described.location) and "tiles" not in document):
        found = arcgis_source(described, document)
    elif "tiles" not in document and any(True for _ in document.get("links") or ()):
        found = ogc_source(described, document)
    elif isinstance(document.get("sources"), dict) and "tiles" not in document:
        names = ", ".join(str(one.get("url")) for one in document["sources"].values() if isinstance(one, dict))
        raise SourceError(
            f"{described.name} is the style of a map", hint=f"use the TileJSON of one of its sources: {names[:500]}"
        )
    else:
        found = tilejson_source(described)
    template, left = with_values(found.template, params)
    return found.with_template(with_query(template, left))


def tilejson_source(described: Description) -> TileSource:
    """Return the source of a TileJSON.

    Raises:
        SourceError: the document is not a TileJSON, or names another host.
    """
    try:
        told = TileJson.parse(described.json_object)
        template = with_rows_from_south(told.template) if told.is_south_up else told.template
        return described.source(
            template,
            tile_size=size_in_url(template) or told.tile_size,
            minzoom=told.minzoom,
            maxzoom=_maxzoom(told),
            zooms=None if told.maxzoom is None else (0, told.maxzoom),
            bounds=told.bounds,
            grid=told.grid,
            encoding=told.encoding,
            notes=told.notes,
        )
    except ValueError as error:
        raise SourceError(
            f"{described.name} is not a TileJSON: {error}",
            hint="a TileJSON is a JSON object whose `tiles` lists URL templates",
        ) from error


def _maxzoom(told: TileJson) -> int | None:
    """Return the zoom at which tiles of 256 pixels have the resolution of the document's last tiles."""
    if told.maxzoom is None or not told.tile_size:
        return told.maxzoom
    return told.maxzoom + round(math.log2(told.tile_size / 256))
