"""The embedded dynamic tiler (extra `tiler`): a real TiTiler over scenes, on this machine, for the length of a run."""

from mosaic_async.tiler.launcher import local_tiler, serve
from mosaic_async.tiler.mosaic import Mosaic, open_mosaic
from mosaic_async.tiler.rendering import Rendering
from mosaic_async.tiler.selection import PIXEL_SELECTIONS

__all__ = ["PIXEL_SELECTIONS", "Mosaic", "Rendering", "local_tiler", "open_mosaic", "serve"]
