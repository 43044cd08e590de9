"""Shards that build the parts of one output leave the bytes that one run makes, however they end and overlap."""

from __future__ import annotations

import asyncio

import pytest

from mosaic_async import build_mosaic
from tests.build.test_stitching import SMALL_PARTS
from tests.test_api import AREA, ZOOM, left_behind

WHOLE = {"zoom": ZOOM, **SMALL_PARTS}


async def shards_of(tiler, output, count, numbers=None, **options):
    numbers = range(count) if numbers is None else numbers
    calls = [
        build_mosaic(tiler.template, AREA, output, shard=f"{number}/{count}", **WHOLE, **options) for number in numbers
    ]
    return await asyncio.gather(*calls)


@pytest.mark.parametrize("count", [1, 3, 7])
async def test_shards_then_a_run_make_the_bytes_of_one_run_with_no_further_request(serve, tmp_path, count):
    tiler, output = serve(), tmp_path / "out.tif"
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **WHOLE)
    before = tiler.requests
    reports = await shards_of(tiler, output, count)
    assert not output.exists()
    assert sum(report.parts_total for report in reports) == 16
    assert sum(report.tiles_total for report in reports) == sum(report.tiles_placed for report in reports) == 16
    assert 16 <= tiler.requests - before <= 16 + count  # each may look at the tile in the centre
    requests = tiler.requests
    report = await build_mosaic(tiler.template, AREA, output, **WHOLE)
    assert (report.parts_resumed, report.requests, tiler.requests) == (16, 0, requests)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert left_behind(tmp_path) == ["out.tif", "whole.tif"]
