"""The benchmarks run, and their ratios are of what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile

from benchmarks.endpoint import endpoint
from benchmarks.job import Job
from benchmarks.laws import LAWS, luck_of
from benchmarks.measure import Measurement
from benchmarks.scale import Scale, table
from benchmarks.scenarios import FULL, TARGETS, ratio_of
from mosaic_async import build_mosaic, plan_mosaic
from mosaic_async.build.cost import head_bytes

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("tiles", [400, pytest.param(2500, marks=pytest.mark.slow)])
def test_very_many_tiles_are_measured_in_one_command(tiles):
    command = [sys.executable, "-m", "benchmarks.million", "--tiles", str(tiles)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100, check=True)
    found = json.loads(done.stdout)
    assert (found["tiles"], found["placed"]) == (tiles, tiles // 10)
    assert tiles <= found["requests"] <= tiles + 50  # one farewell per connection: empty tiles prove nothing
    assert found["peak_rss"] < 400 * 2**20


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
async def test_the_replay_server_counts_and_its_tiles_are_tiles(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with endpoint() as server:
        job = Job(
            template=server.template("tif"),
            output=tmp_path / "out.tif",
            columns=3,
            rows=2,
            concurrency=4,
            profile="zstd",
        )
        server.obey("failing")
        report = await build_mosaic(
            job.template, job.bounds, job.output, zoom=11, concurrency=job.concurrency, profile=job.profile
        )
        stats = server.stats()
    assert (report.width, report.height, report.tiles_placed) == (job.width, job.height, 6)
    assert (stats["tiles"], stats["requests"]) == (6, report.requests)
    assert stats["peak_in_flight"] <= 4


def test_laws_give_each_tile_the_same_luck_and_the_medians_they_are_named_for():
    lucks = sorted(luck_of(11, x, y) for x in range(60) for y in range(60))
    assert lucks == sorted(luck_of(11, x, y) for x in range(60) for y in range(60))
    assert LAWS["lognormal"].delay(lucks[len(lucks) // 2]) == pytest.approx(0.2, rel=0.05)
    slow = sum(LAWS["slow"].delay(luck) == 2.0 for luck in lucks) / len(lucks)
    assert slow == pytest.approx(0.05, abs=0.02)


def measurement(scenario, contestant, wall, rss=1) -> Measurement:
    return Measurement(
        scenario=scenario, contestant=contestant, turn=0, wall=wall, cpu=2 * wall, peak_rss=rss, requests=1,
        connections=1, peak_in_flight=1, tiles=1, size=1, stages={}, problem="", rss=[],
    )  # fmt: skip


def test_a_target_is_the_ratio_of_one_contestant_to_another_in_its_scenario():
    names = {scenario.name: scenario.contestants for scenario in FULL}
    for target in TARGETS:
        mine = (target.scenario, target.contestant)
        assert target.contestant in names[target.scenario]
        if target.over.startswith("@"):
            other = (target.over[1:], target.contestant)
            assert other[0] in names
            medians = {mine: measurement(*mine, 1, rss=3), other: measurement(*other, 1, rss=2)}
            assert ratio_of(target, medians) == 1.5
        else:
            other = (target.scenario, target.over)
            assert target.over in names[target.scenario]
            medians = {mine: measurement(*mine, 3), other: measurement(*other, 4)}
            assert ratio_of(target, medians) == 0.75
        assert ratio_of(target, {}) is None


def test_the_page_about_scale_has_the_table_that_the_constants_give():
    assert table() in (ROOT / "docs" / "scale.md").read_text()
    million = Scale(10**6)
    assert million.parts == 15_625
    assert million.hours(1) == pytest.approx(1e6 * 0.017 / 2 / 3600)


async def test_headers_of_one_file_are_as_large_as_estimated(serve, tmp_path):
    """Of all blocks, as tifffile finds their tables."""
    tiler, output = serve(), tmp_path / "out.tif"
    options = {"creation_options": {"BLOCKSIZE": "128", "BIGTIFF": "YES"}, "part_size": 256}
    report = await build_mosaic(tiler.template, (-4.0, 38.0, 4.0, 44.0), output, zoom=7, **options)
    with tifffile.TiffFile(output) as file:
        tables = [page.tags[code] for page in file.pages for code in (324, 325)]
        first = min(min(page.dataoffsets) for page in file.pages)
    entries = sum(len(tag.value) * (8 if tag.code == 324 else 4) for tag in tables)
    estimated = head_bytes(report.width, report.height, block_size=128, levels=3, images=2)
    assert entries < estimated <= first + 4096
    plan = await plan_mosaic(tiler.template, (-4.0, 38.0, 4.0, 44.0), zoom=7, **options)
    assert plan.head_bytes == estimated
    assert not plan.is_past_one_file
