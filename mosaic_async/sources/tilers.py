"""Tilers as sources: have one render a mosaic or a search, and return the URL template of its tiles.

Each maker detects the type of tiler, writes the rendering in its dialect, and reads zooms and bounds. It knows nothing
of how the tiles are fetched.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import mercantile

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.http.json_call import Reply, exchange
from mosaic_async.safety.redaction import scrub
from mosaic_async.safety.safe_json import read
from mosaic_async.sources.dialects import DIALECTS, TMS, Dialect, Params
from mosaic_async.sources.openapi import REGISTER, Endpoint, dialect_named, kind_of, open_endpoint, spoken_by
from mosaic_async.sources.placeholders import is_template
from mosaic_async.sources.rendering import Rendering
from mosaic_async.sources.source import TileSource, from_template
from mosaic_async.sources.stac_query import Search
from mosaic_async.sources.tilejson import TileJson

_ONE_SCENE = ("first", None)
_PC_HOST = "planetarycomputer.microsoft.com"
_PC_ITEMS = 10


async def awspds_mosaic(
    endpoint: str,
    search: Mapping[str, Any],
    *,
    rendering: Rendering,
    minzoom: int = 7,
    maxzoom: int = 12,
    seasons: Sequence[str] = (),
    optimized_selection: bool = False,
    max_per_cell: int = 0,
    tile_size: int = 512,
    tile_format: str = "tif",
    batch: bool = True,
    headers: Mapping[str, str] | None = None,
) -> TileSource:
    """Have awspds-mosaic, or a compatible tiler, make a mosaic of a search: `POST /mosaic/create`.

    Args:
        endpoint: URL above `/mosaic/create`.
        search: a SAT-API search, sent unchanged.
        rendering: what to show; awspds numbers bands and does not support `resampling`.
        minzoom: of the mosaic; also the zoom of its cells.
        maxzoom: of the mosaic.
        seasons: winter, spring, summer, autumn; none: all.
        optimized_selection: keep one scene per path and row.
        max_per_cell: scenes per cell, 0 for all; the default of awspds is 20, and it does not say that it cuts.
        tile_size: pixels per side: 256, 512, 768 or 1024.
        tile_format: tif, png, jpg or webp.
        batch: request tiles below `/batch/`, where each has 30 s instead of 20, and more threads.
        headers: sent with every request.

    Raises:
        UsageError: the tiler does not support the rendering or size.
        SourceError: the tiler does not answer, or refuses the search.
    """
    if tile_format == "npy":
        raise UsageError("awspds sends npy as pickled objects, which are not read", hint="set ``tile_format`` to tif")
    scale, rest = divmod(tile_size, 256)
    if rest or not 1 <= scale <= 4:
        raise UsageError(
            f"awspds makes no tiles of {tile_size} pixels", hint="``tile_size`` may be 256, 512, 768 or 1024"
        )
    query = DIALECTS["awspds"].query(rendering)
    options = {
        "minzoom": minzoom, "maxzoom": maxzoom, "optimized_selection": optimized_selection,
        "maximum_items_per_tile": max_per_cell, "tile_format": tile_format, "tile_scale": scale,
    }  # fmt: skip
    if seasons:
        options["seasons"] = ",".join(seasons)
    url = f"{endpoint.rstrip('/')}/mosaic/create?{urlencode(options)}"
    # It fails on a body without `query`.
    reply = await exchange(url, body={"query": {}, **search}, headers=headers)
    told = _tilejson(reply, url)
    template = told.template
    if not is_template(template):
        raise SourceError(f"{scrub(url)} returns a TileJSON without a tile URL")
    if batch:
        template = template.replace("/tiles/", "/batch/", 1)
    source = TileSource(
        template=template,
        tile_size=tile_size,
        minzoom=minzoom if told.minzoom is None else told.minzoom,
        maxzoom=maxzoom if told.maxzoom is None else told.maxzoom,
        bounds=told.bounds,
        headers=headers or {},
        mask_band=None if tile_format == "jpg" else True,  # old GDAL wrote the mask as one more grey band
    )
    return source.with_params(dict(query))


async def titiler_mosaic(
    endpoint: str,
    mosaic: str,
    *,
    rendering: Rendering,
    tile_size: int = 512,
    tile_format: str = "tif",
    dialect: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> TileSource:
    """Have a TiTiler of any generation render a MosaicJSON that it can read.

    Args:
        endpoint: URL of the tiler's mosaic routes, such as `https://host/mosaicjson`, or of the tiler.
        mosaic: URL of the MosaicJSON, as the tiler reads it: https, s3, ...
        rendering: what to show; names of assets require a tiler that reads STAC items.
        tile_size: pixels per side.
        tile_format: tif, png, jpg, webp or npy.
        dialect: one of `dialects.DIALECTS`, for a tiler without an OpenAPI description; None: detected.
        headers: sent with every request.

    Raises:
        UsageError: the tiler does not support the rendering or size.
        SourceError: the tiler does not answer, or cannot read the mosaic.
    """
    opened = await open_endpoint(endpoint, headers=headers)
    base, spoken = spoken_by(opened, dialect, required="url")
    params = [("url", mosaic), *spoken.query(rendering)]
    return await _described(opened, base, spoken, params, tile_size=tile_size, tile_format=tile_format)


async def titiler_search(
    endpoint: str,
    search: Mapping[str, Any] | Search,
    *,
    rendering: Rendering,
    tile_size: int = 512,
    tile_format: str = "tif",
    items_limit: int = 100,
    scan_limit: int = 10_000,
    time_limit: int = 20,
    dialect: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> TileSource:
    """Register a search with titiler-pgstac, or Planetary Computer's tiler, and render its scenes.

    pgstac stops as soon as a tile is covered and leaves out the scenes below, so that any selection but `first` would
    see one or two scenes. For those selections this is turned off.

    Args:
        endpoint: URL above `/searches/register` (before titiler-pgstac 1.0 `/mosaic/register`).
        search: a STAC API search.
        rendering: what to show.
        tile_size: pixels per side.
        tile_format: tif, png, jpg, webp or npy.
        items_limit: scenes per tile, for selections other than `first`. Beyond it the tiler leaves scenes out and does
            not say so; the source's `notes` do if that happens in the middle of the search's bbox.
        scan_limit: scenes per tile that are considered.
        time_limit: seconds per tile for finding scenes.
        dialect: one of `dialects.DIALECTS`, for a tiler without an OpenAPI description; None: detected.
        headers: sent with every request.

    Raises:
        UsageError: the tiler does not support the rendering, size or search.
        SourceError: the tiler does not answer, or refuses the search.
    """
    wanted = search if isinstance(search, Search) else Search.parse(search)
    opened = await open_endpoint(endpoint, headers=headers)
    is_pc = dialect == "planetary-computer" or (urlsplit(opened.url).hostname or "").endswith(_PC_HOST)
    register = opened.has(REGISTER) or f"{opened.prefix}/{'mosaic' if is_pc else 'searches'}/register"
    number = await _registered(opened, opened.root + register, wanted)
    base, spoken = spoken_by(
        opened, dialect or ("planetary-computer" if is_pc else None), required=None, register=register
    )
    base = re.sub(r"\{search_?id\}", number, base, flags=re.IGNORECASE)
    params = spoken.query(rendering)
    if "collection" in spoken.required or is_pc:
        if len(wanted.collections) != 1:
            raise UsageError("Planetary Computer's tiler renders one collection", hint="name one in the search")
        params.append(("collection", wanted.collections[0]))
    notes: list[str] = []
    if is_pc:
        notes.append(f"Planetary Computer's tiler uses at most {_PC_ITEMS} scenes per tile for most collections")
    if rendering.selection not in _ONE_SCENE:
        limits = {"items_limit": items_limit, "scan_limit": scan_limit, "time_limit": time_limit}
        params += [("exitwhenfull", "false"), ("skipcovered", "false"), *((key, str(n)) for key, n in limits.items())]
        notes += await _cut(opened, base, wanted, params, items_limit)
    source = await _described(opened, base, spoken, params, tile_size=tile_size, tile_format=tile_format)
    return replace(source, notes=tuple(notes))


async def rendered_by(
    tiler: str,
    what: str,
    *,
    rendering: Rendering,
    tile_size: int = 512,
    dialect: str | None = None,
    headers: Mapping[str, str] | None = None,
    creation: Mapping[str, Any] | None = None,
) -> TileSource:
    """Have a tiler render a MosaicJSON or, if it is awspds or titiler-pgstac, the search in a file.

    Args:
        tiler: URL.
        what: URL or path of a MosaicJSON, or path of a search.
        rendering: what to show.
        tile_size: pixels per side.
        dialect: one of `dialects.DIALECTS`, for a tiler without an OpenAPI description; None: detected.
        headers: sent with every request.
        creation: how awspds makes a mosaic of the search: `minzoom`, `maxzoom`, `seasons`, `optimized_selection` and
            `max_per_cell` of `awspds_mosaic`.

    Raises:
        UsageError: the tiler does not support the rendering or `creation`, or does not render `what`.
        SourceError: the tiler does not answer.
    """
    if dialect is None:
        kind = kind_of(await open_endpoint(tiler, headers=headers))
    else:
        kind = {"planetary-computer": "pgstac"}.get(dialect, dialect_named(dialect).name.partition("-")[0])
    if kind == "awspds":
        search = await asyncio.to_thread(_read_search, what)
        return await awspds_mosaic(
            tiler, search, rendering=rendering, tile_size=tile_size, headers=headers, **(creation or {})
        )
    if creation:
        raise UsageError(
            f"this tiler does not support {', '.join(f'``{name}``' for name in creation)}",
            hint="put what it supports into the search, or create a mosaic with `mosaic-async create`",
        )
    if kind == "pgstac":
        search = await asyncio.to_thread(_read_search, what)
        return await titiler_search(
            tiler, search, rendering=rendering, tile_size=tile_size, dialect=dialect, headers=headers
        )
    mosaic = what if urlsplit(what).scheme else str(await asyncio.to_thread(Path(what).absolute))
    return await titiler_mosaic(
        tiler, mosaic, rendering=rendering, tile_size=tile_size, dialect=dialect, headers=headers
    )


def _read_search(path: str) -> dict[str, Any]:
    try:
        document = read(Path(path))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} is not a search: {error}",
            hint="this tiler renders searches: use the file of a search as the source",
        ) from error
    if not isinstance(document, dict) or "tiles" in document:
        raise UsageError(f"{path} is not a search", hint="this tiler renders searches and does not read MosaicJSON")
    return document


def with_rendering(source: TileSource | str, dialect: str, rendering: Rendering) -> TileSource:
    """Return the source of a tile URL with a rendering added in the dialect of its tiler.

    Raises:
        UsageError: the dialect is not known or does not support the rendering.
    """
    opened = from_template(source) if isinstance(source, str) else source
    return _with_pairs(opened, dialect_named(dialect).query(rendering))


async def _registered(opened: Endpoint, url: str, wanted: Search) -> str:
    body = {name: value for name, value in wanted.body().items() if name != "limit"}
    if operators := sorted(
        {name for tests in wanted.query.values() for name in tests if name not in _PGSTAC_OPERATORS}
    ):
        raise UsageError(
            f"titiler-pgstac's query does not support {', '.join(operators)}", hint="write a CQL2 filter in the search"
        )
    # pgstac 0.10 leaves the order out of a search's id, and keeps the order that was registered first.
    name = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
    reply = await exchange(url, body={**body, "metadata": {"type": "mosaic", "name": name}}, headers=opened.headers)
    found = reply.document if isinstance(reply.document, dict) else {}
    number = found.get("id") or found.get("searchid")
    if reply.status not in (200, 201) or not number:
        raise SourceError(f"{scrub(url)} does not register the search: {reply.words}")
    return str(number)


_PGSTAC_OPERATORS = ("eq", "neq", "lt", "lte", "gt", "gte")


async def _cut(opened: Endpoint, base: str, wanted: Search, params: Params, limit: int) -> list[str]:
    """Request the scenes of the tile in the middle of the search; as many as the limit means that it cuts."""
    if wanted.bbox is None:
        return [
            f"at most {limit} scenes per tile are used; without a bbox it is not known whether that leaves scenes out"
        ]
    west, south, east, north = wanted.bbox
    middle = mercantile.tile(
        (west + east) / 2 if west <= east else (west + east) / 2 % 360 - 180, (south + north) / 2, 12
    )
    route = opened.has(r"/\{z\}/\{x\}/\{y\}/assets$") or ""
    below = route[route.index("/tiles/") :] if "/tiles/" in route else "/{z}/{x}/{y}/assets"
    path = re.sub(r"\{tilematrixsetid\}", TMS, below, flags=re.IGNORECASE)
    for name, value in (("z", middle.z), ("x", middle.x), ("y", middle.y)):
        path = path.replace(f"{{{name}}}", str(value))
    reply = await exchange(f"{base}{path}?{urlencode(params)}", headers=opened.headers)
    if isinstance(reply.document, list) and len(reply.document) >= limit:
        return [f"the tile in the middle of the search has {limit} scenes or more; only the first {limit} are used"]
    return []


async def _described(
    opened: Endpoint, base: str, spoken: Dialect, params: Params, *, tile_size: int, tile_format: str
) -> TileSource:
    """Fetch the tiler's TileJSON, which checks the parameters, and take zooms and bounds from it."""
    path, size = spoken.tile(tile_format, tile_size)
    with_tms = "{tms}" in spoken.path
    url = f"{base}/{f'{TMS}/' if with_tms else ''}tilejson.json?{urlencode([*params, *size])}"
    told = _tilejson(await exchange(url, headers=opened.headers), url)
    source = TileSource(
        # Behind a proxy the TileJSON's own template may name another scheme or host.
        template=base + path,
        tile_size=tile_size,
        minzoom=told.minzoom,
        maxzoom=told.maxzoom,
        bounds=told.bounds,
        headers=opened.headers,
        mask_band=True if tile_format in ("tif", "npy") else None,
    )
    return _with_pairs(source, [*params, *size])


def _with_pairs(source: TileSource, pairs: Params) -> TileSource:
    """Return the source with parameters added, of which some are repeated."""
    if not pairs:
        return source
    joint = "&" if "?" in source.template else "?"
    text = urlencode(pairs, quote_via=quote)
    return replace(source, template=f"{source.template}{joint}{text}")


def _tilejson(reply: Reply, url: str) -> TileJson:
    if reply.status != 200 or not isinstance(reply.document, dict) or not reply.document.get("tiles"):
        hint = "check the headers" if reply.status in (401, 403) else "check the URL and the parameters"
        raise SourceError(f"{scrub(url)} returns {reply.words} and no TileJSON", hint=hint)
    try:
        return TileJson.parse(reply.document)
    except ValueError as error:
        raise SourceError(f"{scrub(url)} returns a malformed TileJSON: {error}") from error
