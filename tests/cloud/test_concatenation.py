"""Objects of a store, and those that are put together inside it; the oracle is what botocore reads back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mosaic_async.cloud.access import Access
from mosaic_async.cloud.concatenation import abort_uploads, concatenate
from mosaic_async.cloud.store import Store, TakenError
from mosaic_async.cloud.stretches import Kept, Stretch
from mosaic_async.errors import ResourceError, UsageError
from mosaic_async.safety.redaction import scrub
from tests.object_server import Identity, ObjectServer, moto_server, seaweed_server

MIB = 2**20
READER = Identity("a-reader-key", "a-reader-secret", ("Read", "List"))


@pytest.fixture(scope="module", params=["moto", pytest.param("seaweed", marks=pytest.mark.slow)])
def server(request, tmp_path_factory) -> Iterator[ObjectServer]:
    folder = tmp_path_factory.mktemp("server")
    with moto_server(folder) if request.param == "moto" else seaweed_server(folder, [READER]) as running:
        running.client().create_bucket(Bucket="bucket")
        yield running


@pytest.fixture
def store(server, monkeypatch) -> Store:
    return opened(server.environ(), monkeypatch)


def opened(environ: dict[str, str], monkeypatch, bucket: str = "bucket") -> Store:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Store(bucket, Access.find())


def noise(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def test_the_bucket_joins_files_and_objects_and_copies_the_large_ones_itself(server, store, tmp_path):
    front, first, small, large = (noise(size, size) for size in (3000, 13 * MIB, 70_000, 6 * MIB))
    (tmp_path / "front").write_bytes(front)
    kept = {name: Kept(name, store.put(name, data)) for name, data in {"1": first, "2": small, "3": large}.items()}
    stretches = [
        Stretch(tmp_path / "front", 0, len(front)),
        Stretch(kept["1"], 5, len(first) - 5),
        Stretch(kept["2"], 0, len(small)),
        Stretch(kept["3"], 0, len(large) - 9),
    ]
    done: list[int] = []
    concatenate(store, "made", stretches, metadata={"mosaic": "7"}, on_step=done.append)
    body = server.client().get_object(Bucket="bucket", Key="made")
    assert body["Body"].read() == front + first[5:] + small + large[:-9]
    assert body["Metadata"] == {"mosaic": "7"}
    assert sum(done) == body["ContentLength"]
    assert server.uploads("bucket") == []
    for create in (concatenate, lambda *given, **options: store.put("made", front, create=True)):
        with pytest.raises(TakenError, match="exists"):
            create(store, "made", stretches, create=True)
    concatenate(store, "made", stretches[:1])
    assert store.get("made") == front
    assert store.find("made").size == len(front)
    store.delete(["made", "1", "2", "3", "never there"])
    assert server.keys("bucket") == []


def test_an_object_that_is_not_what_was_put_there_is_not_joined_and_nothing_is_left(server, store, request):
    stretch = Stretch(Kept("1", store.put("1", noise(6 * MIB, 1))), 0, 6 * MIB)
    if request.node.callspec.params["server"] != "moto":  # which does not know the condition
        store.put("1", noise(6 * MIB, 2))
        with pytest.raises(ResourceError, match="is not what was put there"):
            concatenate(store, "made", [stretch, stretch])
    store.delete(["1"])
    with pytest.raises(ResourceError, match="is gone"):
        concatenate(store, "made", [stretch, stretch])
    assert server.keys("bucket") == []
    assert server.uploads("bucket") == []


def test_uploads_that_a_kill_left_are_found_and_aborted(server, store):
    client = server.client()
    for key in ("made.tif", "made.tif.work/made", "other.tif"):
        client.create_multipart_upload(Bucket="bucket", Key=key)
    assert abort_uploads(store, "made.tif") == 2
    assert server.uploads("bucket") == ["other.tif"]
    assert abort_uploads(store, "other.tif") == 1


def test_a_missing_bucket_and_a_server_out_of_reach_are_told_apart(server, store, monkeypatch):
    with pytest.raises(UsageError, match="bucket s3://no-bucket not found"):
        Store("no-bucket", store.access).under("key")
    monkeypatch.setattr("mosaic_async.cloud.access._ATTEMPTS", 1)
    away = opened({**server.environ(), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, monkeypatch)
    with pytest.raises(ResourceError, match="out of reach"):
        away.get("key")


@pytest.mark.slow
def test_who_may_not_write_is_told_so_without_the_keys(tmp_path, monkeypatch):
    with seaweed_server(tmp_path, [READER]) as running:
        running.client().create_bucket(Bucket="bucket")
        reader = opened(running.environ(READER), monkeypatch)
        with pytest.raises(ResourceError, match="denied") as denied:
            reader.put("key", b"1")
        assert READER.secret not in str(denied.value)
        stranger = opened(running.environ(Identity("nobody-key", "nobody-secret")), monkeypatch)
        with pytest.raises(ResourceError, match="denied"):
            stranger.under("key")


def test_gdal_and_botocore_are_told_the_same_and_texts_forget_the_keys(server, monkeypatch, tmp_path):
    for name in server.environ():
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text(
        "[mine]\naws_access_key_id=profile-key\naws_secret_access_key=profile-secret\n"
    )
    (tmp_path / "config").write_text("[profile mine]\nregion=eu-north-1\nendpoint_url=https://store.test:9000\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ResourceError, match="keys for the object store were not found"):
        Access.find()
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert Access.find().for_gdal() == {
        "AWS_ACCESS_KEY_ID": "profile-key",
        "AWS_SECRET_ACCESS_KEY": "profile-secret",
        "AWS_REGION": "eu-north-1",
        "AWS_S3_ENDPOINT": "store.test:9000",
        "AWS_HTTPS": "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }
    assert not re.search("profile-(key|secret)", scrub("sent profile-key and profile-secret"))
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert Access.find().for_gdal()["AWS_NO_SIGN_REQUEST"] == "YES"
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_S3_ENDPOINT", "localhost:9000")
    monkeypatch.setenv("AWS_HTTPS", "NO")
    assert Access.find().client.meta.endpoint_url == "http://localhost:9000"


def test_a_file_that_has_become_shorter_is_not_sent(store, tmp_path):
    path = Path(tmp_path / "file")
    path.write_bytes(b"1234")
    with pytest.raises(ResourceError, match="ends too early"):
        concatenate(store, "made", [Stretch(path, 0, 5)])
