"""What a run says when tiles fail: another run only against what is temporary, and otherwise the option that helps."""

from __future__ import annotations

import pytest
from aiohttp import web

from mosaic_async import IncompleteError, SourceError, TileParked, UsageError, build_mosaic, plan_mosaic
from mosaic_async.cli.build_command import build
from mosaic_async.cli.options import flags_of
from tests.build.test_crashes import certificate_of
from tests.cli.test_main import run
from tests.loopback import running
from tests.map_server import AREA, ZOOM, MapServer, assert_is_the_map
from tests.moods import says
from tests.test_api import assert_is_the_world

FLAGS = flags_of(build)
WIDE, DEEP = (-4.0, 38.0, 4.0, 44.0), 7
"""Sixteen tiles."""
BAD = (7, 64, 48)
EXCEPTION = (
    b'<?xml version="1.0"?><ServiceExceptionReport><ServiceException code="LayerNotDefined">the cache is busy'
    b"</ServiceException></ServiceExceptionReport>"
)
PAGES = {
    "a WMS exception as an image": (EXCEPTION, "image/png", "LayerNotDefined: the cache is busy"),
    "a WMS exception": (EXCEPTION, "application/vnd.ogc.se_xml", "LayerNotDefined: the cache is busy"),
    "a page": (b"<!doctype html><title>Back soon</title>", "text/html", "Back soon"),
    "an ArcGIS error": (b'{"error":{"code":498,"message":"Token expired"}}', "image/png", "Token expired"),
    "a page after a byte order mark": (b"\xef\xbb\xbf\r\n<html><h1>Try later</h1>", "image/tiff", "Try later"),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("page", PAGES)
async def test_a_page_with_200_is_parked_like_a_503_and_its_words_reach_the_user(serve, tmp_path, page):
    body, kind, words = PAGES[page]
    tiler = serve()
    answer = says(body, kind)

    async def mood(tile, hit):
        return await answer(tiler, tile) if tile == BAD and hit <= last else None

    tiler.mood = mood
    events = []
    last = 2
    await build_mosaic(tiler.template, WIDE, tmp_path / "out.tif", zoom=DEEP, on_event=events.append)
    assert [words in event.reason for event in events if isinstance(event, TileParked)] == [True]
    assert_is_the_world(tmp_path / "out.tif", tiler, WIDE, DEEP)
    tiler.hits.clear()
    last = 99
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, WIDE, tmp_path / "other.tif", zoom=DEEP)
    (failure,) = error.value.report.failed
    assert words in failure.reason
    assert failure.is_passing
    assert str(error.value.hint).startswith("re-run the same command to retry the 1 failed tiles; details in")


@pytest.mark.parametrize(
    ("status", "headers", "hints", "silent"),
    [
        (400, {}, ["1 of them will fail again", "--max-failures"], "re-run"),
        (
            301,
            {"Location": "https://cdn.example/x.png"},
            ["add cdn.example to --allow-host", "--max-failures"],
            "re-run",
        ),
        (503, {}, ["re-run the same command to retry the 1 failed tiles"], "--max-failures"),
        (418, {}, ["1 of them will fail again"], "re-run"),
    ],
)
async def test_what_helps_depends_on_why_tiles_failed(serve, tmp_path, status, headers, hints, silent):
    async def mood(tile, hit):
        return web.Response(status=status, headers=headers) if tile == BAD else None

    tiler = serve(mood=mood)
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, WIDE, tmp_path / "out.tif", zoom=DEEP, attempts=1)
    hint = error.value.hint_in(FLAGS)
    assert all(text in hint for text in hints), hint
    assert silent not in hint


async def test_a_redirect_of_every_tile_names_the_option_that_allows_it(serve, tmp_path):
    tiler = serve()

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"http://localhost:{tiler.port}{request.path}")

    app = web.Application()
    app.router.add_get("/{path:.*}", moved)
    with running(app) as url:
        template = f"{url}/{{z}}/{{x}}/{{y}}.tif"
        with pytest.raises(SourceError, match="another host, localhost") as error:
            await build_mosaic(template, WIDE, tmp_path / "out.tif", zoom=DEEP)
        assert "add localhost to --allow-host" in error.value.hint_in(FLAGS)
        with pytest.raises(SourceError, match="another host, localhost") as error:
            await plan_mosaic(template, WIDE, zoom=DEEP)
        assert "add localhost to --allow-host" in error.value.hint_in(FLAGS)
        plan = await plan_mosaic(template, WIDE, zoom=DEEP, allow_hosts=["localhost"])
        assert plan.tiles == 16


async def test_a_private_authority_is_trusted_by_its_file_and_the_hint_names_it(tmp_path):
    certificate, context = certificate_of(tmp_path, "-addext", "subjectAltName=DNS:localhost")
    server = MapServer(documents={"/tiles.json": {"tiles": ["/xyz/{z}/{x}/{y}.png"], "maxzoom": ZOOM}})
    with running(server.app, tls=context) as url:
        await build_mosaic(f"{url}/tiles.json", AREA, tmp_path / "out.tif", ca=certificate)
        assert_is_the_map(tmp_path / "out.tif")
        for source in (f"{url}/tiles.json", f"{url}/xyz/{{z}}/{{x}}/{{y}}.png"):
            with pytest.raises(SourceError, match="certificate is not valid: self-signed certificate") as error:
                await plan_mosaic(source, AREA, zoom=ZOOM)
            assert "--ca or in SSL_CERT_FILE" in error.value.hint_in(FLAGS)
        bounds = [*map(str, AREA)]
        stdout, _ = run("plan", f"{url}/tiles.json", "--ca", certificate, "--bounds", *bounds)
        assert "tiles       4" in stdout
        with pytest.raises(UsageError, match="cannot be read as certificates"):
            await plan_mosaic(f"{url}/tiles.json", AREA, ca=tmp_path / "key.pem")
