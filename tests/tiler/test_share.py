"""The memory of the tilers: their share, what plan and report say of it, and what the system says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import psutil
import pytest

from mosaic_async import build_mosaic, plan_mosaic
from mosaic_async.build.job import Effort
from mosaic_async.build.tree_memory import TreeMemory
from mosaic_async.sources.source import TileSource
from mosaic_async.tiler import local_tiler
from mosaic_async.tiler.share import Share
from tests.conftest import PARANA

MB = 2**20


@pytest.mark.parametrize("memory", [1, 100 * MB, 256 * MB, 500 * MB, 2**30, 2**33])
@pytest.mark.parametrize("workers", [None, 1, 3])
def test_processes_keep_within_their_share_down_to_the_least_that_one_needs(memory, workers):
    share = Share.of(memory, workers)
    assert share.total <= memory or share.each == 192 * MB
    assert share.processes == workers or 1 <= share.processes <= (os.cpu_count() or 1)
    assert share.each <= 512 * MB
    assert share.tiles * share.held + share.cache * MB <= share.each
    assert share.spare < share.each


def test_without_a_budget_processes_take_what_they_can_use():
    assert Share.of(None, 2) == Share(2, 512 * MB)
    assert Share.of(None, None).processes == os.cpu_count()


def test_no_more_requests_are_made_than_the_processes_of_a_source_take():
    source = TileSource(template="http://host/{z}/{x}/{y}", capacity=16)
    for given, expected in ((50, 16), ("auto", 16), (3, 3)):
        assert Effort(concurrency=given).towards(source).in_flight == expected
    effort = Effort(concurrency=50)
    assert effort.towards(TileSource(template="http://host/{z}/{x}/{y}")) is effort


def test_the_memory_of_a_tree_counts_children_and_shared_pages_once():
    code = "import sys; block = bytearray(60 * 2**20); print('ready', flush=True); sys.stdin.read()"
    tree = TreeMemory()
    this = psutil.Process()
    own = sum(process.memory_full_info().pss for process in (this, *this.children(recursive=True)))
    tree.look()
    alone = tree.peak
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        tree.look()
        child.stdin.close()
    assert alone == pytest.approx(own, rel=0.1)
    assert 60 * MB < tree.peak - alone < 90 * MB


async def test_a_system_that_does_not_tell_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr("mosaic_async.build.tree_memory._PROCESSES", tmp_path / "none")
    tree = TreeMemory()
    async with tree.watched(is_wanted=True):
        await asyncio.sleep(0.05)
    assert tree.peak == 0


def test_the_usual_memory_grows_with_the_scenes_up_to_the_share_and_counts_shared_pages_once():
    share = Share.of(512 * MB, 2)
    few, many = share.usual(files=1, held=MB), share.usual(files=10_000, held=2**40)
    assert few < many < share.total
    alone = Share(1, share.each)
    assert alone.usual(files=10_000, held=2**40) == share.each - 50 * MB
    assert many < 2 * alone.usual(files=10_000, held=2**40)


async def test_plan_and_report_count_the_tilers_and_the_system_agrees(tmp_path):
    area = (-55.0, -25.5, -54.3, -25.0)
    async with local_tiler(PARANA, bands=["B4", "B3"], pixel_selection="median", memory=400 * MB, workers=1) as source:
        assert source.memory == 400 * MB
        plan = await plan_mosaic(source, area, zoom=10)
        alone = await plan_mosaic(TileSource(template=source.template, tile_size=512), area, zoom=10)
        report = await build_mosaic(source, area, tmp_path / "out.tif", zoom=10)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        found = sum(process.memory_full_info().pss for process in processes)
    assert plan.memory - alone.memory == 400 * MB
    assert plan.usual_memory < plan.memory
    assert report.peak_memory == pytest.approx(found, rel=0.15)
    assert report.as_dict()["peak_memory"] > report.peak_rss * 0.5
