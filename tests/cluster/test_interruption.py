"""Ctrl-C on a cluster of this machine: a terminal sends it to the workers too, and the tiles are kept nevertheless."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mosaic_async import build_mosaic
from tests.build.test_stitching import SMALL_PARTS
from tests.test_api import AREA, ZOOM

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
OPTIONS = ("--bounds", *map(str, AREA), "-z", str(ZOOM), "--part-size", str(SMALL_PARTS["part_size"]))


def members(group):
    """Return the processes of a group."""
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def wait_for_the_last(group):
    """Wait until a group has no process: the tracker of multiprocessing ends when it sees that the command has."""
    until = time.monotonic() + 10
    while members(group) and time.monotonic() < until:
        time.sleep(0.1)
    assert members(group) == []


def started(tiler, output):
    profile = [word for key, value in SMALL_PARTS["creation_options"].items() for word in ("--co", f"{key}={value}")]
    command = [sys.executable, "-m", "mosaic_async", "build", tiler.template, str(output), *OPTIONS, *profile]
    return subprocess.Popen(
        [*command, "--dask", "2", "-c", "4"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


async def test_ctrl_c_in_a_terminal_keeps_the_tiles_under_way_and_leaves_no_process(serve, tmp_path):
    tiler, output = serve(latency=1.5), tmp_path / "out.tif"
    with started(tiler, output) as process:
        while tiler.requests < 6:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    requests = tiler.requests
    assert process.returncode == 130, said
    assert "kept" in said
    assert "Traceback" not in said
    wait_for_the_last(process.pid)
    assert requests < 16
    tiler.latency = 0
    with started(tiler, output) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert tiler.requests <= 16 + 1
    await build_mosaic(tiler.template, AREA, tmp_path / "alone.tif", zoom=ZOOM, **SMALL_PARTS)
    assert output.read_bytes() == (tmp_path / "alone.tif").read_bytes()
