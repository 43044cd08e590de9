"""Which tiles an area touches at one zoom: a rectangle of columns and rows, with holes for polygons.

Only this module uses supermercado. It does not know pixels, bytes or servers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import mercantile
import numpy as np
from mercantile import Tile
from numpy.typing import NDArray
from supermercado.burntiles import burn

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.area import Area, Bounds, Polygon, area_of, cut

__all__ = ["MAX_TILES", "MAX_ZOOM", "SNAP", "WORLD", "Cover", "Tile", "snapped", "x_share", "y_share"]

MAX_TILES = 500_000
MAX_ZOOM = 24
WORLD = mercantile.CE
"""Circumference of the equator in EPSG:3857 metres."""
SNAP = 1e-13
"""Share of the world's width, 4 micrometres: an edge this close to a tile's edge counts as that edge."""
_HAIR = 1e-6
"""Share of a tile's width."""
_MAX_SPREAD = 16
"""A polygon is rasterised in memory, so its bounding box may hold at most this many times `max_tiles`."""


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
        middle_column, middle_row = (self.columns - 1) // 2, (self.rows - 1) // 2
        if self.mask is not None:
            mask_rows, mask_columns = np.nonzero(self.mask)
            distances = np.maximum(abs(mask_rows - middle_row), abs(mask_columns - middle_column))
            for index in np.argsort(distances, kind="stable"):
                yield self.tile(int(mask_columns[index]), int(mask_rows[index]))
            return
        for radius in range(max(self.columns, self.rows)):
            for row in range(max(0, middle_row - radius), min(self.rows, middle_row + radius + 1)):
                step = 1 if abs(row - middle_row) == radius else 2 * radius
                for column in range(middle_column - radius, middle_column + radius + 1, step):
                    if 0 <= column < self.columns:
                        yield self.tile(column, row)


def x_share(longitude: float) -> float:
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
    boxes = [_of_box(_bounds_of(piece), zoom) for piece in pieces]
    for box in boxes:
        _check_spread(box.count, zoom, max_tiles)
    left, columns = _column_range(
        np.unique(np.concatenate([np.arange(box.columns) + box.left for box in boxes])), 2**zoom
    )
    top = min(box.top for box in boxes)
    rows = max(box.top + box.rows for box in boxes) - top
    _check_spread(columns * rows, zoom, max_tiles)
    mask = np.zeros((rows, columns), dtype=np.bool_)
    for piece, box in zip(pieces, boxes, strict=True):
        for x, y in _touched(piece, box):
            mask[y - top, (x - left) % 2**zoom] = True
    return Cover(zoom, left, top, columns, rows, None if mask.all() else mask)


def _bounds_of(polygon: Polygon) -> Bounds:
    longitudes, latitudes = zip(*polygon[0], strict=True)
    return (min(longitudes), min(latitudes), max(longitudes), max(latitudes))


def _touched(polygon: Polygon, box: Cover) -> set[tuple[int, int]]:
    """Find the (x, y) of the tiles in a box that share an area with a polygon.

    supermercado relies on GDAL, which loses cells where corners lie exactly on cell edges. So the polygon is rasterised
    in place and shifted slightly to each side. A tile that only a shifted copy finds counts if it shares an area.
    """
    sure = _burn(polygon, box, 0, 0)
    near = set().union(*(_burn(polygon, box, dx, dy) for dx in (-_HAIR, _HAIR) for dy in (-_HAIR, _HAIR)))
    world = 2**box.zoom
    rings = [[(x_share(x) * world, y_share(y) * world) for x, y in ring] for ring in polygon]
    least = _HAIR * min(1, area_of(rings[0]))
    return sure | {tile for tile in near - sure if _shared_area(rings, *tile) > least} or {(box.left, box.top)}


def _burn(polygon: Polygon, box: Cover, dx: float, dy: float) -> set[tuple[int, int]]:
    """Rasterise a polygon shifted by shares of a tile, and drop the tiles that supermercado adds outside the box."""
    tile = 360 / 2**box.zoom
    rings = [[(x + dx * tile, y + dy * tile) for x, y in ring] for ring in polygon]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": rings}}
    with warnings.catch_warnings():  # from mercantile, for the corner just past the world's last tile
        warnings.simplefilter("ignore", FutureWarning)
        tiles = np.asarray(burn([feature], box.zoom), dtype=np.int64)[:, :2]
    inside = (tiles >= (box.left, box.top)) & (tiles < (box.left + box.columns, box.top + box.rows))
    return {(int(x), int(y)) for x, y in tiles[inside.all(axis=1)]}


def _shared_area(rings: Polygon, x: int, y: int) -> float:
    """Return the area, in tiles, that a tile shares with a polygon whose unit is the tile."""
    limits = ((0, x, 1), (0, x + 1, -1), (1, y, 1), (1, y + 1, -1))
    outer, *holes = (area_of(cut(ring, limits)) for ring in rings)
    return outer - sum(holes)


def _check_spread(count: int, zoom: int, max_tiles: int) -> None:
    if count > max_tiles * _MAX_SPREAD:
        raise RefusedError(
            f"the area's bounding box has {count:,} tiles at zoom {zoom}, more than {_MAX_SPREAD} times {max_tiles:,}",
            hint="use a lower zoom or a smaller area, or raise ``max_tiles``",
        )


def _column_range(columns: NDArray[np.int64], width: int) -> tuple[int, int]:
    """Return the first column and their number; the range crosses the antimeridian if both world edges are touched."""
    first, last = int(columns[0]), int(columns[-1])
    if first > 0 or last < width - 1 or len(columns) == width:
        return first, last - first + 1
    gaps = np.diff(columns)
    widest = int(gaps.argmax())
    left = int(columns[widest + 1])
    return left, int(columns[widest]) - left + 1 + width
