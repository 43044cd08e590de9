"""The levels above a part, made from the parts' smallest levels: the same canvas again, with tops instead of tiles.

It does not know tiles or servers. Memory is that of one canvas, whatever the number of parts: the tops of a square of
parts make one canvas, and its own top is used in the next round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from affine import Affine

from mosaic_async.geo.grid import Grid
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.plates import Plate
from mosaic_async.raster.statistics import Statistics

_STEP = 4
"""Levels per round: the tops of 16 x 16 parts make one canvas."""

_UNPLACED = Affine(2, 0, 0, 0, -2, 0)
"""These canvases have no place on the map: only their overviews are used."""

Place = tuple[int, int]
"""(row, col) in blocks of a level."""


def build_upper_levels(
    grid: Grid, tops: Mapping[Place, Path], encoding: Encoding, folder: Path, *, statistics: Statistics | None = None
) -> list[Plate]:
    """Make the levels from `grid.part_levels` up and return the files that hold them.

    Args:
        grid: the output.
        tops: the smallest level of each part that has data, one block each, by the part's row and column.
        encoding: as for the parts.
        folder: where the files go.
        statistics: count the pixels of the tops; None: they are not counted.

    Raises:
        ResourceError: a file cannot be written.
    """
    plates = []
    level = grid.part_levels
    while level < grid.levels:
        levels = min(_STEP, grid.levels - level)
        squares = [
            _Square(grid, encoding, level, levels, place, members, folder) for place, members in _squares(tops).items()
        ]
        for square in squares:
            square.seal(statistics if level == grid.part_levels else None)
            row, col = square.place
            plates.append(Plate(square.path, level=level, row=row << _STEP, col=col << _STEP, skip=1))
        tops = {square.place: square.top for square in squares}
        level += levels
    return plates


@dataclass(frozen=True)
class _Square:
    """The tops of up to 16 x 16 neighbours at one level, from which the levels above are made."""

    grid: Grid
    encoding: Encoding
    level: int
    levels: int
    """How many levels are made from it."""
    place: Place
    """In squares."""
    members: Mapping[Place, Path]
    """The tops, by their place inside the square."""
    folder: Path

    @property
    def path(self) -> Path:
        """The COG: the level of the tops and the levels made from it."""
        return self.folder / f"{self.level}-{self.place[0]}-{self.place[1]}.tif"

    @property
    def top(self) -> Path:
        """A lossless copy of its own smallest level."""
        return self.path.with_suffix(".top.tif")

    def seal(self, statistics: Statistics | None) -> None:
        """Place the tops on a canvas, count its pixels, and seal it."""
        size = self.grid.block_size << _STEP
        height = min(size, _level_size(self.grid.height, self.level) - self.place[0] * size)
        width = min(size, _level_size(self.grid.width, self.level) - self.place[1] * size)
        with Canvas(height, width, self.levels, _UNPLACED, self.encoding) as canvas:
            for (row, col), member in self.members.items():
                canvas.place_top(member, row * self.grid.block_size, col * self.grid.block_size)
            if statistics is not None:
                canvas.count(statistics)
            canvas.seal(self.path, top=self.top)


def _squares(tops: Mapping[Place, Path]) -> dict[Place, dict[Place, Path]]:
    """Group the tops by the square of 16 x 16 that they lie in, with their place inside it."""
    squares: dict[Place, dict[Place, Path]] = defaultdict(dict)
    for (row, col), path in tops.items():
        squares[row >> _STEP, col >> _STEP][row % 2**_STEP, col % 2**_STEP] = path
    return squares


def _level_size(pixels: int, level: int) -> int:
    """Return the width or height of an overview level, rounded up."""
    return -(-pixels >> level)
