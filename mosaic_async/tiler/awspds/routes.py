"""The routes of awspds-mosaic (2020), which the notebook uses: create a mosaic from a search, request its tiles.

`POST /mosaic/create`, `GET /mosaic/{id}.json`, `GET /tiles/{id}/tilejson.json`,
`GET /tiles/{id}/{z}/{x}/{y}@{scale}x.{ext}`, and the same under `/batch/`. Faults of that service are fixed here:
seasons of the southern hemisphere, a server error for a missing mosaic, negative reflectance that became large.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import mercantile
import shapely
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from shapely.geometry.base import BaseGeometry
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor

from mosaic_async.errors import UsageError
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.footprint import outline_of, reach_of
from mosaic_async.sources.outlines import box_of, capped_cells, cell_count, within_the_world
from mosaic_async.sources.seasons import SEASONS
from mosaic_async.sources.stac_query import Item
from mosaic_async.tiler.awspds.item_search import find_items
from mosaic_async.tiler.awspds.picture import Extension, TileQuery, draw
from mosaic_async.tiler.awspds.store import MosaicStore
from mosaic_async.tiler.edge.formulas import check_colours, check_expression
from mosaic_async.tiler.edge.limits import Limits
from mosaic_async.tiler.edge.parameters import number_of
from mosaic_async.tiler.edge.price import Tile as PricedTile
from mosaic_async.tiler.edge.price import check_price
from mosaic_async.tiler.edge.route import checked_route
from mosaic_async.tiler.pixels.composer import Composer
from mosaic_async.tiler.pixels.radiometry import is_known
from mosaic_async.tiler.scenes.known_bands import Known
from mosaic_async.tiler.scenes.mosaic import Mosaic
from mosaic_async.tiler.scenes.quadkey_index import QuadkeyIndex
from mosaic_async.tiler.scenes.scene import open_scene, read_item


class _MosaicId(Convertor[str]):
    """56 hexadecimal digits: no tile matrix set has such a name, and TiTiler's routes keep all others."""

    regex = "[0-9a-f]{56}"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("mosaicid", _MosaicId())
_TILE_SIZE = 256
_MAX_CELLS = 100_000
"""Maximum cells of a mosaic that a search creates, and of all its scenes together."""


