"""The application that a tiler process serves: TiTiler's mosaic routes over one MosaicJSON held in memory.

It has no `url` parameter: clients can request tiles of this mosaic and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, FastAPI, Query
from fastapi.routing import APIRoute
from morecantile import TileMatrixSet, TileMatrixSets
from morecantile import tms as well_known
from rio_tiler.io import Reader, STACReader
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from titiler.core.dependencies import AssetsExprParams, BidxExprParams, DatasetParams
from titiler.core.resources.enums import OptionalHeader
from titiler.mosaic.factory import MosaicTilerFactory

from mosaic_async.sources.signing import Signer, Signing
from mosaic_async.tiler.awspds.routes import Notebook
from mosaic_async.tiler.awspds.store import MosaicStore
from mosaic_async.tiler.backend import SceneBackend, definition
from mosaic_async.tiler.edge.doorman import Doorman
from mosaic_async.tiler.edge.gate import Gate, Traffic
from mosaic_async.tiler.edge.limits import Limits
from mosaic_async.tiler.edge.route import checked_route
from mosaic_async.tiler.pixels.acquisitions import GROUPINGS
from mosaic_async.tiler.pixels.composer import COMPOSED, Composed, Composer, Room
from mosaic_async.tiler.pixels.picture import render_tile
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.prices import is_plain
from mosaic_async.tiler.refusals import add_handlers
from mosaic_async.tiler.scenes.mosaic import Mosaic
from mosaic_async.tiler.scenes.survey import Survey


@dataclass
class ReadingParams(DatasetParams):
    """TiTiler's parameters of reading, and our own."""

    reflectance: Annotated[
        Literal["float", "integer"] | None,
        Query(description="Reflectance instead of counts: float32, or 10000 times that in 16 bits."),
    ] = None
    alternate: Annotated[str | None, Query(description="Key of alternate hrefs to read, such as s3.")] = None
    cloud_mask: Annotated[
        str | None,
        Query(description="Leave out bad pixels of the quality band: qa_pixel, BQA, SCL, fmask, or fmask:values=2,4."),
    ] = None


def selection_of(
    pixel_selection: Annotated[
        str, Query(description="first, median, percentile:25, newest, medoid, lastbandhigh, ...")
    ] = "first",
    rounding: Annotated[bool, Query(description="Round means of integers instead of truncating them.")] = False,  # noqa: FBT002
    group_by: Annotated[str, Query(description="What counts once: acquisition, day, none.")] = GROUPINGS[0],
) -> Selection:
    """Return the selection in the query."""
    return Selection.parse(pixel_selection, rounding=rounding, group_by=group_by)


@dataclass(frozen=True, kw_only=True)
class Door:
    """Who may send requests."""

    hosts: Sequence[str] = ()
    """Names of this server beside `localhost` and addresses."""
    origins: Sequence[str] = ()
    """Other sites whose pages may read responses."""
    secret: str | None = None
    """The `access_token` that every request must have; None serves everybody."""


