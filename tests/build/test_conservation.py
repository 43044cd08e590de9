"""Nothing gets lost on the way: tiles, parts and blocks are counted against each other before there is an output."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import StitchError, build_mosaic
from mosaic_async.build.conservation import check_tiles
from mosaic_async.build.ledger import Ledger
from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.part_writer import PartWriter
from mosaic_async.build.run import Run
from mosaic_async.events import TileFailed
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid
from mosaic_async.geo.matrix import web_mercator
from mosaic_async.raster.readback import blocks_with_data
from tests.fake_tiler import Pattern
from tests.test_api import AREA, ZOOM, assert_is_the_world, left_behind

GRID = Grid(
    cover=Cover(matrix=web_mercator(7), left=60, top=40, columns=4, rows=3),
    tile_size=128,
    block_size=128,
    part_blocks=2,
)


def finished(grid: Grid = GRID) -> Ledger:
    ledger = Ledger(grid, max_failures=0, parks=True)
    for part in grid.parts():
        for tile in grid.tiles(part):
            ledger.settle(tile, has_data=tile.x != 61)
        ledger.finish(part, 100, 1)
    return ledger


def forget_a_tile(ledger: Ledger) -> None:
    ledger._fates[0, 0] = ord(".")


def forget_a_part(ledger: Ledger) -> None:
    del ledger.records["0-1"]


def count_a_part_for_another(ledger: Ledger) -> None:
    ledger.records["0-1"] = PartRecord(fates="pppp", nbytes=100)
    ledger.records["0-0"] = PartRecord(fates="pppp", nbytes=100)


def lose_a_tile_of_a_record(ledger: Ledger) -> None:
    record = ledger.records["0-0"]
    ledger.records["0-0"] = dataclasses.replace(record, fates=record.fates.replace("p", "e", 1))


def fail_a_tile_that_no_part_lacks(ledger: Ledger) -> None:
    tile = next(iter(GRID.cover.outward()))
    ledger.failed[tile] = TileFailed(tile, "http://h", "lost", None, 1)


FAULTS = [
    forget_a_tile,
    forget_a_part,
    count_a_part_for_another,
    lose_a_tile_of_a_record,
    fail_a_tile_that_no_part_lacks,
]


def test_a_sound_ledger_adds_up():
    check_tiles(GRID, finished())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_ledger_that_does_not_add_up_is_an_error_of_ours(fault):
    ledger = finished()
    fault(ledger)
    with pytest.raises(StitchError) as error:
        check_tiles(GRID, ledger)
    assert error.value.exit_code == 1
    assert "bug" in error.value.hint


@pytest.mark.parametrize("options", [{"part_size": 512}, {"part_size": 512, "clip": True}, {}])
async def test_a_part_that_the_stitch_leaves_out_makes_no_output(serve, tmp_path, monkeypatch, options):
    tiler, output = serve(), tmp_path / "out.tif"
    assemble = Run._assemble

    async def forgetful(*args):
        made = await assemble(*args)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(made, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset,
        ):
            dataset.write_mask(np.zeros((512, 512), np.uint8), window=rasterio.windows.Window(0, 0, 512, 512))
        return made

    monkeypatch.setattr(Run, "_assemble", forgetful)
    with pytest.raises(StitchError, match="blocks with data"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **options)
    assert left_behind(tmp_path) == ["out.tif.work"]


async def test_a_part_that_counts_more_tiles_than_it_has_makes_no_output(serve, tmp_path, monkeypatch):
    tiler, output = serve(), tmp_path / "out.tif"
    finish = Ledger.finish

    def generous(self, part, *numbers):
        finish(self, part, *numbers)
        record = self.records[part.name]
        self.records[part.name] = dataclasses.replace(record, fates=record.fates + "p")

    monkeypatch.setattr(Ledger, "finish", generous)
    with pytest.raises(StitchError, match="the parts hold 20 placed"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, part_size=512)
    assert left_behind(tmp_path) == ["out.tif.work"]
    monkeypatch.setattr(Ledger, "finish", finish)
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, part_size=512)
    assert tiler.requests == 0  # the work is kept, and is sound
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.quick(4)
@pytest.mark.parametrize("mask", ["internal", "alpha", "nodata", "none"])
@pytest.mark.parametrize(
    "options", [{}, {"part_size": 512}, {"part_size": 512, "creation_options": {"SPARSE_OK": "YES"}}]
)
async def test_sound_outputs_of_every_mask_pass(serve, tmp_path, mask, options):
    tiler = serve()

    async def mood(tile, hit):
        return web.Response(status=204) if tile[1] == 62 else None

    tiler.mood = mood
    nodata = {"nodata": 255.0} if mask == "nodata" else {}
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, mask=mask, **nodata, **options)
    assert (report.tiles_placed, report.tiles_empty) == (12, 4)


async def test_a_clipped_part_without_a_valid_pixel_passes(serve, tmp_path):
    tiler = serve(pattern=Pattern(masked=False))
    triangle = {"type": "Polygon", "coordinates": [[[-3.9, 43.9], [3.9, 43.9], [3.9, 38.1], [-3.9, 43.9]]]}
    seen = []
    seal = PartWriter._seal

    def watched(self, part, tags):
        seen.append(seal(self, part, tags))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PartWriter, "_seal", watched)
        await build_mosaic(tiler.template, triangle, tmp_path / "out.tif", zoom=ZOOM, clip=True, part_size=512)
    assert len(seen) > 2
    assert sum(cog.blocks for cog in seen) == blocks_with_data(tmp_path / "out.tif")
