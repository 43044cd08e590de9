"""Fetch every tile of an area from a dynamic tiler and get one validated Cloud Optimized GeoTIFF."""

from importlib.metadata import version

from mosaic_async.api import build_mosaic, build_mosaic_sync, plan_mosaic, verify_mosaic
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
    RunStarted,
    SceneCount,
    SceneReport,
    SceneSkipped,
    ServerTrouble,
    Stitching,
    StitchProgress,
    TileEmpty,
    TileFailed,
    TileFetched,
    TileNotFound,
    TileParked,
    TilePlaced,
    TileRetried,
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
