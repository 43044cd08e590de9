"""404 is not always empty: a source that is gone says it of every tile, and a mosaic must not be empty for that."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import IncompleteError, SourceError, TileNotFound, TileParked, build_mosaic
from tests.fake_tiler import Pattern
from tests.moods import status
from tests.pairwise import quick_values
from tests.test_api import AREA, ZOOM, assert_is_the_world, expected, left_behind

EIGHT = (-10.0, 30.0, 10.0, 47.0)
"""8 x 8 tiles at zoom 7."""
GONE = json.dumps({"detail": "SearchId 5ec2a1 not found"}).encode()
pytestmark = pytest.mark.usefixtures("unblocked_loop")


def not_found(body: bytes = b"") -> web.Response:
    return web.Response(status=404, body=body, content_type="application/json" if body else "text/plain")


def gone_after(count: int, until: float = float("inf"), body: bytes = b""):
    """Answer 404 to everything after so many requests, and as usual again after `until` of them."""
    seen = 0

    async def mood(tile, hit):
        nonlocal seen
        seen += 1
        return not_found(body) if count < seen <= until else None

    return mood


def never(*tiles):
    async def mood(tile, hit):
        return not_found() if tile in tiles else None

    return mood


OPTIONS = [{}, {"part_size": 512}, {"part_size": 512, "concurrency": 4}]


@pytest.mark.quick(2)
@pytest.mark.parametrize(("body", "options"), quick_values(product([b"", GONE], OPTIONS)))
async def test_a_source_that_is_gone_ends_the_run_and_nothing_is_lost(serve, tmp_path, body, options):
    tiler, output = serve(pattern=Pattern(count=1)), tmp_path / "out.tif"
    tiler.mood = gone_after(20, body=body)
    with pytest.raises(SourceError, match="the source is gone") as error:
        await build_mosaic(tiler.template, EIGHT, output, zoom=ZOOM, **options)
    assert error.value.exit_code == 4
    assert "HTTP 404" in error.value.message
    assert not body or "SearchId 5ec2a1 not found" in error.value.message
    assert not output.exists()
    before = tiler.requests
    tiler.mood = None
    tiler.hits.clear()
    report = await build_mosaic(tiler.template, EIGHT, output, zoom=ZOOM, **options)
    assert report.tiles_placed == report.tiles_total == 64
    assert before <= 20 + 64 + 1 + 4
    assert tiler.requests == 44
    assert_is_the_world(output, tiler, EIGHT, ZOOM)


@pytest.mark.quick(2)
@pytest.mark.parametrize(("burst", "options"), quick_values(product([(20, 40), (1, 30), (40, 64), (33, 34)], OPTIONS)))
async def test_a_burst_of_404_that_passes_leaves_no_hole(serve, tmp_path, burst, options):
    tiler = serve(pattern=Pattern(count=1))
    tiler.mood = gone_after(burst[0], until=burst[1])
    report = await build_mosaic(tiler.template, EIGHT, tmp_path / "out.tif", zoom=ZOOM, **options)
    assert (report.tiles_placed, report.tiles_not_found) == (64, 0)
    assert_is_the_world(tmp_path / "out.tif", tiler, EIGHT, ZOOM)


SEA = [(7, 63, 47), (7, 62, 48), (7, 65, 46)]
EMPTY = (7, 64, 49)


@pytest.mark.quick(2)
@pytest.mark.parametrize("options", [{}, {"part_size": 512}, {"part_size": 512, "on_error": "fail"}])
async def test_tiles_that_are_not_found_twice_are_empty_and_counted_apart(serve, tmp_path, options):
    tiler, seen = serve(pattern=Pattern(masked=False)), []

    async def mood(tile, hit):
        return not_found() if tile in SEA else web.Response(status=204) if tile == EMPTY else None

    tiler.mood = mood
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, on_event=seen.append, **options)
    assert (report.tiles_placed, report.tiles_empty, report.tiles_not_found, report.tiles_failed) == (12, 4, 3, 0)
    assert report.as_dict()["tiles_not_found"] == 3
    assert all(tiler.hits[tile] >= 2 for tile in SEA)  # the probe may look at one, and a connection is proved by one
    assert sum(tiler.hits.values()) <= 16 + 3 + 16
    assert tiler.hits[EMPTY] in (1, 2)
    assert {event.tile for event in seen if isinstance(event, TileNotFound)} == {(x, y, z) for z, x, y in SEA}
    assert {event.tile for event in seen if isinstance(event, TileParked)} == {(x, y, z) for z, x, y in SEA}
    pixels, valid, (left, top) = expected(tiler.pattern, AREA, ZOOM, 256)
    for _, x, y in (*SEA, EMPTY):
        valid[(y - top) * 256 : (y - top + 1) * 256, (x - left) * 256 : (x - left + 1) * 256] = False
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(dataset.read()[:, valid], pixels[:, valid])
        assert dataset.tags()["MOSAIC_TILES_NOT_FOUND"] == "3"
    assert left_behind(tmp_path) == ["out.tif"]


async def test_tiles_that_are_not_found_can_fail(serve, tmp_path):
    tiler, output = serve(pattern=Pattern(masked=False)), tmp_path / "out.tif"
    tiler.mood = never(*SEA)
    with pytest.raises(IncompleteError, match="3 of 16") as error:
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, not_found="fail")
    report = error.value.report
    assert {failure.status for failure in report.failed} == {404}
    assert (report.tiles_failed, report.tiles_not_found, report.tiles_empty) == (3, 0, 0)
    tiler.mood = None
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, not_found="fail")
    assert set(tiler.hits) == set(SEA)
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_a_long_row_of_404_ends_the_run_before_every_tile_is_requested(serve, tmp_path):
    area = (-45.0, 10.0, 44.0, 60.0)
    tiler = serve(pattern=Pattern(count=1), tile_size=128)
    tiler.mood = gone_after(30)
    with pytest.raises(SourceError, match="the source is gone"):
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, concurrency=4)
    assert tiler.requests < 120


@pytest.mark.quick(2)
@pytest.mark.parametrize("options", [{"part_size": 512}, {"part_size": 512, "concurrency": 2}, {}])
async def test_a_source_that_goes_during_the_second_look_is_not_believed(serve, tmp_path, options):
    """A tile is missing twice, but the second time all others are missing as well."""
    tiler, output = serve(pattern=Pattern(masked=False)), tmp_path / "out.tif"
    is_gone = False

    async def mood(tile, hit):
        nonlocal is_gone
        is_gone |= tile in SEA and hit >= 2
        return not_found() if is_gone or tile in SEA else None

    tiler.mood = mood
    with pytest.raises(SourceError, match="the source is gone"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **options)
    tiler.mood = None
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **options)
    assert (report.tiles_placed, report.tiles_not_found) == (16, 0)
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.parametrize("clip", [False, True])
async def test_a_search_that_expires_between_two_runs_is_found_out(serve, tmp_path, clip):
    tiler, output = serve(pattern=Pattern(count=1)), tmp_path / "out.tif"
    options = {"zoom": ZOOM, "part_size": 512, "clip": clip}

    async def one_fails(tile, hit):
        return web.Response(status=422) if tile == (7, 64, 49) else None

    tiler.mood = one_fails
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, EIGHT, output, **options)
    tiler.mood = gone_after(0, body=GONE)
    with pytest.raises(SourceError, match="SearchId 5ec2a1 not found"):
        await build_mosaic(tiler.template, EIGHT, output, **options)
    assert not output.exists()
    tiler.mood = None
    report = await build_mosaic(tiler.template, EIGHT, output, **options)
    assert report.tiles_placed == report.tiles_total


async def test_where_the_source_cannot_be_asked_nothing_is_believed(serve, tmp_path):
    tiler, output = serve(pattern=Pattern(count=1)), tmp_path / "out.tif"
    answers = gone_after(20)

    async def mood(tile, hit):
        return await answers(tile, hit) if hit == 1 else await status(422)(tiler, tile)

    tiler.mood = mood
    with pytest.raises(SourceError, match="cannot be fetched again: HTTP 422"):
        await build_mosaic(tiler.template, EIGHT, output, zoom=ZOOM)
    assert not output.exists()
