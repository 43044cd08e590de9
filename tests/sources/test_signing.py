"""Remote scenes made readable, end to end: signed blobs, a requester-pays S3, plain https COGs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import mercantile
import pytest
import rasterio
import requests
from aiohttp import ClientSession, web

from mosaic_async import SourceError, build_mosaic
from mosaic_async.sources.signing import Signer, Signing, readable, reader_pays
from mosaic_async.stac import create_mosaic
from mosaic_async.tiler import local_tiler
from tests.cli.test_main import command, run
from tests.conftest import PARANA
from tests.loopback import SERVERS, environment, free_port, running, wait_for
from tests.stac.test_mosaicjson import items_of
from tests.tiler.test_mosaics import assert_holds, mosaic_directly, scenes_of

pytestmark = [
    pytest.mark.usefixtures("forked_tilers"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),  # rio-tiler: missing
]

PLACE = (-54.9, -25.45, -54.75, -25.3)
BUILD = ("--bounds", *map(str, PLACE), "-z", "10", "--bands", "B4", "--json")
NOW = 1_600_000_000.0


class Azure:
    """Planetary Computer's token service, and the blobs of one container, which it refuses without a good token."""

    def __init__(self) -> None:
        self.life = 3600.0
        self.asked: Counter[str] = Counter()
        self.keys: set[str | None] = set()
        self.refused = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/sas/v1/token/{account}/{container}", self.token)
        app.router.add_get("/scenes/{name:.*}", self.blob)
        return app

    async def token(self, request: web.Request) -> web.Response:
        account, container = request.match_info["account"], request.match_info["container"]
        if container == "private":
            return web.json_response({"detail": "no"}, status=404)
        self.asked[f"{account}/{container}"] += 1
        self.keys.add(request.headers.get("Ocp-Apim-Subscription-Key"))
        ends = datetime.fromtimestamp(NOW + self.life, UTC).isoformat().replace("+00:00", "Z")
        number = self.asked.total()
        return web.json_response({"token": f"st=2020&sp=rl&sig=good{number}", "msft:expiry": ends})

    async def blob(self, request: web.Request) -> web.StreamResponse:
        if not request.query.get("sig", "").startswith("good"):
            self.refused += 1
            return web.Response(status=403)
        return web.FileResponse(PARANA / request.match_info["name"])


def remote_items(folder: Path, base: str, **changes) -> Path:
    """Write the items of Paraná with hrefs below another base."""
    folder.mkdir()
    for item in items_of(PARANA):
        for asset in item["assets"].values():
            asset["href"] = f"{base}/{item['id']}/{Path(asset['href']).name}"
        (folder / f"{item['id']}.json").write_text(json.dumps({**item, **changes, "links": []}))
    return folder


def assert_is_parana(path: Path) -> None:
    pixels, valid = mosaic_directly(PLACE, 10, scenes=scenes_of(PARANA), assets=["B4"])
    assert_holds(path, pixels, valid)


def test_signed_blobs_are_read_and_unsigned_ones_are_not(tmp_path):
    azure = Azure()
    with running(azure.app()) as url:
        # curl takes every name below localhost for this machine, so a host can have an account's name.
        base = url.replace("127.0.0.1", "landsateuwest.localhost") + "/scenes"
        items = remote_items(tmp_path / "remote", base)
        signer = Signer(endpoint=f"{url}/api/sas/v1/token", suffix=".localhost", clock=lambda: NOW)
        created = create_mosaic({}, items=items, keep_items=tmp_path / "items", signer=signer)
        (tmp_path / "mosaic.json").write_text(json.dumps(created.document))
        run("build", tmp_path / "mosaic.json", tmp_path / "out.tif", *BUILD)
        assert azure.refused == 0
        with pytest.raises(rasterio.errors.RasterioIOError):
            rasterio.open(f"{base}/{next(items.iterdir()).stem}/none.tif")
        assert azure.refused > 0
    assert azure.asked == {"landsateuwest/scenes": 1}
    assert_is_parana(tmp_path / "out.tif")
    assert created.warnings == ("the signatures of the scenes expire at 13:26 UTC; repeat this command after that",)
    assert "sig=" not in json.dumps(created.document) + json.dumps(created.scenes)


