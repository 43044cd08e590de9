"""The form that waits, where it may block: without a loop, and inside one, as in Jupyter."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from mosaic_async import SourceError, build_mosaic, build_mosaic_sync
from tests.test_api import AREA, ZOOM, assert_is_the_world


async def test_the_sync_form_works_inside_a_running_loop(serve, tmp_path):
    tiler = serve()
    report = build_mosaic_sync(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert report.tiles_placed == 16
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert asyncio.get_running_loop().is_running()


async def test_its_errors_are_those_of_the_coroutine(tmp_path, unused_tcp_port):
    with pytest.raises(SourceError, match="cannot be reached"):
        build_mosaic_sync(
            f"http://127.0.0.1:{unused_tcp_port}/{{z}}/{{x}}/{{y}}.tif",
            AREA,
            tmp_path / "out.tif",
            zoom=ZOOM,
            attempts=1,
        )


def test_it_takes_the_same_arguments():
    assert inspect.signature(build_mosaic_sync) == inspect.signature(build_mosaic)
