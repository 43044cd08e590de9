"""What became of every tile, and of every part: the only place that knows, so the numbers always add up to the total.

A pure, synchronous state machine. Each tile has exactly one fate, a byte in an array that is laid out as the cover is;
so a million tiles take a megabyte, and counting is counting bytes. Objects exist only for tiles in trouble. It knows
nothing of requests, pixels and files.

```
waiting ──▶ placed | empty          settled; a part that cannot read the tile later may still make it parked or failed
        ├─▶ parked ──▶ waiting      requested again in the sweep, when all other tiles have arrived
        ├─▶ doubted ─▶ waiting      as parked: the server does not find it, which a source that is gone says of all;
        │                           if it says so again in the sweep, the tile is settled as empty
        └─▶ failed                  final: a hole
```
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mosaic_async.events import TileEmpty, TileFailed, TileNotFound, TileParked, TilePlaced
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Grid, Part, part_name
from mosaic_async.http.emptiness import Emptiness
from mosaic_async.raster.form import TileFormat

EmptyKind = Emptiness | Literal["transparent"]
"""Why a tile is empty: what the server states, or pixels that are all masked."""

_WAITING, _PLACED, _PARKED, _DOUBTED, _FAILED, _OUTSIDE = b".p?!f-"
"""The fates, as the characters that stand for them in a part's record; outside is a place that the area leaves out."""
_EMPTY: dict[EmptyKind, int] = dict(
    zip(("no content", "rule", "transparent", "not found", "no body", "outside", "denied"), b"ertnbod", strict=True)
)
_EMPTIES = tuple(_EMPTY.values())
_SURE = (_EMPTY["no content"], _EMPTY["transparent"])
"""What a source that is gone does not send."""
_MISSING = frozenset((_PARKED, _DOUBTED, _FAILED))


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

    def __post_init__(self) -> None:
        is_typed = isinstance(self.fates, str) and type(self.nbytes) is type(self.blocks) is int
        if not (is_typed and all(isinstance(tile, Tile) for tile in self.missing)):
            raise TypeError("not a record of a part")

    @property
    def placed(self) -> int:
        """Tiles with data."""
        return self.fates.count(chr(_PLACED))

    @property
    def empty(self) -> int:
        """Tiles without data, of all kinds."""
        return sum(self.fates.count(chr(fate)) for fate in _EMPTIES)

    @property
    def failed(self) -> int:
        """Tiles that are holes."""
        return self.fates.count(chr(_FAILED))


