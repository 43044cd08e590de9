"""From an area to tiles, and from tiles to pixels: which tiles to ask for, where each goes, and in which part.

The only user of mercantile and supermercado. It knows nothing of bytes, servers or files. A tile column may run past
the last column of its zoom where the area crosses the antimeridian; tiles are asked for modulo the zoom's width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mercantile
import numpy as np
from affine import Affine
from mercantile import Tile
from numpy.typing import NDArray
from rasterio.windows import Window
from supermercado.burntiles import burn

from mosaic_async.area import Area, Bounds, Polygon, Ring
from mosaic_async.errors import RefusedError, UsageError

__all__ = ["COG_UNTILED_SIZE", "MAX_TILES", "MAX_ZOOM", "Cover", "Grid", "Part", "Tile", "default_zoom"]

MAX_TILES = 500_000
MAX_ZOOM = 24
COG_UNTILED_SIZE = 512
"""Pixels; up to this a COG needs neither tiles nor overviews."""
_SNAP = 1e-13
"""Of the world's width, 4 micrometres: an edge this near to a tile's edge is that edge."""
_MAX_SPREAD = 16
"""A polygon's bounding box may hold this many times `max_tiles`: it is rasterised in memory."""
_MAX_PIXELS = 2**31 - 1
"""Width or height that GDAL can address."""
_WORLD = mercantile.CE
"""Metres around the equator in EPSG:3857."""


def default_zoom(maxzoom: int, tile_size: int) -> int:
    """Give the zoom at which tiles of `tile_size` have the pixels that 256-pixel tiles have at `maxzoom`."""
    return max(0, maxzoom - round(math.log2(tile_size / 256)))


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
    """(rows, columns), True for a tile that the area touches; None when it touches all."""

    @classmethod
    def of(cls, area: Area, zoom: int, *, max_tiles: int = MAX_TILES) -> Cover:
        """List the tiles that `area` touches; tile bounds given back as an area give exactly that tile.

        Raises:
            UsageError: the zoom is not from 0 to 24.
            RefusedError: more than `max_tiles` tiles; nothing is listed before this is known.
        """
        if not 0 <= zoom <= MAX_ZOOM:
            raise UsageError(f"zoom must be from 0 to {MAX_ZOOM}, got {zoom}")
        cover = _of_box(area.bounds, zoom) if area.polygons is None else _of_polygons(area, zoom, max_tiles)
        if cover.count > max_tiles:
            raise RefusedError(
                f"the area has {cover.count:,} tiles at zoom {zoom}, more than {max_tiles:,}",
                hint="take a lower zoom or a smaller area, or raise --max-tiles",
            )
        return cover

    @cached_property
    def count(self) -> int:
        """Tiles to ask for."""
        return self.columns * self.rows if self.mask is None else int(np.count_nonzero(self.mask))

    def tile(self, column: int, row: int) -> Tile:
        """Give the tile at a place of the rectangle."""
        return Tile((self.left + column) % 2**self.zoom, self.top + row, self.zoom)

    def place(self, tile: Tile) -> tuple[int, int]:
        """Give the column and row of a tile in the rectangle."""
        return (tile.x - self.left) % 2**self.zoom, tile.y - self.top

    def outward(self) -> Iterator[Tile]:
        """Give all tiles once, ring by ring from the centre."""
        middle_column, middle_row = (self.columns - 1) // 2, (self.rows - 1) // 2
        for radius in range(max(self.columns, self.rows)):
            for row in range(middle_row - radius, middle_row + radius + 1):
                step = 1 if abs(row - middle_row) == radius else 2 * radius
                for column in range(middle_column - radius, middle_column + radius + 1, step):
                    if 0 <= column < self.columns and 0 <= row < self.rows and self._has(column, row):
                        yield self.tile(column, row)

    def _has(self, column: int, row: int) -> bool:
        return self.mask is None or bool(self.mask[row, column])


