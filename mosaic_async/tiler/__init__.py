"""The embedded dynamic tiler (extra `tiler`): TiTiler over scenes, on this machine, while a run lasts.

It knows nothing of downloads and outputs.
Start with `launcher`, which starts the processes; `app` makes the application that each process serves.
"""

from mosaic_async.tiler.launcher import local_tiler, serve
from mosaic_async.tiler.local_rendering import Rendering
from mosaic_async.tiler.pixels.selection import PIXEL_SELECTIONS
from mosaic_async.tiler.scenes.mosaic import Mosaic, open_mosaic

__all__ = ["PIXEL_SELECTIONS", "Mosaic", "Rendering", "local_tiler", "open_mosaic", "serve"]
