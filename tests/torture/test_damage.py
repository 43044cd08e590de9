"""Every file that a killed run left, damaged in every way: the same command ends right, or says why and makes none."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.torture.damage import DAMAGES, files_in, restore
from tests.torture.job import DOCUMENTED, Job, difference, finish
from tests.torture.shim import death

JOB = Job()
MOMENTS = (0.04, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98)
"""Shares of the calls of a run after which it is killed; the last ones are those of stitching and of cleaning up."""


def killed_at(moment, tiler, mortal, folder, calls) -> Path:
    """Leave a folder with what a run left that was killed."""
    folder.mkdir()
    number = int(moment * len(calls))
    run = mortal.start(JOB.args(tiler, folder / "out.tif"), before=[death(folder, number)])
    assert finish(run)[0] == -signal.SIGKILL
    return folder


def trouble(tiler, mortal, folder: Path, expected) -> str:
    """Run the command in a folder; says what is wrong then, or nothing."""
    output = folder / "out.tif"
    before = output.read_bytes() if output.exists() else None
    code, stderr = finish(mortal.start(JOB.args(tiler, output)))
    if "Traceback" in stderr or code not in DOCUMENTED:
        return f"exit {code}: {stderr[-500:]}"
    if code == 0:
        return difference(output, expected) or ""
    after = output.read_bytes() if output.exists() else None
    return "" if after == before else f"exit {code}, and an output"


def check(cases, tiler, mortal, folder, expected, calls, counted, moment) -> None:
    wrong, done = {}, 0
    kept = killed_at(moment, tiler, mortal, folder / "kept", calls)
    for index, path in enumerate(files_in(kept)):
        for name, damage in list(DAMAGES.items())[cases(index)]:
            place = folder / "out"
            restore(kept, place)
            damage(place / path.relative_to(kept))
            done += 1
            if said := trouble(tiler, mortal, place, expected):
                wrong[str(path.relative_to(kept)), name] = said
    counted(damages=done)
    assert wrong == {}


def test_each_file_damaged_in_one_way_ends_right(tiler, mortal, expected, calls, in_memory, counted):
    def one(index):
        return slice(index % len(DAMAGES), index % len(DAMAGES) + 1)

    check(one, tiler, mortal, in_memory, expected, calls, counted, 0.9)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_every_file_damaged_in_every_way_ends_right(tiler, mortal, expected, calls, in_memory, counted, moment):
    check(lambda _: slice(None), tiler, mortal, in_memory, expected, calls, counted, moment)
