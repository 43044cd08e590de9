"""From tiles to part COGs: the canvases of open parts, and the two threads that alone touch them.

One thread decodes and places tiles, the other seals full canvases beside it. It knows nothing of requests, and nothing
of what became of tiles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

from mosaic_async.build.layout import Layout
from mosaic_async.build.part_files import PartFiles
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.digest import sign
from mosaic_async.raster.readback import blocks_with_data
from mosaic_async.raster.tile import decode

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Cog(NamedTuple):
    """The file of a part; all is 0 where it has none."""

    nbytes: int = 0
    blocks: int = 0
    """Blocks of the full image that have data."""


class PartWriter:
    """Fills and seals the parts of a layout.

    Args:
        layout: where tiles go and how they are stored.
        files: where parts go; the canvas that is kept there for a part is filled further.
    """

    def __init__(self, layout: Layout, files: PartFiles) -> None:
        self._layout = layout
        self._files = files
        self._canvases: dict[str, Canvas] = {}
        """By the part's name; a part gets one when its first pixels arrive."""
        self._placing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-canvas")
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-seal")

    async def place(self, part: Part, tile: Tile, body: bytes) -> None:
        """Decode a tile and place what falls into the part.

        Raises:
            TileError: the tile cannot be read.
        """
        await _in(self._placing, self._place, part, tile, body)

    async def seal(self, part: Part, *, tags: Mapping[str, str]) -> Cog:
        """Write the part's COG and return what it holds; no file is written where the part has no data.

        Args:
            part: whose tiles are all placed, or missing for good.
            tags: GDAL metadata for the only part of an output, which may be the output itself.

        Raises:
            ResourceError: it cannot be written.
        """
        return await _in(self._sealing, self._seal, part, tags)

    async def keep(self, part: Part) -> None:
        """Write the canvas of a part that lacks tiles, so that later only these are needed.

        Raises:
            ResourceError: it cannot be written.
        """
        await _in(self._sealing, self._keep, part)

    async def drop(self, part: Part) -> Cog:
        """Free the canvas of a part that is not sealed, and return what its COG holds: nothing."""
        canvas = self._canvases.pop(part.name, None)
        if canvas is not None:
            await _in(self._placing, canvas.close)
        return Cog()

    async def close(self) -> None:
        """Wait for what the threads have begun, then free what is left."""
        for executor in (self._placing, self._sealing):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        for canvas in self._canvases.values():
            canvas.close()

    def _place(self, part: Part, tile: Tile, body: bytes) -> None:
        grid, encoding = self._layout.grid, self._layout.encoding
        pixels, mask = decode(body, self._layout.tile_format)
        if mask is not None and encoding.mask != "none" and not mask.any():
            return  # what lies under the mask is not data, and a part without data needs no file
        of_tile, of_part = grid.overlap(tile, part)
        rows, cols = of_tile.toslices()
        canvas = self._canvases.get(part.name) or self._open(part)
        canvas.place(pixels[:, rows, cols], None if mask is None else mask[rows, cols], of_part)

    def _open(self, part: Part) -> Canvas:
        """Make a part's canvas, with what an earlier pass or run has kept of it."""
        grid = self._layout.grid
        canvas = Canvas(part.height, part.width, grid.part_levels, grid.transform(part), self._layout.encoding)
        self._canvases[part.name] = canvas
        if (kept := self._files.canvas(part)).exists():
            canvas.restore(kept)
        return canvas

    def _keep(self, part: Part) -> None:
        if (canvas := self._canvases.get(part.name)) is not None:
            self._files.make_room(part)
            canvas.keep(self._files.canvas(part))

    def _seal(self, part: Part, tags: Mapping[str, str]) -> Cog:
        grid, files = self._layout.grid, self._files
        canvas = self._canvases.get(part.name)
        if canvas is None and files.canvas(part).exists():
            canvas = self._open(part)
        if canvas is None:
            return Cog()
        if grid.has_outline:
            canvas.cut(partial(grid.inside, part))
        files.make_room(part)
        if grid.is_single:
            canvas.seal(files.cog(part), tags=tags)
            sign(files.cog(part))  # it may become the output as it is
        else:
            canvas.seal(files.cog(part), top=files.top(part))
        del self._canvases[part.name]
        return Cog(files.cog(part).stat().st_size, blocks_with_data(files.cog(part)))


async def _in(
    executor: ThreadPoolExecutor, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(executor, partial(function, *args, **kwargs))
