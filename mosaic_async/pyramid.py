"""The levels above a part, made from the parts' smallest levels: the same canvas again, with tops in place of tiles.

It knows nothing of tiles and servers. Memory stays that of one canvas however many parts there are, because the tops
of a square of parts make one canvas, whose own top takes part in the next round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from affine import Affine

from mosaic_async.canvas import Canvas
from mosaic_async.encoding import Encoding
from mosaic_async.grid import Grid
from mosaic_async.stitch import Plate

_STEP = 4
"""Levels a round: the tops of 16 x 16 parts make one canvas."""

_UNPLACED = Affine(2, 0, 0, 0, -2, 0)
"""These canvases lie nowhere: only their overviews are used."""

Place = tuple[int, int]
"""(row, col) in blocks of a level."""


def build_upper_levels(grid: Grid, tops: Mapping[Place, Path], encoding: Encoding, folder: Path) -> list[Plate]:
    """Make the levels from `grid.part_levels` up and give the files that hold them.

    Args:
        grid: the output.
        tops: the smallest level of each part that has data, one block each, by the part's row and column.
        encoding: as for the parts.
        folder: where the files go.

    Raises:
        ResourceError: a file cannot be written.
    """
    plates = []
    level = grid.part_levels
    while level < grid.levels:
        levels = min(_STEP, grid.levels - level)
        sealed = {
            place: _seal_square(grid, level, levels, place, members, encoding, folder)
            for place, members in _squares(tops).items()
        }
        for (row, col), (path, _) in sealed.items():
            plates.append(Plate(path, level=level, row=row << _STEP, col=col << _STEP, skip=1))
        tops = {place: top for place, (_, top) in sealed.items()}
        level += levels
    return plates


def _squares(tops: Mapping[Place, Path]) -> dict[Place, dict[Place, Path]]:
    """Group the tops by the square of 16 x 16 that they lie in; members keep their place inside it."""
    squares: dict[Place, dict[Place, Path]] = defaultdict(dict)
    for (row, col), path in tops.items():
        squares[row >> _STEP, col >> _STEP][row % 2**_STEP, col % 2**_STEP] = path
    return squares


def _seal_square(  # noqa: PLR0917 - all of them are what the square is
    grid: Grid, level: int, levels: int, place: Place, members: Mapping[Place, Path], encoding: Encoding, folder: Path
) -> tuple[Path, Path]:
    """Place the tops of one square and seal it; gives the COG and its own top."""
    size = grid.block_size << _STEP
    height = min(size, _level_size(grid.height, level) - place[0] * size)
    width = min(size, _level_size(grid.width, level) - place[1] * size)
    name = f"{level}-{place[0]}-{place[1]}"
    path, top = folder / f"{name}.tif", folder / f"{name}.top.tif"
    with Canvas(height, width, levels, _UNPLACED, encoding) as canvas:
        for (row, col), member in members.items():
            canvas.place_top(member, row * grid.block_size, col * grid.block_size)
        canvas.seal(path, top=top)
    return path, top


def _level_size(pixels: int, level: int) -> int:
    """Give the width or height of an overview level, rounded up."""
    return -(-pixels >> level)
