"""A run that ends while it stitches resumes without a request and gives the same file; holes keep the parts."""

from __future__ import annotations

import pytest
import rasterio
from aiohttp import web

from mosaic_async import ResourceError, StitchProgress, build_mosaic
from mosaic_async.raster import stitch
from mosaic_async.raster.journal import Journal
from tests.test_api import AREA, BAD, ZOOM, assert_is_the_world, left_behind

SMALL_PARTS = {"creation_options": {"BLOCKSIZE": "128"}, "part_size": 256}


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    monkeypatch.setattr(stitch, "_BATCH", 1)


@pytest.mark.parametrize("parts_before", [0, 1, 5])
async def test_a_disk_that_fills_up_while_stitching_costs_no_request(serve, tmp_path, monkeypatch, parts_before):
    tiler = serve()
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", zoom=ZOOM, **SMALL_PARTS)
    added = []
    add = Journal.add

    def failing(journal, parts):
        if len(added) == parts_before:
            raise OSError(28, "No space left on device")
        added.append(parts)
        add(journal, parts)

    output = tmp_path / "out.tif"
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", failing)
        with pytest.raises(ResourceError, match="No space left"):
            await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    requests = tiler.requests
    events = []
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, on_event=events.append, **SMALL_PARTS)
    assert tiler.requests == requests
    assert report.parts_resumed == report.parts_total > parts_before
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert left_behind(tmp_path) == ["out.tif", "whole.tif"]
    told = [event for event in events if isinstance(event, StitchProgress)]
    assert told[-1].done == told[-1].total == output.stat().st_size


async def test_a_stitched_part_that_is_damaged_is_fetched_again_and_no_other(serve, tmp_path, monkeypatch):
    tiler, output = serve(), tmp_path / "out.tif"
    add = Journal.add

    def failing(journal, parts):
        add(journal, parts)
        if len(journal.parts) == 6:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", failing)
        with pytest.raises(ResourceError, match="No space left"):
            await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    (unfinished,) = (tmp_path / "out.tif.work").glob("stitch-*.tif")
    with rasterio.open(unfinished) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_3_1", "TIFF", bidx=1))
    data = bytearray(unfinished.read_bytes())
    data[offset + 40] ^= 255
    unfinished.write_bytes(data)
    requests = tiler.requests
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    assert report.parts_resumed == report.parts_total - 1
    assert 0 < tiler.requests - requests <= 4
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_parts_are_kept_while_the_output_has_holes(serve, tmp_path):
    async def failing(tile, hit):
        return web.Response(status=400) if tile == BAD else None

    tiler, output = serve(mood=failing), tmp_path / "out.tif"
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, max_failures=1, **SMALL_PARTS)
    assert report.tiles_failed == 1
    work = tmp_path / "out.tif.work"
    assert len([path for path in work.rglob("*.tif") if path.parent.parent == work and "top" not in path.name]) > 1
    tiler.mood = None
    requests = tiler.requests
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=True, **SMALL_PARTS)
    assert tiler.requests - requests <= 4
    assert_is_the_world(output, tiler, AREA, ZOOM)