def make_app(
    mosaic: Mosaic,
    store: Path,
    *,
    door: Door,
    limits: Limits,
    traffic: Traffic,
    signing: Signing | None = None,
    survey: Survey | None = None,
    grid: Mapping[str, Any] | None = None,
) -> FastAPI:
    """Return the application for one mosaic.

    Args:
        mosaic: the mosaic to serve.
        store: folder of the mosaics that clients create, shared by all processes.
        door: who may send requests.
        limits: what one request may cost.
        traffic: the requests that this process serves.
        signing: renews signatures of scenes' URLs; None: Planetary Computer.
        survey: what the scenes agree on; None: each tile checks its own scenes.
        grid: a tile matrix set to serve beside the well-known ones.
    """
    model, index = definition(mosaic.document)
    composer = Composer(
        is_stac=mosaic.is_stac,
        is_local=_is_local(index.names),
        signer=Signer.of(signing or Signing()),
        room=Room(
            limits.values_out, limits.bytes_held, limits.bytes_at_once, limits.tiles_at_once, limits.buffers_kept
        ),
        survey=survey,
    )
    notebook = Notebook(mosaic, index.names, composer, MosaicStore(store), limits)
    factory = MosaicTilerFactory(
        router=APIRouter(route_class=checked_route(partial(is_plain, index=index, limits=limits))),
        backend=partial(SceneBackend, index=index, composer=composer),  # type: ignore[arg-type]
        path_dependency=lambda: model,  # clients cannot choose what is opened
        dataset_reader=STACReader if mosaic.is_stac else Reader,
        layer_dependency=AssetsExprParams if mosaic.is_stac else BidxExprParams,
        dataset_dependency=ReadingParams,
        pixel_selection_dependency=selection_of,  # type: ignore[arg-type]
        process_dependency=lambda: None,  # algorithms have no price
        render_func=render_tile,
        optional_headers=[OptionalHeader.x_assets, OptionalHeader.server_timing],
        supported_tms=_sets(grid),
    )
    app = FastAPI(title="mosaic-async tiler", redoc_url=None)
    app.include_router(notebook.router())
    app.include_router(_only(factory.router, _ROUTES))
    add_handlers(app, is_private=door.secret is not None)
    app.add_middleware(_SceneHeaders)
    app.add_middleware(Gate, traffic=traffic, deadline=limits.deadline, patience=limits.patience)
    if door.origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(door.origins), allow_methods=["GET", "POST"])
    app.add_middleware(Doorman, hosts=door.hosts, origins=door.origins, secret=door.secret)
    return app


_ROUTES = (
    "/info",
    "/info.geojson",
    "/tiles",
    "/tiles/{tileMatrixSetId}",
    "/tiles/{tileMatrixSetId}/{z}/{x}/{y}",
    "/tiles/{tileMatrixSetId}/{z}/{x}/{y}.{format}",
    "/tiles/{tileMatrixSetId}/{z}/{x}/{y}/assets",
    "/{tileMatrixSetId}/map.html",
    "/{tileMatrixSetId}/tilejson.json",
    "/point/{lon},{lat}",
)
"""TiTiler's routes that are served; what else a version brings has no price here."""


def _sets(grid: Mapping[str, Any] | None) -> TileMatrixSets:
    if grid is None:
        return well_known
    own = TileMatrixSet.model_validate(grid)
    return well_known.register({str(own.id): own})


def _only(router: APIRouter, paths: Collection[str]) -> APIRouter:
    router.routes[:] = [route for route in router.routes if isinstance(route, APIRoute) and route.path in paths]
    return router


class _SceneHeaders:
    """Adds what a response tells of its scenes: days and rules of `X-Assets`, and the scenes that are left out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        composed: list[Composed] = []
        COMPOSED.set(composed)

        async def sending(message: Message) -> None:
            if composed and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, values in _listed(composed).items():
                    if any(values):
                        headers[name] = ",".join(values)
            await send(message)

        await self._app(scope, receive, sending)


_SAFE = "".join(map(chr, range(32, 127))).replace(",", "").replace("%", "")
"""Characters of a value that a header keeps; commas separate values."""


def _listed(composed: Sequence[Composed]) -> dict[str, list[str]]:
    skipped = {name: reason for one in composed for name, reason in one.skipped.items()}
    return {
        "X-Assets-Dates": [day for one in composed for _, day in one.read],
        "X-Assets-Rules": [quote(rule, safe=_SAFE) for one in composed for rule in one.rules],
        "X-Skipped-Assets": list(skipped),
        "X-Skipped-Reasons": [quote(reason, safe=_SAFE) for reason in skipped.values()],
    }


def _is_local(names: tuple[str, ...]) -> bool:
    return all(urlsplit(name).scheme in ("", "file") for name in names[:1])
