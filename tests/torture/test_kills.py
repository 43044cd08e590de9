"""A run killed at each call that changes a file: the same command ends right, whatever that call left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.forks import ForkServer
from tests.pyramid_reader import Level
from tests.torture.job import Job, Tiler, difference, finish
from tests.torture.shim import death

WRITES = ("write", "pwrite", "pwrite64", "fwrite", "copy_file_range", "sendfile", "sendfile64")
"""Calls that can be torn."""
SHARES = 24
"""Tests that the points of a full run are dealt to."""
QUICK = 12
"""Points of a short run."""


def trouble(tiler: Tiler, mortal: ForkServer, folder: Path, number: int, expected: list[Level], *, torn: bool) -> str:
    """Kill a run at a call and run the same command again; says what is wrong then, or nothing."""
    folder.mkdir()
    output = folder / "out.tif"
    args = Job().args(tiler, output)
    code, stderr = finish(mortal.start(args, before=[death(folder, number, torn=torn)]))
    if code not in (-signal.SIGKILL, 0):
        return f"exit {code}: {stderr}"
    if output.exists() and (wrong := difference(output, expected)):
        return f"left an output: {wrong}"
    code, stderr = finish(mortal.start(args))
    if code:
        return f"then exit {code}: {stderr}"
    if left := [path.name for path in folder.iterdir() if path != output]:
        return f"then left {left}"
    return difference(output, expected) or ""


def check(points, tiler, mortal, folder, expected, counted) -> None:
    wrong = {}
    for number, torn in points:
        if said := trouble(tiler, mortal, folder / f"{number}-{torn}", number, expected, torn=torn):
            wrong[number, torn] = said
    counted(kills=len(points))
    assert wrong == {}


def test_a_run_killed_at_some_calls_ends_right(tiler, mortal, expected, calls, in_memory, counted):
    points = [(1 + index * len(calls) // QUICK, index % 3 == 2) for index in range(QUICK)]
    check(points, tiler, mortal, in_memory, expected, counted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("place", ["on_disk", "in_memory"])
def test_a_run_killed_at_every_call_ends_right(tiler, mortal, expected, calls, place, share, request, counted):
    points = [(number, False) for number in range(1, len(calls) + 2)]
    if place == "in_memory":
        points += [(number, True) for number, name in enumerate(calls, 1) if name in WRITES]
    assert len(points) > 300
    check(points[share::SHARES], tiler, mortal, request.getfixturevalue(place), expected, counted)
