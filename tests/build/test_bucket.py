"""An output in a bucket: the bytes of one on the disk, resumed from any machine, and never half under its name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from aiohttp import web
from rasterio.io import MemoryFile

from mosaic_async import IncompleteError, ResourceError, UsageError, WorkFolderError, build_mosaic
from mosaic_async.build import bucket_output
from mosaic_async.cloud import concatenation
from mosaic_async.cloud.store import Store
from tests.build.test_stitching import SMALL_PARTS
from tests.object_server import Identity, ObjectServer, moto_server, seaweed_server
from tests.test_api import AREA, BAD, ZOOM

OPTIONS = {"zoom": ZOOM, **SMALL_PARTS}
OUTPUT = "s3://bucket/folder/out.tif"
READER = Identity("a-reader-key", "a-reader-secret", ("Read", "List"))


class Killed(BaseException):
    """No code of the package catches this."""


@pytest.fixture(scope="module", params=["moto", pytest.param("seaweed", marks=pytest.mark.slow)])
def server(request, tmp_path_factory) -> Iterator[ObjectServer]:
    folder = tmp_path_factory.mktemp("server")
    with moto_server(folder) if request.param == "moto" else seaweed_server(folder, [READER]) as running:
        running.client().create_bucket(Bucket="bucket")
        yield running


@pytest.fixture(autouse=True)
def _keys(server, monkeypatch):
    for name, value in server.environ().items():
        monkeypatch.setenv(name, value)
    yield
    for key in server.keys("bucket"):
        server.client().delete_object(Bucket="bucket", Key=key)


def read(server: ObjectServer, key: str = "folder/out.tif") -> bytes:
    return server.client().get_object(Bucket="bucket", Key=key)["Body"].read()


async def test_it_has_the_bytes_of_an_output_on_the_disk_and_nothing_else_is_left(server, serve, tmp_path):
    tiler = serve()
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **OPTIONS)
    report = await build_mosaic(tiler.template, AREA, OUTPUT, work=tmp_path / "work", **OPTIONS)
    assert read(server) == (tmp_path / "whole.tif").read_bytes()
    assert server.keys("bucket") == ["folder/out.tif"]
    assert server.uploads("bucket") == []
    assert report.as_dict()["output"] == OUTPUT
    assert report.bytes_written == (tmp_path / "whole.tif").stat().st_size
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    requests = tiler.requests
    with pytest.raises(UsageError, match="exists"):
        await build_mosaic(tiler.template, AREA, OUTPUT, work=tmp_path / "work", **OPTIONS)
    assert tiler.requests == requests
    await build_mosaic(tiler.template, AREA, OUTPUT, work=tmp_path / "work", overwrite=True, **OPTIONS)
    assert read(server) == (tmp_path / "whole.tif").read_bytes()
    await build_mosaic(tiler.template, AREA, "s3://bucket/one.tif", work=tmp_path / "work", zoom=ZOOM)
    await build_mosaic(tiler.template, AREA, tmp_path / "one.tif", zoom=ZOOM)
    assert read(server, "one.tif") == (tmp_path / "one.tif").read_bytes()


async def test_a_killed_run_resumes_on_a_machine_with_an_empty_disk(server, serve, tmp_path, monkeypatch):
    tiler, puts, put = serve(), [], Store.put
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **OPTIONS)

    def dying(store, key, *args, **options):
        puts.append(key)
        if sum(name.endswith(".card.json") for name in puts) > 5:
            raise Killed
        return put(store, key, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", dying)
        with pytest.raises((Killed, BaseExceptionGroup)):
            await build_mosaic(tiler.template, AREA, OUTPUT, work=tmp_path / "work", **OPTIONS)
    assert "folder/out.tif" not in server.keys("bucket")
    shutil.rmtree(tmp_path / "work")
    with pytest.raises(WorkFolderError, match="another job"):
        await build_mosaic(tiler.template, AREA, OUTPUT, work=tmp_path / "work", nodata=7, **OPTIONS)
    tiler.hits.clear()
    report = await build_mosaic(tiler.template, AREA, OUTPUT, work=tmp_path / "work", **OPTIONS)
    assert report.parts_resumed == 5
    assert tiler.requests < report.tiles_total
    assert read(server) == (tmp_path / "whole.tif").read_bytes()
    assert server.keys("bucket") == ["folder/out.tif"]


@pytest.mark.slow
async def test_what_goes_wrong_at_the_end_leaves_no_output_and_costs_no_request(server, serve, tmp_path, monkeypatch):
    tiler = serve()
    work = {"work": tmp_path / "work", **OPTIONS}
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **OPTIONS)
    completed = concatenation.concatenate

    def failing(*args, **options):
        raise ResourceError("the store is out of reach")

    with monkeypatch.context() as patch:
        patch.setattr(bucket_output, "concatenate", failing)
        with pytest.raises(ResourceError, match="out of reach"):
            await build_mosaic(tiler.template, AREA, OUTPUT, **work)
    assert "folder/out.tif" not in server.keys("bucket")

    def wrong(store, key, stretches, **options):  # a store that joins its ranges wrongly
        return completed(store, key, [*stretches[:1], *stretches[:0:-1]], **options)

    with monkeypatch.context() as patch:
        patch.setattr(bucket_output, "concatenate", wrong)
        with pytest.raises(Exception, match="wrongly"):
            await build_mosaic(tiler.template, AREA, OUTPUT, **work)
    assert "folder/out.tif" not in server.keys("bucket")

    def taken(store, key, stretches, **options):  # somebody else is quicker
        if key == "folder/out.tif":
            server.client().put_object(Bucket="bucket", Key=key, Body=b"another's")
        return completed(store, key, stretches, **options)

    with monkeypatch.context() as patch:
        patch.setattr(bucket_output, "concatenate", taken)
        with pytest.raises(UsageError, match="appeared"):
            await build_mosaic(tiler.template, AREA, OUTPUT, **work)
    assert read(server) == b"another's"

    def killed(store, key, stretches, **options):  # right after the output got its name
        completed(store, key, stretches, **options)
        if key == "folder/out.tif":
            raise Killed

    tiler.hits.clear()
    with monkeypatch.context() as patch:
        patch.setattr(bucket_output, "concatenate", killed)
        with pytest.raises((Killed, BaseExceptionGroup)):
            await build_mosaic(tiler.template, AREA, OUTPUT, overwrite=True, **work)
    report = await build_mosaic(tiler.template, AREA, OUTPUT, **work)
    assert report.requests == tiler.requests == 0
    assert read(server) == (tmp_path / "whole.tif").read_bytes()
    assert server.keys("bucket") == ["folder/out.tif"]


@pytest.mark.slow
async def test_holes_are_filled_later_and_only_their_tiles_are_requested(server, serve, tmp_path):
    tiler, work = serve(), {"work": tmp_path / "work", **OPTIONS}
    await build_mosaic(tiler.template, AREA, tmp_path / "whole.tif", **OPTIONS)

    async def bad(tile, hit):
        return web.Response(status=400) if tile == BAD else None

    tiler.mood = bad
    with pytest.raises(IncompleteError, match="1 of"):
        await build_mosaic(tiler.template, AREA, OUTPUT, **work)
    assert "folder/out.tif" not in server.keys("bucket")
    report = await build_mosaic(tiler.template, AREA, OUTPUT, max_failures=1, **work)
    assert report.tiles_failed == 1
    with MemoryFile(read(server)) as file, file.open() as dataset:
        assert not dataset.dataset_mask().all()
    tiler.mood = None
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, OUTPUT, overwrite=True, **work)
    assert set(tiler.hits) == {BAD}
    assert read(server) == (tmp_path / "whole.tif").read_bytes()
    assert server.keys("bucket") == ["folder/out.tif"]


async def test_a_bucket_that_is_missing_and_names_that_cannot_be_written_are_refused(serve, tmp_path):
    tiler = serve()
    for output, words in {
        "s3://no-such-bucket/out.tif": "not found",
        "gs://bucket/out.tif": "s3://",
        "s3://bucket/out.png": "GeoTIFF",
    }.items():
        with pytest.raises(UsageError, match=words):
            await build_mosaic(tiler.template, AREA, output, work=tmp_path / "work", **OPTIONS)
    with pytest.raises(UsageError, match="on the disk"):
        await build_mosaic(tiler.template, AREA, OUTPUT, collection=True, **OPTIONS)
    assert tiler.requests == 0
