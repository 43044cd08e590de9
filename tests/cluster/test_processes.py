"""A cluster of processes that die: the same file, no request too many, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress

import pytest
from distributed import Client

from mosaic_async import build_mosaic
from mosaic_async.cluster import build_mosaic_on
from tests.cluster.dask_processes import dask_processes
from tests.test_api import left_behind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
AREA = (-20.0, 20.0, 13.7, 47.5)
JOB = {"zoom": 9, "part_size": 512, "profile": "zstd", "creation_options": {"BLOCKSIZE": "128"}}


async def kill_workers(address, done, killed, every=3.0):
    """Kill a worker's process, not its nanny, again and again."""
    async with Client(address, asynchronous=True, set_as_default=False) as client:
        while not done.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), every)
                return
            with suppress(Exception):
                pids = list((await client.run(os.getpid, on_error="ignore")).values())
                os.kill(random.choice(pids), signal.SIGKILL)
                killed.append(1)


async def test_workers_that_die_and_one_that_joins_late_leave_the_pixels_of_one_machine(serve, tmp_path):
    tiler, output = serve(tile_size=128, latency=0.1), tmp_path / "out" / "out.tif"
    output.parent.mkdir()
    whole = await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **JOB, concurrency=32)
    assert whole.tiles_total >= 2304
    tiler.hits.clear()
    tiler.peak_in_flight = 0
    with dask_processes(tmp_path / "dask", workers=2) as cluster:
        done, killed = asyncio.Event(), []
        async with asyncio.TaskGroup() as group:
            group.create_task(kill_workers(cluster.address, done, killed))

            async def join_late():
                await asyncio.sleep(4)
                cluster.start_worker()

            group.create_task(join_late())
            report = await build_mosaic_on(cluster.address, tiler.template, AREA, output, **JOB, concurrency=12)
            done.set()
        left = [path for path in cluster.scratch.rglob("mosaic-*") if any(path.iterdir())]
    assert len(killed) >= 3
    assert left == []
    assert tiler.peak_in_flight <= 12
    assert tiler.requests <= report.tiles_total + 16 * len(killed)
    assert left_behind(output.parent) == ["out.tif"]
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert 0 < sum(share.tiles for share in report.workers) <= report.tiles_total
