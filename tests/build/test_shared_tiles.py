"""A tile at the edge of several parts has one fate: what one part was told holds for all, or the tile fails."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import IncompleteError, build_mosaic
from tests.build.test_not_found import not_found
from tests.fake_tiler import Pattern
from tests.test_api import AREA, ZOOM

SHARED, OF_ONE_PART = (7, 64, 48), (7, 65, 49)
"""Of the clipped output, whose parts begin inside of tiles."""
OPTIONS = {"zoom": ZOOM, "clip": True, "part_size": 512, "concurrency": 1}
pytestmark = pytest.mark.usefixtures("unblocked_loop")


def answers(*statuses: int, tile=SHARED):
    """Answer for the shared tile in turn, the last one for ever; 200 is the tile."""
    seen = 0

    async def mood(found, hit):
        nonlocal seen
        if found != tile:
            return None
        status = statuses[min(seen, len(statuses) - 1)]
        seen += 1
        return None if status == 200 else not_found() if status == 404 else web.Response(status=status)

    return mood


def valid_in(path, tiler, reference) -> tuple[int, int]:
    """Return how many pixels of the shared tile are valid, and how many may be; all others equal the reference."""
    with rasterio.open(path) as dataset, rasterio.open(reference) as whole:
        side = 2 * 20037508.342789244 / 2 ** SHARED[0]
        west, north = SHARED[1] * side - 20037508.342789244, 20037508.342789244 - SHARED[2] * side
        transform = dataset.transform
        row, col = (transform.f - north) / transform.a, (west - transform.c) / transform.a
        rows, cols = (slice(max(0, round(start)), round(start) + 256) for start in (row, col))
        valid, pixels = dataset.dataset_mask() > 0, dataset.read()
        np.testing.assert_array_equal(pixels[:, valid], whole.read()[:, valid])
        inside = np.zeros(valid.shape, bool)
        inside[rows, cols] = True
        assert valid[~inside].all()
        return int(valid[inside].sum()), int(inside.sum())


@pytest.fixture
async def clipped(serve, tmp_path):
    """Return a server, and a sound mosaic in which several parts need the shared tile."""
    tiler, reference = serve(pattern=Pattern(count=1, masked=False)), tmp_path / "reference.tif"
    report = await build_mosaic(tiler.template, AREA, reference, **OPTIONS)
    assert report.parts_total > 1
    tiler.hits.clear()
    return tiler, reference


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("statuses", "has_data"),
    [
        ([404, 404, 200], False),
        ([404, 404, 204], False),
        ([204, 200], False),
        ([404, 200, 404], True),
        ([200, 404], True),
    ],
)
async def test_one_answer_decides_for_all_parts_of_a_run(clipped, tmp_path, statuses, has_data):
    tiler, reference = clipped
    tiler.mood = answers(*statuses)
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", **OPTIONS)
    valid, total = valid_in(tmp_path / "out.tif", tiler, reference)
    assert valid == (total if has_data else 0)
    assert (report.tiles_empty, report.tiles_failed) == (not has_data, 0)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("statuses", "then", "outcome"),
    [
        ([404], [200], "empty"),
        ([204], [200], "empty"),
        ([200], [404, 200], "data"),
        ([200], [204, 200], "data"),
        ([200], [404], "failed"),
        ([200], [204], "failed"),
    ],
)
async def test_one_answer_decides_for_the_parts_of_a_later_run_too(clipped, tmp_path, statuses, then, outcome):
    """The first run leaves one of the four parts open, and then all that is kept of it is lost."""
    tiler, reference = clipped
    output, shared = tmp_path / "out.tif", answers(*statuses)

    async def mood(tile, hit):
        return web.Response(status=422) if tile == OF_ONE_PART else await shared(tile, hit)

    tiler.mood = mood
    with pytest.raises(IncompleteError, match="1 of"):
        await build_mosaic(tiler.template, AREA, output, **OPTIONS)
    for path in (tmp_path / "out.tif.work").rglob("1-1*"):
        path.unlink()
    tiler.mood = answers(*then)
    if outcome == "failed":
        with pytest.raises(IncompleteError, match="1 of"):
            await build_mosaic(tiler.template, AREA, output, **OPTIONS)
        assert not output.exists()
        return
    await build_mosaic(tiler.template, AREA, output, **OPTIONS)
    valid, total = valid_in(output, tiler, reference)
    assert valid == (total if outcome == "data" else 0)
