"""The memory of a run: what is measured, and what a budget allows."""

from __future__ import annotations

import asyncio
import resource
from dataclasses import replace

import pytest

from mosaic_async.build import budget
from mosaic_async.build.budget import OPEN_PARTS, choose_grid, memory_needed, open_parts, peak_rss
from mosaic_async.errors import ResourceError
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid
from mosaic_async.geo.matrix import web_mercator
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.tile import TileFormat

TILE = TileFormat(size=256, count=3, dtype="uint8")
ENCODING = Encoding.of(TILE)
GRID = Grid(cover=Cover(matrix=web_mercator(10), left=0, top=0, columns=100, rows=100), tile_size=256)


@pytest.mark.parametrize(
    "status", ["Name:\tpython\nVmPeak:\t  1 kB\n", "", None], ids=["without it", "empty", "absent"]
)
async def test_the_peak_is_told_where_the_status_lacks_it(monkeypatch, tmp_path, status):
    path = tmp_path / "status"
    if status is not None:
        path.write_text(status)
    monkeypatch.setattr(budget, "_STATUS", path)
    peak = await asyncio.wait_for(asyncio.to_thread(peak_rss), 5)
    assert peak == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.1)


def test_the_peak_of_the_status_is_in_bytes(monkeypatch, tmp_path):
    path = tmp_path / "status"
    path.write_text("VmPeak:\t  999 kB\nVmHWM:\t  12345 kB\n")
    monkeypatch.setattr(budget, "_STATUS", path)
    assert peak_rss() == 12345 * 1024


def test_fewer_parts_are_open_where_a_later_tile_is_wider_than_the_first():
    memory = memory_needed(GRID, ENCODING, TILE, 50)
    counts = []
    for dtype in ("uint8", "uint16", "float32", "float64"):
        wide = replace(TILE, dtype=dtype)
        count = open_parts(GRID, encoding := Encoding.of(wide), wide, memory=memory, in_flight=50)
        if count:
            assert memory_needed(GRID, encoding, wide, 50, count) <= memory
        assert count == OPEN_PARTS or memory_needed(GRID, encoding, wide, 50, count + 1) > memory
        counts.append(count)
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (OPEN_PARTS, 0)


@pytest.mark.parametrize("memory", [2**28, 2**29, 2**30, 2**34])
def test_the_parts_are_the_largest_that_keep_within_the_memory(memory):
    try:
        grid = choose_grid(GRID, ENCODING, TILE, part_size=None, memory=memory, in_flight=50)
    except ResourceError as error:
        least = int(str(error.message).split("at least ")[1].split()[0])
        assert memory < least * 2**20
        assert choose_grid(GRID, ENCODING, TILE, part_size=None, memory=least * 2**20, in_flight=50).part_blocks == 1
        return
    needed = {
        blocks: memory_needed(Grid(cover=GRID.cover, tile_size=256, part_blocks=blocks), ENCODING, TILE, 50)
        for blocks in (1, 2, 4, 8)
    }
    assert grid.part_blocks == max(blocks for blocks, nbytes in needed.items() if nbytes <= memory)
