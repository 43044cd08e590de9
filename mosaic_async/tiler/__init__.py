"""The embedded dynamic tiler (extra `tiler`): TiTiler over scenes, on this machine, while a run lasts.

It knows nothing of downloads and outputs.
Start with `launcher`, which starts the processes; `server` is their program, `app` makes the application that each
serves. What only their program needs is imported on demand: its libraries take a second, which a run does not have to
spend too.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mosaic_async.tiler.launcher import local_tiler, serve

if TYPE_CHECKING:
    from mosaic_async.sources.signing import Signing
    from mosaic_async.tiler.local_rendering import Rendering
    from mosaic_async.tiler.pixels.selection import PIXEL_SELECTIONS
    from mosaic_async.tiler.scenes.mosaic import Access, Mosaic, open_mosaic

__all__ = ["PIXEL_SELECTIONS", "Access", "Mosaic", "Rendering", "Signing", "local_tiler", "open_mosaic", "serve"]

_ON_DEMAND = {
    "PIXEL_SELECTIONS": "mosaic_async.tiler.pixels.selection",
    "Access": "mosaic_async.tiler.scenes.mosaic",
    "Mosaic": "mosaic_async.tiler.scenes.mosaic",
    "Rendering": "mosaic_async.tiler.local_rendering",
    "Signing": "mosaic_async.sources.signing",
    "open_mosaic": "mosaic_async.tiler.scenes.mosaic",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)