@dataclass(frozen=True)
class Creation:
    """How a search becomes a mosaic: the query of `POST /mosaic/create`."""

    minzoom: Annotated[int, Query(ge=0, le=30)] = 7
    maxzoom: Annotated[int, Query(ge=0, le=30)] = 12
    optimized_selection: str = "False"
    """Whether to keep only the first scene of each path and row; any other word than this means yes."""
    maximum_items_per_tile: Annotated[int, Query(ge=0)] = 20
    """Maximum scenes per cell; 0: all."""
    stac_collection_limit: int = 500
    """Items per page of the original search; part of the mosaic's id, without effect here."""
    seasons: str | None = None
    """Separated by commas; None: all."""

    @property
    def is_optimized(self) -> bool:
        """Whether to keep only the first scene of each path and row."""
        return self.optimized_selection not in ("False", "false")

    @property
    def season_names(self) -> Sequence[str]:
        """Names of the seasons to keep."""
        return self.seasons.split(",") if self.seasons else SEASONS

    def id_of(self, search: Mapping[str, Any]) -> str:
        """Return the id of the mosaic of a search: the same search has the same id."""
        whole = {
            "body": search,
            "minzoom": self.minzoom,
            "maxzoom": self.maxzoom,
            "optimized_selection": self.is_optimized,
            "maximum_items_per_tile": self.maximum_items_per_tile,
            "stac_collection_limit": self.stac_collection_limit,
            "seasons": list(self.season_names),
        }
        return hashlib.sha224(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def document(self, items: list[tuple[str, Item]], search: Mapping[str, Any]) -> dict[str, Any]:
        """Return the MosaicJSON of a search, in its order, cut to the box of the search.

        Raises:
            UsageError: the search matches no item.
        """
        places = {id(item): location for location, item in items}
        found = find_items(
            [item for _, item in items], search, seasons=self.season_names, one_per_scene=self.is_optimized
        )
        if not found:
            raise UsageError("the search matched no items", hint="widen its place, time or query")
        outlines = [outline_of(item) for item in found]
        reaches = [reach_of(item) for item in found]
        _check_cells(reaches, search.get("bbox"), self.minzoom)
        cells = capped_cells(outlines, reaches, self.minzoom, self.maximum_items_per_tile)
        bounds = tuple(search.get("bbox") or (float(value) for value in shapely.total_bounds(outlines)))
        cover = {mercantile.quadkey(tile) for tile in mercantile.tiles(*bounds, zooms=[self.minzoom])}
        return {
            "mosaicjson": "0.0.1",
            "minzoom": self.minzoom,
            "maxzoom": self.maxzoom,
            "bounds": bounds,
            "center": [(bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2, self.minzoom],
            "tiles": {key: [places[id(found[one])] for one in ones] for key, ones in cells.items() if key in cover},
        }


def _check_cells(reaches: Sequence[BaseGeometry], bbox: Sequence[float] | None, zoom: int) -> None:
    """Check that scenes and the box of a search cover few cells.

    Raises:
        UsageError: they cover too many at this zoom.
    """
    boxes = [within_the_world(box_of(bbox))] if bbox else []
    if (cells := cell_count([*reaches, *boxes], zoom)) > _MAX_CELLS:
        raise UsageError(
            f"a mosaic of {cells:,} cells is too large: the limit is {_MAX_CELLS:,}",
            hint="use a smaller `minzoom` or a smaller box",
        )


async def _search(request: Request) -> dict[str, Any]:
    """Read the body, whatever its media type: the notebook sends none."""
    try:
        search = parse(await request.body())
    except ValueError as error:
        raise UsageError(f"the search is not JSON: {error}") from error
    if not isinstance(search, dict):
        raise UsageError("the search is not a JSON object")
    return search


class Notebook:
    """The routes over the items that one tiler serves."""

    def __init__(
        self, mosaic: Mosaic, names: tuple[str, ...], composer: Composer, store: MosaicStore, limits: Limits
    ) -> None:
        """Prepare the routes; the first search reads the items.

        Args:
            mosaic: the served mosaic.
            names: names of its scenes.
            composer: composes tiles.
            store: keeps created mosaics.
            limits: what one request may cost.
        """
        self._mosaic = mosaic
        self._known = Known(names, mosaic.assets)
        self._names = names
        self._composer = composer
        self._store = store
        self._limits = limits
        self._index = lru_cache(maxsize=16)(self._read_index)

    @cached_property
    def _items(self) -> list[tuple[str, Item]]:
        return [(name, read_item(name)) for name in self._names]

    @cached_property
    def _reflectance(self) -> Literal["integer"] | None:
        """10,000 times reflectance, as in awspds-mosaic, if the items have scale and offset; otherwise counts."""
        return "integer" if is_known(open_scene(self._names[0], is_item=True)) else None

    def _read_index(self, name: str) -> QuadkeyIndex:
        document = self._document(name)
        return QuadkeyIndex(document["tiles"], document["minzoom"])

    def _document(self, name: str) -> dict[str, Any]:
        try:
            return self._store.get(name)
        except KeyError as error:
            raise HTTPException(404, f"mosaic {name} not found") from error

    def create(
        self,
        *,
        request: Request,
        search: Annotated[dict[str, Any], Depends(_search)],
        creation: Annotated[Creation, Depends(Creation)],
        tile_format: Extension = "png",
        tile_scale: Annotated[int, Query(ge=1, le=4)] = 1,
    ) -> JSONResponse:
        """Create the mosaic of a search and return its TileJSON."""
        if not self._mosaic.is_stac:
            raise UsageError("plain files cannot be searched", hint="serve STAC items")
        name = creation.id_of(search)
        try:
            document = self._store.get(name)
        except KeyError:
            document = creation.document(self._items, search)
            self._store.put(name, document)
        ours = {*Creation.__dataclass_fields__, "tile_format", "tile_scale"}
        return JSONResponse(_tilejson(request, name, document, (tile_format, tile_scale), ours))

    def document(self, name: str) -> JSONResponse:
        """Return the MosaicJSON."""
        return JSONResponse(self._document(name))

    def footprints(self, name: str) -> JSONResponse:
        """Return the cells of the mosaic as GeoJSON."""
        return JSONResponse(
            {
                "type": "FeatureCollection",
                "features": [
                    {
                        **mercantile.feature(mercantile.quadkey_to_tile(key)),
                        "properties": {"quadkey": key, "files": files},
                    }
                    for key, files in self._document(name)["tiles"].items()
                ],
            }
        )

    def tilejson(
        self,
        *,
        request: Request,
        name: str,
        tile_format: Extension = "png",
        tile_scale: Annotated[int, Query(ge=1, le=4)] = 1,
    ) -> JSONResponse:
        """Return the TileJSON of a created mosaic."""
        made = _tilejson(request, name, self._document(name), (tile_format, tile_scale), {"tile_format", "tile_scale"})
        return JSONResponse({**made, "name": f"{name}.json.gz", "center": made["center"][:2]})

    def tile(
        self,
        *,
        name: str,
        z: int,
        x: int,
        y: int,
        ext: Extension,
        query: Annotated[TileQuery, Depends(TileQuery)],
        scale: int = 1,
    ) -> Response:
        """Return a tile; 204 if no scene has data."""
        if not 1 <= scale <= 4:
            raise HTTPException(400, "scale must be 1 to 4")
        document = self._document(name)
        scenes = self._index(name).scenes(x, y, z) if document["minzoom"] <= z <= document["maxzoom"] else []
        if not scenes:
            return Response(status_code=204)
        try:
            return draw(
                self._composer,
                scenes,
                mercantile.Tile(x, y, z),
                view=query.view(self._known, self._reflectance),
                size=_TILE_SIZE * scale,
                ext=ext,
                query=query,
            )
        except UsageError as error:
            raise HTTPException(400, str(error)) from error

    def router(self) -> APIRouter:
        """Return the routes; they must precede TiTiler's."""
        of_tiles = frozenset(TileQuery.__dataclass_fields__)  # they become part of the tiles' URL
        mosaics = APIRouter(route_class=checked_route(self._is_plain_mosaic, extra=of_tiles))
        mosaics.get("/mosaic/{name:mosaicid}.json")(self.document)
        mosaics.get("/mosaic/{name:mosaicid}/geojson")(self.footprints)
        mosaics.post("/mosaic/create")(self.create)
        tiles = APIRouter(route_class=checked_route(self._is_plain_tile))
        for prefix in ("/tiles", "/batch"):
            mosaics.get(prefix + "/{name:mosaicid}/tilejson.json")(self.tilejson)
            tiles.get(prefix + "/{name:mosaicid}/{z:int}/{x:int}/{y:int}@{scale:int}x.{ext}")(self.tile)
            tiles.get(prefix + "/{name:mosaicid}/{z:int}/{x:int}/{y:int}.{ext}")(self.tile)
        router = APIRouter(tags=["awspds-mosaic"])
        router.include_router(mosaics)
        router.include_router(tiles)
        return router

    async def _is_plain_mosaic(self, request: Request) -> bool:
        return request.method != "POST"

    async def _is_plain_tile(self, request: Request) -> bool:
        return await run_in_threadpool(self._price, request)

    def _price(self, request: Request) -> bool:
        """Return whether a tile is plain.

        Raises:
            UsageError: the tile is too dear.
        """
        path, query = request.path_params, request.query_params
        formula = check_expression(query.get("expr", ""), separator=",")
        named = len(formula.bands) or query.get("bands", "").count(",") + 1
        tile = PricedTile(
            size=_TILE_SIZE * float(path.get("scale", 0) or number_of(query, "scale", 1)),
            padding=2,
            scenes=self._index(path["name"]).count(path["x"], path["y"], path["z"]),
            bands_read=named,
            bands_out=formula.terms or named,
            operations=formula.operations,
            colour_operations=check_colours(query.get("color_ops", "")),
            selection=query.get("pixel_selection", "first"),
            resampling="bilinear",
        )
        return check_price(tile, self._limits)


def _tilejson(
    request: Request, name: str, document: Mapping[str, Any], form: tuple[str, int], ours: set[str]
) -> dict[str, Any]:
    """Return the TileJSON; parameters that are not ours become part of the tiles' URL, which otherwise ends in `?`."""
    extras = urlencode([(key, value) for key, value in request.query_params.multi_items() if key not in ours])
    host = str(request.base_url).rstrip("/")
    return {
        "bounds": document["bounds"],
        "center": document["center"],
        "maxzoom": document["maxzoom"],
        "minzoom": document["minzoom"],
        "name": name,
        "tilejson": "2.1.0",
        "tiles": [f"{host}/tiles/{name}/{{z}}/{{x}}/{{y}}@{form[1]}x.{form[0]}?{extras}"],
    }
