"""The application that a tiler process serves: TiTiler's mosaic routes over one MosaicJSON held in memory.

There is no `url` parameter: a client can ask for tiles of this mosaic and for nothing else.
"""

from __future__ import annotations

from cogeo_mosaic.backends.memory import MemoryBackend
from cogeo_mosaic.mosaic import MosaicJSON
from fastapi import FastAPI
from rio_tiler.io import Reader, STACReader
from titiler.core.dependencies import AssetsExprParams, BidxExprParams
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.mosaic.errors import MOSAIC_STATUS_CODES
from titiler.mosaic.factory import MosaicTilerFactory

from mosaic_async.tiler.mosaic import Mosaic


def make_app(mosaic: Mosaic) -> FastAPI:
    """Make the application for one mosaic."""
    document = MosaicJSON(**mosaic.document)
    factory = MosaicTilerFactory(
        backend=MemoryBackend,
        path_dependency=lambda: document,  # no client chooses what is opened
        dataset_reader=STACReader if mosaic.is_stac else Reader,
        layer_dependency=AssetsExprParams if mosaic.is_stac else BidxExprParams,
    )
    app = FastAPI(title="mosaic-async tiler")
    app.include_router(factory.router)
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    add_exception_handlers(app, MOSAIC_STATUS_CODES)
    return app
