"""From tiles to part COGs: the canvases of open parts, and the two threads that alone touch them.

One thread decodes and places tiles, the other seals full canvases beside it. It knows nothing of requests, and nothing
of what became of tiles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from mosaic_async.build.layout import Layout
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.tile import decode

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class PartWriter:
    """Fills and seals the parts of a layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
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

    async def seal(self, part: Part, path: Path, *, top: Path, tags: Mapping[str, str]) -> int:
        """Write the part's COG and return its bytes; 0, and no file, where the part has no data.

        Args:
            part: whose tiles are all placed.
            path: the COG.
            top: where to keep its smallest level; not for the only part of an output.
            tags: GDAL metadata for the only part of an output, which may be the output itself.

        Raises:
            ResourceError: it cannot be written.
        """
        return await _in(self._sealing, self._seal, part, path, top, tags)

    async def drop(self, part: Part) -> None:
        """Free the canvas of a part that is not sealed."""
        canvas = self._canvases.pop(part.name, None)
        if canvas is not None:
            await _in(self._placing, canvas.close)

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
        canvas = self._canvases.get(part.name)
        if canvas is None:
            canvas = Canvas(part.height, part.width, grid.part_levels, grid.transform(part), encoding)
            self._canvases[part.name] = canvas
        canvas.place(pixels[:, rows, cols], None if mask is None else mask[rows, cols], of_part)

    def _seal(self, part: Part, path: Path, top: Path, tags: Mapping[str, str]) -> int:
        grid = self._layout.grid
        canvas = self._canvases.get(part.name)
        if canvas is None:
            return 0
        if outline := grid.outline():
            canvas.cut(outline)
        path.parent.mkdir(parents=True, exist_ok=True)
        if grid.is_single:
            canvas.seal(path, tags=tags)
        else:
            canvas.seal(path, top=top)
        del self._canvases[part.name]
        return path.stat().st_size


async def _in(
    executor: ThreadPoolExecutor, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(executor, partial(function, *args, **kwargs))
