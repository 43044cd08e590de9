"""Which unit squares polygons hold: those whose centre lies inside, or all that they share an area with.

Each row of cells is a few runs, so the memory follows the outline and not the area. It knows no coordinates but those
of the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mosaic_async.geo.straight import Floats, Integers

HAIR = 1e-6
"""Share of a cell: what polygons cover of a cell beyond this width counts as an area."""


class Box(NamedTuple):
    """A rectangle of cells."""

    top: int
    left: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Edges:
    """The edges of closed rings, (n,) each; the inside of a polygon is where a ray crosses its rings an odd number."""

    polygon: Integers
    """Index of the polygon that an edge belongs to."""
    x0: Floats
    """Columns."""
    y0: Floats
    """Rows."""
    x1: Floats
    y1: Floats

    def scaled(self, factor: float) -> Edges:
        """Return the edges on a grid of cells that are smaller by a factor."""
        return Edges(self.polygon, *(values * factor for values in (self.x0, self.y0, self.x1, self.y1)))

    def between(self, top: float, lower: float) -> Edges:
        """Return the edges that reach rows."""
        reach = (np.maximum(self.y0, self.y1) >= top) & (np.minimum(self.y0, self.y1) <= lower)
        return Edges(self.polygon[reach], *(values[reach] for values in (self.x0, self.y0, self.x1, self.y1)))


@dataclass(frozen=True)
class _Runs:
    """Cells that follow each other in a row, (n,) each; a run may be empty."""

    row: Integers
    first: Integers
    last: Integers


def cells_held(edges: Edges, box: Box, *, touched: bool) -> NDArray[np.bool_]:
    """Return the cells of a box that polygons hold, (rows, columns).

    Args:
        edges: of the polygons; what several hold counts once.
        box: the cells to return.
        touched: hold all cells that share an area with a polygon, and not only those with their centre inside.
    """
    runs = [_inside(edges, box)]
    if touched:
        runs.append(_crossed(edges, box))
    row, first, last = (np.concatenate([getattr(one, name) for one in runs]) for name in ("row", "first", "last"))
    return _painted(_Runs(row - box.top, first - box.left, last - box.left), box)


def _inside(edges: Edges, box: Box) -> _Runs:
    """Return the cells whose centre is inside: between the crossings of each row's middle, in pairs."""
    low, high = np.minimum(edges.y0, edges.y1), np.maximum(edges.y0, edges.y1)
    edge, row = _spread(_ceil(low - 0.5), _ceil(high - 0.5), box)
    x0, y0, x1, y1 = (values[edge] for values in (edges.x0, edges.y0, edges.x1, edges.y1))
    x = x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
    order = np.lexsort((x, row, edges.polygon[edge]))
    x, row = x[order], row[order]
    return _Runs(row[::2], _ceil(x[::2] - 0.5), _ceil(x[1::2] - 0.5) - 1)


def _crossed(edges: Edges, box: Box) -> _Runs:
    """Return the cells that an edge crosses, and not only their sides."""
    low, high = np.minimum(edges.y0, edges.y1), np.maximum(edges.y0, edges.y1)
    edge, row = _spread(_floor(low + HAIR), _ceil(high - HAIR), box)
    x0, y0, x1, y1 = (values[edge] for values in (edges.x0, edges.y0, edges.x1, edges.y1))
    height = y1 - y0
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(height == 0, 0, (x1 - x0) / height)
    ends = [x0 + (np.clip(at, low[edge], high[edge]) - y0) * slope for at in (row, row + 1)]
    ends = [np.clip(end, np.minimum(x0, x1), np.maximum(x0, x1)) for end in ends]
    left = np.where(height == 0, np.minimum(x0, x1), np.minimum(*ends))
    right = np.where(height == 0, np.maximum(x0, x1), np.maximum(*ends))
    return _Runs(row, _floor(left + HAIR), _ceil(right - HAIR) - 1)


def _spread(first: Integers, stop: Integers, box: Box) -> tuple[Integers, Integers]:
    """Return each edge's index once per row of the box that it has, and these rows."""
    first, stop = np.maximum(first, box.top), np.minimum(stop, box.top + box.rows)
    counts = np.maximum(stop - first, 0)
    edge = np.repeat(np.arange(len(counts)), counts)
    begin = np.cumsum(counts) - counts
    return edge, first[edge] + np.arange(len(edge)) - begin[edge]


def _painted(runs: _Runs, box: Box) -> NDArray[np.bool_]:
    """Return the cells of runs, which may overlap."""
    first, last = np.maximum(runs.first, 0), np.minimum(runs.last, box.columns - 1)
    width = box.columns + 1  # one cell more, where a run at the end of its row ends
    kept = first <= last
    start, end = (runs.row * width + first)[kept], (runs.row * width + last + 1)[kept]
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    is_apart = start[1:] > end[:-1]
    toggles = np.zeros(box.rows * width, dtype=np.bool_)
    toggles[start[np.concatenate(([True], is_apart))[: len(start)]]] = True
    toggles[end[np.concatenate((is_apart, [True]))[: len(end)]]] = True
    np.logical_xor.accumulate(toggles, out=toggles)
    return toggles.reshape(box.rows, width)[:, : box.columns]


def _floor(values: Floats) -> Integers:
    return np.floor(values).astype(np.int64)


def _ceil(values: Floats) -> Integers:
    return np.ceil(values).astype(np.int64)
