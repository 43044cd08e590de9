"""The scenes that a tile may show: the cells of a MosaicJSON, found in constant time.

It knows only the names of scenes, and keeps each name once, however many cells list it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from itertools import pairwise

import mercantile

from mosaic_async.geo.area import MAX_LATITUDE
from mosaic_async.geo.matrix import x_share, y_share

_IN_ORDER = str.maketrans("0123", "0213")
"""The order of cells below a tile is column by column, as in morecantile; keys translated so sort in that order."""


_COUNTS = 4096
"""Tiles whose number of scenes is remembered: all tiles of the first six zooms, which have most cells below them."""


class QuadkeyIndex:
    """The `tiles` of a MosaicJSON.

    A look-up takes one `dict` access, or above the cells' zoom one per cell below the tile, whatever the size of the
    document.
    """

    def __init__(self, tiles: Mapping[str, Sequence[str]], zoom: int) -> None:
        """Index cells.

        Args:
            tiles: scene names by quadkey; scenes are composed in the order of their names.
            zoom: zoom of the quadkeys.
        """
        numbers: dict[str, int] = {}
        self._cells = {
            key: array("L", (numbers.setdefault(name, len(numbers)) for name in names)) for key, names in tiles.items()
        }
        self.names: tuple[str, ...] = tuple(numbers)
        """Every scene once, in the order of the document."""
        self.zoom = zoom
        self._sorted = sorted(key.translate(_IN_ORDER) for key in self._cells)
        self._count = lru_cache(maxsize=_COUNTS)(lambda x, y, z: len(self.scenes(x, y, z)))

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def scenes(self, x: int, y: int, z: int) -> list[str]:
        """Return the names of the scenes listed for a tile, each once, in order."""
        if z < 0 or not (0 <= x < 2**z and 0 <= y < 2**z):
            return []
        return [self.names[number] for number in dict.fromkeys(self._numbers(x, y, z))]

    def within(self, bounds: tuple[float, float, float, float]) -> list[str]:
        """Return the names of the scenes listed in a box in degrees, each once; west exceeds east across ±180.

        Scenes keep their order where the box touches several cells: the one that all cells have in common.
        """
        west, south, east, north = bounds
        count = 2**self.zoom
        top, lower = (_share(count * y_share(max(-MAX_LATITUDE, min(y, MAX_LATITUDE))), count) for y in (north, south))
        spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
        columns = [
            x for left, right in spans for x in range(*_range(count * x_share(left), count * x_share(right), count))
        ]
        keys: Iterable[str] = self._cells
        if len(columns) * (lower - top + 1) <= len(self._cells):
            keys = (mercantile.quadkey(x, y, self.zoom) for x in columns for y in range(top, lower + 1))
        found = {number for key in keys for number in self._cells.get(key, ())}
        return [self.names[number] for number in sorted(found, key=self._ranks.__getitem__)]

    @cached_property
    def _ranks(self) -> list[int]:
        """The place of each scene in one order that all cells agree with; where they disagree, by first appearance."""
        after: list[set[int]] = [set() for _ in self.names]
        before = [0] * len(self.names)
        for cell in self._cells.values():
            for one, other in pairwise(cell):
                if other not in after[one]:
                    after[one].add(other)
                    before[other] += 1
        ready = [number for number, count in enumerate(before) if not count]
        ranks: dict[int, int] = {}
        while ready:
            number = heappop(ready)
            ranks[number] = len(ranks)
            for other in after[number]:
                before[other] -= 1
                if not before[other]:
                    heappush(ready, other)
        return [ranks.get(number, len(ranks) + number) for number in range(len(self.names))]

    def count(self, x: int, y: int, z: int) -> int:
        """Return the number of scenes listed for a tile; repeated calls are cheap."""
        return self._count(x, y, z)

    def _numbers(self, x: int, y: int, z: int) -> Iterator[int]:
        if z >= self.zoom:
            shift = z - self.zoom
            yield from self._cells.get(mercantile.quadkey(x >> shift, y >> shift, self.zoom), ())
            return
        prefix = mercantile.quadkey(x, y, z).translate(_IN_ORDER)
        for place in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[place].startswith(prefix):
                return
            yield from self._cells[self._sorted[place].translate(_IN_ORDER)]


def _share(place: float, count: int) -> int:
    return min(max(math.floor(place), 0), count - 1)


def _range(left: float, right: float, count: int) -> tuple[int, int]:
    return _share(left, count), _share(right, count) + 1
