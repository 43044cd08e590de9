"""The application that a tiler process serves: TiTiler's mosaic routes over one MosaicJSON held in memory.

It has no `url` parameter: clients can request tiles of this mosaic and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from rio_tiler.io import Reader, STACReader
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from titiler.core.dependencies import AssetsExprParams, BidxExprParams, DatasetParams
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.core.resources.enums import OptionalHeader
from titiler.mosaic.errors import MOSAIC_STATUS_CODES
from titiler.mosaic.factory import MosaicTilerFactory

from mosaic_async.errors import MosaicError, UsageError
from mosaic_async.sources.signing import Signer, Signing
from mosaic_async.tiler.awspds.routes import Notebook
from mosaic_async.tiler.awspds.store import MosaicStore
from mosaic_async.tiler.backend import SceneBackend, definition
from mosaic_async.tiler.pixels.composer import COMPOSED, Composed, Composer
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.scenes.mosaic import Mosaic


@dataclass
class ReadingParams(DatasetParams):
    """TiTiler's parameters of reading, and our own."""

    reflectance: Annotated[
        Literal["float", "integer"] | None,
        Query(description="Reflectance instead of counts: float32, or 10000 times that in 16 bits."),
    ] = None
    cloud_mask: Annotated[
        str | None,
        Query(description="Leave out bad pixels of the quality band: qa_pixel, BQA, SCL, fmask, or fmask:values=2,4."),
    ] = None


def selection_of(
    pixel_selection: Annotated[
        str, Query(description="first, median, percentile:25, newest, medoid, lastbandhigh, ...")
    ] = "first",
    rounding: Annotated[bool, Query(description="Round means of integers instead of truncating them.")] = False,  # noqa: FBT002
) -> Selection:
    """Return the selection in the query."""
    return Selection.parse(pixel_selection, rounding=rounding)


def make_app(mosaic: Mosaic, store: Path, *, secret: str | None = None, signing: Signing | None = None) -> FastAPI:
    """Return the application for one mosaic.

    Args:
        mosaic: the mosaic to serve.
        store: folder of the mosaics that clients create, shared by all processes.
        secret: the `access_token` that every request must have; None serves everybody.
        signing: renews signatures of scenes' URLs; None: Planetary Computer.
    """
    model, index = definition(mosaic.document)
    composer = Composer(is_stac=mosaic.is_stac, is_local=_is_local(index.names), signer=Signer.of(signing or Signing()))
    factory = MosaicTilerFactory(
        backend=partial(SceneBackend, index=index, composer=composer),  # type: ignore[arg-type]
        path_dependency=lambda: model,  # clients cannot choose what is opened
        dataset_reader=STACReader if mosaic.is_stac else Reader,
        layer_dependency=AssetsExprParams if mosaic.is_stac else BidxExprParams,
        dataset_dependency=ReadingParams,
        pixel_selection_dependency=selection_of,  # type: ignore[arg-type]
        optional_headers=[OptionalHeader.x_assets, OptionalHeader.server_timing],
    )
    app = FastAPI(title="mosaic-async tiler")
    app.include_router(Notebook(mosaic, index.names, composer, MosaicStore(store)).router())
    app.include_router(factory.router)
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    add_exception_handlers(app, MOSAIC_STATUS_CODES)
    app.add_exception_handler(UsageError, partial(_refused, 422))
    app.add_exception_handler(MosaicError, partial(_refused, 500))
    app.add_middleware(_SceneHeaders)
    if secret is not None:
        app.add_middleware(_Guard, secret=secret)
    return app


class _Guard:
    """Serves only requests with the secret: other users of the machine can reach its loopback too."""

    def __init__(self, app: ASGIApp, *, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(parse_qsl(scope.get("query_string", b""))).get(b"access_token", b"")
        if scope["type"] == "http" and not compare_digest(given, self._secret):
            refusal = JSONResponse({"detail": "access_token is missing or wrong"}, status_code=403)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _SceneHeaders:
    """Adds `X-Skipped-Assets`, the scenes that failed, and `X-Assets-Dates`, the days of `X-Assets`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        composed: list[Composed] = []
        COMPOSED.set(composed)

        async def sending(message: Message) -> None:
            if composed and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if skipped := dict.fromkeys(name for one in composed for name in one.skipped):
                    headers["X-Skipped-Assets"] = ",".join(skipped)
                if days := [day for one in composed for _, day in one.read]:
                    headers["X-Assets-Dates"] = ",".join(days)
            await send(message)

        await self._app(scope, receive, sending)


async def _refused(status: int, _: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=status)


def _is_local(names: tuple[str, ...]) -> bool:
    return all(urlsplit(name).scheme in ("", "file") for name in names[:1])
