"""A proxy of the environment takes requests to other machines, and none to this one."""

from __future__ import annotations

import pytest
from yarl import URL

from mosaic_async import build_mosaic
from mosaic_async.http.route import Routes
from tests.test_api import AREA, ZOOM, assert_is_the_world


@pytest.fixture
def proxied(monkeypatch):
    def through(url):
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, str(url))
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

    return through


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "[::1]", "localhost", "tiler.localhost"])
async def test_no_proxy_takes_requests_to_this_machine(proxied, host):
    proxied("http://proxy.example:3128")
    assert (await Routes().to(URL(f"http://{host}:8000/0/0/0.png"))).proxy is None


@pytest.mark.parametrize("host", ["tiler.example", "10.0.0.1", "localhost.example", "[fd00::1]"])
async def test_a_proxy_takes_requests_to_other_machines(proxied, host):
    proxied("http://user:word@proxy.example:3128")
    route = await Routes().to(URL(f"http://{host}:8000/0/0/0.png"))
    assert route.proxy == URL("http://proxy.example:3128")
    assert route.proxy_headers == {"Proxy-Authorization": "Basic dXNlcjp3b3Jk"}


async def test_a_run_goes_through_the_proxy(proxied, serve, tmp_path):
    proxy = serve()
    proxied(proxy.url)
    template = proxy.template.replace(proxy.url, "http://tiler.example")
    report = await build_mosaic(template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert proxy.requests == report.requests == report.tiles_total
    assert_is_the_world(tmp_path / "out.tif", proxy, AREA, ZOOM)


async def test_a_run_over_this_machine_s_tiler_needs_no_exception_of_the_proxy(proxied, serve, tmp_path):
    proxied("http://127.0.0.1:9")
    tiler = serve()
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
