"""The map of all tiles: what became of each, and how long it took, with few tiles per cell where there are many.

It knows nothing of requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mosaic_async.geo.cover import Cover

_MOST_CELLS = 100_000
_ZERO = ord("0")
RETRIED = "R"
"""A tile that is placed and took several attempts."""
MEANINGS = {
    "-": "outside of the area",
    "e": "empty: no content",
    "t": "empty: transparent",
    "r": "empty by a rule",
    "n": "empty: not found",
    "b": "empty: without a body",
    "o": "empty: outside of the matrix",
    "d": "empty: denied by the bucket",
    "p": "placed",
    RETRIED: "placed after a retry",
    ".": "not fetched",
    "f": "failed",
}
"""What each letter of a map means; of several tiles in a cell, the last one in this order stands for it."""


@dataclass(frozen=True, kw_only=True)
class TileMap:
    """A letter and a latency per cell, row by row from the north."""

    zoom: int
    left: int
    """Column of the first tile."""
    top: int
    """Row of the first tile."""
    tiles_per_cell: int
    """Along one side."""
    states: Sequence[str]
    """A string per row of cells, of the letters of `MEANINGS`."""
    latencies: Sequence[str]
    """A string per row of cells: a character from 0 (not known) on, two steps of the seventh root of 2 above the last;
    1 is a millisecond. The slowest tile of a cell stands for it."""
    counts: Mapping[str, int]
    """Tiles by letter; what lies outside is left out."""

    @classmethod
    def of(cls, cover: Cover, fates: NDArray[np.uint8], marks: NDArray[np.uint8]) -> Self:
        """Make the map.

        Args:
            cover: the tiles.
            fates: (rows, columns), letters as the ledger has them.
            marks: (rows, columns), as `build.history` has them.
        """
        letters = np.where((fates == ord("p")) & (marks > 127), np.uint8(ord(RETRIED)), fates)
        letters[np.isin(letters, [ord("?"), ord("!")])] = ord(".")
        ranks = _ranks()[letters]
        side = max(1, math.ceil(math.sqrt(ranks.size / _MOST_CELLS)))
        while -(-cover.rows // side) * -(-cover.columns // side) > _MOST_CELLS:
            side += 1
        shown = np.frombuffer("".join(MEANINGS).encode(), np.uint8)[_most(ranks, side)]
        counts = np.bincount(ranks.ravel(), minlength=len(MEANINGS))
        return cls(
            zoom=cover.zoom,
            left=cover.left,
            top=cover.top,
            tiles_per_cell=side,
            states=_rows(shown),
            latencies=_rows((_most((marks & 127).astype(np.uint8), side) + 1) // 2 + np.uint8(_ZERO)),
            counts={
                letter: int(count) for letter, count in zip(MEANINGS, counts, strict=True) if count and letter != "-"
            },
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what was JSON."""
        return cls(**values)

    def state_ranks(self) -> NDArray[np.uint8]:
        """Return the cells' letters as their places in `MEANINGS`."""
        return _ranks()[_array(self.states)]

    def latency_steps(self) -> NDArray[np.uint8]:
        """Return the cells' latencies as steps, 0 where none is known."""
        return _array(self.latencies) - np.uint8(_ZERO)


def seconds_of(step: int) -> float:
    """Return the seconds that a step of latency stands for."""
    return float(1e-3 * 2 ** (2 * (step - 1) / 7))


def _ranks() -> NDArray[np.uint8]:
    """Return the place of each letter in `MEANINGS`, by its code; other letters count as not fetched."""
    ranks = np.full(256, list(MEANINGS).index("."), np.uint8)
    for rank, letter in enumerate(MEANINGS):
        ranks[ord(letter)] = rank
    return ranks


def _most(values: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the highest value of each square of cells."""
    rows, columns = (-(-size // side) * side for size in values.shape)
    padded = np.pad(values, ((0, rows - values.shape[0]), (0, columns - values.shape[1])))
    most: NDArray[np.uint8] = padded.reshape(rows // side, side, columns // side, side).max(axis=(1, 3))
    return most


def _rows(codes: NDArray[np.uint8]) -> list[str]:
    return [row.tobytes().decode("ascii") for row in codes.astype(np.uint8)]


def _array(rows: Sequence[str]) -> NDArray[np.uint8]:
    return np.array([list(row.encode("ascii", "replace")) for row in rows], np.uint8)
