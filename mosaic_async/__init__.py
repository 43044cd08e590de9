"""Fetch every tile of an area from a dynamic tiler and get one validated Cloud Optimized GeoTIFF."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mosaic_async.build.api import build_mosaic, build_mosaic_sync, plan_mosaic, verify_mosaic
    from mosaic_async.build.plan import MosaicPlan
    from mosaic_async.build.source_comparison import TileFault
    from mosaic_async.build.verify import VerifyReport
    from mosaic_async.errors import (
        IncompleteError,
        MosaicError,
        RefusedError,
        ResourceError,
        SourceError,
        StitchError,
        StoppedError,
        TileError,
        UsageError,
        WorkFolderError,
    )
    from mosaic_async.events import (
        Event,
        MosaicReport,
        OverviewsChosen,
        PartSealed,
        PieceDropped,
        Pulse,
        RunStarted,
        SceneCount,
        SceneReport,
        SceneSkipped,
        ServerTrouble,
        Stitching,
        StitchProgress,
        Stopping,
        TileEmpty,
        TileFailed,
        TileFetched,
        TileNotFound,
        TileParked,
        TilePlaced,
        TileRetried,
        TilesDiffer,
    )
    from mosaic_async.raster.inspection import BlockFault
    from mosaic_async.sources.opening import from_tilejson
    from mosaic_async.sources.rendering import Rendering
    from mosaic_async.sources.source import TileSource, from_template
    from mosaic_async.sources.tilers import awspds_mosaic, titiler_mosaic, titiler_search

__version__ = version("mosaic-async")

__all__ = [
    "BlockFault",
    "Event",
    "IncompleteError",
    "MosaicError",
    "MosaicPlan",
    "MosaicReport",
    "OverviewsChosen",
    "PartSealed",
    "PieceDropped",
    "Pulse",
    "RefusedError",
    "Rendering",
    "ResourceError",
    "RunStarted",
    "SceneCount",
    "SceneReport",
    "SceneSkipped",
    "ServerTrouble",
    "SourceError",
    "StitchError",
    "StitchProgress",
    "Stitching",
    "StoppedError",
    "Stopping",
    "TileEmpty",
    "TileError",
    "TileFailed",
    "TileFault",
    "TileFetched",
    "TileNotFound",
    "TileParked",
    "TilePlaced",
    "TileRetried",
    "TileSource",
    "TilesDiffer",
    "UsageError",
    "VerifyReport",
    "WorkFolderError",
    "__version__",
    "awspds_mosaic",
    "build_mosaic",
    "build_mosaic_sync",
    "from_template",
    "from_tilejson",
    "plan_mosaic",
    "titiler_mosaic",
    "titiler_search",
    "verify_mosaic",
]

_HOMES = {
    "mosaic_async.build.api": ("build_mosaic", "build_mosaic_sync", "plan_mosaic", "verify_mosaic"),
    "mosaic_async.build.plan": ("MosaicPlan",),
    "mosaic_async.build.source_comparison": ("TileFault",),
    "mosaic_async.build.verify": ("VerifyReport",),
    "mosaic_async.errors": (
        "IncompleteError",
        "MosaicError",
        "RefusedError",
        "ResourceError",
        "SourceError",
        "StitchError",
        "StoppedError",
        "TileError",
        "UsageError",
        "WorkFolderError",
    ),
    "mosaic_async.events": (
        "Event",
        "MosaicReport",
        "OverviewsChosen",
        "PartSealed",
        "PieceDropped",
        "Pulse",
        "RunStarted",
        "SceneCount",
        "SceneReport",
        "SceneSkipped",
        "ServerTrouble",
        "Stitching",
        "StitchProgress",
        "Stopping",
        "TileEmpty",
        "TileFailed",
        "TileFetched",
        "TileNotFound",
        "TileParked",
        "TilePlaced",
        "TileRetried",
        "TilesDiffer",
    ),
    "mosaic_async.raster.inspection": ("BlockFault",),
    "mosaic_async.sources.opening": ("from_tilejson",),
    "mosaic_async.sources.rendering": ("Rendering",),
    "mosaic_async.sources.source": ("TileSource", "from_template"),
    "mosaic_async.sources.tilers": ("awspds_mosaic", "titiler_mosaic", "titiler_search"),
}
"""The public names by module, which are imported when they are first used: no process imports what it does not need."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
