"""Which tiles an area touches at one zoom: a rectangle of columns and rows, with holes for polygons.

It does not know pixels, bytes or servers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import RefusedError
from mosaic_async.geo.area import Area, Bounds
from mosaic_async.geo.cells import Box, Edges, cells_held
from mosaic_async.geo.matrix import MAX_ZOOM, WORLD, Tile, TileMatrix, web_mercator, x_share, y_share
from mosaic_async.geo.outline import outline
from mosaic_async.geo.straight import Floats, Integers

__all__ = ["MAX_TILES", "MAX_ZOOM", "SNAP", "WORLD", "Cover", "Tile", "has_outline", "snapped", "x_share", "y_share"]

MAX_TILES = 500_000
SNAP = 1e-13
"""Share of the world's width, 4 micrometres: an edge this close to a tile's edge counts as that edge."""
_MAX_SPREAD = 16
"""A byte per tile of a polygon's bounding box is held, so that box may have at most this many times `max_tiles`."""


@dataclass(frozen=True, eq=False)
class Cover:
    """The tiles that an area touches at one zoom: a rectangle of columns and rows, with holes for polygons."""

    matrix: TileMatrix
    left: int
    """First column, from 0."""
    top: int
    """First row, counted from the north."""
    columns: int
    rows: int
    mask: NDArray[np.bool_] | None = None
    """(rows, columns), True for a tile that the area touches; None if it touches all."""
    edges: Edges | None = None
    """Of the area's polygons, in tiles; columns exceed the last one across the antimeridian. None for a box."""

    @classmethod
    def of(cls, area: Area, grid: TileMatrix | int, *, max_tiles: int = MAX_TILES) -> Cover:
        """Find the tiles that `area` touches. The bounds of one tile, as an area, touch exactly that tile.

        Args:
            area: in degrees.
            grid: where tiles lie, or a zoom of Web Mercator.
            max_tiles: the most to accept.

        Raises:
            UsageError: the zoom is not one of Web Mercator, 0 to 24.
            RefusedError: the area has more than `max_tiles` tiles, or a polygon's bounding box has 16 times as many.
                Both are checked before anything is listed or rasterised.
        """
        matrix = grid if isinstance(grid, TileMatrix) else web_mercator(grid)
        is_outline = has_outline(area, matrix)
        cover = _of_polygons(area, matrix, max_tiles) if is_outline else _of_box(area.bounds, matrix)
        if cover.count > max_tiles:
            raise RefusedError(
                f"the area has {cover.count:,} tiles at zoom {matrix.zoom}, more than {max_tiles:,}",
                hint="use a lower zoom or a smaller area, or raise ``max_tiles``",
            )
        return cover

    @property
    def zoom(self) -> int:
        """The z of the tiles."""
        return self.matrix.zoom

    @cached_property
    def count(self) -> int:
        """Number of tiles."""
        return self.columns * self.rows if self.mask is None else int(np.count_nonzero(self.mask))

    def tile(self, column: int, row: int) -> Tile:
        """Return the tile at a column and row of the rectangle."""
        return self.matrix.tile(self.left + column, self.top + row)

    def place(self, tile: Tile) -> tuple[int, int]:
        """Return the column and row of a tile in the rectangle."""
        column, row = self.matrix.place(tile)
        return (column - self.left) % self.matrix.columns, row - self.top

    def outward(self) -> Iterator[Tile]:
        """Yield every tile once, ring by ring from the centre."""
        for radius in range(max(self.columns, self.rows)):
            rows, columns = self._ring(radius)
            if self.mask is not None:
                covered = self.mask[rows, columns]
                rows, columns = rows[covered], columns[covered]
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                yield self.tile(column, row)

    def _ring(self, radius: int) -> tuple[Integers, Integers]:
        """Return the rows and columns of the cells at a distance from the centre, row by row."""
        middle_column, middle_row = (self.columns - 1) // 2, (self.rows - 1) // 2
        left, right = middle_column - radius, middle_column + radius
        top, lower = middle_row - radius, middle_row + radius
        line = np.arange(max(left, 0), min(right + 1, self.columns))
        ends = np.array([column for column in (left, right) if 0 <= column < self.columns], dtype=np.int64)
        between = np.arange(max(top + 1, 0), min(lower, self.rows))
        first, last = (line[: len(line) * (0 <= row < self.rows)] for row in (top, lower))
        last = last[: len(last) * (radius > 0)]
        rows = [np.full(len(first), top), np.repeat(between, len(ends)), np.full(len(last), lower)]
        return np.concatenate(rows), np.concatenate([first, np.tile(ends, len(between)), last])


def has_outline(area: Area, matrix: TileMatrix) -> bool:
    """Return whether an area is not a box of columns and rows."""
    return area.polygons is not None or not matrix.is_upright or (area.east > 180 and not matrix.wraps)


def snapped(low: float, high: float, units: int) -> tuple[int, int]:
    """Round shares of the world outward to whole units, or to the unit's edge that they are within `SNAP` of."""
    first, last = math.floor((low + SNAP) * units), math.ceil((high - SNAP) * units)
    if last <= first:  # narrower than the tolerance: take the unit around its middle
        first = math.floor((low + high) / 2 * units)
    return first, max(last, first + 1)


