"""A run that ends while it stitches resumes without a request and gives the same file; holes keep the parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import PartSealed, ResourceError, StitchProgress, build_mosaic
from mosaic_async.build import run
from mosaic_async.build.part_files import PartFiles
from mosaic_async.raster import assembly, unfinished
from mosaic_async.raster.assembly import Assembly
from mosaic_async.raster.insertion import can_insert
from mosaic_async.raster.journal import Journal
from tests.build.test_room import BODY, area_of
from tests.moods import says
from tests.pairwise import quick_only
from tests.test_api import AREA, BAD, ZOOM, assert_is_the_world, left_behind

SMALL_PARTS = {"creation_options": {"BLOCKSIZE": "128"}, "part_size": 256}
PARTS_OF_FOUR = SMALL_PARTS | {"part_size": 512}


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    monkeypatch.setattr(unfinished, "BATCH", 1)


@pytest.fixture
def _at_the_end(monkeypatch):
    """Stitch as on a file system that cannot insert bytes: when all parts are there."""
    monkeypatch.setattr(assembly, "can_insert", lambda _: False)


@pytest.mark.parametrize("parts_before", quick_only([0, 1, 5, 15], 0, 15))
async def test_a_disk_that_fills_up_while_parts_arrive_loses_none(serve, tmp_path, monkeypatch, parts_before):
    tiler, added, add = serve(), [], Journal.add
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", zoom=ZOOM, **SMALL_PARTS)

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
    assert len(left_behind(tmp_path)) == 2
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    assert report.parts_resumed > parts_before
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert left_behind(tmp_path) == ["out.tif", "whole.tif"]


@pytest.mark.usefixtures("_at_the_end")
@pytest.mark.parametrize("parts_before", quick_only([0, 1, 5], 1))
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


@pytest.mark.usefixtures("_at_the_end")
async def test_a_stitched_part_that_is_damaged_is_fetched_again_and_no_other(serve, tmp_path, monkeypatch):
    tiler, output = serve(), tmp_path / "out.tif"
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", zoom=ZOOM, **SMALL_PARTS)
    add = Journal.add

    def failing(journal, parts):
        add(journal, parts)
        if len(journal.parts) == 6:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", failing)
        with pytest.raises(ResourceError, match="No space left"):
            await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    (path,) = (tmp_path / "out.tif.work").glob("stitch-*.tif")
    block = block_of(tmp_path / "whole.tif", 3, 1)
    data = bytearray(path.read_bytes())
    data[data.index(block) + 40] ^= 255
    path.write_bytes(data)
    requests = tiler.requests
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    assert report.parts_resumed == report.parts_total - 1
    assert 0 < tiler.requests - requests <= 4
    assert_is_the_world(output, tiler, AREA, ZOOM)


def block_of(path, column, row):
    """Return a block of the full image as it is in the file."""
    with rasterio.open(path) as dataset:
        start, size = (
            int(dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    return path.read_bytes()[start : start + size]


async def hole(tile, hit):
    return web.Response(status=400) if tile == BAD else None


async def test_parts_are_kept_while_the_output_has_holes(serve, tmp_path):
    tiler, output = serve(mood=hole), tmp_path / "out.tif"
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, max_failures=1, **SMALL_PARTS)
    assert report.tiles_failed == 1
    work = tmp_path / "out.tif.work"
    assert len([path for path in work.rglob("*.tif") if path.parent.parent == work and "top" not in path.name]) > 1
    tiler.mood = None
    requests = tiler.requests
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=True, **SMALL_PARTS)
    assert tiler.requests - requests <= 4
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_an_output_with_holes_shares_the_disk_with_what_its_next_run_needs(serve, tmp_path):
    tiler, output = serve(mood=hole), tmp_path / "out.tif"
    for number in range(2):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, max_failures=1, overwrite=number > 0, **SMALL_PARTS)
        (stitched,) = (tmp_path / "out.tif.work").glob("stitch-*.tif")
        assert stitched.samefile(output)
        assert not list((tmp_path / "out.tif.work" / "parts").rglob("?-?.tif"))


async def test_a_part_whose_hole_is_filled_is_never_taken_from_the_output_that_had_the_hole(
    serve, tmp_path, monkeypatch
):
    """A kill right after its record was written, and its file was lost: the tile that failed is requested again."""
    tiler, output = serve(mood=hole), tmp_path / "out.tif"
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, max_failures=1, **PARTS_OF_FOUR)
    tiler.mood, declare, left = None, PartFiles.declare, []

    def dying(files, part, record):
        declare(files, part, record)
        left.append(files.cog(part))
        raise OSError(5, "as a kill does")

    with monkeypatch.context() as patch:
        patch.setattr(PartFiles, "declare", dying)
        with pytest.raises(ResourceError):
            await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=True, **PARTS_OF_FOUR)
    left[0].unlink()
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=True, **PARTS_OF_FOUR)
    assert_is_the_world(output, tiler, AREA, ZOOM)


def counted():
    """Return the bytes that this process has read and written so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    numbers = {name: int(number) for name, number in (line.split(": ") for line in lines)}
    return np.array([numbers["rchar"], numbers["wchar"]])


async def test_after_the_last_part_is_sealed_little_more_than_that_part_is_copied(serve, tmp_path, monkeypatch):
    """Nine parts of noise: the last one is a ninth of the output, and the levels above the parts are a hundredth."""
    if not (can_insert(tmp_path) and Path("/proc/self/io").exists()):
        pytest.skip("bytes cannot be inserted, or not be counted, here")
    tiler, stitched, marks = serve(), [], []
    add, publish = Assembly.add, run.publish

    async def noise(tile, hit):
        while tile[1] >= 508 and tile[2] >= 408 and len(stitched) < 8:
            await asyncio.sleep(0.01)
        return await says(BODY, "application/x-binary")(tiler, tile)

    def noted(*args, **options):
        marks.append(counted())
        return publish(*args, **options)

    tiler.mood = noise
    monkeypatch.setattr(Assembly, "add", lambda *args: stitched.append(add(*args)))
    monkeypatch.setattr(run, "publish", noted)
    options = {"creation_options": {"BLOCKSIZE": "128"}, "part_size": 1024}
    report = await build_mosaic(
        tiler.template,
        area_of(12, 12),
        tmp_path / "out.tif",
        zoom=10,
        **options,
        on_event=lambda event: marks.append(counted()) if isinstance(event, PartSealed) else None,
    )
    assert report.parts_total == 9
    read, written = (marks[-1] - marks[-2]) / report.bytes_written
    assert 1 / 9 < written < 0.15
    assert 1 / 9 < read < 0.15
