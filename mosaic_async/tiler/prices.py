"""Prices of requests to TiTiler's routes, from their query and the index of the mosaic."""

from __future__ import annotations

import mercantile
from fastapi import Request
from starlette.datastructures import QueryParams

from mosaic_async.errors import UsageError
from mosaic_async.tiler.edge.formulas import Formula, check_colours, check_expression
from mosaic_async.tiler.edge.limits import Limits
from mosaic_async.tiler.edge.parameters import number_of
from mosaic_async.tiler.edge.price import Tile, check_price
from mosaic_async.tiler.own_grid import NAME
from mosaic_async.tiler.scenes.quadkey_index import QuadkeyIndex

_GRID = "WebMercatorQuad"
_TILE_SIZE = 256
_BANDS_OF_A_FILE = 4
"""Bands that a plain file is assumed to have where the query does not name them."""
_SCENES_ELSEWHERE = 64
"""Scenes that a tile of another grid is assumed to have; such tiles are never plain."""
_MAX_POINT_SCENES = 256


async def is_plain(request: Request, *, index: QuadkeyIndex, limits: Limits) -> bool:
    """Return whether a request is plain.

    Raises:
        UsageError: it is too dear.
    """
    path = request.path_params
    if "lon" in path:
        return _is_plain_point(request, index)
    if "z" not in path or request.url.path.endswith("/assets"):
        return True
    tile = _tile(request, index)
    return check_price(tile, limits) and path["tileMatrixSetId"] in (_GRID, NAME)


def _tile(request: Request, index: QuadkeyIndex) -> Tile:
    query = request.query_params
    formula = _formula(query.get("expression"))
    named = _named(query) or len(formula.bands) or _BANDS_OF_A_FILE
    return Tile(
        size=number_of(query, "tilesize", _TILE_SIZE) + 2 * number_of(query, "buffer", 0),
        padding=int(number_of(query, "padding", 0)),
        scenes=_scenes(request, index),
        bands_read=named,
        bands_out=formula.terms or named,
        operations=formula.operations,
        colour_operations=check_colours(query.get("color_formula", "")),
        selection=query.get("pixel_selection", "first"),
        resampling=query.get("reproject", "nearest"),
    )


def _named(query: QueryParams) -> int:
    """Count the bands that a query names; an asset can list bands of its file, as in `image|indexes=1,2`."""
    return sum(1 + asset.count(",") for asset in query.getlist("assets")) + len(query.getlist("bidx"))


def _formula(text: str | None) -> Formula:
    return check_expression(text) if text else Formula(0, 0, ())


def _scenes(request: Request, index: QuadkeyIndex) -> int:
    path = request.path_params
    if path["tileMatrixSetId"] != _GRID:
        return min(len(index.names), _SCENES_ELSEWHERE)
    try:
        return index.count(int(path["x"]), int(path["y"]), int(path["z"]))
    except ValueError:
        return 0  # FastAPI refuses the path


def _is_plain_point(request: Request, index: QuadkeyIndex) -> bool:
    try:
        place = mercantile.tile(float(request.path_params["lon"]), float(request.path_params["lat"]), index.zoom)
    except (ValueError, mercantile.MercantileError):
        return True  # the route refuses it
    if (scenes := index.count(*place)) > _MAX_POINT_SCENES:
        raise UsageError(f"a point of {scenes:,} scenes is too dear: the limit is {_MAX_POINT_SCENES:,}")
    return False