class ShortLived(Azure):
    """The same, with tokens that say when they end, as the real ones do; and of these only the last is good."""

    async def token(self, request: web.Request) -> web.Response:
        self.asked["tokens"] += 1
        moment = datetime.fromtimestamp(time.time() + self.life, UTC).isoformat(timespec="seconds")
        ends = moment.replace("+00:00", "Z")
        query = urlencode({"st": "2020-01-01T00:00:00Z", "se": ends, "sp": "rl", "sig": f"{self.asked['tokens']}"})
        return web.json_response({"token": query, "msft:expiry": ends})

    async def blob(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("sig") != str(self.asked["tokens"]):
            self.refused += 1
            return web.Response(status=403)
        return web.FileResponse(PARANA / request.match_info["name"])


@contextmanager
def short_lived(folder: Path, life: float) -> Iterator[tuple[ShortLived, Path, Signing]]:
    """Scenes with signatures that end so soon: their server, their mosaic, and who renews them."""
    azure = ShortLived()
    azure.life = life
    with running(azure.app()) as url:
        items = remote_items(folder / "remote", url.replace("127.0.0.1", "account.localhost") + "/scenes")
        signing = Signing(endpoint=f"{url}/api/sas/v1/token", suffix=".localhost")
        created = create_mosaic({}, items=items, keep_items=folder / "items", signer=Signer.of(signing))
        (folder / "mosaic.json").write_text(json.dumps(created.document))
        yield azure, folder / "mosaic.json", signing


async def test_signatures_that_have_ended_before_the_run_are_renewed_once_a_process(tmp_path):
    with short_lived(tmp_path, life=-5) as (azure, mosaic, signing):
        signed = azure.asked["tokens"]
        azure.life = 3600
        async with local_tiler(mosaic, bands=["B4"], workers=1, signing=signing) as source:
            report = await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
        assert azure.asked["tokens"] == signed + 1
        assert azure.refused == 0
    assert report.scenes.lacking == 0
    assert_is_parana(tmp_path / "out.tif")


async def test_blobs_without_a_signature_are_signed_when_they_are_read_if_that_is_requested(tmp_path):
    azure = ShortLived()
    azure.life = 3600
    with running(azure.app()) as url:
        items = remote_items(tmp_path / "remote", url.replace("127.0.0.1", "account.localhost") + "/scenes")
        signing = Signing(endpoint=f"{url}/api/sas/v1/token", suffix=".localhost", unsigned=True)
        async with local_tiler(items, bands=["B4"], workers=1, signing=signing) as source:
            report = await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
        assert azure.asked["tokens"] == 1
    assert report.scenes.lacking == 0
    assert_is_parana(tmp_path / "out.tif")


async def test_signatures_are_renewed_before_they_end_while_tiles_are_made(tmp_path):
    """They are good for two seconds more than the minute that is left in hand, and end with the next."""
    with short_lived(tmp_path, life=3600) as (azure, mosaic, signing):
        async with local_tiler(mosaic, bands=["B4"], workers=1, signing=signing) as source, ClientSession() as session:
            tile = mercantile.tile(-54.8, -25.4, 10)
            azure.life = 62.5
            signer = Signer.of(signing)
            for path in (tmp_path / "items").iterdir():  # nobody has read them yet
                path.write_text(json.dumps(readable(stripped(json.loads(path.read_text())), signer)))
            async with session.get(source.url(tile)) as answer:
                assert (answer.status, answer.headers.get("X-Skipped-Assets")) == (200, None)
                first = await answer.read()
            before = azure.asked["tokens"]
            await asyncio.sleep(3.5)
            async with session.get(source.url(tile)) as answer:
                assert (answer.status, answer.headers.get("X-Skipped-Assets")) == (200, None)
                assert await answer.read() == first
        assert azure.asked["tokens"] == before + 1
        assert azure.refused == 0


def stripped(item: dict) -> dict:
    for asset in item["assets"].values():
        asset["href"] = asset["href"].partition("?")[0]
    return item


def test_an_old_signature_is_used_to_its_end_where_there_is_no_new_one():
    def url(seconds: float) -> str:
        ends = datetime.fromtimestamp(NOW + seconds, UTC).isoformat()
        return "http://one.localhost/private/a.tif?" + urlencode({"v": 1, "se": ends, "sig": "x"})

    with running(Azure().app()) as service:
        signer = Signer(endpoint=f"{service}/api/sas/v1/token", suffix=".localhost", clock=lambda: NOW)
        assert signer.renew(url(90)) == url(90)
        assert signer.renew(url(30)) == url(30)
        with pytest.raises(SourceError, match="no token for one/private"):
            signer.renew(url(-1))
        renewed = signer.renew(url(-1).replace("private", "a"))
    assert renewed == "http://one.localhost/a/a.tif?v=1&st=2020&sp=rl&sig=good1"
    for plain in (
        "/data/a.tif",
        "s3://bucket/a.tif",
        "http://one.localhost/a.tif?sig=x",
        "http://other/a.tif?se=2020-01-01&sig=x",
    ):
        assert signer.renew(plain) == plain


def test_a_token_is_kept_and_replaced_when_less_than_a_minute_is_left():
    azure = Azure()
    now = [NOW]
    with running(azure.app()) as url:
        signer = Signer(
            endpoint=f"{url}/api/sas/v1/token", suffix=".localhost", subscription_key="abc", clock=lambda: now[0]
        )
        first = signer.sign("http://one.localhost/a/x.tif")
        assert first == "http://one.localhost/a/x.tif?st=2020&sp=rl&sig=good1"
        now[0] = NOW + 3539
        assert signer.sign("http://one.localhost/a/y.tif").endswith("sig=good1")
        now[0] = NOW + 3541
        azure.life = 7200
        assert signer.sign("http://one.localhost/a/y.tif?v=1").endswith("y.tif?v=1&st=2020&sp=rl&sig=good2")
        assert signer.sign("http://one.localhost/b/y.tif").endswith("sig=good3")
        with pytest.raises(SourceError, match="no token for one/private"):
            signer.sign("http://one.localhost/private/y.tif")
    assert azure.asked == {"one/a": 2, "one/b": 1}
    assert azure.keys == {"abc"}


@pytest.mark.parametrize(
    "href",
    [
        "s3://bucket/a.tif",
        "/data/a.tif",
        "https://sentinel-cogs.s3.us-west-2.amazonaws.com/a.tif",
        "https://ai4edatasetspublicassets.blob.core.windows.net/a/b.tif",
        "https://x.blob.core.windows.net/a/b.tif?se=1&sig=already",
    ],
)
def test_what_needs_no_signature_gets_none_and_no_token_is_asked_for(href):
    assert Signer(endpoint="http://127.0.0.1:9").sign(href) == href


@pytest.mark.parametrize(
    ("item", "pays", "href"),
    [
        ({"assets": {"a": {"href": "s3://b/a.tif", "storage:requester_pays": True}}}, True, "s3://b/a.tif"),
        (
            {
                "properties": {"storage:schemes": {"s": {"requester_pays": True}}},
                "assets": {"a": {"href": "s3://b/a.tif"}},
            },
            True,
            "s3://b/a.tif",
        ),
        (
            {
                "assets": {
                    "a": {
                        "href": "https://landsatlook.usgs.gov/a.tif",
                        "alternate": {"s3": {"href": "s3://usgs-landsat/a.tif", "storage:requester_pays": True}},
                    }
                }
            },
            True,
            "s3://usgs-landsat/a.tif",
        ),
        (
            {
                "assets": {
                    "a": {
                        "href": "https://open.example/a.tif",
                        "alternate": {"s3": {"href": "s3://b/a.tif", "storage:requester_pays": True}},
                    }
                }
            },
            False,
            "https://open.example/a.tif",
        ),
    ],
)
def test_the_bucket_is_taken_where_the_url_wants_a_login_and_who_pays_is_known(item, pays, href):
    assert reader_pays(item) == pays
    assert readable(item, Signer())["assets"]["a"]["href"] == href


@contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """A web server that has the scenes of Paraná where an S3 has those of a bucket."""
    app = web.Application()
    app.router.add_static("/usgs-landsat", PARANA)
    with running(app) as url:
        yield url


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """An S3 with the scenes of Paraná in a bucket, in an environment that is kept for the next time."""
    try:
        python = environment(".venv-servers", SERVERS)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"moto cannot be installed here: {type(error).__name__}")
    port = free_port()
    log = folder / "moto.log"
    server = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as errors, subprocess.Popen(server, stdout=errors, stderr=errors) as process:
        try:
            backend = f"http://127.0.0.1:{port}"
            wait_for(f"{backend}/moto-api/", process, log)
            requests.put(f"{backend}/usgs-landsat", timeout=10).raise_for_status()
            for path in PARANA.rglob("*.tif"):
                key = f"{backend}/usgs-landsat/{path.relative_to(PARANA)}"
                requests.put(key, data=path.read_bytes(), timeout=10).raise_for_status()
            yield backend
        finally:
            process.terminate()
            process.wait(10)


