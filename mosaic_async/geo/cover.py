"""Which tiles an area touches at one zoom: a rectangle of columns and rows, with holes for polygons.

It does not know pixels, bytes or servers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import mercantile
import numpy as np
from mercantile import Tile
from numpy.typing import NDArray

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.area import Area, Bounds
from mosaic_async.geo.cells import Box, Edges, cells_held
from mosaic_async.geo.outline import outline
from mosaic_async.geo.straight import Floats, Integers

_Number = TypeVar("_Number", float, Floats)

__all__ = ["MAX_TILES", "MAX_ZOOM", "SNAP", "WORLD", "Cover", "Tile", "snapped", "x_share", "y_share"]

MAX_TILES = 500_000
MAX_ZOOM = 24
WORLD = mercantile.CE
"""Circumference of the equator in EPSG:3857 metres."""
SNAP = 1e-13
"""Share of the world's width, 4 micrometres: an edge this close to a tile's edge counts as that edge."""
_MAX_SPREAD = 16
"""A byte per tile of a polygon's bounding box is held, so that box may have at most this many times `max_tiles`."""


@dataclass(frozen=True, eq=False)
class Cover:
    """The tiles that an area touches at one zoom: a rectangle of columns and rows, with holes for polygons."""

    zoom: int
    left: int
    """First column, 0 to 2^zoom - 1."""
    top: int
    """First row, counted from the north."""
    columns: int
    rows: int
    mask: NDArray[np.bool_] | None = None
    """(rows, columns), True for a tile that the area touches; None if it touches all."""
    edges: Edges | None = None
    """Of the area's polygons, in tiles; columns exceed the last one across the antimeridian. None for a box."""

    @classmethod
    def of(cls, area: Area, zoom: int, *, max_tiles: int = MAX_TILES) -> Cover:
        """Find the tiles that `area` touches. The bounds of one tile, as an area, touch exactly that tile.

        Raises:
            UsageError: the zoom is not from 0 to 24.
            RefusedError: the area has more than `max_tiles` tiles, or a polygon's bounding box has 16 times as many.
                Both are checked before anything is listed or rasterised.
        """
        if not 0 <= zoom <= MAX_ZOOM:
            raise UsageError(f"zoom must be from 0 to {MAX_ZOOM}, got {zoom}")
        cover = _of_box(area.bounds, zoom) if area.polygons is None else _of_polygons(area, zoom, max_tiles)
        if cover.count > max_tiles:
            raise RefusedError(
                f"the area has {cover.count:,} tiles at zoom {zoom}, more than {max_tiles:,}",
                hint="use a lower zoom or a smaller area, or raise ``max_tiles``",
            )
        return cover

    @cached_property
    def count(self) -> int:
        """Number of tiles."""
        return self.columns * self.rows if self.mask is None else int(np.count_nonzero(self.mask))

    def tile(self, column: int, row: int) -> Tile:
        """Return the tile at a column and row of the rectangle."""
        return Tile((self.left + column) % 2**self.zoom, self.top + row, self.zoom)

    def place(self, tile: Tile) -> tuple[int, int]:
        """Return the column and row of a tile in the rectangle."""
        return (tile.x - self.left) % 2**self.zoom, tile.y - self.top

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


def x_share(longitude: _Number) -> _Number:
    """Return the share of the world's width that lies between -180 degrees and a longitude."""
    return longitude / 360 + 0.5


def y_share(latitude: float) -> float:
    """Return the share of the Web Mercator square that lies north of a latitude."""
    return 0.5 - float(mercantile.xy(0, latitude)[1] / WORLD)


def snapped(low: float, high: float, units: int) -> tuple[int, int]:
    """Round shares of the world outward to whole units, or to the unit's edge that they are within `SNAP` of."""
    first, last = math.floor((low + SNAP) * units), math.ceil((high - SNAP) * units)
    if last <= first:  # narrower than the tolerance: take the unit around its middle
        first = math.floor((low + high) / 2 * units)
    return first, max(last, first + 1)


