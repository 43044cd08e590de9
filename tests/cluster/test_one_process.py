"""A crew in this process: what it asks of the server, what it passes on, and how it fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from distributed import Client, LocalCluster

from mosaic_async import (
    IncompleteError,
    ResourceError,
    StoppedError,
    UsageError,
    WorkFolderError,
    build_mosaic,
)
from mosaic_async.cluster import build_mosaic_on, dask_crew
from mosaic_async.cluster.site import Site
from mosaic_async.events import Pulse, TilePlaced
from tests.build.test_stitching import SMALL_PARTS
from tests.moods import at, status
from tests.test_api import AREA, BAD, ZOOM, left_behind

WHOLE = {"zoom": ZOOM, **SMALL_PARTS}


@asynccontextmanager
async def workers(number: int, **options: object) -> AsyncIterator[tuple[LocalCluster, Client]]:
    """Yield a cluster in this process."""
    cluster = LocalCluster(
        n_workers=number,
        **{"threads_per_worker": 1, **options},
        processes=False,
        asynchronous=True,
        dashboard_address=None,
        protocol="inproc",
    )
    async with cluster, Client(cluster, asynchronous=True) as client:
        yield cluster, client


@pytest.fixture
async def client():
    async with workers(2) as (_, found):
        yield found


async def finished(client, tiler, output, **options):
    """Return the report of the call that finishes an output, which is then the bytes of one machine."""
    report = await build_mosaic_on(client, tiler.template, AREA, output, **{**WHOLE, **options})
    alone = output.with_name("alone.tif")
    await build_mosaic(tiler.template, AREA, alone, **{**WHOLE, **options})
    assert output.read_bytes() == alone.read_bytes()
    assert left_behind(output.parent) == ["alone.tif", output.name]
    return report


async def test_a_cluster_makes_the_bytes_of_one_machine_and_reports_as_one(serve, tmp_path, client):
    tiler, output, events = serve(latency=0.3), tmp_path / "out.tif", []
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **WHOLE)
    before = tiler.requests
    report = await build_mosaic_on(client, tiler.template, AREA, output, **WHOLE, concurrency=6, on_event=events.append)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert left_behind(tmp_path) == ["out.tif", "whole.tif"]
    assert tiler.requests - before == report.requests
    assert tiler.requests - before == 16
    assert sum(share.tiles for share in report.workers) == 16
    assert (report.parts_total, report.parts_resumed) == (16, 0)
    assert sum(isinstance(event, TilePlaced) for event in events) == 16
    assert [event for event in events if isinstance(event, Pulse)]


async def test_tiles_that_fail_are_reported_once_and_the_same_call_gets_them(serve, tmp_path, client):
    tiler, output = serve(), tmp_path / "out.tif"
    tiler.mood = at(tiler, BAD, status(500), times=1000)
    options = {"attempts": 2}
    with pytest.raises(IncompleteError) as caught:
        await build_mosaic_on(client, tiler.template, AREA, output, **WHOLE, **options)
    report = caught.value.report
    assert len(report.failed) == 1
    assert (report.tiles_placed, report.tiles_failed, report.tiles_total) == (15, 1, 16)
    assert report.requests == tiler.requests
    assert report.retries >= 1
    tiler.mood = None
    report = await finished(client, tiler, output)
    assert report.requests <= 2


@pytest.mark.slow
async def test_a_failure_that_ends_the_run_ends_what_other_workers_do(serve, tmp_path, client):
    tiler, output = serve(), tmp_path / "out.tif"

    async def mood(tile, hit):
        if tile == BAD:
            return await status(403)(tiler, tile)
        await asyncio.sleep(0.2 if tile[1] % 2 else 3)
        return None

    tiler.mood = mood
    started = time.monotonic()
    with pytest.raises(IncompleteError):
        await build_mosaic_on(client, tiler.template, AREA, output, **WHOLE, on_error="fail")
    assert time.monotonic() - started < 30
    requests = tiler.requests
    await asyncio.sleep(1)
    assert tiler.requests == requests
    assert await client.run(lambda dask_worker: [name for name in dask_worker.plugins if "mosaic" in name]) == {
        worker: [] for worker in await client.nthreads()
    }
    tiler.mood = None
    await finished(client, tiler, output)


@pytest.mark.slow
async def test_a_rate_holds_for_all_workers_together(serve, tmp_path, client):
    tiler, starts = serve(), []

    async def mood(tile, hit):
        starts.append(time.monotonic())

    tiler.mood = mood
    await build_mosaic_on(client, tiler.template, AREA, tmp_path / "out.tif", **WHOLE, rate=8.0)
    assert max(sum(start <= other < start + 1 for other in starts) for start in starts) <= 8 + 2
    assert starts[-1] - starts[0] >= (len(starts) - 2) / 8 - 0.5


@pytest.mark.parametrize(
    ("number", "limit", "message"),
    [(1, "100MiB", "100 MiB for 1 threads, which is too little"), (0, "2GiB", "the Dask cluster has no workers")],
)
async def test_workers_that_cannot_build_are_an_error_before_the_first_request(
    serve, tmp_path, monkeypatch, number, limit, message
):
    monkeypatch.setattr(dask_crew, "_ARRIVAL", 2)
    tiler = serve()
    async with workers(number, memory_limit=limit) as (_, client):
        with pytest.raises(ResourceError, match=message):
            await build_mosaic_on(client, tiler.template, AREA, tmp_path / "out.tif", **WHOLE)
    assert tiler.requests == 0
    assert left_behind(tmp_path) == []


@pytest.mark.slow
async def test_workers_that_all_leave_are_missed(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(dask_crew, "_ABSENCE", 1)
    tiler, output = serve(latency=0.5), tmp_path / "out.tif"
    async with workers(1) as (cluster, client), asyncio.TaskGroup() as group:

        async def leave():
            while tiler.requests < 7:
                await asyncio.sleep(0.05)
            cluster.scale(0)

        group.create_task(leave())
        with pytest.raises(ResourceError, match="has no workers"):
            await build_mosaic_on(client, tiler.template, AREA, output, **WHOLE)
    requests = tiler.requests
    async with workers(1) as (_, client):
        report = await finished(client, tiler, output)
    assert 0 < report.parts_resumed < 16
    assert requests < 16


async def test_concurrency_auto_is_refused(serve, tmp_path, client):
    tiler = serve()
    with pytest.raises(UsageError, match="auto cannot be divided among workers"):
        await build_mosaic_on(client, tiler.template, AREA, tmp_path / "out.tif", **WHOLE, concurrency="auto")
    assert tiler.requests == 0


@pytest.mark.parametrize("seeing", [1, 0], ids=["beside another", "alone"])
async def test_a_worker_that_does_not_see_the_folder_is_named(serve, tmp_path, monkeypatch, seeing):
    tiler, output = serve(latency=0.3), tmp_path / "out.tif"
    check = Site._check

    def blind(site, worker):
        if worker.name >= seeing:
            raise WorkFolderError(f"worker {worker.address} does not find {output}.work")
        check(site, worker)

    async with workers(1) as (cluster, client), asyncio.TaskGroup() as group:

        async def join():
            while seeing and tiler.requests < 3:
                await asyncio.sleep(0.05)
            cluster.scale(2)

        group.create_task(join())
        with monkeypatch.context() as patch:
            patch.setattr(Site, "_check", blind)
            with pytest.raises(WorkFolderError, match="does not find"):
                await build_mosaic_on(client, tiler.template, AREA, output, **WHOLE)
    async with workers(1) as (_, client):
        await finished(client, tiler, output)


@pytest.mark.slow
async def test_a_stopped_run_keeps_its_tiles_and_the_same_call_gets_the_rest(serve, tmp_path, client):
    tiler, output, stop = serve(latency=0.2), tmp_path / "out.tif", asyncio.Event()
    placed = []

    def on_event(event):
        placed.extend([event] if isinstance(event, TilePlaced) else [])
        if len(placed) >= 3:
            stop.set()

    with pytest.raises(StoppedError) as caught:
        await build_mosaic_on(
            client, tiler.template, AREA, output, **WHOLE, concurrency=2, stop=stop, on_event=on_event
        )
    requests = tiler.requests
    assert 3 <= requests < 16
    assert caught.value.report.tiles_placed == requests
    await finished(client, tiler, output)
    assert tiler.requests - 16 == 16


@pytest.mark.slow
async def test_a_collection_and_an_item_are_those_of_one_machine(serve, tmp_path, client):
    tiler = serve()
    for name, crew in (("alone", False), ("crew", True)):
        for option in ("collection", "stac"):
            output = tmp_path / name / ("out.tif" if option == "stac" else "out")
            output.parent.mkdir(exist_ok=True)
            build = (
                build_mosaic_on(client, tiler.template, AREA, output, **WHOLE, **{option: True})
                if crew
                else (build_mosaic(tiler.template, AREA, output, **WHOLE, **{option: True}))
            )
            await build
    alone, crew = (
        {str(path.relative_to(tmp_path / name)): path for path in (tmp_path / name).rglob("*.tif")}
        for name in ("alone", "crew")
    )
    files = {str(path.relative_to(tmp_path / "alone")) for path in (tmp_path / "alone").rglob("*")}
    assert files == {str(path.relative_to(tmp_path / "crew")) for path in (tmp_path / "crew").rglob("*")}
    assert all(alone[name].read_bytes() == crew[name].read_bytes() for name in alone)