@dataclass(frozen=True)
class Part:
    """A square of whole blocks of the output, smaller at its right and lower edge."""

    row: int
    col: int
    row_off: int
    """Pixels from the output's top."""
    col_off: int
    """Pixels from the output's left."""
    height: int
    width: int

    @property
    def name(self) -> str:
        """ROW-COL, unique in the output."""
        return f"{self.row}-{self.col}"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The output's pixels: which window each tile fills, and the parts it is built in."""

    cover: Cover
    tile_size: int
    """Pixels a side; a power of two from 128."""
    block_size: int = 512
    """Pixels a side of the output's blocks; a power of two from 64."""
    part_blocks: int = 16
    """Blocks a side of a part; a power of two."""
    clip: Area | None = None
    """Cut the output to the pixels that this area's bounding box touches; None keeps whole tiles."""

    def __post_init__(self) -> None:
        _check_power_of_two("tile_size", self.tile_size, at_least=128)
        _check_power_of_two("block_size", self.block_size, at_least=64)
        _check_power_of_two("part_blocks", self.part_blocks, at_least=1)
        if self.part_size < self.tile_size:
            raise UsageError(f"parts of {self.part_size} pixels cannot hold tiles of {self.tile_size}")
        if max(self.width, self.height) > _MAX_PIXELS:
            raise RefusedError(f"the output would have {self.width:,} x {self.height:,} pixels, too many for a GeoTIFF")

    @cached_property
    def _extent(self) -> tuple[int, int, int, int]:
        """Left, top, right, lower edge in pixels from the cover's corner."""
        full = (self.cover.columns * self.tile_size, self.cover.rows * self.tile_size)
        if self.clip is None:
            return (0, 0, *full)
        world = self.tile_size * 2**self.cover.zoom
        col_off, row_off = self.cover.left * self.tile_size, self.cover.top * self.tile_size
        spans = [_snapped(_x(west), _x(east), world) for west, east in self.clip.spans()]
        lefts = [(left - col_off) % world for left, _ in spans]
        rights = [start + right - left for start, (left, right) in zip(lefts, spans, strict=True)]
        top, lower = _snapped(_y(self.clip.north), _y(self.clip.south), world)
        return (min(lefts), max(top - row_off, 0), min(max(rights), full[0]), min(lower - row_off, full[1]))

    @property
    def width(self) -> int:
        """Pixels."""
        return self._extent[2] - self._extent[0]

    @property
    def height(self) -> int:
        """Pixels."""
        return self._extent[3] - self._extent[1]

    @property
    def resolution(self) -> float:
        """Metres a pixel at the equator."""
        return float(_WORLD / (self.tile_size * 2**self.cover.zoom))

    @property
    def part_size(self) -> int:
        """Pixels a side of a whole part."""
        return self.part_blocks * self.block_size

    def transform(self, part: Part | None = None) -> Affine:
        """Map (column, row) of the output, or of one part, to EPSG:3857 metres."""
        col_off, row_off = (part.col_off, part.row_off) if part else (0, 0)
        world = self.tile_size * 2**self.cover.zoom
        left = self.cover.left * self.tile_size + self._extent[0] + col_off
        top = self.cover.top * self.tile_size + self._extent[1] + row_off
        return Affine(
            self.resolution, 0, _WORLD * (left / world - 0.5), 0, -self.resolution, _WORLD * (0.5 - top / world)
        )

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in degrees; west above east where the output crosses the antimeridian."""
        transform = self.transform()
        west, north = mercantile.lnglat(transform.c, transform.f)
        east, south = mercantile.lnglat(transform.c + self.width * transform.a, transform.f + self.height * transform.e)
        return (west, south, east - 360 if east > 180 + 1e-9 else east, north)

    @cached_property
    def levels(self) -> int:
        """Overview levels, to the first that fits one block or the last that rio-cogeo takes for tiled."""
        levels = max(0, math.ceil(math.log2(max(self.width, self.height) / self.block_size)))
        untiled = (level for level in range(levels + 1) if self._looks_untiled(level))
        return max(0, next(untiled, levels + 1) - 1)

    def _looks_untiled(self, level: int) -> bool:
        """Whether rio-cogeo takes a level for untiled: one that is as wide as a block, and high (cog_validate, 7.0)."""
        return -(-self.width >> level) == self.block_size and -(-self.height >> level) > COG_UNTILED_SIZE

    @cached_property
    def part_levels(self) -> int:
        """Overview levels that a part makes itself: down to one block, but no more than the output has."""
        return self.levels if self.is_single else min(self.levels, int(math.log2(self.part_blocks)))

    @property
    def is_single(self) -> bool:
        """Whether the whole output is one part."""
        return self.width <= self.part_size and self.height <= self.part_size

    def parts(self) -> Iterator[Part]:
        """Give the parts that have tiles, row by row."""
        for row in range(math.ceil(self.height / self.part_size)):
            for col in range(math.ceil(self.width / self.part_size)):
                row_off, col_off = row * self.part_size, col * self.part_size
                height = min(self.part_size, self.height - row_off)
                part = Part(row, col, row_off, col_off, height, min(self.part_size, self.width - col_off))
                if self._has_tiles(part):
                    yield part

    def tiles(self, part: Part) -> list[Tile]:
        """List the tiles that touch a part, in quadkey order, so that neighbours follow each other."""
        rows, columns = self._tile_ranges(part)
        grid_rows, grid_columns = np.mgrid[rows.start : rows.stop, columns.start : columns.stop].reshape(2, -1)
        if self.cover.mask is not None:
            covered = self.cover.mask[grid_rows, grid_columns]
            grid_rows, grid_columns = grid_rows[covered], grid_columns[covered]
        order = np.argsort(_quadkey_order(grid_columns + self.cover.left, grid_rows + self.cover.top))
        return [self.cover.tile(int(grid_columns[i]), int(grid_rows[i])) for i in order]

    def touches(self, tile: Tile) -> list[tuple[int, int]]:
        """List the (row, col) of the parts that a tile touches: one, or up to four where the output is clipped."""
        left, top = self._corner(tile)
        last_row = (min(top + self.tile_size, self.height) - 1) // self.part_size
        last_col = (min(left + self.tile_size, self.width) - 1) // self.part_size
        rows = range(max(top, 0) // self.part_size, last_row + 1)
        cols = range(max(left, 0) // self.part_size, last_col + 1)
        return [(row, col) for row in rows for col in cols]

    def overlap(self, tile: Tile, part: Part) -> tuple[Window, Window]:
        """Give the window of the tile that falls into the part, and the window of the part that it fills."""
        left, top = self._corner(tile)
        left, top = left - part.col_off, top - part.row_off
        col_off, row_off = max(left, 0), max(top, 0)
        width = min(left + self.tile_size, part.width) - col_off
        height = min(top + self.tile_size, part.height) - row_off
        return Window(col_off - left, row_off - top, width, height), Window(col_off, row_off, width, height)

    def outline(self) -> list[dict[str, Any]]:
        """List the polygons that the output is clipped to as GeoJSON in EPSG:3857 metres; none for a box."""
        pieces = self.clip.pieces() if self.clip is not None else ()
        return [
            {"type": "Polygon", "coordinates": [self._projected(ring, rings[0]) for ring in rings]} for rings in pieces
        ]

    def _projected(self, ring: Ring, outer: Ring) -> list[tuple[float, float]]:
        """Project a ring, moved past 180 degrees where the output runs there."""
        turns = min(_x(x) for x, _ in outer) + _SNAP < self.cover.left / 2**self.cover.zoom
        return [(_WORLD * (_x(x) + turns - 0.5), _WORLD * (0.5 - _y(y))) for x, y in ring]

    def _corner(self, tile: Tile) -> tuple[int, int]:
        column, row = self.cover.place(tile)
        return column * self.tile_size - self._extent[0], row * self.tile_size - self._extent[1]

    def _tile_ranges(self, part: Part) -> tuple[range, range]:
        top, left = part.row_off + self._extent[1], part.col_off + self._extent[0]
        return (
            range(top // self.tile_size, math.ceil((top + part.height) / self.tile_size)),
            range(left // self.tile_size, math.ceil((left + part.width) / self.tile_size)),
        )

    def _has_tiles(self, part: Part) -> bool:
        rows, columns = self._tile_ranges(part)
        mask = self.cover.mask
        return mask is None or bool(mask[rows.start : rows.stop, columns.start : columns.stop].any())


def _check_power_of_two(name: str, value: int, *, at_least: int) -> None:
    if value < at_least or value & (value - 1):
        raise UsageError(f"{name} must be a power of two from {at_least} up, got {value}")


def _x(longitude: float) -> float:
    """Give the share of the world's width east of -180 degrees."""
    return longitude / 360 + 0.5