def _of_box(bounds: Bounds, zoom: int) -> Cover:
    west, south, east, north = bounds
    width = 2**zoom
    left, right = snapped(x_share(west), x_share(east), width)
    top, lower = snapped(y_share(north), y_share(south), width)
    top, lower = max(top, 0), min(lower, width)
    return Cover(zoom, left % width, top, min(right - left, width), lower - top)


def _of_polygons(area: Area, zoom: int, max_tiles: int) -> Cover:
    pieces = list(area.pieces())
    if not pieces:
        raise RefusedError("the polygons lie outside Web Mercator's latitudes, ±85.0511 degrees")
    width = 2**zoom
    edges = outline(pieces, partial(_to_tiles, zoom))
    boxes = _boxes(edges, width)
    for box in boxes:
        _check_spread(box.rows * box.columns, zoom, max_tiles)
    left, columns = _column_range(boxes, width)
    top = min(box.top for box in boxes)
    rows = max(box.top + box.rows for box in boxes) - top
    _check_spread(columns * rows, zoom, max_tiles)
    past = np.array([width if box.left < left else 0 for box in boxes])
    shift = past[edges.polygon]
    edges = replace(edges, x0=edges.x0 + shift, x1=edges.x1 + shift)
    mask = cells_held(edges, Box(top, left, rows, columns), touched=True)
    for box, more in zip(boxes, past, strict=True):
        _keep_one(mask, box.top - top, box.left + int(more) - left, box)
    return Cover(zoom, left, top, columns, rows, None if mask.all() else mask, edges)


def _to_tiles(zoom: int, longitude: Floats, latitude: Floats) -> tuple[Floats, Floats]:
    """Return the columns and rows of places, in tiles of Web Mercator."""
    y = np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2)) / (2 * np.pi)
    return x_share(longitude) * 2**zoom, (0.5 - y) * 2**zoom


def _boxes(edges: Edges, width: int) -> list[Box]:
    """Return the cells around each polygon."""
    first = np.flatnonzero(np.diff(edges.polygon, prepend=-1))
    lows = (np.minimum.reduceat(values, first) for values in (edges.x0, edges.y0))
    highs = (np.maximum.reduceat(values, first) for values in (edges.x0, edges.y0))
    boxes = []
    for west, north, east, south in zip(*lows, *highs, strict=True):
        left, right = snapped(west / width, east / width, width)
        top, lower = snapped(north / width, south / width, width)
        top, lower = max(top, 0), min(lower, width)
        boxes.append(Box(top, left % width, lower - top, min(right - left, width)))
    return boxes


def _keep_one(mask: NDArray[np.bool_], row: int, column: int, box: Box) -> None:
    """Hold the first cell of a polygon that is too small to share an area with any."""
    if not mask[row : row + box.rows, column : column + box.columns].any():
        mask[row, column] = True


def _check_spread(count: int, zoom: int, max_tiles: int) -> None:
    if count > max_tiles * _MAX_SPREAD:
        raise RefusedError(
            f"the area's bounding box has {count:,} tiles at zoom {zoom}, more than {_MAX_SPREAD} times {max_tiles:,}",
            hint="use a lower zoom or a smaller area, or raise ``max_tiles``",
        )


def _column_range(boxes: Sequence[Box], width: int) -> tuple[int, int]:
    """Return the first column and their number; the range crosses the antimeridian if both world edges are touched."""
    spans = sorted((box.left, box.left + box.columns) for box in boxes)
    lefts, rights = (np.array(ends) for ends in zip(*spans, strict=True))
    rights = np.maximum.accumulate(rights)
    first, last = int(lefts[0]), int(rights[-1])
    gaps = lefts[1:] - rights[:-1]
    if first > 0 or last < width or not (gaps > 0).any():
        return first, last - first
    widest = int(gaps.argmax())
    left = int(lefts[widest + 1])
    return left, int(rights[widest]) - left + width
