"""The ledger against a model that keeps one word per tile: whatever the order of events, the numbers add up."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mosaic_async.build.ledger import Ledger
from mosaic_async.build.part_record import PartRecord
from mosaic_async.events import TileEmpty, TileFailed, TileNotFound, TileParked, TilePlaced
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover, Tile
from mosaic_async.geo.grid import Grid, part_name
from mosaic_async.geo.matrix import web_mercator
from tests.effort import examples

BOX = Area.parse((-3.3, 38.5, 8.7, 46.1))
TRIANGLE = Area.parse({"type": "Polygon", "coordinates": [[[-3, 38], [9, 40], [2, 47], [-3, 38]]]})
GRIDS = [
    Grid(cover=Cover.of(area, 7), tile_size=128, block_size=128, part_blocks=blocks, clip=area if clip else None)
    for area in (BOX, TRIANGLE)
    for blocks in (1, 2, 8)
    for clip in (False, True)
]


def failure_of(tile: Tile) -> TileFailed:
    return TileFailed(tile, "http://there", "HTTP 500", 500, 5)


def tiles_of(grid: Grid) -> list[Tile]:
    return list(grid.cover.outward())


@pytest.mark.parametrize("grid", GRIDS)
def test_each_tile_is_counted_in_the_first_part_that_it_touches(grid):
    counted = np.zeros((grid.cover.rows, grid.cover.columns), int)
    for part in grid.parts():
        counted[grid.counted_in(part.row, part.col)] += 1
        for tile in grid.tiles(part):
            column, row = grid.cover.place(tile)
            rows, columns = grid.counted_in(part.row, part.col)
            is_inside = rows.start <= row < rows.stop and columns.start <= column < columns.stop
            assert is_inside == (grid.touches(tile)[0] == (part.row, part.col))
    covered = np.ones_like(counted) if grid.cover.mask is None else grid.cover.mask
    assert (counted[covered.astype(bool)] == 1).all()


SQUARE = Grid(
    cover=Cover(matrix=web_mercator(7), left=60, top=40, columns=3, rows=3),
    tile_size=128,
    block_size=128,
    part_blocks=4,
)


class Runs(RuleBasedStateMachine):
    """Runs of one job: orders arrive in any order, parts close, sweeps begin, and processes die and resume."""

    @initialize(
        grid=st.sampled_from(GRIDS),
        max_failures=st.sampled_from([0, 2, 10**6]),
        parks=st.booleans(),
        fails=st.booleans(),
    )
    def start(self, grid, max_failures, parks, fails):
        self.grid, self.max_failures, self.parks, self.fails = grid, max_failures, parks, fails
        self.disk: dict[str, tuple[PartRecord, dict[Tile, str]]] = {}
        self.begin_run()

    def begin_run(self) -> None:
        self.ledger = Ledger(self.grid, max_failures=self.max_failures, parks=self.parks, fails_not_found=self.fails)
        self.fates = dict.fromkeys(tiles_of(self.grid), "waiting")
        self.holes: dict[str, set[Tile]] = {}
        self.withdrawn: set[Tile] = set()
        self.closed = {name: set(record.missing) for name, (record, _) in self.disk.items()}
        self.is_swept = self.is_over = False
        for _, fates in self.disk.values():
            self.fates.update(
                {tile: fate if fate in ("placed", "empty", "not found") else "waiting" for tile, fate in fates.items()}
            )
        self.ledger.resume({name: record for name, (record, _) in self.disk.items()})
        assert set(self.ledger.records) == {name for name, (record, _) in self.disk.items() if not record.missing}
        self.begin_pass()

    def begin_pass(self) -> None:
        self.open = {part.name: (part, set(self.ledger.tiles(part))) for part in self.ledger.wanted()}

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(["data"] * 6 + ["nothing", "passing", "lasting", "not found"]))
    def arrive(self, data, outcome):
        part, tiles = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        tile = data.draw(st.sampled_from(sorted(tiles)))
        if self.ledger.is_missing(tile):
            self.ledger.lack(part, tile)
            self.holes.setdefault(part.name, set()).add(tile)
        elif outcome in ("data", "nothing"):
            self.settle(tile, has_data=outcome == "data")
        elif outcome == "not found":
            self.not_find(part, tile)
        else:
            self.miss(part, tile, is_passing=outcome == "passing")
        tiles.discard(tile)
        if not tiles:
            self.close(part)

    def settle(self, tile, *, has_data):
        event = self.ledger.settle(tile, has_data=has_data)
        if self.fates[tile] == "waiting":
            self.fates[tile] = "placed" if has_data else "empty"
            assert event == (None if tile in self.withdrawn else TilePlaced(tile) if has_data else TileEmpty(tile))
        else:
            assert event is None

    def miss(self, part, tile, *, is_passing):
        event = self.ledger.miss(failure_of(tile), is_passing=is_passing)
        parks = is_passing and self.parks and not self.is_swept
        self.fates[tile] = "parked" if parks else "failed"
        assert event == (TileParked(tile, "HTTP 500") if parks else failure_of(tile))
        self.ledger.lack(part, tile)
        self.holes.setdefault(part.name, set()).add(tile)

    def not_find(self, part, tile):
        event, fate = self.ledger.not_find(failure_of(tile)), self.fates[tile]
        if fate == "placed" or (self.is_swept and self.fails):
            expected = "failed", failure_of(tile)
        elif not self.is_swept:
            expected = "doubted", TileParked(tile, "HTTP 500")
        elif fate == "waiting":
            expected = "not found", None if tile in self.withdrawn else TileNotFound(tile)
        else:
            expected = fate, None
        assert event == expected[1]
        self.fates[tile] = expected[0]
        if expected[0] in ("doubted", "failed"):
            self.ledger.lack(part, tile)
            self.holes.setdefault(part.name, set()).add(tile)
        assert self.ledger.has_not_found([tile]) == (expected[0] == "not found")

    def close(self, part):
        del self.open[part.name]
        holes = self.holes.pop(part.name, set())
        failed = sum(fate == "failed" for fate in self.fates.values())
        is_parked = any(self.fates[tile] in ("parked", "doubted") for tile in holes)
        assert self.ledger.is_sealable(part) == (not is_parked and (not holes or failed <= self.max_failures))
        is_sealable = self.ledger.is_sealable(part)
        record = self.ledger.record(part, 100 if is_sealable else 0)
        assert set(record.missing) == holes
        counted = {tile: self.fates[tile] for tile in self.grid.tiles(part) if self.counts(part, tile)}
        assert record.placed == sum(fate == "placed" for fate in counted.values())
        assert record.empty == sum(fate in ("empty", "not found") for fate in counted.values())
        self.disk[part.name] = record, counted
        self.closed[part.name] = holes
        if is_sealable:
            self.ledger.finish(part, 100)
        else:
            self.ledger.give_up(part)
        for tile in self.grid.tiles(part):
            names = [part_name(row, col) for row, col in self.grid.touches(tile)]
            is_needed = any(name not in self.closed or tile in self.closed[name] for name in names)
            assert self.ledger.is_done_with(tile) != is_needed

    def counts(self, part, tile) -> bool:
        return self.grid.touches(tile)[0] == (part.row, part.col)

    @precondition(lambda self: not self.open and self.ledger.parked and not self.is_swept)
    @rule()
    def sweep(self):
        self.ledger.begin_sweep()
        self.is_swept = True
        self.fates.update({tile: "waiting" for tile, fate in self.fates.items() if fate in ("parked", "doubted")})
        self.begin_pass()

    @precondition(lambda self: not self.open and not self.is_over)
    @rule(data=st.data())
    def withdraw(self, data):
        tiles = data.draw(st.sets(st.sampled_from(sorted(self.fates)), max_size=4))
        parts = {part.name for part in self.ledger.withdraw(tiles)}
        assert parts == {part_name(row, col) for tile in tiles for row, col in self.grid.touches(tile)}
        for name in parts:
            self.disk.pop(name, None)
            self.closed.pop(name, None)
        settled = {tile for tile in tiles if self.fates[tile] in ("placed", "empty", "not found")}
        self.withdrawn |= settled
        doubted = {tile for tile in tiles if self.fates[tile] == "doubted"}
        self.fates.update(dict.fromkeys(settled | doubted, "waiting"))
        self.begin_pass()

    @precondition(lambda self: not self.open and not self.is_over)
    @rule()
    def end(self):
        self.ledger.end()
        self.is_over = True
        self.fates.update({tile: "failed" for tile, fate in self.fates.items() if fate == "parked"})
        self.fates.update({tile: "waiting" for tile, fate in self.fates.items() if fate == "doubted"})

    @rule()
    def die_and_resume(self):
        self.begin_run()

    @invariant()
    def the_numbers_add_up_to_the_total(self):
        if not hasattr(self, "ledger"):
            return
        ledger = self.ledger
        numbers = {
            "placed": ledger.placed,
            "empty": ledger.empty,
            "parked": ledger.parked,
            "failed": len(ledger.failed),
            "waiting": ledger.waiting,
        }
        assert sum(numbers.values()) == ledger.total == self.grid.cover.count
        counted = {name: sum(fate == name for fate in self.fates.values()) for name in numbers}
        counted["empty"] += sum(fate == "not found" for fate in self.fates.values())
        counted["parked"] += sum(fate == "doubted" for fate in self.fates.values())
        assert numbers == counted
        assert ledger.not_found == sum(fate == "not found" for fate in self.fates.values())
        placed = ledger.any_placed()
        assert self.fates[placed] == "placed" if placed else ledger.placed == 0

    @invariant()
    def the_records_say_what_the_ledger_says(self):
        if not hasattr(self, "ledger") or len(self.ledger.records) < self.grid.part_count:
            return
        records = self.ledger.records.values()
        assert sum(record.placed for record in records) == self.ledger.placed
        assert sum(record.empty for record in records) == self.ledger.empty


def settings_of(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )


class TestRuns(Runs.TestCase):
    settings = settings_of(examples(40))


@pytest.mark.slow
class TestManyRuns(Runs.TestCase):
    settings = settings_of(2_000)


@pytest.mark.parametrize(
    "fates",
    ["", "pppp", "pppppppppp", "pppp.pppp", "ppppxpppp", "pppp-pppp", "pppp\u00e9ppp"],
    ids=["none", "too few", "too many", "one that waits", "an unknown one", "one outside", "no ASCII"],
)
def test_a_record_that_does_not_fit_its_part_is_made_again(fates):
    ledger = Ledger(SQUARE, max_failures=0, parks=True)
    ledger.resume({"0-0": PartRecord(fates=fates, nbytes=100)})
    assert not ledger.records
    assert ledger.waiting == 9
    ledger.resume({"0-0": PartRecord(fates="ppeppeppp", nbytes=100)})
    assert (ledger.placed, ledger.empty, ledger.waiting) == (7, 2, 0)


def test_a_tile_that_one_part_has_is_a_hole_and_not_empty_where_another_does_not_find_it():
    grid = next(grid for grid in GRIDS if grid.clip)
    tile = next(tile for tile in tiles_of(grid) if len(grid.touches(tile)) > 1)
    ledger = Ledger(grid, max_failures=0, parks=True)
    ledger.settle(tile, has_data=True)
    assert ledger.not_find(failure_of(tile)) == failure_of(tile)
    ledger.begin_sweep()
    ledger.end()
    assert (ledger.not_found, set(ledger.failed), ledger.is_complete) == (0, {tile}, False)


def test_a_part_that_lacks_tiles_needs_nothing_but_them():
    ledger = Ledger(SQUARE, max_failures=0, parks=True)
    missing = (Tile(61, 40, 7), Tile(60, 41, 7))
    ledger.resume({"0-0": PartRecord(fates="p?ef?eppp", missing=missing, nbytes=0)})
    (part,) = ledger.wanted()
    assert ledger.tiles(part) == list(missing)
    assert (ledger.placed, ledger.empty, ledger.waiting) == (4, 2, 3)
    assert ledger.is_done_with(Tile(60, 40, 7))
    assert not ledger.is_done_with(missing[0])


@pytest.mark.parametrize("missing", [(Tile(63, 40, 7),), (Tile(60, 40, 8),), (Tile(60, 40, 7), Tile(0, 0, 0))])
def test_a_part_that_lacks_tiles_which_it_never_had_is_made_again(missing):
    ledger = Ledger(SQUARE, max_failures=0, parks=True)
    ledger.resume({"0-0": PartRecord(fates="?" * 9, missing=missing, nbytes=0)})
    (part,) = ledger.wanted()
    assert ledger.tiles(part) == SQUARE.tiles(part)


@pytest.mark.parametrize("values", [{"fates": 1}, {"missing": ("1",)}, {"nbytes": None}, {"nbytes": True}])
def test_a_record_holds_text_tiles_and_numbers_only(values):
    with pytest.raises(TypeError):
        PartRecord(**{"fates": "p", "nbytes": 0, **values})


def test_a_million_tiles_that_succeed_take_two_bytes_each_at_most():
    cover = Cover(matrix=web_mercator(12), left=0, top=0, columns=1000, rows=1000)
    grid = Grid(cover=cover, tile_size=256, part_blocks=8)
    parts = list(grid.parts())[:50]
    tracemalloc.start()
    try:
        ledger = Ledger(grid, max_failures=0, parks=True)
        before, _ = tracemalloc.get_traced_memory()
        for part in parts:
            for tile in grid.tiles(part):
                ledger.settle(tile, has_data=True)
            ledger.finish(part, 100)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ledger.placed == 50 * 16 * 16
    assert before < 1.1e6
    assert after - before < 3 * ledger.placed
