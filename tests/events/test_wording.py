"""What a log says of a run: a line every now and then, one per incident, as text, as JSON, or through `logging`."""

from __future__ import annotations

import json
import logging

import pytest
from aiohttp import web
from mercantile import Tile

from mosaic_async import (
    Pulse,
    RunStarted,
    ServerTrouble,
    Stitching,
    StitchProgress,
    Stopping,
    TileFailed,
    TilePlaced,
    TileRetried,
    build_mosaic,
)
from mosaic_async.events.wording import Narrator
from tests.forks import server

AREA = (-4.0, 38.0, 4.0, 44.0)
BOUNDS = ("--bounds", "-4", "38", "4", "44", "-z", "7")


BAD = (7, 64, 49)


async def broken(tile, hit):
    return web.Response(status=500) if tile == BAD else None


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def told(narrator, clock, events):
    """The lines of events that come a second apart."""
    lines = []
    for event in events:
        clock.now += 1
        lines += narrator.lines(event)
    return lines


def test_two_minutes_of_a_server_that_is_silent_have_three_lines_at_least():
    clock = Clock()
    lines = told(Narrator(rest="", clock=clock), clock, [Pulse(4, 4, 0)] * 120)
    assert [line.text for line in lines] == ["progress: waiting for the first tile, 4 in flight"] * 4


def test_a_line_about_the_progress_has_counts_rates_and_what_is_left():
    clock = Clock()
    narrator = Narrator(rest="", clock=clock)
    events = [RunStarted(tiles_total=1000, parts_total=1, parts_resumed=0, tiles_resumed=100)]
    for second in range(1, 60):
        events += [*[TilePlaced(Tile(0, 0, 0))], Pulse(8, 9, second * 2_000_000)]
    lines = told(narrator, clock, events)
    assert lines[-1].text == ("progress: 145 of 1,000 tiles (14%), 0.5 tiles/s, 1.0 MB/s, 8 in flight, 0:28:11 left")
    values = lines[-1].values
    assert (values["tiles_total"], values["in_flight"], values["stage"]) == (1000, 8, "download")
    assert values["tiles_per_second"] == pytest.approx(0.5, rel=0.05)
    clock.now += 30
    assert [line.text for line in narrator.lines(Stitching(5))] == ["progress: stitching, 0%"]
    clock.now += 30
    assert [line.text for line in narrator.lines(StitchProgress(1, 4))] == ["progress: stitching, 25%"]
    assert narrator.kept == "159 of 1,000 tiles"


def test_each_incident_has_one_line_and_an_hour_of_them_does_not_bury_the_log():
    clock = Clock()
    narrator = Narrator(None, rest="look elsewhere", clock=clock)
    trouble = [ServerTrouble("outage", 0.0, "HTTP 503"), ServerTrouble("back", 12.0)]
    assert [line.kind for line in told(narrator, clock, trouble)] == ["outage", "back"]
    failures = [TileFailed(Tile(x, 0, 9), "http://a", "HTTP 500", 500, 3) for x in range(100)]
    lines = told(narrator, clock, failures)
    loud = [line.text for line in lines if line.level > logging.DEBUG]
    assert len(loud) == 11
    assert loud[0] == "failed: 9/0/0: HTTP 500 (3 attempts)"
    assert loud[-1] == "failed: further lines are hidden; look elsewhere"
    assert len(lines) == 101
    assert lines[-1].values["tile"] == "9/99/0"
    retry = told(narrator, clock, [TileRetried("http://a", 1, "HTTP 503", 0.5)])[0]
    assert retry.level == logging.DEBUG
    stop = told(narrator, clock, [Stopping(1), Stopping(0)])
    assert [line.text.partition("for ")[2] for line in stop] == ["1 tile", "what is in flight"]


async def test_the_library_logs_incidents_and_is_silent_by_default(serve, tmp_path, caplog, capsys):
    tiler = serve(mood=broken)
    caplog.set_level(logging.WARNING, logger="mosaic_async")
    await build_mosaic(
        tiler.template + "?token=hunter2", AREA, tmp_path / "a.tif", zoom=7, max_failures=1, attempts=1, progress=True
    )
    ours = [record for record in caplog.records if record.name == "mosaic_async"]
    assert {record.kind for record in ours} == {"parked", "failed"}
    assert ours[-1].facts["status"] == 500
    assert "hunter2" not in str([vars(record) for record in ours])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "16/16" in shown.err  # the bar
    await build_mosaic(serve().template, AREA, tmp_path / "b.tif", zoom=7)
    assert capsys.readouterr() == ("", "")


def test_json_lines_say_what_the_text_says_and_how_it_ended(serve, tmp_path):
    tiler = serve(mood=broken)
    args = ["build", tiler.template, tmp_path / "out.tif", *BOUNDS, "--attempts", "1", "--log-format", "json"]
    with server().start(args) as process:
        _, stderr = process.communicate(timeout=60)
    lines = [json.loads(line) for line in stderr.splitlines()]
    kinds = [line["event"] for line in lines]
    assert kinds == ["parked", "failed", "end"]
    assert lines[1]["tile"] == "/".join(map(str, BAD))
    assert lines[1]["message"].startswith(f"failed: {lines[1]['tile']}: ")
    assert (lines[-1]["level"], lines[-1]["exit_code"], process.returncode) == ("error", 3, 3)
    assert lines[-1]["message"] == "error: 1 of 16 tiles failed"
    assert lines[-1]["hint"].startswith("re-run the same command")
    assert all({"time", "level", "event", "message"} <= set(line) for line in lines)
