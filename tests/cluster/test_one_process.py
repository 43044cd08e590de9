"""A crew in this process: what it asks of the server, and what it passes on."""

from __future__ import annotations

import pytest
from distributed import Client, LocalCluster

from mosaic_async import build_mosaic
from mosaic_async.cluster import build_mosaic_on
from mosaic_async.events import Pulse, TilePlaced
from tests.build.test_stitching import SMALL_PARTS
from tests.test_api import AREA, ZOOM, left_behind

WHOLE = {"zoom": ZOOM, **SMALL_PARTS}


@pytest.fixture
async def client():
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, asynchronous=True, dashboard_address=None, protocol="inproc"
    )
    async with cluster, Client(cluster, asynchronous=True) as found:
        yield found


async def test_a_cluster_makes_the_bytes_of_one_machine_and_reports_as_one(serve, tmp_path, client):
    tiler, output, events = serve(), tmp_path / "out.tif", []
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
