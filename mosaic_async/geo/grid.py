"""From tiles to pixels: the output's shape, the place of each tile, and the parts that the output is built in.

It does not know bytes, servers or files. A tile column may exceed the last column of its zoom where the area crosses
the antimeridian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.area import Area, Bounds
from mosaic_async.geo.cells import Box, cells_held
from mosaic_async.geo.cover import Cover, Tile, snapped
from mosaic_async.geo.matrix import MAX_ZOOM

COG_UNTILED_SIZE = 512
"""Pixels; a COG up to this size needs neither blocks nor overviews."""
_MAX_PIXELS = 2**31 - 1
"""GDAL's limit for width and height."""


def default_zoom(maxzoom: int, tile_size: int) -> int:
    """Return the zoom at which tiles of `tile_size` have the resolution that 256-pixel tiles have at `maxzoom`."""
    return max(0, maxzoom - round(math.log2(tile_size / 256)))


def part_name(row: int, col: int) -> str:
    """Return ROW-COL; unique in the output."""
    return f"{row}-{col}"


@dataclass(frozen=True)
class Part:
    """A square of whole output blocks; it is smaller at the output's right and lower edge."""

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
        """ROW-COL; unique in the output."""
        return part_name(self.row, self.col)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The output's pixels: the window that each tile fills, and the parts that the output is built in."""

    cover: Cover
    tile_size: int
    """Pixels per side; a power of two from 128 to 4096."""
    block_size: int = 512
    """Pixels per side of the output's blocks; a power of two, at least 64."""
    part_blocks: int = 16
    """Blocks per side of a part; a power of two."""
    clip: Area | None = None
    """The output is cut to the pixels that this area's bounding box touches; None keeps whole tiles.

    Pixels with their centre outside of its polygons, which are those of `cover`, are cut out.
    """
    all_touched: bool = False
    """Whether all pixels that the polygons touch are kept, and not only those with their centre inside."""
    in_parts: bool = False
    """Whether each part becomes a COG of its own; a last column too narrow for that belongs to its neighbours."""

    def __post_init__(self) -> None:
        check_tile_size(self.tile_size)
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
        col_off, row_off = self.cover.left * self.tile_size, self.cover.top * self.tile_size
        left, top, right, lower = (
            a - b for a, b in zip(self._clipped(self.clip), (col_off, row_off, col_off, row_off), strict=True)
        )
        return (max(left, 0), max(top, 0), min(right, full[0]), min(lower, full[1]))

    def _clipped(self, area: Area) -> tuple[int, int, int, int]:
        """Return the left, top, right and lower edge of the pixels that an area touches, from the matrix's corner."""
        matrix, edges = self.cover.matrix, self.cover.edges
        if edges is not None:
            x, y = edges.x0 / matrix.columns, edges.y0 / matrix.rows
        else:
            x, y = matrix.shares(np.array([area.west, area.east]), np.array([area.north, area.south]))
        left, right = snapped(float(x.min()), float(x.max()), self._world_width)
        top, lower = snapped(float(y.min()), float(y.max()), matrix.rows * self.tile_size)
        if edges is None and matrix.wraps:
            shift = (left - self.cover.left * self.tile_size) // self._world_width * self._world_width
            left, right = left - shift, right - shift
            if right > (self.cover.left + self.cover.columns) * self.tile_size:
                raise RefusedError("an area as wide as the world cannot be clipped", hint="omit ``clip``")
        return left, top, right, lower

    @property
    def _world_width(self) -> int:
        """Pixels of all columns of the matrix."""
        return self.cover.matrix.columns * self.tile_size

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
        """Width of a pixel in units of the CRS: in Web Mercator metres at the equator."""
        return self.cover.matrix.width / self.tile_size

    @property
    def part_size(self) -> int:
        """Pixels per side of a whole part."""
        return self.part_blocks * self.block_size

    def transform(self, part: Part | None = None) -> Affine:
        """Map (column, row) of the output, or of one part, to the CRS."""
        matrix, (col_off, row_off) = self.cover.matrix, (part.col_off, part.row_off) if part else (0, 0)
        column = self.cover.left + (self._extent[0] + col_off) / self.tile_size
        row = self.cover.top + (self._extent[1] + row_off) / self.tile_size
        height = matrix.height / self.tile_size
        west, north = matrix.left + column * matrix.width, matrix.top - row * matrix.height
        return Affine(self.resolution, 0, west, 0, -height, north)

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in degrees; west exceeds east where the output crosses the antimeridian."""
        transform = self.transform()
        east, south = transform.c + self.width * transform.a, transform.f + self.height * transform.e
        return self.cover.matrix.degrees((transform.c, south, east, transform.f))

    @property
    def crs(self) -> str:
        """AUTHORITY:CODE or WKT of the output's coordinate system."""
        return self.cover.matrix.crs

    @cached_property
    def levels(self) -> int:
        """Number of overview levels: to the first that fits one block, or the last that rio-cogeo accepts as tiled."""
        return max(0, self._last_level(self.width, self.height))

    def _last_level(self, width: int, height: int) -> int:
        """Return the smallest overview level of an image of this size; -1 where its full resolution looks untiled.

        rio-cogeo calls a level untiled that is exactly one block wide, and high (cog_validate, 7.0).
        """
        levels = max(0, math.ceil(math.log2(max(width, height) / self.block_size)))
        untiled = (
            level
            for level in range(levels + 1)
            if -(-width >> level) == self.block_size and -(-height >> level) > COG_UNTILED_SIZE
        )
        return next(untiled, levels + 1) - 1

    def _can_be_cog(self, width: int, height: int) -> bool:
        """Return whether a part of this size is a valid COG by itself: tiled, with overviews, or small."""
        return max(width, height) <= COG_UNTILED_SIZE or min(self._last_level(width, height), self.part_levels) > 0

    @cached_property
    def part_levels(self) -> int:
        """Number of overview levels in each part's file: down to one block, at most `levels`."""
        return self.levels if self.is_single else min(self.levels, int(math.log2(self.part_blocks)))

    def levels_of(self, part: Part) -> int:
        """Return the number of overview levels in the file of a part."""
        if not self.in_parts:
            return self.part_levels
        return max(0, min(self._last_level(part.width, part.height), self.part_levels))

    @property
    def is_single(self) -> bool:
        """Whether the whole output is one part."""
        return self.width <= self.part_size and self.height <= self.part_size

    @cached_property
    def _part_columns(self) -> int:
        """Columns of parts."""
        columns = math.ceil(self.width / self.part_size)
        height = min(self.part_size, self.height)
        is_narrow = columns > 1 and not self._can_be_cog(self.width - (columns - 1) * self.part_size, height)
        return columns - 1 if self.in_parts and is_narrow else columns

    def check_parts(self) -> None:
        """Check that whole parts are valid COGs by themselves.

        Raises:
            UsageError: they are too small for their blocks.
        """
        width, height = min(self.part_size, self.width), min(self.part_size, self.height)
        if self.in_parts and not self._can_be_cog(width, height):
            raise UsageError(
                f"parts of {width:,} x {height:,} pixels with blocks of {self.block_size} are not COGs by themselves",
                hint="raise ``memory`` or ``part_size``, or choose another BLOCKSIZE",
            )

    @property
    def widest_part(self) -> int:
        """Pixels."""
        last = self.width - (self._part_columns - 1) * self.part_size
        return last if self._part_columns == 1 else max(last, self.part_size)

    def parts(self) -> Iterator[Part]:
        """Yield the parts that have tiles, row by row."""
        return iter(self._parts)

    @cached_property
    def _parts(self) -> tuple[Part, ...]:
        return tuple(self._parts_with_tiles())

    def _parts_with_tiles(self) -> Iterator[Part]:
        for row in range(math.ceil(self.height / self.part_size)):
            for col in range(self._part_columns):
                part = self.part(row, col)
                if self._has_tiles(part):
                    yield part

    def part(self, row: int, col: int) -> Part:
        """Return one part, whether it has tiles or not."""
        row_off, col_off = row * self.part_size, col * self.part_size
        height = min(self.part_size, self.height - row_off)
        end = self.width if col == self._part_columns - 1 else col_off + self.part_size
        return Part(row, col, row_off, col_off, height, end - col_off)

    @property
    def part_count(self) -> int:
        """Number of parts that have tiles."""
        return len(self._parts)

    def __getstate__(self) -> dict[str, Any]:
        """Return what decides the rest, so that a pickle stays small."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def tiles(self, part: Part) -> list[Tile]:
        """Return the tiles that touch a part, in quadkey order, so that neighbours follow each other."""
        rows, columns = self._tile_ranges(part)
        grid_rows, grid_columns = np.mgrid[rows.start : rows.stop, columns.start : columns.stop].reshape(2, -1)
        if self.cover.mask is not None:
            covered = self.cover.mask[grid_rows, grid_columns]
            grid_rows, grid_columns = grid_rows[covered], grid_columns[covered]
        order = np.argsort(z_order(grid_columns + self.cover.left, grid_rows + self.cover.top))
        return [self.cover.tile(int(grid_columns[i]), int(grid_rows[i])) for i in order]

    def touches(self, tile: Tile) -> list[tuple[int, int]]:
        """Return the (row, col) of the parts that a tile touches: one, or up to four if the output is clipped."""
        left, top = self._corner(tile)
        last_row = (min(top + self.tile_size, self.height) - 1) // self.part_size
        last_col = (min(left + self.tile_size, self.width) - 1) // self.part_size
        last = self._part_columns - 1
        rows = range(max(top, 0) // self.part_size, last_row + 1)
        cols = range(min(max(left, 0) // self.part_size, last), min(last_col, last) + 1)
        return [(row, col) for row in rows for col in cols]

    def counted_in(self, row: int, col: int) -> tuple[slice, slice]:
        """Return the rows and columns of the cover whose tiles touch this part before any other part."""
        columns = self._counted(col, self._extent[0], self.cover.columns)
        if col == self._part_columns - 1:
            columns = slice(columns.start, self.cover.columns)
        return self._counted(row, self._extent[1], self.cover.rows), columns

    def _counted(self, index: int, offset: int, tiles: int) -> slice:
        start = math.ceil((index * self.part_size + offset) / self.tile_size) if index else 0
        return slice(start, min(math.ceil(((index + 1) * self.part_size + offset) / self.tile_size), tiles))

    def count_tiles(self, part: Part) -> int:
        """Return how many tiles touch a part before any other part."""
        rows, columns = self.counted_in(part.row, part.col)
        mask = self.cover.mask
        if mask is None:
            return int((rows.stop - rows.start) * (columns.stop - columns.start))
        return int(np.count_nonzero(mask[rows, columns]))

    def overlap(self, tile: Tile, part: Part) -> tuple[Window, Window]:
        """Return the window of the tile that lies in the part, and the window of the part that it fills."""
        left, top = self._corner(tile)
        left, top = left - part.col_off, top - part.row_off
        col_off, row_off = max(left, 0), max(top, 0)
        width = min(left + self.tile_size, part.width) - col_off
        height = min(top + self.tile_size, part.height) - row_off
        return Window(col_off - left, row_off - top, width, height), Window(col_off, row_off, width, height)

    @property
    def has_outline(self) -> bool:
        """Whether pixels outside of polygons are cut out."""
        return self.clip is not None and self.cover.edges is not None

    def check_outline(self) -> None:
        """Check that the polygons that the output is cut to hold a pixel; the first part with one settles it.

        Raises:
            RefusedError: they lie between the centres of all pixels, so the output would be empty.
        """
        if self.has_outline and not any(
            self.inside(part, Window(0, 0, part.width, part.height)).any() for part in self.parts()
        ):
            raise RefusedError(
                "the area is so narrow that it holds the centre of no pixel",
                hint="set ``all_touched``, use a higher zoom, or omit ``clip``",
            )

    def inside(self, part: Part, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window of a part the polygons hold, (height, width)."""
        assert self.cover.edges is not None, "asked of an output that is cut to polygons"
        top = self.cover.top * self.tile_size + self._extent[1] + part.row_off + window.row_off
        left = self.cover.left * self.tile_size + self._extent[0] + part.col_off + window.col_off
        edges = self.cover.edges.between(top / self.tile_size, (top + window.height) / self.tile_size)
        box = Box(top, left, window.height, window.width)
        return cells_held(edges.scaled(self.tile_size), box, touched=self.all_touched)

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


def check_tile_size(tile_size: int) -> None:
    """Check that a tile size is a power of two from 128 to 4096.

    Raises:
        UsageError: it is not.
    """
    _check_power_of_two("tile_size", tile_size, at_least=128, at_most=4096, hint=_border_hint(tile_size))


def _border_hint(size: int) -> str | None:
    """Return what helps where a tile may have a border: it is a little larger than a power of two."""
    border, rest = divmod(size - 2 ** (max(size, 1).bit_length() - 1), 2)
    return f"if tiles have a border, set ``tile_border`` {border}" if 0 < border <= size // 8 and not rest else None


def _check_power_of_two(name: str, value: int, *, at_least: int, at_most: int = 2**30, hint: str | None = None) -> None:
    if not at_least <= value <= at_most or value & (value - 1):
        raise UsageError(f"{name} must be a power of two from {at_least} to {at_most}, got {value}", hint=hint)


def z_order(x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
    """Interleave the bits of x and y, as a quadkey does: in this order neighbours follow each other."""
    order = np.zeros_like(x)
    for bit in range(MAX_ZOOM + 1):
        order |= ((x >> bit) & 1) << (2 * bit) | ((y >> bit) & 1) << (2 * bit + 1)
    return order
