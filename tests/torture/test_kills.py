"""A run killed at each call that changes a file: the same command ends right, whatever that call left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.torture.job import Subject

WRITES = ("write", "pwrite", "pwrite64", "fwrite", "copy_file_range", "sendfile", "sendfile64")
"""Calls that can be torn."""
SHARES = 24
"""Tests that the points of a full run are dealt to."""
QUICK = 12
"""Points of a short run."""


def trouble(subject: Subject, folder: Path, number: int, *, torn: bool) -> str | None:
    """Kill a run at a call and run the same command again; says what is wrong then."""
    folder.mkdir()
    output = folder / "out.tif"
    code, stderr = subject.run(folder, at=number, torn=torn)
    if code not in (-signal.SIGKILL, 0):
        return f"exit {code}: {stderr}"
    if output.exists() and (wrong := subject.difference(folder)):
        return f"left an output: {wrong}"
    if code:  # or else the run made fewer calls than the one that was counted, and nothing is left to do
        code, stderr = subject.run(folder)
    if code:
        return f"then exit {code}: {stderr}"
    if left := [path.name for path in folder.iterdir() if path != output]:
        return f"then left {left}"
    return subject.difference(folder)


def check(subject, folder, points, counted) -> None:
    found = {
        (number, torn): trouble(subject, folder / f"{number}-{torn}", number, torn=torn) for number, torn in points
    }
    counted(kills=len(points))
    assert {point: wrong for point, wrong in found.items() if wrong} == {}


def test_a_run_killed_at_some_calls_ends_right(subject, in_memory, counted):
    points = [(1 + index * len(subject.calls) // QUICK, index % 3 == 2) for index in range(QUICK)]
    check(subject, in_memory, points, counted)


def test_a_run_killed_while_the_front_is_inserted_ends_right(subject, on_disk, counted):
    """On a file system that cannot insert, there are no such calls but the trial."""
    inserted = max((number for number, name in enumerate(subject.calls, 1) if name.startswith("fallocate")), default=0)
    if not inserted:
        pytest.skip("an output of one part has no front to insert")
    check(subject, on_disk, [(number, False) for number in range(inserted - 1, inserted + 4)], counted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("place", ["on_disk", "in_memory"])
def test_a_run_killed_at_every_call_ends_right(subject, place, share, request, counted):
    points = [(number, False) for number in range(1, len(subject.calls) + 2)]
    if place == "in_memory":
        points += [(number, True) for number, name in enumerate(subject.calls, 1) if name in WRITES]
    check(subject, request.getfixturevalue(place), points[share::SHARES], counted)
