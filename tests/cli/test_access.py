"""Headers, certificates and proxies reach everything that scenes are read from: searches, items and their files."""

from __future__ import annotations

import json
import subprocess
import sys
from urllib.request import urlopen

import pytest
from yarl import URL

from mosaic_async import SourceError
from mosaic_async.http.trust import trusting
from mosaic_async.stac import create_mosaic
from tests.build.test_crashes import certificate_of
from tests.cli.test_main import run
from tests.cli.test_search_to_mosaic import SEARCH, stac_api

NAMED = ("-addext", "subjectAltName=DNS:localhost")
HEADER = ("--header", "Authorization: Bearer t, 1")


def test_one_file_of_authorities_is_trusted_by_the_search_the_items_and_their_files(tmp_path):
    certificate, tls = certificate_of(tmp_path, *NAMED)
    search, mosaic = tmp_path / "search.json", tmp_path / "mosaic.json"
    search.write_text(json.dumps(SEARCH))
    with stac_api(absolute=True, token="t, 1", tls=tls) as url:
        trusted = ("--ca", certificate, *HEADER)
        _, stderr = run("create", search, "-o", mosaic, "--api", url, *HEADER, code=4)
        assert "certificate" in stderr.lower()
        run("create", search, "-o", mosaic, "--api", url, *trusted)
        command = ("serve", mosaic, "--port", "0", "--workers", "1", *trusted)
        with subprocess.Popen(
            [sys.executable, "-m", "mosaic_async", *map(str, command)], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                served = URL(process.stdout.readline().strip())
                tile = served.with_path("/tiles/WebMercatorQuad/9/178/292.tif").with_query(assets="B4")
                with urlopen(str(tile), timeout=60) as answer:
                    assert answer.headers["X-Assets"].count("/items/") == 2
            finally:
                process.terminate()


@pytest.fixture
def proxied(monkeypatch):
    def through(url):
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

    return through


def test_a_search_goes_through_the_proxy_of_all_requests_and_past_it_to_this_machine(proxied):
    with stac_api() as url:
        proxied(url.replace("http://", "http://user:word@"))
        assert len(create_mosaic(SEARCH, api="http://stac.example").scenes["features"]) == 2
        proxied("http://127.0.0.1:9")
        assert len(create_mosaic(SEARCH, api=url).scenes["features"]) == 2
        with pytest.raises(SourceError, match="does not answer"):
            create_mosaic(SEARCH, api="http://stac.example", attempts=1)


def test_certificates_are_trusted_within_the_block_alone(tmp_path):
    certificate, tls = certificate_of(tmp_path, *NAMED)
    with stac_api(tls=tls) as url:
        with trusting(certificate):
            assert create_mosaic(SEARCH, api=url).scenes["features"]
        with pytest.raises(SourceError, match="does not answer"):
            create_mosaic(SEARCH, api=url, attempts=1)
