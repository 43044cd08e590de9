"""Which scenes a mosaic is made of, and which its tiler could not read: over HTTP, into the report."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path

import mercantile
import pytest
from aiohttp import web

from mosaic_async import SceneSkipped, StoppedError, TileFetched, build_mosaic
from mosaic_async.build.failed_tiles import report_path
from mosaic_async.build.scene_tally import SHOWN, SceneTally
from mosaic_async.cli.terminal import report_text
from mosaic_async.events import zxy
from mosaic_async.tiler import local_tiler
from tests.cli.test_main import run
from tests.conftest import PARANA
from tests.fake_tiler import FakeTiler

pytestmark = pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid")  # rio-tiler: missing
AREA = (-55.0, -25.5, -54.4, -25.0)
OVERLAP = (-54.7, -25.48, -54.5, -25.3)
"""Both scenes are there in each tile."""


class Telling(FakeTiler):
    """A tiler that tells of scenes: one by the column, one by the row, and one that it cannot read."""

    async def _tile(self, request: web.Request) -> web.StreamResponse:
        answer = await super()._tile(request)
        x, y = request.match_info["x"], request.match_info["y"].partition(".")[0]
        if answer.status == 200:
            names = f"https://me:word@127.0.0.1/x{x}.json?sig=hidden,/data/y{y}.json"
            answer.headers["X-Assets"] = names
            answer.headers["X-Assets-Dates"] = f"2019-06-{int(x) % 28 + 1:02},"
            if int(x) % 2:
                answer.headers["X-Skipped-Assets"] = "/data/broken\u202e.json"
        return answer


async def test_the_report_counts_tiles_by_scene_as_the_embedded_tiler_tells(tmp_path):
    async with local_tiler(PARANA, bands=["B4"], tile_size=256, pixel_selection="median", workers=1) as source:
        report = await build_mosaic(source, AREA, tmp_path / "out.tif", zoom=11)
    days = {}
    for path in PARANA.rglob("*.json"):
        item = json.loads(path.read_text())
        if item["type"] == "Feature":
            days[str(path)] = item["properties"]["datetime"][:10]
    scenes = report.scenes
    assert {(one.name, one.day) for one in scenes.used} == set(days.items())
    assert (scenes.total, scenes.first, scenes.last) == (2, min(days.values()), max(days.values()))
    assert scenes.tiles == report.tiles_placed
    assert scenes.used[0].tiles >= scenes.used[1].tiles > 0
    assert sum(one.tiles for one in scenes.used) > scenes.tiles  # they overlap
    assert (scenes.lacking, scenes.skipped) == (0, ())
    assert f"2 scenes, {scenes.first} to {scenes.last}" in report_text(report)
    assert not report_path(report.output).exists()


def test_a_scene_that_cannot_be_read_is_told_once_and_stands_in_the_report_with_its_tiles(tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(PARANA, folder)
    broken = min(folder.rglob("*_B4.tif"))
    broken.write_bytes(broken.read_bytes()[:20_000])
    name = str(next(broken.parent.glob("*.json")))
    output = tmp_path / "out.tif"
    bounds = ("--bounds", *map(str, OVERLAP), "-z", 11, "--tile-size", 256)
    stdout, stderr = run("build", folder, output, *bounds, "--bands", "B4", "--pixel-selection", "median", "--json")
    report = json.loads(stdout)
    scenes = report["scenes"]
    assert [one["name"] for one in scenes["skipped"]] == [name]
    assert scenes["skipped"][0]["tiles"] == scenes["lacking"] > 1
    assert scenes["skipped_total"] == 1
    assert name not in {one["name"] for one in scenes["used"]}
    assert report["tiles_failed"] == 0
    assert stderr.count("skipped: ") == stderr.count(name) == 1, stderr
    assert json.loads(report_path(output).read_text())["scenes"] == scenes


async def test_names_are_shown_without_secrets_and_kept_when_a_run_goes_on(tmp_path):
    stop, told, asked = asyncio.Event(), [], Counter()

    def listen(event):
        if isinstance(event, SceneSkipped):
            told.append(event.scene)
        if isinstance(event, TileFetched):
            asked[zxy(event.tile)] += 1
            if len(asked) == 20:
                stop.set()

    options = {"zoom": 8, "concurrency": 4, "part_size": 512}
    area = (-4, 38, 4, 44)
    with Telling().running() as tiler:
        with pytest.raises(StoppedError) as stopped:
            await build_mosaic(tiler.template, area, tmp_path / "out.tif", stop=stop, on_event=listen, **options)
        report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", on_event=listen, **options)
    assert 0 < stopped.value.report.scenes.tiles < report.scenes.tiles == report.tiles_placed == len(asked)
    tiles = list(mercantile.tiles(*area, zooms=[8]))
    expected = Counter(f"https://127.0.0.1/x{tile.x}.json?sig=***" for tile in tiles)
    expected.update(f"/data/y{tile.y}.json" for tile in tiles)
    assert {one.name: one.tiles for one in report.scenes.used} == expected
    days = {one.day for one in report.scenes.used if one.name.startswith("https")}
    assert days == {f"2019-06-{tile.x % 28 + 1:02}" for tile in tiles}
    assert {one.day for one in report.scenes.used if one.name.startswith("/data")} == {None}
    assert told == ["/data/broken.json"]
    assert report.scenes.lacking == sum(tile.x % 2 for tile in tiles)
    text = report_text(report)
    assert f"warning: {report.scenes.lacking} tiles lack scenes that cannot be read: 1 in all" in text
    assert "hidden" not in json.dumps(report.as_dict()) + text + Path(report_path(report.output)).read_text()


def test_a_country_s_report_lists_the_most_frequent_scenes_and_counts_all():
    tally = SceneTally()
    for tile in range(3000):
        names = ",".join([f"s{tile}", f"s{tile // 2}"])
        tally.note({"X-Assets": names, "X-Assets-Dates": f"2014-{tile % 4 + 6:02}-21,x"})
    report = tally.report()
    assert (report.total, report.tiles, len(report.used)) == (3000, 3000, SHOWN)
    assert report.used[0].tiles == 3
    assert (report.first, report.last) == ("2014-06-21", "2014-09-21")
    again = SceneTally(json.loads(json.dumps(tally.as_dict())))
    assert again.report() == report
    for number in range(30_000):
        tally.note({"X-Skipped-Assets": f"b{number}"})
    assert (tally.report().lacking, tally.report().skipped_total) == (30_000, 20_000)
