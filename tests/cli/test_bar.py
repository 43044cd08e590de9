"""The progress bar: what stands on the screen after each step."""

from __future__ import annotations

import io

import mercantile
import pytest

from mosaic_async.cli import bar as bar_module
from mosaic_async.cli.bar import Bar
from mosaic_async.cli.progress import Progress
from mosaic_async.events import RunStarted, Stitching, StitchProgress, TilePlaced


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(bar_module, "monotonic", lambda: now[0])
    return now


def last(stream):
    return stream.getvalue().split("\x1b[K")[-1]


def test_the_bar_counts_and_estimates_the_rest(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(200, unit="tile")
    for _ in range(50):
        clock[0] += 0.5
        bar.advance("1.0 MB/s")
    assert "50/200 [00:25<01:15,  2.00tile/s, 1.0 MB/s]" in last(stream)


def test_resumed_tiles_count_as_done_but_not_for_the_rate(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(200, initial=100, unit="tile")
    for _ in range(10):
        clock[0] += 1
        bar.advance()
    assert "110/200 [00:10<01:30,  1.00tile/s]" in last(stream)


def test_the_estimate_follows_a_server_that_becomes_slower(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(10_000, unit="tile")
    for step in [0.1] * 5000 + [10.0] * 10:
        clock[0] += step
        bar.advance()
    assert "4.99" not in last(stream)
    assert "10.00s/tile" in last(stream)


def test_the_bar_is_drawn_at_most_ten_times_a_second(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(100_000, unit="tile")
    for _ in range(10_000):
        clock[0] += 0.0001
        bar.advance()
    assert stream.getvalue().count("\r") <= 11


def test_a_line_stands_above_the_bar_and_stays(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(2, unit="tile")
    bar.write("failed: 7/1/2")
    screen = [line.split("\x1b[K")[-1] for line in stream.getvalue().split("\n")]
    assert screen[0] == "failed: 7/1/2"
    assert "0/2" in screen[1]


def test_a_line_before_the_first_stage_draws_no_bar(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.write("note")
    bar.close()
    assert stream.getvalue() == "note\n"


@pytest.mark.parametrize(("stream", "is_shown"), [(io.StringIO(), True), (Terminal(), False)])
def test_without_a_terminal_or_when_hidden_only_lines_are_written(stream, is_shown):
    bar = Bar(stream, is_shown=is_shown)
    bar.start(2, unit="tile")
    bar.advance()
    bar.write("failed: 7/1/2")
    bar.rename("stitching")
    bar.close()
    assert stream.getvalue() == "failed: 7/1/2\n"


def test_the_title_changes_while_the_count_stays(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(1, unit="tile")
    bar.advance()
    bar.rename("stitching")
    assert "stitching: " in last(stream)
    assert "1/1" in last(stream)


def test_the_next_stage_has_a_bar_below_the_last_one(clock):
    stream = Terminal()
    bar = Bar(stream)
    bar.start(1, unit="tile")
    bar.advance()
    bar.start(4_000_000, initial=1_000_000, unit="B", title="stitching")
    clock[0] += 2
    bar.advance(steps=1_000_000)
    first, second = stream.getvalue().split("\n")
    assert "1/1" in first
    assert "stitching:  50%" in second.split("\x1b[K")[-1]
    assert "2.00M/4.00M [00:02<00:04, 500kB/s]" in last(stream)


def test_stitching_shows_its_percentage_from_where_a_killed_run_stopped(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with Progress(quiet=False, verbose=False) as progress:
        progress(RunStarted(1, 4, 0, 0))
        progress(TilePlaced(mercantile.Tile(0, 0, 0)))
        assert progress.is_downloading
        progress(Stitching(4))
        assert not progress.is_downloading
        for percent in range(40, 101):
            clock[0] += 1
            progress(StitchProgress(percent * 1000, 100_000))
    assert all(f"stitching:  {percent}%" in stream.getvalue() for percent in range(40, 100))
    assert "validating: 100%" in last(stream)


def test_a_quiet_run_shows_no_stitching(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with Progress(quiet=True, verbose=False) as progress:
        progress(RunStarted(1, 4, 0, 0))
        progress(Stitching(4))
        progress(StitchProgress(1, 2))
    assert stream.getvalue() == ""
