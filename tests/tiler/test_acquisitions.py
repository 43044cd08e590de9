"""One acquisition counts once in means, medians and counts, however many items it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import mercantile
import numpy as np
import pytest

from mosaic_async import UsageError
from mosaic_async.tiler.pixels.acquisitions import grouped
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.scenes.scene import Scene
from tests.tiler.in_process import InProcessTiler
from tests.tiler.world import PLACE, write_item, write_raster

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
]
NOON = datetime(2022, 3, 1, 12, tzinfo=UTC)


def scene(name: str, seconds: float | None = 0, *, platform="sentinel-2a", longitude=0.0, **properties) -> Scene:
    taken = None if seconds is None else NOON + timedelta(seconds=seconds)
    bounds = (longitude - 1, 0, longitude + 1, 1)
    return Scene(name, {}, bounds, taken=taken, properties={"platform": platform, **properties}, id=name)


CASES = {
    "reprocessed": ([scene("N0301"), scene("N0400", 1)], [["N0400", "N0301"]]),
    "rows of one orbit": ([scene("a"), scene("b", 24), scene("c", 47)], [["c", "b", "a"]]),
    "two collections": ([scene("a"), scene("b", platform="Sentinel-2A")], [["b", "a"]]),
    "two satellites": ([scene("a"), scene("b", platform="sentinel-2b")], [["a"], ["b"]]),
    "two orbits": ([scene("a"), scene("b", 6000)], [["a"], ["b"]]),
    "another satellite between": (
        [scene("a"), scene("x", 5, platform="landsat-8"), scene("b", 10)],
        [["b", "a"], ["x"]],
    ),
    "one datatake": ([scene("a", **{"s2:datatake_id": 1}), scene("b", 90, **{"s2:datatake_id": 1})], [["b", "a"]]),
    "two datatakes": ([scene("a", **{"s2:datatake_id": 1}), scene("b", 9, **{"s2:datatake_id": 2})], [["a"], ["b"]]),
    "a month and its year": (
        [scene("a", datetime=None, end_datetime="2022-04-01"), scene("b", datetime=None, end_datetime="2023-03-01")],
        [["a"], ["b"]],
    ),
    "two versions of a month": (
        [scene("a", datetime=None, end_datetime="2022-04-01"), scene("b", datetime=None, end_datetime="2022-04-01")],
        [["b", "a"]],
    ),
    "two versions of a pass with an end": (
        [scene("a", datetime="2022-03-01", end_datetime="2022-03-01T12:00:10Z"), scene("b", 3, datetime="2022-03-01")],
        [["b", "a"]],
    ),
    "without dates": ([scene("a", None), scene("b", None)], [["a"], ["b"]]),
}


@pytest.mark.parametrize("case", CASES)
def test_scenes_of_one_acquisition_are_told_from_others(case):
    scenes, expected = CASES[case]
    assert [[one.name for one in group] for group in grouped(scenes, "acquisition")] == expected
    backwards = {tuple(one.name for one in group) for group in grouped(scenes[::-1], "acquisition")}
    assert backwards == {tuple(group) for group in expected}
    assert [[one.name for one in group] for group in grouped(scenes, "none")] == [[one.name] for one in scenes]


def test_a_day_is_the_sun_s(tmp_path):
    east = [scene("a", 11 * 3600, longitude=179), scene("b", 13 * 3600, longitude=179)]
    assert [len(group) for group in grouped(east, "day")] == [2]
    assert [len(group) for group in grouped([scene("a", 11 * 3600), scene("b", 13 * 3600)], "day")] == [1, 1]
    with pytest.raises(UsageError, match="cannot be grouped"):
        Selection.parse("median", group_by="month")


async def test_an_acquisition_counts_once_in_statistics_and_the_report_says_so(tmp_path):
    counts = {"a_N0301": 100, "a_N0500": 140, "b": 200, "c": 400}
    for place, (name, value) in enumerate(counts.items()):
        write_raster(tmp_path / f"{name}.tif", np.full((300, 300), value, "uint16"), nodata=0, shift=(4 * place, 0))
        moment = "2022-03-01T10:00:00Z" if name.startswith("a") else f"2022-03-1{place}T10:00:00Z"
        write_item(tmp_path / f"{name}.json", {"B4": {"href": f"{name}.tif"}}, platform="landsat-9", datetime=moment)
    tiler = InProcessTiler(tmp_path)
    tile = mercantile.tile(*PLACE, 12)
    expected = {
        ("median", "acquisition"): 200, ("mean", "acquisition"): 246, ("count", "acquisition"): 3,
        ("median", "none"): 170, ("count", "none"): 4, ("lowest", "acquisition"): 100, ("count", "day"): 3,
    }  # fmt: skip
    for (selection, group_by), value in expected.items():
        answer = await tiler.tile(tile, bands=["B4"], pixel_selection=selection, group_by=group_by)
        assert answer.pixels()[0][0, 128, 128] == value, (selection, group_by)
    answer = await tiler.tile(tile, bands=["B4"], pixel_selection="median")
    assert "counts once with 1 other of its acquisition" in answer.headers["x-assets-rules"]
    assert "a_N0500" in answer.headers["x-assets"]
