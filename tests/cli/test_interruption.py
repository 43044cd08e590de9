"""Ctrl-C and its kin: the answer comes at once, and at the end it says what is kept."""

from __future__ import annotations

import asyncio
import re
import signal
import time

import pytest

from tests.fake_tiler import Pattern
from tests.forks import server

BOUNDS = ("--bounds", "-15", "20", "25", "50", "-z", "7")
AT_ONCE = 0.5
"""Seconds that the answer may take."""


def heard(process, seconds):
    """What a process writes to stderr within the seconds, up to the end of the first line."""
    until = time.monotonic() + seconds
    while not process.said().endswith("\n") and time.monotonic() < until:
        time.sleep(0.01)
    return process.said()


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.fixture
def slow(serve):
    """A server that answers twelve tiles at once and no more."""
    tiler = serve(pattern=Pattern(count=1))

    async def mood(tile, hit):
        if tiler.requests > 12:
            await asyncio.sleep(30)

    tiler.mood = mood
    return tiler


@pytest.mark.parametrize(("number", "again"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_it_is_answered_at_once_with_what_it_waits_for_and_how_to_quit(slow, tmp_path, number, again):
    args = ["build", slow.template, tmp_path / "out.tif", *BOUNDS, "-c", "5"]
    with server().start(args) as process:
        wait_for(process, lambda: slow.requests >= 17)
        process.send_signal(number)
        said = heard(process, AT_ONCE)
        assert said == f"stopping: waiting up to 10 s for 5 tiles; {again} again to quit now\n"
        process.send_signal(number)
        process.communicate(timeout=10)
    assert process.returncode == 128 + number


def test_a_quiet_run_answers_too_and_says_at_the_end_what_is_kept(slow, tmp_path):
    args = ["build", slow.template, tmp_path / "out.tif", *BOUNDS, "-c", "1", "--quiet", "--timeout", "2"]
    with server().start(args) as process:
        wait_for(process, lambda: slow.requests >= 13)
        process.send_signal(signal.SIGINT)
        assert heard(process, AT_ONCE).startswith("stopping: waiting up to 10 s for 1 tile;")
        slow.mood = None
        _, rest = process.communicate(timeout=20)
    kept = re.search(r"interrupted: stopped with (\d+) of 210 tiles, which are kept in out.tif.work\n", rest)
    assert kept, rest
    assert 12 <= int(kept[1]) <= 14
    assert rest.endswith("hint: re-run the same command to resume\n")


def test_before_the_first_tile_it_is_answered_too(serve, tmp_path):
    async def silent(tile, hit):
        await asyncio.sleep(30)

    tiler = serve(mood=silent)
    with server().start(["build", tiler.template, tmp_path / "out.tif", *BOUNDS]) as process:
        wait_for(process, lambda: tiler.requests)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=AT_ONCE + 5)
    assert said.startswith("stopping; Ctrl-C again to quit now\ninterrupted\n")