def _y(latitude: float) -> float:
    """Give the share of the Web Mercator square south of its northern edge."""
    return 0.5 - float(mercantile.xy(0, latitude)[1] / _WORLD)


def _snapped(low: float, high: float, units: int) -> tuple[int, int]:
    """Widen shares of the world to whole units, of which it has so many, but not over an edge that is met already."""
    first, last = math.floor((low + _SNAP) * units), math.ceil((high - _SNAP) * units)
    if last <= first:  # narrower than the tolerance: the unit that it lies in
        first = math.floor((low + high) / 2 * units)
    return first, max(last, first + 1)


def _of_box(bounds: Bounds, zoom: int) -> Cover:
    west, south, east, north = bounds
    width = 2**zoom
    left, right = _snapped(_x(west), _x(east), width)
    top, lower = _snapped(_y(north), _y(south), width)
    top, lower = max(top, 0), min(lower, width)
    return Cover(zoom, left % width, top, min(right - left, width), lower - top)


def _of_polygons(area: Area, zoom: int, max_tiles: int) -> Cover:
    tiles = np.unique(np.concatenate([_burn(piece, zoom, max_tiles) for piece in area.pieces()]), axis=0)
    x, y = tiles[:, 0], tiles[:, 1]
    left, columns = _column_range(np.unique(x), 2**zoom)
    top, rows = int(y.min()), int(y.max() - y.min() + 1)
    _check_spread(columns * rows, zoom, max_tiles)
    mask = np.zeros((rows, columns), dtype=np.bool_)
    mask[y - top, (x - left) % 2**zoom] = True
    return Cover(zoom, left, top, columns, rows, None if mask.all() else mask)


