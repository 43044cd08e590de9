"""Errors as responses: a status for each class, and only words that strangers may read.

What GDAL, PROJ or Python say of a file can tell which files exist on this machine. The run that started the tiler may
read it; others learn which scene failed.
"""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI, Request
from rasterio.errors import RasterioError, RasterioIOError
from starlette.responses import JSONResponse, Response
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.mosaic.errors import MOSAIC_STATUS_CODES

from mosaic_async.errors import MosaicError, UsageError
from mosaic_async.tiler.pixels.composer import UnreadableSceneError
from mosaic_async.tiler.ticket import AbandonedError


def add_handlers(app: FastAPI, *, is_private: bool) -> None:
    """Let an application answer errors.

    Args:
        app: the application.
        is_private: whether only the run that started it can send requests.
    """
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    add_exception_handlers(app, MOSAIC_STATUS_CODES)
    app.add_exception_handler(UsageError, partial(_told, 422))
    app.add_exception_handler(MosaicError, partial(_told, 500))
    app.add_exception_handler(AbandonedError, _too_late)
    if not is_private:
        app.add_exception_handler(UnreadableSceneError, _unreadable)
        for library in (RasterioError, RasterioIOError, OSError):
            app.add_exception_handler(library, partial(_untold, "a scene cannot be read"))
        app.add_exception_handler(Exception, partial(_untold, "the tile cannot be made"))


async def _told(status: int, _: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=status)


async def _unreadable(_: Request, error: Exception) -> Response:
    assert isinstance(error, UnreadableSceneError)
    return JSONResponse({"detail": error.public}, status_code=500)


async def _untold(reason: str, _: Request, __: Exception) -> Response:
    return JSONResponse({"detail": reason}, status_code=500)


async def _too_late(_: Request, __: Exception) -> Response:
    return JSONResponse({"detail": "the request takes longer than its deadline: request less at once"}, status_code=504)
