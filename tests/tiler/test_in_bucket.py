"""Scenes in a bucket: a MosaicJSON, items and rasters there give the bytes that they give on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mosaic_async import ResourceError, SourceError, UsageError
from mosaic_async.cloud.access import Access, settings_for_gdal, usual_access
from mosaic_async.sources.bucket import read_object
from mosaic_async.tiler import open_mosaic
from tests.object_server import OWNER, ObjectServer, moto_server
from tests.tiler.world import PLACE, values_of, write_item, write_raster

AREA = [str(value) for value in (PLACE[0] - 0.05, PLACE[1] - 0.05, PLACE[0] + 0.05, PLACE[1] + 0.05)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two items beside their rasters, two MosaicJSONs of relative names, and rasters alone."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in (1, 2):
        bands = values_of(number, 200)
        write_raster(folder / "items" / f"{number}.tif", bands, shift=(60 * number - 90, 0), nodata=0)
        write_raster(folder / "rasters" / f"{number}.tif", bands, shift=(60 * number - 90, 0), nodata=0)
        write_item(folder / "items" / f"{number}.json", {"red": {"href": f"./{number}.tif", "type": "image/tiff"}})
    for kind in ("items", "rasters"):
        document = json.dumps(open_mosaic(folder / kind).document)
        (folder / f"{kind}.json").write_text(document.replace(f"{folder}/", ""))
    return folder


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory) -> Iterator[ObjectServer]:
    with moto_server(tmp_path_factory.mktemp("server")) as running:
        running.client().create_bucket(Bucket="scenes")
        for file in folder.rglob("*.*"):
            key = f"a b/{file.relative_to(folder)}"
            running.client().put_object(Bucket="scenes", Key=key, Body=file.read_bytes())
        yield running


@pytest.fixture
def keys(server, monkeypatch) -> Iterator[dict[str, str]]:
    usual_access.cache_clear()
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)
    yield server.environ()
    usual_access.cache_clear()


@pytest.fixture
def gdal(keys, monkeypatch):
    """GDAL in this process reads the server, as the tilers' processes do."""
    for name, value in settings_for_gdal(keys, is_needed=True).items():
        monkeypatch.setenv(name, value)


def build(source: str, output: Path, *options: str) -> tuple[bytes, str]:
    """Return the bytes of an output, and all that the command and its folder say."""
    command = [sys.executable, "-m", "mosaic_async", "build", source, str(output), "--bounds", *AREA, "--zoom", "10"]
    done = subprocess.run([*command, "--json", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output.read_bytes(), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("local", "names"),
    [
        ("items.json", ["items.json"]),
        pytest.param("items", ["items", "items/"], marks=pytest.mark.slow),
        pytest.param("rasters", ["rasters.json", "rasters/"], marks=pytest.mark.slow),
        pytest.param("items/1.json", ["items/1.json"], marks=pytest.mark.slow),
        pytest.param("rasters/1.tif", ["rasters/1.tif"], marks=pytest.mark.slow),
    ],
)
def test_the_output_has_the_bytes_of_one_from_local_files_and_no_word_of_keys(keys, folder, tmp_path, local, names):
    options = ["--bands", "red"] if local.startswith("items") else []
    expected, _ = build(str(folder / local), tmp_path / "local.tif", *options)
    for number, name in enumerate(names):
        found, said = build(f"s3://scenes/a b/{name}", tmp_path / f"{number}.tif", *options)
        assert found == expected, name
        assert not any(secret in text for secret in (OWNER.key, OWNER.secret) for text in (said, str(found)))


def test_the_index_is_that_of_local_files(gdal, folder):
    for name in ("items", "items/", "rasters", "items.json", "rasters.json", "items/2.json", "rasters/2.tif"):
        local, found = open_mosaic(folder / name), open_mosaic(f"s3://scenes/a b/{name}")
        text = json.dumps(local.document).replace(f"{folder}/", "s3://scenes/a b/")
        assert json.loads(text) == found.document, name
        assert (found.assets, found.hosts) == (local.assets, ("scenes",)), name


def test_what_is_not_there_is_said(keys):
    for source, kind, words in [
        ("s3://scenes/other.json", SourceError, "s3://scenes/other.json not found"),
        ("s3://scenes/a b/item", SourceError, "not found"),
        ("s3://nowhere/mosaic.json", UsageError, "bucket s3://nowhere not found"),
        ("gs://scenes/mosaic.json", UsageError, "only S3"),
        ("s3://", UsageError, "names no object in a bucket"),
    ]:
        with pytest.raises(kind, match=words):
            open_mosaic(source)


def test_what_is_in_a_bucket_names_no_file_of_this_machine(gdal, server, folder):
    client = server.client()
    item = json.loads((folder / "items" / "1.json").read_text())
    for number, href in enumerate([(folder / "items" / "1.tif").as_uri(), "http://127.0.0.1:1/1.tif"]):
        item["assets"]["red"]["href"] = href
        client.put_object(Bucket="scenes", Key=f"bad/{number}.json", Body=json.dumps(item).encode())
        with pytest.raises(SourceError, match="no raster asset"):
            open_mosaic(f"s3://scenes/bad/{number}.json")
        tiles = {"mosaicjson": "0.0.3", "minzoom": 8, "maxzoom": 9, "quadkey_zoom": 0, "tiles": {"0": [href]}}
        client.put_object(Bucket="scenes", Key=f"bad{number}.json", Body=json.dumps(tiles).encode())
        with pytest.raises(SourceError, match="not on a public server"):
            open_mosaic(f"s3://scenes/bad{number}.json")


def test_requests_say_who_pays_and_a_public_bucket_needs_no_keys(keys, server, folder, monkeypatch):
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    access, seen = Access.find(), []
    access.client.meta.events.register(
        "before-send.s3", lambda request, **_: seen.append(request.headers["x-amz-request-payer"])
    )
    assert access.client.list_objects_v2(Bucket="scenes", MaxKeys=1)["KeyCount"] == 1
    assert seen in ([b"requester"], ["requester"])
    data = (folder / "items" / "1.json").read_bytes()
    server.client().put_object(Bucket="scenes", Key="open.json", Body=data, ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    usual_access.cache_clear()
    assert read_object("s3://scenes/open.json") == json.loads(data)
    with pytest.raises(ResourceError, match="denied"):
        read_object("s3://scenes/a b/items.json")


def test_gdal_is_told_only_what_it_does_not_read_itself(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert settings_for_gdal({}, is_needed=False) == {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9/")
    assert settings_for_gdal(os.environ, is_needed=False) == {}
    with pytest.raises(ResourceError, match="keys"):
        settings_for_gdal(os.environ, is_needed=True)
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    told = settings_for_gdal(os.environ, is_needed=False)
    assert (told["AWS_S3_ENDPOINT"], told["AWS_HTTPS"], told["AWS_NO_SIGN_REQUEST"]) == ("127.0.0.1:9", "NO", "YES")