def _burn(polygon: Polygon, zoom: int, max_tiles: int) -> NDArray[np.int64]:
    """List the (x, y) that a polygon touches, without the row and column that supermercado adds at exact edges."""
    longitudes, latitudes = zip(*(corner for ring in polygon for corner in ring), strict=True)
    box = _of_box((min(longitudes), min(latitudes), max(longitudes), max(latitudes)), zoom)
    _check_spread(box.count, zoom, max_tiles)
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": polygon}}
    with warnings.catch_warnings():  # supermercado asks mercantile for the corner just past the world's last tile
        warnings.simplefilter("ignore", FutureWarning)
        tiles = np.asarray(burn([feature], zoom), dtype=np.int64)[:, :2]
    inside = (tiles >= (box.left, box.top)) & (tiles < (box.left + box.columns, box.top + box.rows))
    kept: NDArray[np.int64] = tiles[inside.all(axis=1)]
    return kept


def _check_spread(count: int, zoom: int, max_tiles: int) -> None:
    if count > max_tiles * _MAX_SPREAD:
        raise RefusedError(
            f"the area's bounding box has {count:,} tiles at zoom {zoom}, more than {_MAX_SPREAD} times {max_tiles:,}",
            hint="take a lower zoom or a smaller area, or raise --max-tiles",
        )


def _column_range(columns: NDArray[np.int64], width: int) -> tuple[int, int]:
    """Give the first column and how many; across the antimeridian where the area touches both edges of the world."""
    first, last = int(columns[0]), int(columns[-1])
    if first > 0 or last < width - 1 or len(columns) == width:
        return first, last - first + 1
    gaps = np.diff(columns)
    widest = int(gaps.argmax())
    left = int(columns[widest + 1])
    return left, int(columns[widest]) - left + 1 + width


def _quadkey_order(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Interleave the bits of x and y, as a quadkey does."""
    order = np.zeros_like(x)
    for bit in range(MAX_ZOOM + 1):
        order |= ((x >> bit) & 1) << (2 * bit) | ((y >> bit) & 1) << (2 * bit + 1)
    return order