class TollGate:
    """Stands before an S3 and refuses anyone who does not accept to pay, as a requester-pays bucket does."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.refused = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.forward)
        return app

    async def forward(self, request: web.Request) -> web.Response:
        if request.headers.get("x-amz-request-payer") != "requester":
            self.refused += 1
            return web.Response(status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
        kept = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, self.backend + request.path_qs, headers=kept) as answer,
        ):
            names = ("Content-Range", "ETag", "Last-Modified", "Accept-Ranges")
            passed = {name: answer.headers[name] for name in names if name in answer.headers}
            return web.Response(status=answer.status, body=await answer.read(), headers=passed)


@pytest.mark.parametrize("storage", [bucket, pytest.param(s3, marks=pytest.mark.slow)])
def test_scenes_in_a_bucket_whose_reader_pays_are_built_when_he_says_so(tmp_path, storage):
    with storage(tmp_path) as backend, running((gate := TollGate(backend)).app()) as url:
        properties = {**items_of(PARANA)[0]["properties"], "storage:requester_pays": True}
        items = remote_items(tmp_path / "items", "s3://usgs-landsat", properties=properties)
        (tmp_path / "search.json").write_text("{}")
        _, stderr = run("create", tmp_path / "search.json", "-o", tmp_path / "mosaic.json", "--items", items)
        assert "warning: these scenes lie in a requester-pays bucket: set AWS_REQUEST_PAYER=requester" in stderr
        env = {
            **os.environ, "AWS_S3_ENDPOINT": url.removeprefix("http://"), "AWS_HTTPS": "NO",
            "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REQUEST_PAYER": "requester",
        }  # fmt: skip
        run("build", tmp_path / "mosaic.json", tmp_path / "out.tif", *BUILD, env=env)
        assert gate.refused == 0
        del env["AWS_REQUEST_PAYER"]
        args = ("build", tmp_path / "mosaic.json", tmp_path / "no.tif", *BUILD, "--attempts", "1")
        done = subprocess.run(command(*args), capture_output=True, text=True, timeout=100, env=env)
        assert done.returncode != 0
        assert gate.refused > 0
    assert_is_parana(tmp_path / "out.tif")


def test_cogs_at_plain_urls_are_read_as_they_are(tmp_path):
    app = web.Application()
    app.router.add_static("/sentinel-cogs", PARANA)
    with running(app) as url:
        items = remote_items(tmp_path / "items", f"{url}/sentinel-cogs")
        created = create_mosaic({}, items=items, keep_items=tmp_path / "kept")
        (tmp_path / "mosaic.json").write_text(json.dumps(created.document))
        run("build", tmp_path / "mosaic.json", tmp_path / "out.tif", *BUILD)
        assert created.warnings == ()
        by_asset = create_mosaic({}, items=items, asset="B4")
        (tmp_path / "files.json").write_text(json.dumps(by_asset.document))
        run("build", tmp_path / "files.json", tmp_path / "files.tif", *BUILD[:-3], "--bands", "1")
    assert_is_parana(tmp_path / "out.tif")
    assert_is_parana(tmp_path / "files.tif")
