"""Which scenes a tile may show: the cells of a MosaicJSON, looked up in constant time.

It knows nothing of scenes but their names, which are kept once however many cells list them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import mercantile

_IN_ORDER = str.maketrans("0123", "0213")
"""Cells below a tile come column by column, as in morecantile; written so, their keys sort in that order."""


class QuadkeyIndex:
    """The `tiles` of a MosaicJSON.

    Looking a tile up takes the time of one `dict` access, or, above the cells' zoom, of as many as there are cells
    below the tile; the size of the document does not matter.
    """

    def __init__(self, tiles: Mapping[str, Sequence[str]], zoom: int) -> None:
        """Index cells.

        Args:
            tiles: scene names by quadkey; the order of names is the order of composing.
            zoom: of the quadkeys.
        """
        numbers: dict[str, int] = {}
        self._cells = {
            key: array("L", (numbers.setdefault(name, len(numbers)) for name in names)) for key, names in tiles.items()
        }
        self.names: tuple[str, ...] = tuple(numbers)
        """Every scene once, in the order of the document."""
        self.zoom = zoom
        self._sorted = sorted(key.translate(_IN_ORDER) for key in self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def scenes(self, x: int, y: int, z: int) -> list[str]:
        """Give the names of the scenes listed for a tile, each once, in order; none where nothing is listed."""
        if not (0 <= x < 2**z and 0 <= y < 2**z):
            return []
        return [self.names[number] for number in dict.fromkeys(self._numbers(x, y, z))]

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
