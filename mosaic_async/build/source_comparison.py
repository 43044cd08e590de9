"""An output against its source: tiles are requested again and compared pixel by pixel.

It knows of the output only what its own metadata record, and nothing of how it was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.job import BORDER_TAG, CLIP_TAG, DECODE_TAG, EMPTY_TAG, MATRIX_TAG, ZOOM_TAG
from mosaic_async.errors import RequestError, SourceError, TileError, UsageError
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.matrix import TileMatrix, web_mercator
from mosaic_async.http.client import Client
from mosaic_async.http.emptiness import EmptyRules
from mosaic_async.raster.environment import pinned
from mosaic_async.raster.fitting import encoding_of, fit, mask_mode
from mosaic_async.raster.form import Mask, Pixels, Reading
from mosaic_async.raster.tile import is_blank, learn, read
from mosaic_async.raster.tolerance import Codec, difference
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.source import TileSource

_Result = TypeVar("_Result")
_COUNTS = ("MOSAIC_TILES_PLACED", "MOSAIC_TILES_EMPTY", "MOSAIC_TILES_FAILED")


@dataclass(frozen=True, kw_only=True)
class TileFault:
    """A tile whose pixels in the output are not those of the source."""

    tile: Tile
    reason: str


@dataclass(frozen=True, kw_only=True)
class TilePlaces:
    """Where each tile of the source lies in an output, by the output's own georeference."""

    matrix: TileMatrix
    tile_size: int
    left: int
    """Pixels of the output's left edge, from the world's."""
    top: int
    width: int
    height: int
    border: int
    """Pixels of a tile at each side that were cut off."""
    is_whole: bool
    """Whether all tiles of the rectangle were requested, so that an empty place means an empty tile."""
    rules: EmptyRules
    """What was called empty."""

    @classmethod
    def of(cls, output: Path) -> Self:
        """Read the places from a file.

        Raises:
            UsageError: the file does not record its zoom, or has another grid.
        """
        try:
            with pinned(), rasterio.open(output, driver="GTiff") as dataset:
                return cls._of(dataset)
        except (RasterioError, CPLE_BaseError, KeyError, TypeError, ValueError, ZeroDivisionError, UsageError) as error:
            raise UsageError(
                f"{output} does not record the zoom of its tiles", hint="verify it without ``source``"
            ) from error

    @classmethod
    def _of(cls, dataset: DatasetReader) -> Self:
        tags, transform = dataset.tags(), dataset.transform
        matrix = _matrix(tags)
        tile_size = round(matrix.width / transform.a)
        places = cls(
            matrix=matrix,
            tile_size=tile_size,
            left=round((transform.c - matrix.left) / matrix.width * tile_size),
            top=round((matrix.top - transform.f) / matrix.height * tile_size),
            width=dataset.width,
            height=dataset.height,
            border=int(tags.get(BORDER_TAG, 0)),
            is_whole=False,
            rules=EmptyRules.of(tags.get(EMPTY_TAG, "").splitlines()),
        )
        requested = sum(int(tags.get(name, 0)) for name in _COUNTS)
        return replace(places, is_whole=requested == len(places.columns) * len(places.rows))

    @property
    def columns(self) -> range:
        """Tile columns; they exceed the last column of the zoom where the output crosses the antimeridian."""
        return range(self.left // self.tile_size, -(-(self.left + self.width) // self.tile_size))

    @property
    def rows(self) -> range:
        """Tile rows."""
        return range(self.top // self.tile_size, -(-(self.top + self.height) // self.tile_size))

    def tile(self, column: int, row: int) -> Tile:
        """Return the tile at a place."""
        return self.matrix.tile(column, row)

    def windows(self, column: int, row: int) -> tuple[Window, Window]:
        """Return the window of the output that a tile fills, and the window of the tile that is in the output."""
        left, top = column * self.tile_size - self.left, row * self.tile_size - self.top
        col_off, row_off = max(left, 0), max(top, 0)
        width = min(left + self.tile_size, self.width) - col_off
        height = min(top + self.tile_size, self.height) - row_off
        return Window(col_off, row_off, width, height), Window(col_off - left, row_off - top, width, height)

    def draw(self, sample: int, seed: int | None) -> Iterator[tuple[int, int]]:
        """Yield a random `sample` of all places, and as many of those at the edges."""
        rng = np.random.default_rng(seed)
        columns, rows = self.columns, self.rows
        count = len(columns) * len(rows)
        drawn = {divmod(int(index), len(columns)) for index in rng.choice(count, min(sample, count), replace=False)}
        edges = {(row, column) for row in (0, len(rows) - 1) for column in range(len(columns))}
        edges |= {(row, column) for row in range(len(rows)) for column in (0, len(columns) - 1)}
        kept = rng.choice(sorted(edges), min(sample, len(edges)), replace=False)
        drawn |= {(int(row), int(column)) for row, column in kept}
        for row, column in sorted(drawn):
            yield columns[column], rows[row]


def _matrix(tags: Mapping[str, str]) -> TileMatrix:
    """Return the grid of tiles that an output records."""
    recorded = tags.get(MATRIX_TAG)
    return web_mercator(int(tags[ZOOM_TAG])) if recorded is None else TileMatrix.from_dict(parse(recorded))


@dataclass(frozen=True)
class SourceComparison:
    """The comparison of an output with its source; each tile is requested and read once."""

    output: Path
    source: TileSource
    client: Client
    places: TilePlaces
    compared: dict[Tile, TileFault | None] = field(default_factory=dict)
    """What was found at each tile so far; None: its pixels are those of the source."""
    _failures: list[RequestError] = field(default_factory=list)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a thread reads: settings of GDAL and of Python's warnings are those of the whole process."""

    async def run(self, *, sample: int, seed: int | None, in_flight: int) -> None:
        """Compare a sample of tiles, and as many of those at the edges.

        Raises:
            SourceError: the source refuses, or none of the tiles can be fetched.
        """
        waiting = self.places.draw(sample, seed)

        async def work() -> None:
            for column, row in waiting:
                await self._check(column, row)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(in_flight, 2 * sample)):
                tasks.create_task(work())
        if self._failures and len(self._failures) == len(self.compared):
            raise SourceError(
                f"none of {len(self.compared):,} tiles can be fetched: {self._failures[-1].message}",
                hint=self._failures[-1].marked_hint or "check the source, its parameters and the headers",
            )

    async def _check(self, column: int, row: int) -> None:
        tile, (window, of_tile) = self.places.tile(column, row), self.places.windows(column, row)
        if not self.places.is_whole and not await self._read(self._has_data, window):
            return  # it may not have been requested
        check = partial(check_answer, tile=tile, tile_format=None, matrix=self.places.matrix, border=self.places.border)
        try:
            async with self.client.get(self.source.url(tile, self.places.matrix), check=check) as answer:
                reason = await self._read(self._difference, window, of_tile, answer.body)
        except RequestError as error:
            self._failures.append(error)
            reason = f"the tile cannot be fetched: {error.message}"
        self.compared[tile] = TileFault(tile=tile, reason=reason) if reason else None

    async def _read(self, function: Callable[..., _Result], *args: object) -> _Result:
        async with self._turn:
            return await asyncio.to_thread(function, *args)

    def _has_data(self, window: Window) -> bool:
        """Return whether the window has data; True if it cannot be read, which the comparison then reports."""
        try:
            with pinned(), rasterio.open(self.output, driver="GTiff") as dataset:
                return bool(dataset.dataset_mask(window=window).any())
        except (RasterioError, CPLE_BaseError):
            return True

    def _difference(self, window: Window, of_tile: Window, body: bytes) -> str | None:
        try:
            with pinned(), rasterio.open(self.output, driver="GTiff") as dataset:
                tile = self._read_tile(body, of_tile, dataset) if body else None
                if tile is None or not (tile.has_data or mask_mode(dataset) == "none"):
                    return "the source has no data here" if dataset.dataset_mask(window=window).any() else None
                return _compare(dataset, window, tile)
        except TileError as error:
            return f"the source sends another kind of tile: {error}"
        except (RasterioError, CPLE_BaseError) as error:
            return f"the output cannot be read here: {error}"

    def _read_tile(self, body: bytes, window: Window, dataset: DatasetReader) -> Reading | None:
        """Read the part of a tile that is in the output; None for a tile without a valid pixel, of whatever size."""
        size, mask_band = self.places.tile_size, self.source.mask_band
        if mask_mode(dataset) != "none" and is_blank(body, mask_band=mask_band):
            return None
        decode, border = dataset.tags().get(DECODE_TAG), self.places.border
        tile_format = learn(body, tile_size=size, border=border, mask_band=mask_band, decode=decode)
        return read(body, tile_format).cut(*window.toslices())


def _compare(dataset: DatasetReader, window: Window, tile: Reading) -> str | None:
    """Compare a window of the output with the pixels of a tile."""
    encoding = encoding_of(dataset)
    mode, bands = encoding.mask, encoding.count
    if tile.form.count not in (1, bands) and encoding.palette is None:
        return f"the source has {tile.form.count} bands, the output has {bands}"
    pixels, mask = fit(tile, encoding)
    found, found_mask = dataset.read(list(range(1, bands + 1)), window=window), dataset.dataset_mask(window=window)
    expected, expected_mask = _as_stored(dataset, mode, pixels, mask)
    if dataset.tags().get(CLIP_TAG) == "YES":  # pixels outside the polygons are invalid, whatever the tile holds
        inside = found_mask > 0 if mode != "none" else (found != 0).any(axis=0)
        expected_mask, found_mask = (np.where(inside, one, np.uint8(0)) for one in (expected_mask, found_mask))
    return difference(Codec.of(dataset), (expected, expected_mask), (found, found_mask))


def _as_stored(dataset: DatasetReader, mode: str, pixels: Pixels, mask: Mask | None) -> tuple[Pixels, Mask]:
    """Return the pixels of a tile as the output stores them, and which are valid there."""
    all_valid = np.full(pixels.shape[1:], 255, np.uint8)
    if mask is None or mode == "none":
        mask = all_valid
    if mode != "nodata":
        return pixels, mask
    nodata = np.asarray(dataset.nodata).astype(pixels.dtype)
    pixels = np.where(mask > 0, pixels, nodata)
    is_data = ~np.isnan(pixels) if np.isnan(nodata) else pixels != nodata
    return pixels, np.where(is_data.any(axis=0), all_valid, np.uint8(0))
