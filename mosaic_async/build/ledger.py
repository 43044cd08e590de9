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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mosaic_async.build.part_record import (
    DOUBTED,
    EMPTIES,
    EMPTY,
    FAILED,
    MISSING,
    PARKED,
    PLACED,
    SURE,
    WAITING,
    EmptyKind,
    PartRecord,
    all_waiting,
    fates_of,
    text_of,
)
from mosaic_async.events import TileEmpty, TileFailed, TileNotFound, TileParked, TilePlaced
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Grid, Part, part_name
from mosaic_async.raster.form import TileFormat


class Ledger:
    """The fates of all tiles of a grid, in one run.

    Args:
        grid: the output.
        parts: those that the run builds; None: all.
        max_failures: tiles that may stay holes; with more, parts that lack tiles are not sealed.
        parks: whether tiles whose attempts are used up get another chance in the sweep.
        fails_not_found: whether a tile that the server does not find has failed; else it is empty.
    """

    def __init__(
        self,
        grid: Grid,
        parts: Sequence[Part] | None = None,
        *,
        max_failures: int,
        parks: bool,
        fails_not_found: bool = False,
    ) -> None:
        self._grid = grid
        self._share = parts
        self._names = None if parts is None else {part.name for part in parts}
        self._max_failures = max_failures
        self._parks = parks
        self._fails_not_found = fails_not_found
        self._fates = all_waiting(grid)
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
    def parts(self) -> Iterable[Part]:
        """The parts that the run builds."""
        return self._grid.parts() if self._share is None else self._share

    @property
    def total(self) -> int:
        """All tiles that the run fetches."""
        if self._share is None:
            return self._grid.cover.count
        return len({tile for part in self._share for tile in self._grid.tiles(part)})

    @property
    def placed(self) -> int:
        """Tiles with data, those of earlier runs included."""
        return self._count(PLACED)

    @property
    def empty(self) -> int:
        """Tiles without data, of all kinds, those of earlier runs included."""
        return sum(self.empty_kinds.values())

    @property
    def empty_kinds(self) -> dict[EmptyKind, int]:
        """Tiles without data by kind; kinds without any are left out."""
        counts = np.bincount(self._fates.ravel(), minlength=128)
        return {kind: int(counts[fate]) for kind, fate in EMPTY.items() if counts[fate]}

    @property
    def fates(self) -> NDArray[np.uint8]:
        """Of each tile, (rows, columns), the letter of its fate; not to be changed."""
        return self._fates

    @property
    def not_found(self) -> int:
        """Tiles of the empty ones that the server does not find (404), and says so twice."""
        return self.empty_kinds.get("not found", 0)

    @property
    def waiting(self) -> int:
        """Tiles that are not settled yet."""
        return self._count(WAITING)

    @property
    def parked(self) -> int:
        """Tiles that are requested again when all others have arrived, the doubted ones included."""
        return len(self._parked) + self.doubted

    @property
    def doubted(self) -> int:
        """Tiles of the parked ones that the server did not find once."""
        return self._count(DOUBTED)

    @property
    def tags(self) -> dict[str, str]:
        """GDAL metadata of the output: the counts so far."""
        counts = {"PLACED": self.placed, "EMPTY": self.empty, "NOT_FOUND": self.not_found, "FAILED": len(self.failed)}
        return {f"MOSAIC_TILES_{name}": str(count) for name, count in counts.items()}

    @property
    def closed(self) -> list[tuple[Part, PartRecord]]:
        """The parts that are finished, also those that lack tiles, with their records."""
        return [(part, record) for part in self.parts if (record := self._closed(part.name)) is not None]

    @property
    def is_complete(self) -> bool:
        """Whether no more tiles failed than may."""
        return len(self.failed) <= self._max_failures

    def resume(self, records: Mapping[str, PartRecord]) -> None:
        """Take over the parts that an earlier run closed; a record that does not fit its part is not one of them."""
        for part in self.parts:
            record = records.get(part.name)
            if record is None or (record.missing and not set(record.missing).issubset(self._grid.tiles(part))):
                continue
            window = self._window(part.row, part.col)
            fates = fates_of(record, window)
            if fates is not None:
                window[...] = fates
                (self._partial if record.missing else self.records)[part.name] = record

    def disputed(self) -> set[Tile]:
        """Return the shared tiles that had data for one part of an earlier run, and none for another."""
        found = set()
        for part in self.parts:
            record = self._closed(part.name)
            if record is not None and record.edges:
                for tile, fate in zip(self._edges(part), record.edges.encode(), strict=False):
                    both = {fate, self._fate(tile)}
                    if PLACED in both and not both.isdisjoint(EMPTIES) and tile not in record.missing:
                        found.add(tile)
        return found

    def wanted(self) -> Iterator[Part]:
        """Return the parts that a pass goes through: all that are not finished, or in a sweep those that lack tiles."""
        for part in self.parts:
            if part.name in self._given_up or not (self._is_sweep or part.name in self.records):
                yield part

    def tiles(self, part: Part) -> list[Tile]:
        """Return the tiles that a part still needs."""
        partial = self._partial.get(part.name)
        return self._grid.tiles(part) if partial is None else list(partial.missing)

    def begin_sweep(self) -> None:
        """Let parked and doubted tiles wait again, for a last time."""
        for tile in (*self._parked, *self._tiles_with(DOUBTED)):
            self._set(tile, WAITING)
        self._parked.clear()
        self._is_sweep = True

    def end(self) -> None:
        """Count what is still parked as failed, and what is doubted as not settled: no more is requested."""
        for tile in self._parked:
            self._set(tile, FAILED)
        for tile in self._tiles_with(DOUBTED):
            self._set(tile, WAITING)
        self.failed.update(self._parked)
        self._parked.clear()

    def any_placed(self) -> Tile | None:
        """Return a tile that has data."""
        index = int(np.argmax(self._fates == PLACED))
        row, column = divmod(index, self._grid.cover.columns)
        return self._grid.cover.tile(column, row) if self._fates[row, column] == PLACED else None

    def settle(
        self, tile: Tile, *, has_data: bool, kind: EmptyKind = "no content"
    ) -> TilePlaced | TileEmpty | TileNotFound | None:
        """Note that a tile is where it belongs, or has no data; return the event, once per tile."""
        if self._fate(tile) != WAITING:
            return None
        self._set(tile, PLACED if has_data else EMPTY[kind])
        if tile in self._withdrawn:
            return None
        if has_data:
            return TilePlaced(tile)
        return TileNotFound(tile) if kind == "not found" else TileEmpty(tile, kind)

    def has_data(self, tile: Tile) -> bool:
        """Return whether a part has placed the tile."""
        return self._fate(tile) == PLACED

    def is_empty(self, tile: Tile) -> bool:
        """Return whether the tile is known to have no data: what one part was told holds for all."""
        return self._fate(tile) in EMPTIES

    def is_used(self, tile: Tile) -> bool:
        """Return whether a part that is closed was made with what the server sent for the tile."""
        records = (self._closed(part_name(row, col)) for row, col in self._grid.touches(tile))
        return any(record is not None and tile not in record.missing for record in records)

    def withdraw(self, tiles: Collection[Tile]) -> list[Part]:
        """Let settled tiles wait again; return the parts that they touch, which have to be made again."""
        places = {place for tile in tiles for place in self._grid.touches(tile)}
        parts = [part for part in self.parts if (part.row, part.col) in places]
        for part in parts:
            self.records.pop(part.name, None)
            self._partial.pop(part.name, None)
            self._given_up.add(part.name)
        for tile in tiles:
            fate = self._fate(tile)
            if fate in (PLACED, *EMPTIES):
                self._withdrawn.add(tile)
            if fate in (PLACED, *EMPTIES, DOUBTED):
                self._set(tile, WAITING)
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
            self._set(tile, PARKED)
            return TileParked(tile, failure.reason)
        self.failed[tile] = failure
        self._set(tile, FAILED)
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
        if self._fate(tile) == PLACED:  # another part has its data, so it is not empty
            return self.miss(failure, is_passing=False)
        if not self._is_sweep:
            self._set(tile, DOUBTED)
            return TileParked(tile, failure.reason)
        if self._fails_not_found:
            return self.miss(failure, is_passing=False)
        return self.settle(tile, has_data=False, kind=kind)

    def is_missing(self, tile: Tile) -> bool:
        """Return whether this pass has already requested the tile in vain."""
        return self._fate(tile) in MISSING

    def lack(self, part: Part, tile: Tile) -> None:
        """Note that a part that is open does without a tile that is missing."""
        self._lacks[part.name].add(tile)

    def is_sealable(self, part: Part) -> bool:
        """Return whether a part that has been through all its tiles is finished: nothing parked, nor too many holes."""
        lacks = self._lacks.get(part.name)
        return not lacks or (self.is_complete and all(self._fate(tile) == FAILED for tile in lacks))

    def has_not_found(self, tiles: Iterable[Tile]) -> bool:
        """Return whether the server states of one of the tiles what a source that is gone states of all."""
        return any(self.is_empty(tile) and self._fate(tile) not in SURE for tile in tiles)

    def record(self, part: Part, nbytes: int, blocks: int = 0, form: TileFormat | None = None) -> PartRecord:
        """Return what became of a part that has been through all its tiles.

        Args:
            part: the part.
            nbytes: size of its COG; 0 if it has none.
            blocks: of the COG's full image that have data.
            form: in which its pixels were written.
        """
        fates = text_of(self._window(part.row, part.col))
        edges = bytes(map(self._fate, self._edges(part))).decode("ascii")
        missing = tuple(sorted(self._lacks.get(part.name, ())))
        return PartRecord(fates=fates, edges=edges, missing=missing, nbytes=nbytes, blocks=blocks, form=form)

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
        """Return whether no part of the run needs the tile any more."""
        names = (part_name(row, col) for row, col in self._grid.touches(tile))
        records = (self._closed(name) for name in names if self._names is None or name in self._names)
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
        is_change = self._is_sweep or self._fates[row, column] != WAITING
        self._fates[row, column] = fate
        if is_change:
            place = self._grid.touches(tile)[0]
            name = part_name(*place)
            if name in self.records:
                self.records[name] = replace(self.records[name], fates=text_of(self._window(*place)))

    def _edges(self, part: Part) -> list[Tile]:
        """Return the tiles of a part that another part counts."""
        if self._grid.clip is None:
            return []
        place = (part.row, part.col)
        return [tile for tile in self._grid.tiles(part) if self._grid.touches(tile)[0] != place]

    def _window(self, row: int, col: int) -> NDArray[np.uint8]:
        """Return the fates of the tiles that a part counts."""
        return self._fates[self._grid.counted_in(row, col)]
