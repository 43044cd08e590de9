"""What became of a part, as one value: a character per tile, and what of it is on the disk.

It knows nothing of other parts, and nothing of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Grid
from mosaic_async.http.emptiness import Emptiness
from mosaic_async.raster.form import TileFormat

EmptyKind = Emptiness | Literal["transparent"]
"""Why a tile is empty: what the server states, or pixels that are all masked."""

WAITING, PLACED, PARKED, DOUBTED, FAILED, OUTSIDE = b".p?!f-"
"""The fates, as the characters that stand for them in a part's record; outside is a place that the area leaves out."""
EMPTY: dict[EmptyKind, int] = dict(
    zip(("no content", "rule", "transparent", "not found", "no body", "outside", "denied"), b"ertnbod", strict=True)
)
EMPTIES = tuple(EMPTY.values())
SURE = (EMPTY["no content"], EMPTY["transparent"])
"""What a source that is gone does not send."""
MISSING = frozenset((PARKED, DOUBTED, FAILED))


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """What became of a part."""

    fates: str
    """One character per tile that the part counts, row by row: p placed, f failed, - outside of the area, and empty as
    e 204, r by a rule, t transparent, n not found, b without a body, o outside of the matrix, d denied.

    A tile that touches several parts is counted in the first of them.
    """
    missing: tuple[Tile, ...] = ()
    """Tiles that the part lacks, those counted elsewhere included; the job requests them, and only them, later."""
    nbytes: int
    """Size of its COG; 0 when the part has no COG: it has no data, or lacks tiles that may still arrive."""
    blocks: int = 0
    """Blocks of the COG's full image that have data."""
    form: TileFormat | None = None
    """That of the tiles so far, in which the part was written; None if it has no pixels."""
    edges: str = ""
    """The fates of the tiles that it shares with the part that counts them, in the order of `Grid.tiles`."""

    def __post_init__(self) -> None:
        is_typed = (
            isinstance(self.fates, str)
            and isinstance(self.edges, str)
            and type(self.nbytes) is type(self.blocks) is int
        )
        if not (is_typed and all(isinstance(tile, Tile) for tile in self.missing)):
            raise TypeError("not a record of a part")

    @property
    def placed(self) -> int:
        """Tiles with data."""
        return self.fates.count(chr(PLACED))

    @property
    def empty(self) -> int:
        """Tiles without data, of all kinds."""
        return sum(self.fates.count(chr(fate)) for fate in EMPTIES)

    def count(self, kind: EmptyKind) -> int:
        """Return how many tiles are empty in one way."""
        return self.fates.count(chr(EMPTY[kind]))

    @property
    def failed(self) -> int:
        """Tiles that are holes."""
        return self.fates.count(chr(FAILED))


def all_waiting(grid: Grid) -> NDArray[np.uint8]:
    """Return the fates before the first request, laid out as the cover is."""
    cover = grid.cover
    fates = np.full((cover.rows, cover.columns), WAITING, np.uint8)
    if cover.mask is not None:
        fates[~cover.mask] = OUTSIDE
    return fates


def text_of(fates: NDArray[np.uint8]) -> str:
    """Return fates as a record keeps them."""
    return fates.tobytes().decode("ascii")


def fates_of(record: PartRecord, expected: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Read the fates that a closed part counts; None where the record is not of such a part.

    Args:
        record: from an earlier run.
        expected: the part's fates before its first tile.
    """
    fates = np.frombuffer(record.fates.encode(), np.uint8)
    known = (PLACED, *EMPTIES, PARKED, DOUBTED, FAILED, OUTSIDE)
    if fates.size != expected.size or not np.isin(fates, known).all():
        return None
    fates = fates.reshape(expected.shape)
    if not np.array_equal(fates == OUTSIDE, expected == OUTSIDE):
        return None
    # What this part, or another one, lacks is requested again.
    return np.where(np.isin(fates, (PARKED, DOUBTED, FAILED)), np.uint8(WAITING), fates)
