"""A run against a server in any mood: a right mosaic, or everything kept and a precise account of what is missing."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import random
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import aiohttp
import mercantile
import numpy as np
import pytest
import rasterio
from aiohttp import web

import mosaic_async.build.run_client
from mosaic_async import (
    IncompleteError,
    PieceDropped,
    ResourceError,
    RunStarted,
    ServerTrouble,
    SourceError,
    StitchError,
    StoppedError,
    TileFailed,
    TileParked,
    TilePlaced,
    TileRetried,
    UsageError,
    WorkFolderError,
    build_mosaic,
)
from mosaic_async.build.preflight import check_room
from mosaic_async.cli.progress import Progress
from mosaic_async.http.client import Client, Clock
from tests.build.spool_reader import spooled
from tests.fake_tiler import FakeTiler, Pattern
from tests.moods import BAD_BODIES, PASSING, Reset, at, cut_body, hang, now_and_then, reset, says, status, truncated
from tests.test_api import AREA, BAD, ZOOM, assert_is_the_world, expected, left_behind

pytestmark = pytest.mark.usefixtures("unblocked_loop")


@pytest.fixture
def fast(monkeypatch):
    """Have clients sleep a hundredth of the time, by a clock that is a hundred times as fast."""
    clock = Clock(now=lambda: time.monotonic() * 100, sleep=lambda seconds: asyncio.sleep(seconds / 100))
    client = functools.partial(Client, clock=clock)
    monkeypatch.setattr(mosaic_async.build.run_client, "Client", client)


@pytest.mark.quick(7)
@pytest.mark.parametrize("mood", PASSING)
async def test_trouble_that_passes_is_outlived(serve, tmp_path, fast, mood):
    tiler = serve()
    tiler.mood = at(tiler, BAD, PASSING[mood])
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, timeout=1.0)
    assert tiler.hits[BAD] >= 2
    assert report.tiles_placed == 16
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


@pytest.mark.quick(4)
@pytest.mark.parametrize("mood", BAD_BODIES)
async def test_a_body_that_is_not_the_tile_is_asked_for_once_more(serve, tmp_path, fast, mood):
    tiler = serve()
    tiler.mood = at(tiler, BAD, BAD_BODIES[mood])
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert tiler.hits[BAD] == 2
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


@pytest.mark.quick(4)
@pytest.mark.parametrize("mood", BAD_BODIES)
async def test_a_body_that_is_not_the_tile_twice_fails_its_tile_and_no_other(serve, tmp_path, fast, mood):
    tiler = serve()
    tiler.mood = at(tiler, BAD, BAD_BODIES[mood], times=99)
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    (failure,) = error.value.report.failed
    hits = 4 if failure.is_passing else 2  # a page is parked, and requested again at the end
    assert failure.is_passing == (mood in {"a page", "JSON", "a page that says it is a tile"})
    assert (failure.tile, failure.attempts, tiler.hits[BAD]) == (mercantile.Tile(64, 49, 7), 2, hits)
    assert tiler.requests == 15 + hits


async def test_a_single_attempt_is_a_single_attempt_whatever_is_wrong(serve, tmp_path, fast):
    tiler = serve()
    tiler.mood = at(tiler, BAD, truncated)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, attempts=1)
    assert tiler.hits[BAD] == 1


async def test_a_tile_whose_attempts_are_used_up_is_asked_for_once_more_at_the_end(serve, tmp_path, fast):
    tiler = serve()
    tiler.mood = at(tiler, BAD, status(503), times=5)
    events = []
    report = await build_mosaic(
        tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, part_size=512, on_event=events.append
    )
    assert tiler.hits[BAD] == 6
    assert sum(tiler.hits.values()) == 16 + 5
    assert [event.tile for event in events if isinstance(event, TileParked)] == [mercantile.Tile(64, 49, 7)]
    assert not any(isinstance(event, TileFailed) for event in events)
    placed = [event.tile for event in events if isinstance(event, TilePlaced)]
    assert len(placed) == len(set(placed)) == report.tiles_placed == 16
    assert report.retried == {"HTTP 503 Service Unavailable": 4}
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert left_behind(tmp_path) == ["out.tif"]


async def test_a_parked_tile_of_several_parts_is_asked_for_once_more_and_counted_once(serve, tmp_path, fast):
    tiler = serve()
    area = (-3.3, 38.5, 8.7, 46.1)
    tiler.mood = at(tiler, BAD, status(503), times=5)
    options = {"zoom": ZOOM, "clip": True, "part_size": 512}
    report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", **options)
    assert tiler.hits[BAD] == 6
    assert report.tiles_placed == report.tiles_total
    tiler.mood = None
    await build_mosaic(tiler.template, area, tmp_path / "calm.tif", **options)
    with rasterio.open(tmp_path / "out.tif") as found, rasterio.open(tmp_path / "calm.tif") as calm:
        np.testing.assert_array_equal(found.read(), calm.read())


async def test_with_on_error_fail_the_first_failure_ends_the_run_and_keeps_the_rest(serve, tmp_path, fast):
    area = (-15.0, 20.0, 25.0, 50.0)
    tiler = serve(pattern=Pattern(count=1), latency=0.01, tile_size=128)
    tiler.mood = at(tiler, (7, 58, 44), status(422), times=99)
    options = {"zoom": ZOOM, "concurrency": 4, "part_size": 1024}
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", on_error="fail", **options)
    assert error.value.report.tiles_failed == 1
    assert tiler.requests < error.value.report.tiles_total / 2
    tiler.mood = None
    tiler.hits.clear()
    report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", **options)
    assert report.requests == tiler.requests < report.tiles_total
    assert_is_the_world(tmp_path / "out.tif", tiler, area, ZOOM)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "options", [{"on_error": "nodata"}, {"max_failures": "25%"}, {"max_failures": 4}, {"max_failures": " 30.5 % "}]
)
async def test_holes_that_are_accepted_are_masked_listed_and_tagged(serve, tmp_path, fast, options):
    tiler = serve(pattern=Pattern(masked=False))

    async def column(tile, hit):
        return web.Response(status=504) if tile[1] == 64 else None

    tiler.mood = column
    options = {"part_size": 512, **options}
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, attempts=2, **options)
    assert (report.tiles_failed, report.tiles_placed) == (4, 12)
    _, valid, (left, _) = expected(tiler.pattern, AREA, ZOOM, 256)
    valid[:, (64 - left) * 256 : (65 - left) * 256] = False
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        assert dataset.tags()["MOSAIC_TILES_FAILED"] == "4"
    listed = json.loads((tmp_path / "out.tif.report.json").read_text())
    missing = {tile for tile in mercantile.tiles(*AREA, zooms=[ZOOM]) if tile.x == 64}
    assert {failure["tile"] for failure in listed["failed"]} == {f"7/{tile.x}/{tile.y}" for tile in missing}
    assert {(failure["status"], failure["attempts"]) for failure in listed["failed"]} == {(504, 2)}


@pytest.mark.quick(2)
@pytest.mark.parametrize("options", [{"part_size": 512}, {}, {"clip": True, "part_size": 512}])
async def test_holes_are_filled_by_asking_for_nothing_but_the_tiles_that_failed(serve, tmp_path, fast, options):
    tiler, output = serve(pattern=Pattern(masked=False)), tmp_path / "out.tif"
    tiler.mood = at(tiler, BAD, status(422), times=99)
    options = {"zoom": ZOOM, "max_failures": 1, **options}
    await build_mosaic(tiler.template, AREA, output, **options)
    assert left_behind(tmp_path) == ["out.tif", "out.tif.report.json", "out.tif.work"]
    (feature,) = json.loads((tmp_path / "out.tif.work" / "failed.geojson").read_text())["features"]
    assert feature["id"] == "7/64/49"
    holed = output.read_bytes()
    with pytest.raises(UsageError, match=r"set `overwrite`; tiles in out.tif.work are not requested again"):
        await build_mosaic(tiler.template, AREA, output, **options)
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, output, overwrite=True, **options)  # it fails again
    assert dict(tiler.hits) == {BAD: 1}
    with rasterio.open(output) as dataset:
        assert dataset.tags()["MOSAIC_TILES_FAILED"] == "1"
    tiler.hits.clear()
    tiler.mood = None
    with pytest.raises(WorkFolderError):  # the list alone is another job, and would take the mosaic's place
        await build_mosaic(tiler.template, feature, output, zoom=ZOOM, overwrite=True)
    assert len(output.read_bytes()) == len(holed)
    report = await build_mosaic(tiler.template, AREA, output, overwrite=True, **options)
    assert dict(tiler.hits) == {BAD: 1}
    assert (report.tiles_placed, report.tiles_failed, report.requests) == (report.tiles_total, 0, 1)
    assert left_behind(tmp_path) == ["out.tif"]
    await build_mosaic(tiler.template, AREA, tmp_path / "calm.tif", **options)
    with rasterio.open(output) as found, rasterio.open(tmp_path / "calm.tif") as calm:
        np.testing.assert_array_equal(found.read(), calm.read())
        np.testing.assert_array_equal(found.dataset_mask(), calm.dataset_mask())
        assert found.tags()["MOSAIC_TILES_FAILED"] == "0"


@pytest.mark.parametrize("value", [-1, "-1%", "101%", "some", "1.5", "nan%"])
async def test_a_number_of_failures_that_cannot_be_is_a_usage_error(tmp_path, value):
    with pytest.raises(UsageError, match="max_failures"):
        await build_mosaic("http://h/{z}/{x}/{y}", AREA, tmp_path / "out.tif", zoom=3, max_failures=value)


async def test_what_is_missing_is_a_geojson_of_footprints_and_goes_when_nothing_is(serve, tmp_path, fast):
    tiler = serve()
    tiler.mood = at(tiler, BAD, status(422, b'{"detail": "no band"}', Content_Type="application/json"), times=99)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template + "?token=hunter2", AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert left_behind(tmp_path) == ["out.tif.report.json", "out.tif.work"]
    (feature,) = json.loads((tmp_path / "out.tif.work" / "failed.geojson").read_text())["features"]
    assert feature["properties"] == {
        "tile": "7/64/49",
        "reason": "HTTP 422 Unprocessable Entity: no band",
        "status": 422,
        "attempts": 1,
        "url": f"{tiler.url}/7/64/49.tif?token=***",
    }
    ring = np.array(feature["geometry"]["coordinates"][0])
    bounds = mercantile.bounds(64, 49, 7)
    assert (*ring.min(axis=0), *ring.max(axis=0)) == pytest.approx(bounds)
    tiler.mood = None
    await build_mosaic(tiler.template + "?token=hunter2", AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert left_behind(tmp_path) == ["out.tif"]


async def test_a_token_that_expires_on_the_way_ends_the_run_and_a_new_one_goes_on(serve, tmp_path, fast):
    area = (-15.0, 20.0, 25.0, 50.0)
    tiler = serve(pattern=Pattern(count=1), tile_size=128)
    valid = ["old"]

    async def guard(tile, hit):
        if tiler.requests > 60:
            valid[0] = "new"
        return None if tiler.headers_seen[-1]["X-Token"] == valid[0] else web.Response(status=401)

    tiler.mood = guard
    options = {"zoom": ZOOM, "concurrency": 4, "part_size": 1024}
    with pytest.raises(SourceError, match="refuses: HTTP 401") as error:
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", headers={"X-Token": "old"}, **options)
    assert error.value.exit_code == 4
    assert tiler.requests < 60 + 10
    tiler.hits.clear()
    tiler.mood = None
    report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", headers={"X-Token": "new"}, **options)
    assert tiler.requests < report.tiles_total - 40
    assert_is_the_world(tmp_path / "out.tif", tiler, area, ZOOM)


async def test_nearly_nothing_but_404_is_a_wrong_url_and_no_empty_mosaic(serve, tmp_path, fast):
    async def mood(tile, hit):
        return web.Response(status=204 if tile == (7, 63, 48) else 404)

    tiler = serve(mood=mood)
    with pytest.raises(SourceError, match="404") as error:
        await build_mosaic(tiler.template, (-60, 0, 60, 60), tmp_path / "out.tif", zoom=ZOOM)
    assert error.value.exit_code == 4
    assert tiler.requests < 64
    assert left_behind(tmp_path) == []


async def test_a_host_that_has_no_name_ends_the_run_with_words_of_that(tmp_path, fast, monkeypatch):
    def look_up(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(SourceError, match="the host name does not resolve: Name or service not known") as error:
        await build_mosaic("http://tiler.test/{z}/{x}/{y}", AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert (error.value.exit_code, error.value.hint) == (4, "check host, port and network")
    assert left_behind(tmp_path) == []


async def test_a_name_that_gets_lost_on_the_way_is_waited_for(serve, tmp_path, fast, monkeypatch):
    """A router that restarts: connections break, and nothing has a name for a while."""
    tiler, found, lost = serve(), socket.getaddrinfo, []

    async def restart(tile, hit):
        if tiler.requests == 8:
            lost.extend([None] * 30)
        return Reset() if lost else None

    def look_up(host, *args, **options):
        if host != "tiler.test":
            return found(host, *args, **options)
        if lost:
            lost.pop()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found("127.0.0.1", *args, **options)

    tiler.mood = restart
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("aiohttp.TCPConnector", functools.partial(aiohttp.TCPConnector, use_dns_cache=False))
    template = tiler.template.replace("127.0.0.1", "tiler.test")
    report = await build_mosaic(template, AREA, tmp_path / "out.tif", zoom=ZOOM, concurrency=4)
    assert not lost
    assert report.tiles_placed == 16
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, 10 * 365 * 86400])
async def test_a_wall_clock_that_is_set_on_the_way_disturbs_nothing(serve, tmp_path, fast, monkeypatch, jump):
    """The server requests a pause until a time of its own clock, which is right."""
    real, tiler = time.time, serve()
    jumped = []

    def wall():
        return real() + (jump if jumped else 0)

    async def busy(tile, hit):
        if tile != BAD or hit > 1:
            return None
        jumped.append(True)
        now = datetime.now(UTC)
        dates = {
            "Date": format_datetime(now, usegmt=True),
            "Retry-After": format_datetime(now + timedelta(seconds=30), usegmt=True),
        }
        return web.Response(status=503, headers=dates)

    tiler.mood = busy
    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(
        "mosaic_async.http.pacing.datetime", SimpleNamespace(now=lambda zone: datetime.fromtimestamp(wall(), zone))
    )
    events, started = [], time.monotonic()
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, on_event=events.append)
    assert jumped
    assert [event.seconds for event in events if isinstance(event, ServerTrouble)] == [30]
    assert 0 <= report.seconds <= time.monotonic() - started
    assert all(0 <= seconds <= report.seconds for seconds in report.seconds_by_stage.values())
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_wall_clock_that_is_set_on_the_way_neither_stops_the_bar_nor_its_estimate(monkeypatch, jump):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    real, shift = time.time, [0]
    monkeypatch.setattr("time.time", lambda: real() + shift[0])
    monkeypatch.setattr("sys.stderr", Terminal())
    with Progress(quiet=False, verbose=False) as progress:
        progress(RunStarted(100, 1, 0, 0))
        shift[0] = jump
        for x in range(50):
            time.sleep(0.005)  # the bar is drawn ten times per second
            progress(TilePlaced(mercantile.Tile(x, 0, 7)))
        shown = sys.stderr.getvalue()
        assert 0 < progress._bar.elapsed < 60
    drawn = shown.split("\r")[-1]
    assert " 0%" not in drawn
    assert "00:00<00:00" in drawn


async def test_a_server_that_goes_for_good_ends_the_run_with_all_kept(tmp_path, fast):
    area = (-15.0, 20.0, 25.0, 50.0)
    tiler = FakeTiler(pattern=Pattern(count=1), latency=0.005, tile_size=128)
    placed, events = [], []

    def listen(event):
        events.append(event)
        placed.append(event) if isinstance(event, TilePlaced) else None

    with tiler.running():
        task = asyncio.ensure_future(
            build_mosaic(
                tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, concurrency=8, part_size=1024, on_event=listen,
                max_outage=60,
            )
        )  # fmt: skip
        while len(placed) < 50:
            await asyncio.sleep(0.01)
        stopping = await asyncio.to_thread(time.monotonic)
    with pytest.raises(SourceError, match="has been unavailable for") as error:
        await task
    assert time.monotonic() - stopping < 20
    assert error.value.exit_code == 4
    assert "outage" in [event.kind for event in events if isinstance(event, ServerTrouble)]
    port = tiler.port
    again = FakeTiler(pattern=Pattern(count=1), port=port, tile_size=128)
    with again.running():
        report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, part_size=1024)
    assert again.requests <= report.tiles_total - 50 + 8
    assert_is_the_world(tmp_path / "out.tif", tiler, area, ZOOM)


@pytest.mark.parametrize(
    ("area", "total"),
    [
        ((-22.0, -22.0, 22.0, 22.0), 250),
        pytest.param((-30.0, -30.0, 32.0, 34.0), 500, marks=pytest.mark.slow),
        pytest.param((-60.0, -60.0, 65.0, 64.0), 2000, marks=pytest.mark.slow),
    ],
)
async def test_many_tiles_survive_everything_at_once(tmp_path, fast, area, total):
    """5 % 503, 2 % resets, 2 % cut, 1 % silence, 1 % garbage, random Retry-After, and a server that restarts."""
    tiler = FakeTiler(pattern=Pattern(count=1), tile_size=128, latency=0.001)
    hurry = random.Random(1)

    async def busy(tiler, tile):
        after = hurry.choice(["1", "2", "garbage", "-1", "nan", "Sun, 22 Nov 2020 12:00:30 GMT", ""])
        return web.Response(status=503, headers={"Retry-After": after} if after else {})

    shares = {busy: 0.05, reset: 0.02, cut_body: 0.01, truncated: 0.01, hang: 0.01, says(b"garbage"): 0.01}
    tiler.mood = now_and_then(tiler, shares)
    events, half = [], asyncio.Event()

    def listen(event):
        events.append(event)
        if tiler.requests > total // 2:
            half.set()

    options = {"zoom": 7, "concurrency": 50, "part_size": 2048, "timeout": 5.0, "profile": "zstd"}
    with tiler.running():
        task = asyncio.ensure_future(
            build_mosaic(tiler.template, area, tmp_path / "out.tif", on_event=listen, **options)
        )
        await asyncio.wait([task, asyncio.ensure_future(half.wait())], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.3)
    with tiler.running():  # on the same port
        report = await task
    assert report.tiles_placed == report.tiles_total >= total
    assert report.requests <= 1.3 * report.tiles_total
    assert_is_the_world(tmp_path / "out.tif", tiler, area, 7)
    said = [event for event in events if isinstance(event, TileRetried | ServerTrouble | TileParked | TileFailed)]
    assert len(said) <= report.requests - report.tiles_total + 200
    assert left_behind(tmp_path) == ["out.tif"]


async def test_stopping_lets_arrive_what_is_under_way_and_keeps_it(serve, tmp_path):
    area = (-15.0, 20.0, 25.0, 50.0)
    tiler = serve(pattern=Pattern(count=1), latency=0.05)
    stop, seen = asyncio.Event(), []

    def listen(event):
        seen.append(event)
        if sum(isinstance(event, TilePlaced) for event in seen) >= 30:
            stop.set()

    options = {"zoom": ZOOM, "concurrency": 4, "part_size": 1024}
    with pytest.raises(StoppedError, match="stopped with") as error:
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", stop=stop, on_event=listen, **options)
    asked = tiler.requests
    assert asked - 1 <= error.value.report.tiles_placed <= asked < 60  # the probe's tile may be of a later part
    report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", **options)
    assert tiler.requests == report.tiles_total  # not a single one twice
    assert report.requests == report.tiles_total - asked


async def test_a_flipped_byte_in_the_work_folder_is_asked_for_again(serve, tmp_path):
    tiler, seen = serve(latency=0.03), []

    def listen(event):
        seen.append(event)
        if sum(isinstance(event, TilePlaced) for event in seen) == 10:
            stop.set()

    stop = asyncio.Event()
    with pytest.raises(StoppedError):
        await build_mosaic(
            tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, concurrency=1, stop=stop, on_event=listen
        )
    bodies = spooled(tmp_path / "out.tif.work")
    assert len(bodies) >= 10
    flipped, zeroed = list(bodies)[2:4]
    for tile, change in ((flipped, lambda body: bytes([body[0] ^ 1])), (zeroed, lambda body: bytes(len(body)))):
        path, start, length = bodies[tile]
        with path.open("r+b") as file:
            file.seek(start)
            body = file.read(length)
            file.seek(start)
            file.write(change(body))
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, on_event=seen.append)
    wanted = {(tile.z, tile.x, tile.y) for tile in mercantile.tiles(*AREA, zooms=[ZOOM])}
    assert set(tiler.hits) == wanted - set(bodies) | {flipped, zeroed}
    assert {event.name for event in seen if isinstance(event, PieceDropped)} == {
        "tile {}/{}/{}".format(*tile) for tile in (flipped, zeroed)
    }
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


@pytest.mark.quick(2)
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"placed": "all"}', b'{"placed": 1e999}'])
async def test_a_damaged_record_of_a_part_has_it_made_again(serve, tmp_path, damage):
    tiler = serve()
    tiler.mood = at(tiler, BAD, status(422), times=99)
    options = {"zoom": ZOOM, "part_size": 512}
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", **options)
    records = sorted((tmp_path / "out.tif.work" / "parts").rglob("*.json"))
    assert records
    records[0].write_bytes(damage)
    tiler.mood = None
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", **options)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


def test_what_is_written_already_needs_no_room_any_more(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0-0.tif").write_bytes(bytes(600_000))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=500_000))
    check_room(tmp_path, 1_100_000)
    with pytest.raises(ResourceError, match=r"has 500.0 kB free, about 500.0 kB are needed"):
        check_room(tmp_path, 1_100_001)


async def test_a_cog_that_is_not_valid_does_not_become_the_output(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("mosaic_async.raster.assembly.cog_validate", lambda *_, **__: (False, ["no overviews"], []))
    tiler = serve()
    with pytest.raises(StitchError, match="is not a valid COG: no overviews"):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert left_behind(tmp_path) == ["out.tif.work"]


async def test_too_little_room_on_the_disk_is_found_before_the_run(serve, tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    tiler = serve()
    with pytest.raises(ResourceError, match=r"has 1.0 MB free, about \d\.\d MB are needed") as error:
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert error.value.exit_code == 5
    assert tiler.requests == 1
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, check_disk=False)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