def _of_box(bounds: Bounds, matrix: TileMatrix) -> Cover:
    west, south, east, north = bounds
    box = _turned(_box(*matrix.shares(np.array([west, east]), np.array([north, south])), matrix), matrix)
    if not box.rows or not box.columns:
        raise _outside(matrix)
    return Cover(matrix, box.left, box.top, box.columns, box.rows)


def _of_polygons(area: Area, matrix: TileMatrix, max_tiles: int) -> Cover:
    pieces = list(area.pieces(matrix.latitudes))
    edges = outline(pieces, matrix.to_tiles)
    if not (np.isfinite(edges.x0).all() and np.isfinite(edges.y0).all()):
        raise RefusedError("the area reaches beyond the coordinate system of the tiles", hint="make the area smaller")
    unturned = _boxes(edges, matrix)
    boxes = [_turned(box, matrix) for box in unturned]
    held = [box for box in boxes if box.rows and box.columns]
    if not held:
        raise _outside(matrix)
    for box in held:
        _check_spread(box.rows * box.columns, matrix.zoom, max_tiles)
    left, columns = _column_range(held, matrix.columns) if matrix.wraps else _span(held)
    top = min(box.top for box in held)
    rows = max(box.top + box.rows for box in held) - top
    _check_spread(columns * rows, matrix.zoom, max_tiles)
    # Whole worlds further east where the cover crosses the matrix's edge, so that columns follow each other.
    placed = [box._replace(left=box.left + matrix.columns * (matrix.wraps and box.left < left)) for box in boxes]
    shift = np.array([box.left - before.left for box, before in zip(placed, unturned, strict=True)])[edges.polygon]
    edges = replace(edges, x0=edges.x0 + shift, x1=edges.x1 + shift)
    mask = cells_held(edges, Box(top, left, rows, columns), touched=True)
    for box in placed:
        _keep_one(mask, box.top - top, box.left - left, box)
    return Cover(matrix, left, top, columns, rows, None if mask.all() else mask, edges)


def _outside(matrix: TileMatrix) -> RefusedError:
    if matrix.is_mercator:
        return RefusedError("the polygons lie outside Web Mercator's latitudes, ±85.0511 degrees")
    west, south, east, north = matrix.degrees(matrix.extent)
    return RefusedError(
        f"the area lies outside of the tile matrix set, W {west:g} S {south:g} E {east:g} N {north:g}",
        hint="check the area and ``tms``",
    )


def _boxes(edges: Edges, matrix: TileMatrix) -> list[Box]:
    """Return the cells around each polygon."""
    if not len(edges.polygon):
        return []
    first = np.flatnonzero(np.diff(edges.polygon, prepend=-1))
    x, y = edges.x0 / matrix.columns, edges.y0 / matrix.rows
    ends = [
        np.column_stack([function.reduceat(values, first) for function in (np.minimum, np.maximum)])
        for values in (x, y)
    ]
    return [_box(columns, rows, matrix) for columns, rows in zip(*ends, strict=True)]


def _box(x: Floats, y: Floats, matrix: TileMatrix) -> Box:
    """Return the cells around a box, whose edges are shares of the matrix."""
    left, right = snapped(float(x[0]), float(x[1]), matrix.columns)
    top, lower = snapped(float(y[0]), float(y[1]), matrix.rows)
    top, lower = max(top, 0), min(lower, matrix.rows)
    if not matrix.wraps:
        left, right = max(left, 0), min(right, matrix.columns)
    return Box(top, left, max(lower - top, 0), min(max(right - left, 0), matrix.columns))


def _turned(box: Box, matrix: TileMatrix) -> Box:
    """Return the cells with their first column in the matrix."""
    return box._replace(left=box.left % matrix.columns) if matrix.wraps else box


def _span(boxes: Sequence[Box]) -> tuple[int, int]:
    left = min(box.left for box in boxes)
    return left, max(box.left + box.columns for box in boxes) - left


def _keep_one(mask: NDArray[np.bool_], row: int, column: int, box: Box) -> None:
    """Hold the first cell of a polygon that is too small to share an area with any."""
    if box.rows and box.columns and not mask[row : row + box.rows, column : column + box.columns].any():
        mask[row, column] = True


def _check_spread(count: int, zoom: int, max_tiles: int) -> None:
    if count > max_tiles * _MAX_SPREAD:
        raise RefusedError(
            f"the area's bounding box has {count:,} tiles at zoom {zoom}, more than {_MAX_SPREAD} times {max_tiles:,}",
            hint="use a lower zoom or a smaller area, or raise ``max_tiles``",
        )


def _column_range(boxes: Sequence[Box], width: int) -> tuple[int, int]:
    """Return the first column and their number; the range crosses the antimeridian if both world edges are touched."""
    spans = sorted((box.left, min(box.left + box.columns, width)) for box in boxes)
    spans = sorted([*spans, *((0, box.left + box.columns - width) for box in boxes if box.left + box.columns > width)])
    lefts, rights = (np.array(ends) for ends in zip(*spans, strict=True))
    rights = np.maximum.accumulate(rights)
    first, last = int(lefts[0]), int(rights[-1])
    gaps = lefts[1:] - rights[:-1]
    if first > 0 or last < width or not (gaps > 0).any():
        return first, last - first
    widest = int(gaps.argmax())
    left = int(lefts[widest + 1])
    return left, int(rights[widest]) - left + width
