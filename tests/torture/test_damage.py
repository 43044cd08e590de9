"""Every file that a killed run left, damaged in every way: the same command ends right, or says why and makes none."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.torture.damage import DAMAGES, files_in, restore
from tests.torture.job import DOCUMENTED, Subject

MOMENTS = (0.04, 0.2, 0.4, 0.6, 0.8, 0.88, 0.91, 0.94, 0.96, 0.98)
"""Shares of the calls of a run after which it is killed; the last ones are those of stitching and of cleaning up."""


def trouble(subject: Subject, folder: Path) -> str | None:
    """Run the command in a folder; says what is wrong then."""
    output = folder / "out.tif"
    before = output.read_bytes() if output.exists() else None
    code, stderr = subject.run(folder)
    if "Traceback" in stderr or code not in DOCUMENTED:
        return f"exit {code}: {stderr[-500:]}"
    if code == 0:
        return subject.difference(folder)
    after = output.read_bytes() if output.exists() else None
    return None if after == before else f"exit {code}, and an output"


def check(subject, folder, moment, counted, damages_of: Callable[[int], Iterable[str]]) -> None:
    """Kill a run at a moment, and try damages of each of its files."""
    kept, place, found = folder / "kept", folder / "place", {}
    kept.mkdir()
    assert subject.run(kept, at=int(moment * len(subject.calls)))[0] == -signal.SIGKILL
    files = [path.relative_to(kept) for path in files_in(kept) if path.name != "out.tif"]  # which is the user's
    for index, path in enumerate(files):
        for name in damages_of(index):
            restore(kept, place)
            DAMAGES[name](place / path)
            found[str(path), name] = trouble(subject, place)
    counted(damages=len(found))
    assert {case: wrong for case, wrong in found.items() if wrong} == {}


def test_each_file_damaged_in_one_way_ends_right(subject, in_memory, counted):
    names = list(DAMAGES)
    check(subject, in_memory, 0.93, counted, lambda index: [names[index % len(names)]])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_file_damaged_in_every_way_ends_right(subject, in_memory, counted, moment):
    check(subject, in_memory, moment, counted, lambda _: DAMAGES)
