"""Shards that build the parts of one output leave the bytes that one run makes, however they end and overlap."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time

import pytest
from click.testing import CliRunner

from mosaic_async import IncompleteError, SourceError, StoppedError, UsageError, WorkFolderError, build_mosaic
from mosaic_async.build.shard import Shard
from mosaic_async.cli.main import main
from tests.build.test_scene_tally import Telling
from tests.build.test_stitching import SMALL_PARTS
from tests.forks import server
from tests.moods import at, status
from tests.test_api import AREA, BAD, ZOOM, left_behind

WHOLE = {"zoom": ZOOM, **SMALL_PARTS}


def shard_of(tiler, output, shard, area=AREA, **options):
    return build_mosaic(tiler.template, area, output, shard=shard, **{**WHOLE, **options})


async def shards_of(tiler, output, *shards, **options):
    return await asyncio.gather(*(shard_of(tiler, output, shard, **options) for shard in shards))


async def finished(tiler, output, area=AREA, **options):
    """Return what a run without a shard makes of what shards have left, and the bytes that one run alone makes."""
    report = await build_mosaic(tiler.template, area, output, **{**WHOLE, **options})
    alone = output.with_name("alone.tif")
    await build_mosaic(tiler.template, area, alone, **{**WHOLE, **options})
    assert output.read_bytes() == alone.read_bytes()
    assert left_behind(output.parent) == ["alone.tif", output.name]
    return report


@pytest.mark.parametrize(("count", "ext"), [(1, "tif"), (3, "png"), (7, "tif")])
async def test_shards_then_a_run_make_the_bytes_of_one_run_with_no_further_request(serve, tmp_path, count, ext):
    tiler, output = serve(ext=ext), tmp_path / "out.tif"
    reports = await shards_of(tiler, output, *(f"{number}/{count}" for number in range(count)))
    assert not output.exists()
    assert sum(report.parts_total for report in reports) == 16
    assert sum(report.tiles_total for report in reports) == sum(report.tiles_placed for report in reports) == 16
    assert tiler.hits.total() - count <= 16 or ext == "png"  # each looks at the tile in the centre
    assert not any((tmp_path / "out.tif.work" / "shards").iterdir())
    requests = tiler.requests
    report = await build_mosaic(tiler.template, AREA, output, **WHOLE)
    assert (report.parts_resumed, report.requests, tiler.requests) == (16, 0, requests)
    await build_mosaic(tiler.template, AREA, tmp_path / "alone.tif", **WHOLE)
    assert output.read_bytes() == (tmp_path / "alone.tif").read_bytes()
    assert left_behind(tmp_path) == ["alone.tif", "out.tif"]


@pytest.mark.slow
async def test_a_share_is_built_once_a_machine_and_twice_on_two_with_the_same_bytes(serve, tmp_path, monkeypatch):
    tiler, output = serve(latency=0.1), tmp_path / "out.tif"
    twice = await asyncio.gather(shard_of(tiler, output, "1/3"), shard_of(tiler, output, "1/3"), return_exceptions=True)
    assert sorted(isinstance(one, WorkFolderError) for one in twice) == [False, True]
    hosts = iter(["a.b", "c", "d"])
    monkeypatch.setattr(socket, "gethostname", lambda: next(hosts))
    reports = await shards_of(tiler, output, "0/3", "0/3")
    assert {report.tiles_placed for report in reports} == {5}
    again = await shard_of(tiler, output, "1/3")
    assert (again.parts_resumed, again.requests) == (again.parts_total, 0)
    assert (await finished(tiler, output)).parts_resumed == 10


async def test_a_run_and_shards_do_not_use_the_folder_at_the_same_time(serve, tmp_path):
    tiler, output = serve(latency=0.2), tmp_path / "out.tif"
    shard = asyncio.create_task(shard_of(tiler, output, "0/2"))
    while not tiler.requests:
        await asyncio.sleep(0.01)
    with pytest.raises(WorkFolderError, match="in use"):
        await build_mosaic(tiler.template, AREA, output, **WHOLE)
    with pytest.raises(WorkFolderError, match="in use"):
        await build_mosaic(tiler.template, AREA, output, **WHOLE, resume=False)
    await shard
    with pytest.raises(WorkFolderError, match="another job"):
        await shard_of(tiler, output, "1/2", profile="zstd")
    run = asyncio.create_task(build_mosaic(tiler.template, AREA, output, **WHOLE))
    requests = tiler.requests
    while tiler.requests == requests:
        await asyncio.sleep(0.01)
    with pytest.raises(WorkFolderError, match="in use"):
        await shard_of(tiler, output, "1/2")
    assert (await run).parts_resumed == 8


async def test_a_shard_that_ends_early_resumes_with_what_it_has(serve, tmp_path):
    tiler, output, stop = serve(latency=0.02), tmp_path / "out.tif", asyncio.Event()
    tiler.mood = at(tiler, (8, 1, 1), status(500))

    def stopping(event):
        if type(event).__name__ == "PartSealed":
            stop.set()

    with pytest.raises(StoppedError, match="of 8 parts of shard 1/2"):
        await shard_of(tiler, output, "1/2", concurrency=2, stop=stop, on_event=stopping)
    before = tiler.hits.copy()
    report = await shard_of(tiler, output, "1/2")
    assert 0 < report.parts_resumed < 8
    assert report.requests < 8
    assert max((tiler.hits - before).values()) == 1
    assert (await finished(tiler, output)).parts_resumed == 8


async def test_only_the_tiles_that_a_shard_lacks_are_requested_again_by_it_and_by_the_run(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = at(tiler, BAD, status(500), times=99)
    failing = []
    for shard in ("0/2", "1/2"):
        try:
            await shard_of(tiler, output, shard)
        except IncompleteError as error:
            failing.append((shard, error))
    ((shard, error),) = failing
    assert "re-run" in error.hint
    assert [(f"{z}/{x}/{y}") for x, y, z in [error.report.failed[0].tile]] == ["7/{1}/{2}".format(*BAD)]
    before = tiler.hits.copy()
    with pytest.raises(IncompleteError):
        await shard_of(tiler, output, shard)
    assert set(tiler.hits - before) == {BAD}
    tiler.mood = None
    before = tiler.hits.copy()
    report = await build_mosaic(tiler.template, AREA, output, **WHOLE)
    assert (tiler.hits - before, report.parts_resumed, report.tiles_placed) == ({BAD: 1}, 15, 16)
    await build_mosaic(tiler.template, AREA, tmp_path / "alone.tif", **WHOLE)
    assert output.read_bytes() == (tmp_path / "alone.tif").read_bytes()


async def test_the_report_of_the_run_counts_what_shards_have_seen(serve, tmp_path):
    output = tmp_path / "out.tif"
    with Telling().running() as tiler:
        await shards_of(tiler, output, "0/3", "2/3")
        report = await build_mosaic(tiler.template, AREA, output, **WHOLE)
        alone = await build_mosaic(tiler.template, AREA, tmp_path / "alone.tif", **WHOLE)
    assert report.scenes == alone.scenes
    assert report.scenes.tiles == 16
    assert report.averaged_values == alone.averaged_values


CUT = {"clip": True, "creation_options": {"BLOCKSIZE": "128"}, "part_size": 256}
CUT_AREA = (-3.3, 38.3, 3.7, 43.1)


async def test_a_tile_that_one_shard_found_and_another_did_not_is_requested_once_more_by_the_run(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    await shard_of(tiler, output, "0/2", CUT_AREA, **CUT)
    found = list(tiler.hits)[1:]

    async def forgetting(tile, hit):
        return await status(404)(tiler, tile) if tile in found else None

    tiler.mood = forgetting
    before = tiler.hits.copy()
    await shard_of(tiler, output, "1/2", CUT_AREA, **CUT)
    disputed = set(found) & set(tiler.hits - before)
    assert disputed
    tiler.mood = None
    before = tiler.hits.copy()
    await build_mosaic(tiler.template, CUT_AREA, output, **WHOLE | CUT)
    assert disputed <= set(tiler.hits - before)
    await build_mosaic(tiler.template, CUT_AREA, tmp_path / "alone.tif", **WHOLE | CUT)
    assert output.read_bytes() == (tmp_path / "alone.tif").read_bytes()


async def test_a_shard_of_tiles_that_are_not_found_checks_the_tile_that_another_shard_has_had(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    await shard_of(tiler, output, "0/4")
    first = next(iter(tiler.hits))

    async def gone(tile, hit):
        return await status(404)(tiler, tile)

    async def forgetting(tile, hit):
        return None if tile == first else await gone(tile, hit)

    tiler.mood = gone
    with pytest.raises(SourceError, match="source is gone"):
        await shard_of(tiler, output, "3/4")
    tiler.mood = forgetting
    report = await shard_of(tiler, output, "3/4")
    assert (report.tiles_not_found, report.parts_resumed) == (4, 0)


def test_a_share_is_written_as_its_number_and_their_number():
    assert str(Shard.parse(" 2 / 7 ")) == "2/7"
    for wrong in ("7/7", "1", "a/b", "-1/2", "0/0"):
        with pytest.raises(UsageError, match="not a share"):
            Shard.parse(wrong)


async def test_a_shard_does_not_start_over(tmp_path):
    with pytest.raises(UsageError, match="start over"):
        await build_mosaic("http://127.0.0.1:9/{z}/{x}/{y}.tif", AREA, tmp_path / "o.tif", shard="0/2", resume=False)


def test_a_killed_shard_is_repeated_and_the_command_without_one_stitches(serve, tmp_path):
    tiler, output = serve(latency=0.1), tmp_path / "out.tif"
    args = ("build", tiler.template, output, "--bounds", "-4", "38", "4", "44", "-z", ZOOM, "-c", 2)
    args += ("--co", "BLOCKSIZE=128", "--part-size", 256)
    named = {**os.environ, "MOSAIC_ASYNC_SHARD": "1/3"}
    processes = [server().start(args, env=named), server().start((*args, "--shard", "0/3"))]
    while tiler.requests < 8:
        time.sleep(0.01)
    processes[0].kill()
    for process in processes:
        process.wait()
    assert [process.returncode for process in processes] == [-signal.SIGKILL, 0]
    for shard in ("1/3", "2/3"):
        with server().start((*args, "--shard", shard)) as process:
            stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr
        assert stdout.startswith(f"shard {shard} of {output}: ")
    assert not output.exists()
    before = tiler.requests
    with server().start(args) as process:
        assert process.wait() == 0
    assert tiler.requests == before
    assert tiler.requests <= 16 + 3 + 2  # each looks at the tile in the centre, and the killed one had two under way
    CliRunner().invoke(main, [*map(str, args[:2]), str(tmp_path / "alone.tif"), *map(str, args[3:])])
    assert output.read_bytes() == (tmp_path / "alone.tif").read_bytes()
    assert left_behind(tmp_path) == ["alone.tif", "out.tif"]


def _no_links(*_, **__):
    raise OSError(errno.EPERM, "no second names here")


@pytest.mark.slow
async def test_where_the_file_system_has_no_links_files_are_copied_and_the_first_layout_still_wins(
    serve, tmp_path, monkeypatch
):
    tiler, output = serve(), tmp_path / "out.tif"
    monkeypatch.setattr(os, "link", _no_links)
    reports = await shards_of(tiler, output, "0/2", "1/2")
    assert [report.parts_total for report in reports] == [8, 8]
    assert (await finished(tiler, output)).parts_resumed == 16


@pytest.mark.slow
async def test_a_published_part_that_is_damaged_is_built_again_by_its_shard(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    await shard_of(tiler, output, "0/2")
    path = min((tmp_path / "out.tif.work" / "parts").rglob("*[0-9].tif"))
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    report = await shard_of(tiler, output, "0/2")
    assert (report.parts_resumed, report.requests) == (7, 1)
    assert (await finished(tiler, output)).parts_resumed == 8


async def test_an_output_of_one_part_is_the_part_that_the_shard_with_it_has_made(serve, tmp_path):
    tiler, output, options = serve(), tmp_path / "out.tif", {"part_size": None, "creation_options": None}
    reports = await shards_of(tiler, output, "0/2", "1/2", **options)
    assert sorted(report.parts_total for report in reports) == [0, 1]
    assert (await finished(tiler, output, **options)).requests == 0


@pytest.mark.slow
async def test_the_cogs_of_a_collection_are_those_of_one_run(serve, tmp_path):
    tiler, options = serve(), {"part_size": 512, "collection": True, "creation_options": {"BLOCKSIZE": "128"}}
    await shards_of(tiler, tmp_path / "out", "0/2", "1/2", **options)
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out", **WHOLE | options)
    await build_mosaic(tiler.template, AREA, tmp_path / "alone", **WHOLE | options)
    made, alone = ({path.name: path for path in (tmp_path / name).rglob("*.tif")} for name in ("out", "alone"))
    assert report.requests == 0
    assert len(made) == 4
    assert all(alone[name].read_bytes() == path.read_bytes() for name, path in made.items())
