"""From tiles to part COGs: the canvases of open parts, and the two threads that alone touch them.

One thread decodes and places tiles, the other seals full canvases beside it; a third one appends their COGs to the
output, which is the disk's work. A tile that is wider than those before it widens the layout; canvases follow when they
get their next tile, and sealed parts at the end. It knows nothing of requests, and nothing of what became of tiles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from mosaic_async.build.job import Job
from mosaic_async.build.layout import Layout
from mosaic_async.build.part_files import PartFiles
from mosaic_async.errors import SourceError, TileError, UsageError
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part
from mosaic_async.raster.assembly import Assembly
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.cropping import crop
from mosaic_async.raster.digest import sign
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.few_values import FewValues
from mosaic_async.raster.fitting import fit
from mosaic_async.raster.form import Mask, Pixels, TileFormat
from mosaic_async.raster.readback import blocks_with_data
from mosaic_async.raster.scattered import Scattered
from mosaic_async.raster.tile import read

AnyAssembly = Assembly | Scattered
"""The output while it grows: on the disk, or elsewhere."""

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Cog(NamedTuple):
    """The file of a part; all is 0 where it has none."""

    nbytes: int = 0
    blocks: int = 0
    """Blocks of the full image that have data."""
    form: TileFormat | None = None
    """In which it was written."""


@dataclass(frozen=True)
class _OpenCanvas:
    """The canvas of a part, and the layout whose encoding it has."""

    canvas: Canvas
    layout: Layout


class PartWriter:
    """Fills and seals the parts of a layout.

    Args:
        job: whose encoding wider tiles get.
        layout: where tiles go and how they are stored.
        files: where parts go; the canvas that is kept there for a part is filled further.
        assembly: the output that grows with the parts; None if the only part is the output.
        few_values: of the pixels that an earlier run has placed.
    """

    def __init__(
        self, job: Job, layout: Layout, files: PartFiles, assembly: AnyAssembly | None, few_values: FewValues
    ) -> None:
        self.layout = layout
        """It holds all tiles so far."""
        self.few_values = few_values
        """Of the pixels that the overviews average."""
        self._job = job
        self._files = files
        self._assembly = assembly
        self._canvases: dict[str, _OpenCanvas] = {}
        """By the part's name; a part gets one when its first pixels arrive."""
        self._placing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-canvas")
        self._sealing = ThreadPoolExecutor(1, thread_name_prefix="mosaic-seal")
        self._stitching = ThreadPoolExecutor(1, thread_name_prefix="mosaic-stitch")

    async def place(self, part: Part, tile: Tile, body: bytes) -> bool:
        """Decode a tile and place what falls into the part; return whether the tile has a valid pixel.

        Raises:
            TileError: the tile cannot be read, or no output holds it beside the tiles so far.
        """
        return await _in(self._placing, self._place, part, tile, body)

    async def seal(self, part: Part, *, tags: Mapping[str, str]) -> Cog:
        """Write the part's COG and return what it holds; no file is written where the part has no data.

        If the output holds the part as it was before, with a hole for instance, it does without that from now on.

        Args:
            part: whose tiles are all placed, or missing for good.
            tags: GDAL metadata for the only part of an output, which may be the output itself.

        Raises:
            StitchError: the part does not fit to the others.
            ResourceError: it cannot be written.
        """
        cog = await _in(self._sealing, self._seal, part, tags)
        if self._assembly is not None and self._assembly.has_stitched((part.row, part.col)):
            path = self._files.cog(part) if cog.nbytes and self._has_encoding_of_output(cog) else None
            await _in(self._stitching, self._assembly.compare, (part.row, part.col), path)
        return cog

    async def stitch(self, part: Part, cog: Cog) -> None:
        """Append a part that lacks no tile to the output, or note that it has no data; its record is kept already.

        Raises:
            StitchError: the part does not fit to the others.
            ResourceError: the output cannot be written.
        """
        assembly = self._assembly
        if assembly is not None and self._has_encoding_of_output(cog):
            path = self._files.cog(part) if cog.nbytes else None
            await _in(self._stitching, assembly.add, (part.row, part.col), path)

    async def revoke(self, part: Part) -> None:
        """Delete the files of a part that has to be made again."""
        if self._assembly is not None:
            await _in(self._stitching, self._assembly.withdraw, (part.row, part.col))
        await asyncio.to_thread(self._files.revoke, part)

    async def forget(self, part: Part) -> None:
        """Have the output do without the blocks of a part that was made again."""
        if self._assembly is not None:
            await _in(self._stitching, self._assembly.drop, (part.row, part.col))

    async def keep(self, part: Part) -> None:
        """Write the canvas of a part that lacks tiles, so that later only these are needed.

        Raises:
            ResourceError: it cannot be written.
        """
        await _in(self._sealing, self._keep, part)

    async def drop(self, part: Part) -> Cog:
        """Free the canvas of a part that is not sealed, and return what its COG holds: nothing."""
        opened = self._canvases.pop(part.name, None)
        if opened is None:
            return Cog()
        await _in(self._placing, opened.canvas.close)
        return Cog(form=opened.layout.tile_format)

    def widen(self, forms: Iterable[TileFormat]) -> None:
        """Let the layout hold these forms as well, which an earlier run has met.

        Raises:
            TileError: no form holds all.
        """
        for form in forms:
            self._widen(form)

    def is_narrow(self, form: TileFormat) -> bool:
        """Return whether a part of this form is not encoded as those of the layout."""
        layout = self.layout
        return form != layout.tile_format and self._encoding_of(form) != layout.encoding

    def is_foreign(self, part: Part) -> bool:
        """Return whether the output holds the part in another encoding than the layout's."""
        assembly = self._assembly
        return assembly is not None and assembly.is_foreign and (part.row, part.col) in assembly.stitched

    async def can_remake(self, part: Part, form: TileFormat) -> bool:
        """Return whether the part's pixels are there exactly, in its COG or in the output; it was sealed in `form`."""
        if not self.layout.encoding.is_lossless:
            return False
        if await asyncio.to_thread(self._files.cog(part).exists):
            return True
        place, encoding = (part.row, part.col), self._encoding_of(form)
        return self._assembly is not None and await _in(self._stitching, self._assembly.can_extract, place, encoding)

    async def remake(self, part: Part, form: TileFormat) -> Cog:
        """Write the part's COG again, from the pixels that were sealed in `form`, as the layout has it now.

        Raises:
            SourceError: the layout cannot mark the part's pixels without data.
            ResourceError: it cannot be written.
        """
        cog = self._files.cog(part)
        extracted = cog.with_name(f"{cog.name}.extracted")
        if self._assembly is not None and not await asyncio.to_thread(cog.exists):
            await _in(self._stitching, self._assembly.extract, part, self._encoding_of(form), extracted)
            cog = extracted
        try:
            return await _in(self._sealing, self._remake, part, cog)
        finally:
            await asyncio.to_thread(extracted.unlink, missing_ok=True)

    async def close(self) -> None:
        """Wait for what the threads have begun, then free what is left."""
        for executor in (self._placing, self._sealing, self._stitching):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        for opened in self._canvases.values():
            opened.canvas.close()

    def _place(self, part: Part, tile: Tile, body: bytes) -> bool:
        reading = read(body, self.layout.tile_format)
        if not reading.has_data and self.layout.encoding.mask != "none":
            return False  # what lies under the mask is not data, and a part without data needs no file
        self._widen(reading.form)
        of_tile, of_part = self.layout.grid.overlap(tile, part)
        pixels, mask = fit(reading.cut(*of_tile.toslices()), self.layout.encoding)
        self._note_values(pixels, mask)
        self._canvas(part).place(pixels, mask, of_part)
        return True

    def _note_values(self, pixels: Pixels, mask: Mask | None) -> None:
        """Note the values of pixels whose average was not the user's choice."""
        encoding = self.layout.encoding
        if (self._job.overview_resampling, encoding.overview_resampling) == ("auto", "average"):
            self.few_values.note(pixels, mask, encoding.nodata)

    def _widen(self, form: TileFormat) -> None:
        joined = self.layout.tile_format.joined(form)
        if joined == self.layout.tile_format:
            return
        try:
            self.layout = self.layout.of_form(self._job, joined)
        except UsageError as error:
            raise TileError(f"the tile is unlike the tiles before it, and {error}") from error

    def _has_encoding_of_output(self, cog: Cog) -> bool:
        return self._assembly is not None and (
            cog.form is None or self._encoding_of(cog.form) == self._assembly.encoding
        )

    def _encoding_of(self, form: TileFormat) -> Encoding:
        return self.layout.of_form(self._job, form).encoding

    def _canvas(self, part: Part) -> Canvas:
        """Return the canvas of a part, wide enough for all tiles so far."""
        layout = self.layout
        opened = self._canvases.get(part.name) or self._open(part)
        if opened.layout is not layout:
            is_same = opened.layout.encoding == layout.encoding
            canvas = opened.canvas if is_same else opened.canvas.widened(layout.encoding)
            opened = self._canvases[part.name] = _OpenCanvas(canvas, layout)
        return opened.canvas

    def _open(self, part: Part) -> _OpenCanvas:
        """Make a part's canvas, with what an earlier pass or run has kept of it."""
        layout = self.layout
        with ExitStack() as stack:
            canvas = stack.enter_context(self._empty(part))
            if (kept := self._files.canvas(part)).exists():
                self._restore(canvas, part, kept)
            stack.pop_all()
        opened = self._canvases[part.name] = _OpenCanvas(canvas, layout)
        return opened

    def _restore(self, canvas: Canvas, part: Part, path: Path) -> None:
        """Place what an earlier pass or run has written of a part.

        Raises:
            SourceError: the layout cannot mark its pixels without data.
        """
        try:
            canvas.restore(path)
        except TileError as error:
            raise SourceError(
                f"tiles of part {part.name} and later tiles have no common form: {error}",
                hint="set ``nodata``, and begin anew with ``resume=False``",
            ) from error

    def _empty(self, part: Part) -> Canvas:
        grid = self.layout.grid
        encoding = self.layout.encoding
        return Canvas(part.height, part.width, grid.levels_of(part), grid.transform(part), encoding, crs=grid.crs)

    def _keep(self, part: Part) -> None:
        if (opened := self._canvases.get(part.name)) is not None:
            self._files.make_room(part)
            opened.canvas.keep(self._files.canvas(part))

    def _remake(self, part: Part, path: Path) -> Cog:
        layout = self.layout
        with self._empty(part) as canvas:
            self._restore(canvas, part, path)
            self._write(part, canvas, self._job.tags(layout.encoding))
        return self._sealed(part, layout)

    def _write(self, part: Part, canvas: Canvas, tags: Mapping[str, str]) -> None:
        """Write the file of a part: a COG that is complete by itself where it is the output, or stays one of many."""
        grid, cog = self.layout.grid, self._files.cog(part)
        if grid.in_parts or grid.is_single:
            canvas.seal(cog, tags=tags)
            if grid.in_parts:
                crop(cog, part.width, part.height)
            sign(cog)
        else:
            canvas.seal(cog, top=self._files.top(part))

    def _sealed(self, part: Part, layout: Layout) -> Cog:
        path = self._files.cog(part)
        return Cog(path.stat().st_size, blocks_with_data(path), layout.tile_format)

    def _seal(self, part: Part, tags: Mapping[str, str]) -> Cog:
        grid, files = self.layout.grid, self._files
        opened = self._canvases.get(part.name)
        if opened is None and files.canvas(part).exists():
            opened = self._open(part)
        if opened is None:
            return Cog()
        canvas = opened.canvas
        if grid.has_outline:
            canvas.cut(partial(grid.inside, part))
        files.make_room(part)
        self._write(part, canvas, self._job.tags(opened.layout.encoding) if grid.in_parts else tags)
        del self._canvases[part.name]
        return self._sealed(part, opened.layout)


async def _in(
    executor: ThreadPoolExecutor, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(executor, partial(function, *args, **kwargs))