class Ledger:
    """The fates of all tiles of a grid, in one run.

    Args:
        grid: the output.
        max_failures: tiles that may stay holes; with more, parts that lack tiles are not sealed.
        parks: whether tiles whose attempts are used up get another chance in the sweep.
        fails_not_found: whether a tile that the server does not find has failed; else it is empty.
    """

    def __init__(self, grid: Grid, *, max_failures: int, parks: bool, fails_not_found: bool = False) -> None:
        self._grid = grid
        self._max_failures = max_failures
        self._parks = parks
        self._fails_not_found = fails_not_found
        self._fates = _all_waiting(grid)
        self.records: dict[str, PartRecord] = {}
        """Parts that are finished, by name; those of earlier runs included."""
        self.failed: dict[Tile, TileFailed] = {}
        """Tiles that are holes."""
        self._parked: dict[Tile, TileFailed] = {}
        self._lacks: defaultdict[str, set[Tile]] = defaultdict(set)
        """Tiles that each open part lacks."""
        self._partial: dict[str, PartRecord] = {}
        """Parts that are finished but for a few tiles, by name; those of earlier runs included."""
        self._given_up: set[str] = set()
        """Those of them that this run has closed."""
        self._withdrawn: set[Tile] = set()
        """Tiles that wait again, and whose event has been sent."""
        self._is_sweep = False

    @property
    def total(self) -> int:
        """All tiles."""
        return self._grid.cover.count

    @property
    def placed(self) -> int:
        """Tiles with data, those of earlier runs included."""
        return self._count(_PLACED)

    @property
    def empty(self) -> int:
        """Tiles without data, of all kinds, those of earlier runs included."""
        return sum(self.empty_kinds.values())

    @property
    def empty_kinds(self) -> dict[EmptyKind, int]:
        """Tiles without data by kind; kinds without any are left out."""
        counts = np.bincount(self._fates.ravel(), minlength=128)
        return {kind: int(counts[fate]) for kind, fate in _EMPTY.items() if counts[fate]}

    @property
    def not_found(self) -> int:
        """Tiles of the empty ones that the server does not find (404), and says so twice."""
        return self.empty_kinds.get("not found", 0)

    @property
    def waiting(self) -> int:
        """Tiles that are not settled yet."""
        return self._count(_WAITING)

    @property
    def parked(self) -> int:
        """Tiles that are requested again when all others have arrived, the doubted ones included."""
        return len(self._parked) + self.doubted

    @property
    def doubted(self) -> int:
        """Tiles of the parked ones that the server did not find once."""
        return self._count(_DOUBTED)

    @property
    def is_complete(self) -> bool:
        """Whether no more tiles failed than may."""
        return len(self.failed) <= self._max_failures

    def resume(self, records: Mapping[str, PartRecord]) -> None:
        """Take over the parts that an earlier run closed; a record that does not fit its part is not one of them."""
        for part in self._grid.parts():
            record = records.get(part.name)
            if record is None or (record.missing and not set(record.missing).issubset(self._grid.tiles(part))):
                continue
            window = self._window(part.row, part.col)
            fates = _fates_of(record, window)
            if fates is not None:
                window[...] = fates
                (self._partial if record.missing else self.records)[part.name] = record

    def wanted(self) -> Iterator[Part]:
        """Return the parts that a pass goes through: all that are not finished, or in a sweep those that lack tiles."""
        for part in self._grid.parts():
            if part.name in self._given_up or not (self._is_sweep or part.name in self.records):
                yield part

    def tiles(self, part: Part) -> list[Tile]:
        """Return the tiles that a part still needs."""
        partial = self._partial.get(part.name)
        return self._grid.tiles(part) if partial is None else list(partial.missing)

    def begin_sweep(self) -> None:
        """Let parked and doubted tiles wait again, for a last time."""
        for tile in (*self._parked, *self._tiles_with(_DOUBTED)):
            self._set(tile, _WAITING)
        self._parked.clear()
        self._is_sweep = True

    def end(self) -> None:
        """Count what is still parked as failed, and what is doubted as not settled: no more is requested."""
        for tile in self._parked:
            self._set(tile, _FAILED)
        for tile in self._tiles_with(_DOUBTED):
            self._set(tile, _WAITING)
        self.failed.update(self._parked)
        self._parked.clear()

    def any_placed(self) -> Tile | None:
        """Return a tile that has data."""
        index = int(np.argmax(self._fates == _PLACED))
        row, column = divmod(index, self._grid.cover.columns)
        return self._grid.cover.tile(column, row) if self._fates[row, column] == _PLACED else None

    def settle(
        self, tile: Tile, *, has_data: bool, kind: EmptyKind = "no content"
    ) -> TilePlaced | TileEmpty | TileNotFound | None:
        """Note that a tile is where it belongs, or has no data; return the event, once per tile."""
        if self._fate(tile) != _WAITING:
            return None
        self._set(tile, _PLACED if has_data else _EMPTY[kind])
        if tile in self._withdrawn:
            return None
        if has_data:
            return TilePlaced(tile)
        return TileNotFound(tile) if kind == "not found" else TileEmpty(tile, kind)

    def has_data(self, tile: Tile) -> bool:
        """Return whether a part has placed the tile."""
        return self._fate(tile) == _PLACED

    def is_empty(self, tile: Tile) -> bool:
        """Return whether the tile is known to have no data: what one part was told holds for all."""
        return self._fate(tile) in _EMPTIES

    def is_used(self, tile: Tile) -> bool:
        """Return whether a part that is closed was made with what the server sent for the tile."""
        records = (self._closed(part_name(row, col)) for row, col in self._grid.touches(tile))
        return any(record is not None and tile not in record.missing for record in records)

    def withdraw(self, tiles: Collection[Tile]) -> list[Part]:
        """Let settled tiles wait again; return the parts that they touch, which have to be made again."""
        places = {place for tile in tiles for place in self._grid.touches(tile)}
        parts = [part for part in self._grid.parts() if (part.row, part.col) in places]
        for part in parts:
            self.records.pop(part.name, None)
            self._partial.pop(part.name, None)
            self._given_up.add(part.name)
        for tile in tiles:
            fate = self._fate(tile)
            if fate in (_PLACED, *_EMPTIES):
                self._withdrawn.add(tile)
            if fate in (_PLACED, *_EMPTIES, _DOUBTED):
                self._set(tile, _WAITING)
        return parts

    def miss(self, failure: TileFailed, *, is_passing: bool) -> TileParked | TileFailed | None:
        """Park a tile, or let it fail; return the event, once per tile.

        Args:
            failure: what happened.
            is_passing: whether the tile may be there later.
        """
        tile = failure.tile
        if self.is_missing(tile):
            return None
        if is_passing and self._parks and not self._is_sweep:
            self._parked[tile] = failure
            self._set(tile, _PARKED)
            return TileParked(tile, failure.reason)
        self.failed[tile] = failure
        self._set(tile, _FAILED)
        return failure

    def not_find(
        self, failure: TileFailed, kind: EmptyKind = "not found"
    ) -> TileParked | TilePlaced | TileEmpty | TileNotFound | TileFailed | None:
        """Doubt a tile that the server does not find, or in the sweep believe it; return the event, once per tile.

        Args:
            failure: what the server states.
            kind: why the tile is empty, if it is.
        """
        tile = failure.tile
        if self.is_missing(tile):
            return None
        if self._fate(tile) == _PLACED:  # another part has its data, so it is not empty
            return self.miss(failure, is_passing=False)
        if not self._is_sweep:
            self._set(tile, _DOUBTED)
            return TileParked(tile, failure.reason)
        if self._fails_not_found:
            return self.miss(failure, is_passing=False)
        return self.settle(tile, has_data=False, kind=kind)

    def is_missing(self, tile: Tile) -> bool:
        """Return whether this pass has already requested the tile in vain."""
        return self._fate(tile) in _MISSING

    def lack(self, part: Part, tile: Tile) -> None:
        """Note that a part that is open does without a tile that is missing."""
        self._lacks[part.name].add(tile)

    def is_sealable(self, part: Part) -> bool:
        """Return whether a part that has been through all its tiles is finished: nothing parked, nor too many holes."""
        lacks = self._lacks.get(part.name)
        return not lacks or (self.is_complete and all(self._fate(tile) == _FAILED for tile in lacks))

    def has_not_found(self, tiles: Iterable[Tile]) -> bool:
        """Return whether the server states of one of the tiles what a source that is gone states of all."""
        return any(self.is_empty(tile) and self._fate(tile) not in _SURE for tile in tiles)

    def record(self, part: Part, nbytes: int, blocks: int = 0, form: TileFormat | None = None) -> PartRecord:
        """Return what became of a part that has been through all its tiles.

        Args:
            part: the part.
            nbytes: size of its COG; 0 if it has none.
            blocks: of the COG's full image that have data.
            form: in which its pixels were written.
        """
        fates = _text(self._window(part.row, part.col))
        missing = tuple(sorted(self._lacks.get(part.name, ())))
        return PartRecord(fates=fates, missing=missing, nbytes=nbytes, blocks=blocks, form=form)

    def finish(self, part: Part, nbytes: int, blocks: int = 0, form: TileFormat | None = None) -> None:
        """Note that a part is finished and its record kept; the arguments are those of `record`."""
        self.records[part.name] = self.record(part, nbytes, blocks, form)
        self._partial.pop(part.name, None)
        self._lacks.pop(part.name, None)
        self._given_up.discard(part.name)

    def remake(self, part: Part, nbytes: int, blocks: int, form: TileFormat | None) -> PartRecord:
        """Note that the COG of a finished part was written again, and return its record; arguments as for `record`."""
        record = replace(self.records[part.name], nbytes=nbytes, blocks=blocks, form=form)
        self.records[part.name] = record
        return record

    def give_up(self, part: Part) -> None:
        """Note that a part is closed without its COG, and its record kept; a sweep goes through what it lacks."""
        self._partial[part.name] = self.record(part, 0)
        self._lacks.pop(part.name, None)
        self._given_up.add(part.name)

    def is_done_with(self, tile: Tile) -> bool:
        """Return whether no part needs the tile any more."""
        records = (self._closed(part_name(row, col)) for row, col in self._grid.touches(tile))
        return all(record is not None and tile not in record.missing for record in records)

    def _closed(self, name: str) -> PartRecord | None:
        return self.records.get(name) or self._partial.get(name)

    def _count(self, fate: int) -> int:
        return int(np.count_nonzero(self._fates == fate))

    def _tiles_with(self, fate: int) -> Iterator[Tile]:
        for row, column in np.argwhere(self._fates == fate):
            yield self._grid.cover.tile(int(column), int(row))

    def _fate(self, tile: Tile) -> int:
        column, row = self._grid.cover.place(tile)
        return int(self._fates[row, column])

    def _set(self, tile: Tile, fate: int) -> None:
        """Set the fate of a tile; where it had another, the record that counts it changes as well."""
        column, row = self._grid.cover.place(tile)
        is_change = self._is_sweep or self._fates[row, column] != _WAITING
        self._fates[row, column] = fate
        if is_change:
            place = self._grid.touches(tile)[0]
            name = part_name(*place)
            if name in self.records:
                self.records[name] = replace(self.records[name], fates=_text(self._window(*place)))

    def _window(self, row: int, col: int) -> NDArray[np.uint8]:
        """Return the fates of the tiles that a part counts."""
        return self._fates[self._grid.counted_in(row, col)]


def _all_waiting(grid: Grid) -> NDArray[np.uint8]:
    cover = grid.cover
    fates = np.full((cover.rows, cover.columns), _WAITING, np.uint8)
    if cover.mask is not None:
        fates[~cover.mask] = _OUTSIDE
    return fates


def _text(fates: NDArray[np.uint8]) -> str:
    return fates.tobytes().decode("ascii")


def _fates_of(record: PartRecord, expected: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Read the fates that a closed part counts; None where the record is not of such a part.

    Args:
        record: from an earlier run.
        expected: the part's fates before its first tile.
    """
    fates = np.frombuffer(record.fates.encode(), np.uint8)
    known = (_PLACED, *_EMPTIES, _PARKED, _DOUBTED, _FAILED, _OUTSIDE)
    if fates.size != expected.size or not np.isin(fates, known).all():
        return None
    fates = fates.reshape(expected.shape)
    if not np.array_equal(fates == _OUTSIDE, expected == _OUTSIDE):
        return None
    # What this part, or another one, lacks is requested again.
    return np.where(np.isin(fates, (_PARKED, _DOUBTED, _FAILED)), np.uint8(_WAITING), fates)
