"""The whole run: every pixel in its place, every tile requested once, and nothing lost when it ends early."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
import tifffile
from aiohttp import web
from blockbuster import BlockingError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rio_cogeo import cog_validate
from rio_tiler.io import Reader

from mosaic_async import (
    IncompleteError,
    RefusedError,
    ResourceError,
    RunStarted,
    SourceError,
    TileEmpty,
    TileFailed,
    TileFetched,
    TilePlaced,
    UsageError,
    WorkFolderError,
    build_mosaic,
    build_mosaic_sync,
    plan_mosaic,
)
from mosaic_async.build.budget import QUEUE_SIZE
from mosaic_async.build.run import Run
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.raster.assembly import Assembly
from tests.effort import examples
from tests.fake_tiler import FakeTiler, Pattern
from tests.forks import server
from tests.geo.test_area import FIJI_SPLIT
from tests.geo.test_grid import degrees
from tests.pairwise import quick_values
from tests.pyramid_reader import assert_same_levels
from tests.raster.test_stitch import read_with_async_geotiff

pytestmark = [
    pytest.mark.usefixtures("unblocked_loop"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),  # of the fake tiler's PNGs
]

AREA = (-4.0, 38.0, 4.0, 44.0)
ZOOM = 7


def expected(pattern: Pattern, area, zoom: int, tile_size: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Compute the mosaic with mercantile and the pattern alone: pixels, validity, and the first tile."""
    tiles = list(mercantile.tiles(*area, zooms=[zoom]))
    left, right = min(tile.x for tile in tiles), max(tile.x for tile in tiles) + 1
    top, lower = min(tile.y for tile in tiles), max(tile.y for tile in tiles) + 1
    size = tile_size
    pixels, valid = pattern.expected(left * size, top * size, (lower - top) * size, (right - left) * size)
    return pixels, valid, (left, top)


def assert_is_the_world(path: Path, tiler: FakeTiler, area, zoom: int) -> None:
    pixels, valid, (left, top) = expected(tiler.pattern, area, zoom, tiler.tile_size)
    with rasterio.open(path) as dataset:
        assert dataset.shape == valid.shape
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(dataset.read(), pixels)
        bounds = mercantile.xy_bounds(left, top, zoom)
        assert (dataset.transform.c, dataset.transform.f) == pytest.approx((bounds.left, bounds.top), abs=1e-6)
        assert dataset.transform.a == pytest.approx((bounds.right - bounds.left) / tiler.tile_size)
        assert dataset.crs.to_epsg() == 3857


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_small_area_becomes_one_exact_valid_cog(serve, tmp_path):
    tiler = serve()
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert cog_validate(tmp_path / "out.tif", strict=True, quiet=True)[0]
    assert left_behind(tmp_path) == ["out.tif"]
    assert (report.tiles_total, report.tiles_placed, report.tiles_empty, report.tiles_failed) == (16, 16, 0, 0)
    assert (report.requests, report.retries, tiler.requests) == (16, 0, 16)
    assert report.bytes_received == sum(len(tiler.body(tile)) for tile in tiler.hits)
    assert report.bytes_written == (tmp_path / "out.tif").stat().st_size


def test_the_report_has_the_promised_names_as_json(serve, tmp_path):
    report = build_mosaic_sync(serve().template, AREA, tmp_path / "out.tif", zoom=ZOOM).as_dict()
    promised = (
        "output bounds zoom width height tiles_total tiles_placed tiles_empty tiles_failed requests retries "
        "bytes_received seconds parts_total parts_resumed peak_rss"
    )
    assert set(promised.split()) <= json.loads(json.dumps(report)).keys()
    assert report["peak_rss"] > 50_000_000
    west, south, east, north = report["bounds"]
    assert west <= -4
    assert south <= 38
    assert east >= 4
    assert north >= 44


FORMATS = st.sampled_from(
    [("tif", kind) for kind in ("uint8", "uint16", "int16", "float32")]
    + [("npy", "uint8"), ("npy", "int16"), ("png", "uint8"), ("png", "uint16"), ("webp", "uint8")]
)


@given(
    west=degrees(-179, 170),
    south=degrees(-80, 78),
    width=degrees(0.01, 6),
    height=degrees(0.01, 4),
    zoom=st.integers(0, 7),
    tile_size=st.sampled_from([128, 256, 512, 1024]),
    fmt=FORMATS,
    masked=st.booleans(),
    many=st.booleans(),
)
@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_tile_of_every_area_zoom_size_and_format_lands_in_its_place(
    tmp_path_factory, west, south, width, height, zoom, tile_size, fmt, masked, many
):
    ext, dtype = fmt
    area = (west, south, west + width, south + height)
    count = 3 if ext in ("png", "webp") else 2
    tiler = FakeTiler(
        pattern=Pattern(count=count, dtype=dtype, masked=masked or ext == "npy"), tile_size=tile_size, ext=ext
    )
    output = tmp_path_factory.mktemp("placement") / "out.tif"
    if Cover.of(Area.parse(area), zoom).count * tile_size**2 > 4096**2:
        zoom = min(zoom, 4)
    with tiler.running():
        build_mosaic_sync(
            tiler.template, area, output, zoom=zoom, profile="zstd", creation_options={"LEVEL": "1"},
            part_size=max(512, tile_size) if many else None,
        )  # fmt: skip
    pixels, valid, (left, top) = expected(tiler.pattern, area, zoom, tile_size)
    with rasterio.open(output) as dataset:
        found, mask = dataset.read(), dataset.dataset_mask() > 0
        assert dataset.transform.c == pytest.approx(mercantile.xy_bounds(left, top, zoom).left, abs=1e-6)
        assert dataset.transform.f == pytest.approx(mercantile.xy_bounds(left, top, zoom).top, abs=1e-6)
    np.testing.assert_array_equal(mask, valid)
    if ext in ("png", "webp"):  # what lies under an alpha of 0 is the codec's business
        found, pixels = found[:, valid], pixels[:, valid]
    np.testing.assert_array_equal(found, pixels)


def only_in_corners(tiler_tiles):
    async def mood(tile, hit):
        return None if tile in tiler_tiles else web.Response(status=204)

    return mood


async def test_an_area_with_whole_parts_empty_reads_the_same_everywhere(serve, tmp_path):
    area = (-9.9, 38.0, 5.0, 50.0)
    tiles = [(tile.z, tile.x, tile.y) for tile in mercantile.tiles(*area, zooms=[6])]
    full = {tiles[0], tiles[1], tiles[-1]}
    tiler = serve(tile_size=512, mood=only_in_corners(full))
    one, many = tmp_path / "one.tif", tmp_path / "many.tif"
    report = await build_mosaic(tiler.template, area, one, zoom=6)
    assert (report.tiles_placed, report.tiles_empty) == (3, len(tiles) - 3)
    report = await build_mosaic(tiler.template, area, many, zoom=6, part_size=512)
    assert report.parts_total == len(tiles)
    assert_same_levels(many, one)

    pixels, valid, (left, top) = expected(tiler.pattern, area, 6, 512)
    for z, x, y in tiles:
        if (z, x, y) not in full:
            window = np.s_[(y - top) * 512 : (y - top + 1) * 512, (x - left) * 512 : (x - left + 1) * 512]
            valid[window] = False
            pixels[(slice(None), *window)] = 0
    for path in (one, many):
        assert cog_validate(path, strict=True, quiet=True)[0]
        with Reader(str(path)) as reader:
            image = reader.read().array
        with tifffile.TiffFile(path) as tiff:
            by_tifffile = np.moveaxis(tiff.pages[0].asarray(), -1, 0)
        by_async_geotiff = await asyncio.to_thread(asyncio.run, read_with_async_geotiff(path))
        for found in (image.data, by_tifffile, by_async_geotiff.data):
            np.testing.assert_array_equal(found, pixels)
        for found in (~image.mask[0], by_async_geotiff.mask):
            np.testing.assert_array_equal(found, valid)


class Held:
    """Listens, and knows which bodies have arrived and are not yet placed; those of the probe are on the disk."""

    def __init__(self):
        self.tiles = set()
        self.most = 0

    def __call__(self, event):
        if isinstance(event, RunStarted):
            self.tiles.clear()
        elif isinstance(event, TileFetched):
            self.tiles.add(event.tile)
        elif isinstance(event, TilePlaced):
            self.tiles.discard(event.tile)
        self.most = max(self.most, len(self.tiles))


@pytest.mark.parametrize("latency", [0.0, pytest.param(0.01, marks=pytest.mark.slow)])
async def test_each_tile_is_asked_for_once_within_the_limits(serve, tmp_path, latency):
    area, concurrency = (-15.0, 20.0, 25.0, 50.0), 6
    tiler = serve(latency=latency, pattern=Pattern(count=1), tile_size=128)
    held = Held()
    report = await build_mosaic(
        tiler.template, area, tmp_path / "out.tif", zoom=7, concurrency=concurrency, part_size=512, on_event=held
    )
    assert tiler.requests == report.requests == report.tiles_total > 100
    assert set(tiler.hits.values()) == {1}
    assert tiler.peak_in_flight <= concurrency
    assert 0 < held.most <= concurrency + QUEUE_SIZE + 1
    assert not held.tiles
    assert_is_the_world(tmp_path / "out.tif", tiler, area, 7)


async def test_a_slow_writer_slows_the_requests_and_not_the_memory(serve, tmp_path, monkeypatch):
    from mosaic_async.build.part_writer import PartWriter

    place = PartWriter._place

    def slow(self, *args):
        time.sleep(0.01)
        return place(self, *args)

    monkeypatch.setattr(PartWriter, "_place", slow)
    tiler = serve(pattern=Pattern(count=1), tile_size=128)
    held = Held()
    await build_mosaic(tiler.template, (-15, 20, 25, 50), tmp_path / "out.tif", zoom=7, concurrency=4, on_event=held)
    assert held.most == 4 + QUEUE_SIZE + 1


async def test_a_clipped_mosaic_is_the_area_to_the_pixel_and_still_asks_once(serve, tmp_path):
    area = (-3.3, 38.5, 8.7, 46.1)
    tiler = serve(tile_size=256)
    one, many = tmp_path / "one.tif", tmp_path / "many.tif"
    await build_mosaic(tiler.template, area, one, zoom=ZOOM, clip=True)
    whole = tiler.requests
    assert set(tiler.hits.values()) == {1}
    tiler.hits.clear()
    report = await build_mosaic(tiler.template, area, many, zoom=ZOOM, clip=True, part_size=512)
    assert report.parts_total > 4
    assert report.tiles_placed == report.tiles_total == tiler.requests == whole
    assert set(tiler.hits.values()) == {1}
    assert_same_levels(many, one)
    with rasterio.open(one) as dataset:
        world = 256 * 2**ZOOM
        col = round((dataset.transform.c / mercantile.CE + 0.5) * world)
        row = round((0.5 - dataset.transform.f / mercantile.CE) * world)
        pixels, valid = tiler.pattern.expected(col, row, *dataset.shape)
        np.testing.assert_array_equal(dataset.read(), pixels)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    pixel = 360 / world
    assert west <= -3.3 < west + pixel
    assert east - pixel < 8.7 <= east
    assert south <= 38.5 < south + pixel
    assert north - pixel < 46.1 <= north


SHAPES = [(1, 2), (1, 5), (1, 17), (2, 3), (2, 21), (4, 5), (8, 9), (1, 1), (3, 1)]


@pytest.mark.quick(3)
@pytest.mark.parametrize(("shape", "tile_size", "many"), quick_values(product(SHAPES, [128, 512], [False, True])))
async def test_an_output_of_any_shape_is_a_strictly_valid_cog(serve, tmp_path, shape, tile_size, many):
    """rio-cogeo takes an image exactly as wide as its blocks for one that is not tiled."""
    columns, rows = shape
    tiler = serve(tile_size=tile_size, pattern=Pattern(count=1))
    degrees = 360 / 2**10
    area = (0.001, 0.001, columns * degrees - 0.001, rows * degrees * 0.98)
    report = await build_mosaic(
        tiler.template, area, tmp_path / "out.tif", zoom=10, profile="zstd", part_size=512 if many else None
    )
    assert (report.width, report.height) == (columns * tile_size, rows * tile_size)
    assert cog_validate(tmp_path / "out.tif", strict=True, quiet=True) == (True, [], [])


async def test_a_polygon_is_clipped_to_its_outline(serve, tmp_path):
    triangle = {"type": "Polygon", "coordinates": [[[-3, 38], [9, 38], [-3, 47], [-3, 38]]]}
    tiler = serve(pattern=Pattern(masked=False))
    one, many = tmp_path / "one.tif", tmp_path / "many.tif"
    await build_mosaic(tiler.template, triangle, one, zoom=ZOOM, clip=True)
    await build_mosaic(tiler.template, triangle, many, zoom=ZOOM, clip=True, part_size=512)
    assert_same_levels(many, one)
    with rasterio.open(one) as dataset:
        x, y = dataset.transform @ np.meshgrid(np.arange(dataset.width) + 0.5, np.arange(dataset.height) + 0.5)
        longitude, latitude = rasterio.warp.transform("EPSG:3857", "EPSG:4326", x.ravel(), y.ravel())
        inside = shapely.contains_xy(shapely.geometry.shape(triangle), longitude, latitude).reshape(dataset.shape)
        assert (inside != (dataset.dataset_mask() > 0)).mean() < 1e-5  # nearer to the outline than a tenth of a pixel
    await build_mosaic(tiler.template, triangle, tmp_path / "more.tif", zoom=ZOOM, clip=True, all_touched=True)
    with rasterio.open(tmp_path / "more.tif") as dataset:
        more = dataset.dataset_mask() > 0
        assert (inside <= more).all()
        assert inside.any(axis=0).sum() < (more & ~inside).sum() < 4 * inside.any(axis=0).sum()
    with pytest.raises(UsageError, match="touched pixels"):
        await build_mosaic(tiler.template, triangle, tmp_path / "no.tif", zoom=ZOOM, all_touched=True)
    asked = {mercantile.Tile(x, y, z) for z, x, y in tiler.hits}
    assert len(asked) < len(list(mercantile.tiles(-3, 38, 9, 47, zooms=[ZOOM])))


async def test_an_area_across_the_antimeridian_is_one_raster(serve, tmp_path):
    tiler = serve(pattern=Pattern(masked=False, count=1))
    report = await build_mosaic(tiler.template, FIJI_SPLIT, tmp_path / "out.tif", zoom=6, part_size=512)
    assert {x for _, x, _ in tiler.hits} == {63, 0}
    with rasterio.open(tmp_path / "out.tif") as dataset:
        pixels = dataset.read(1)
    top = min(y for _, _, y in tiler.hits)
    for x, columns in ((63, np.s_[:256]), (0, np.s_[256:])):
        expected_pixels, _ = tiler.pattern.expected(x * 256, top * 256, pixels.shape[0], 256)
        np.testing.assert_array_equal(pixels[:, columns], expected_pixels[0])
    assert report.bounds[0] > report.bounds[2]


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("mask", "nodata", "dtype"),
    [("alpha", None, None), ("nodata", 255.0, None), ("none", None, None), ("auto", -1.0, "int16")],
)
async def test_pixels_without_data_are_marked_as_asked(serve, tmp_path, mask, nodata, dtype):
    tiler = serve()
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, mask=mask, nodata=nodata, dtype=dtype)
    pixels, valid, _ = expected(tiler.pattern, AREA, ZOOM, 256)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        found = dataset.read()
        assert dataset.nodata == nodata
        assert dataset.dtypes[0] == (dtype or "uint8")
    np.testing.assert_array_equal(found[:3, valid], pixels[:, valid])
    if mask == "alpha":
        np.testing.assert_array_equal(found[3] > 0, valid)
    elif mask == "none":
        np.testing.assert_array_equal(found, pixels)
    else:
        assert (found[:, ~valid] == nodata).all()


async def test_values_are_rounded_and_cut_to_the_dtype_asked_for(serve, tmp_path):
    tiler = serve(pattern=Pattern(count=1, dtype="float32", masked=False))
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, dtype="uint8")
    pixels, _, _ = expected(tiler.pattern, AREA, ZOOM, 256)
    assert pixels.min() < 0
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), np.clip(np.rint(pixels), 0, 255))


async def test_the_zoom_is_that_of_the_data_when_the_source_says_it(serve, tmp_path):
    tiler = serve(tile_size=512)
    tiler.documents["/t.json"] = {"tiles": [tiler.template + "?tilesize=512"], "maxzoom": 8}
    report = await build_mosaic(f"{tiler.url}/t.json", AREA, tmp_path / "out.tif")
    assert report.zoom == 7
    with pytest.raises(UsageError, match="zoom"):
        await build_mosaic(tiler.template, AREA, tmp_path / "other.tif")


async def test_headers_and_parameters_go_with_every_tile(serve, tmp_path):
    tiler = serve()
    await build_mosaic(
        tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, headers={"X-Key": "k"}, params={"bands": "4,3,2"}
    )
    assert {headers["X-Key"] for headers in tiler.headers_seen} == {"k"}
    assert set(tiler.queries_seen) == {"bands=4%2C3%2C2"}


async def test_the_file_says_where_it_comes_from_but_no_secrets(serve, tmp_path):
    tiler = serve()
    template = tiler.template + "?access_token=hunter2&bands=1"
    await build_mosaic(template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        tags = dataset.tags()
    assert tags["MOSAIC_SOURCE"] == tiler.template + "?access_token=***&bands=1"
    assert tags["TIFFTAG_SOFTWARE"].startswith("mosaic-async")
    assert tags["MOSAIC_TILES_PLACED"] == "16"
    assert b"hunter2" not in (tmp_path / "out.tif").read_bytes()


async def statuses(tile, hit):
    return web.Response(status=404)


async def test_a_wrong_template_is_an_error_and_not_an_empty_mosaic(serve, tmp_path):
    tiler = serve(mood=statuses)
    with pytest.raises(SourceError, match="404"):
        await build_mosaic(tiler.template, (-20, 20, 20, 50), tmp_path / "out.tif", zoom=7, concurrency=8)
    assert tiler.requests < 60
    assert left_behind(tmp_path) == []


async def test_an_area_where_no_tile_has_data_is_an_error_that_says_so(serve, tmp_path):
    async def nothing(tile, hit):
        return web.Response(status=204)

    with pytest.raises(SourceError, match="none of the 16 tiles has data"):
        await build_mosaic(serve(mood=nothing).template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("code", [400, 401, 403, 422])
async def test_a_refusal_ends_the_run_after_a_few_tiles(serve, tmp_path, code):
    async def refuse(tile, hit):
        return web.json_response({"detail": "token expired"}, status=code)

    tiler = serve(mood=refuse)
    with pytest.raises(SourceError, match="token expired"):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert tiler.requests <= 4
    assert left_behind(tmp_path) == []


async def test_a_first_tile_that_is_no_image_ends_the_run(serve, tmp_path):
    async def html(tile, hit):
        return web.Response(body=b"<html>Bad gateway</html>", content_type="text/html")

    with pytest.raises(SourceError, match="html"):
        await build_mosaic(serve(mood=html).template, AREA, tmp_path / "out.tif", zoom=ZOOM)


async def test_a_server_that_is_not_there_ends_the_run(tmp_path, unused_tcp_port):
    with pytest.raises(SourceError, match="cannot be reached"):
        await build_mosaic(
            f"http://127.0.0.1:{unused_tcp_port}/{{z}}/{{x}}/{{y}}.tif",
            AREA,
            tmp_path / "out.tif",
            zoom=ZOOM,
            attempts=1,
        )
    assert left_behind(tmp_path) == []


BAD = (7, 64, 49)


async def failing(tile, hit):
    return web.Response(status=422) if tile == BAD else None


async def test_a_failed_tile_keeps_the_others_and_the_next_run_asks_only_for_it(serve, tmp_path):
    tiler = serve(mood=failing)
    output = tmp_path / "out.tif"
    events = []
    with pytest.raises(IncompleteError, match="1 of 16 tiles failed") as error:
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, part_size=512, on_event=events.append)
    assert not output.exists()
    assert error.value.report.tiles_failed == 1
    (failure,) = error.value.report.failed
    assert (failure.tile, failure.status) == (mercantile.Tile(64, 49, 7), 422)
    assert [event for event in events if isinstance(event, TileFailed)] == [failure]
    tiler.mood = None
    tiler.hits.clear()
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, part_size=512)
    assert dict(tiler.hits) == {BAD: 1}
    assert (report.tiles_placed, report.requests) == (16, 1)
    assert_is_the_world(output, tiler, AREA, ZOOM)
    assert left_behind(tmp_path) == ["out.tif"]


async def test_failures_that_are_allowed_become_holes_in_the_mask(serve, tmp_path):
    tiler = serve(mood=failing, pattern=Pattern(masked=False))
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, max_failures=1, part_size=512)
    assert report.tiles_failed == 1
    _, valid, (left, top) = expected(tiler.pattern, AREA, ZOOM, 256)
    row, col = (BAD[2] - top) * 256, (BAD[1] - left) * 256
    valid[row : row + 256, col : col + 256] = False
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        assert dataset.tags()["MOSAIC_TILES_FAILED"] == "1"


async def test_an_unreadable_body_fails_its_tile_and_is_asked_for_again_next_time(serve, tmp_path):
    async def garbage(tile, hit):
        return web.Response(body=b"II*\0 but no tile") if tile == BAD else None

    tiler = serve(mood=garbage)
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert "GTiff" in error.value.report.failed[0].reason
    tiler.mood = None
    tiler.hits.clear()
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert dict(tiler.hits) == {BAD: 1}
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


async def test_passing_errors_are_retried_and_counted(serve, tmp_path):
    async def moody(tile, hit):
        return web.Response(status=503) if hit == 1 and tile[1] % 2 else None

    tiler = serve(mood=moody)
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert report.retries == sum(1 for _, x, _ in tiler.hits if x % 2)
    assert report.requests == tiler.requests == 16 + report.retries
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


async def test_a_cancelled_run_keeps_what_it_has_and_leaves_no_output(serve, tmp_path):
    area = (-15.0, 20.0, 25.0, 50.0)
    tiler = serve(latency=0.02, pattern=Pattern(count=1), tile_size=128)
    placed = asyncio.Event()
    seen = 0

    def count(event):
        nonlocal seen
        seen += isinstance(event, TilePlaced)
        if seen == 30:
            placed.set()

    task = asyncio.ensure_future(
        build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=7, concurrency=4, part_size=512, on_event=count)
    )
    await placed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left_behind(tmp_path) == ["out.tif.work"]
    asked = set(tiler.hits)
    tiler.hits.clear()
    report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=7, concurrency=4, part_size=512)
    assert len(asked & set(tiler.hits)) <= 4 + QUEUE_SIZE
    assert report.parts_resumed > 0
    assert_is_the_world(tmp_path / "out.tif", tiler, area, 7)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_where_it_stopped(serve, tmp_path, seed):
    """Kill the real command, and give it again."""
    area, concurrency = (-15.0, 20.0, 25.0, 50.0), 5
    tiler = serve(latency=0.03, pattern=Pattern(count=1))
    output = tmp_path / "out.tif"
    args = ["build", tiler.template, output, "--bounds", *area, "--zoom", 7, "-c", concurrency, "--json"]
    args += ["--part-size", 1024]
    total = Cover.of(Area.parse(area), 7).count
    target = random.Random(seed).randint(10, total - 20)
    with server().start(args) as process:
        while tiler.requests < target:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    time.sleep(0.2)  # let the server finish what it was asked
    asked = set(tiler.hits)
    tiler.hits.clear()
    with server().start(args) as process:
        report = json.loads(process.communicate()[0])
    assert process.returncode == 0
    assert len(asked & set(tiler.hits)) <= concurrency
    assert set(tiler.hits.values()) == {1}
    assert len(asked | set(tiler.hits)) == total == report["tiles_placed"]
    assert report["requests"] == tiler.requests < total
    assert left_behind(tmp_path) == ["out.tif"]
    build_mosaic_sync(tiler.template, area, tmp_path / "whole.tif", zoom=7, part_size=1024)
    assert_same_levels(output, tmp_path / "whole.tif")


@pytest.mark.slow
async def test_a_run_killed_while_clipping_goes_on_too(serve, tmp_path):
    area = (-3.3, 38.5, 20.7, 46.1)
    tiler = serve(latency=0.02)
    task = asyncio.ensure_future(
        build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, clip=True, part_size=512, concurrency=3)
    )
    while tiler.requests < 25:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, clip=True, part_size=512)
    await build_mosaic(tiler.template, area, tmp_path / "whole.tif", zoom=ZOOM, clip=True)
    assert_same_levels(tmp_path / "out.tif", tmp_path / "whole.tif")


async def test_another_job_for_the_same_output_is_refused(serve, tmp_path):
    tiler = serve(mood=failing)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    with pytest.raises(WorkFolderError, match="another job"):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, profile="zstd")
    tiler.mood = None
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, profile="zstd", resume=False)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


async def test_a_renewed_token_is_the_same_job(serve, tmp_path):
    tiler = serve(mood=failing)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template + "?token=old", AREA, tmp_path / "out.tif", zoom=ZOOM)
    tiler.mood = None
    tiler.hits.clear()
    await build_mosaic(tiler.template + "?token=new", AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert tiler.requests == 2  # the failed tile, and one to compare


async def test_an_output_that_exists_is_kept_unless_it_may_be_replaced(serve, tmp_path):
    tiler = serve()
    output = tmp_path / "out.tif"
    output.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM)
    assert output.read_text() == "precious"
    assert tiler.requests == 0
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=True)
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.parametrize(
    ("area", "options", "error"),
    [
        ((0, 0, 0), {}, UsageError),
        (AREA, {"zoom": 22}, RefusedError),
        (AREA, {"profile": "nonsense"}, UsageError),
        (AREA, {"concurrency": 0}, UsageError),
        (AREA, {"max_failures": -1}, UsageError),
        (AREA, {"nodata": 0.0, "mask": "alpha"}, UsageError),
        (AREA, {"part_size": 700}, UsageError),
        (AREA, {"memory": 10_000_000}, ResourceError),
        (AREA, {"tile_size": 512}, SourceError),
    ],
)
async def test_what_cannot_work_is_refused_and_leaves_nothing(serve, tmp_path, area, options, error):
    tiler = serve()
    with pytest.raises(error):
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", **{"zoom": ZOOM, **options})
    assert tiler.requests <= 1
    assert left_behind(tmp_path) == []


async def test_an_output_in_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"folder .* not found"):
        await build_mosaic("http://h/{z}/{x}/{y}", AREA, tmp_path / "no" / "out.tif", zoom=3)


def test_memory_decides_the_size_of_the_parts(serve, tmp_path):
    tiler = serve(tile_size=512, pattern=Pattern(count=4, dtype="float32"))
    big = asyncio.run(plan_mosaic(tiler.template, (-30, 20, 30, 60), zoom=7, memory=2**31))
    small = asyncio.run(plan_mosaic(tiler.template, (-30, 20, 30, 60), zoom=7, memory=2**29, concurrency=4))
    assert small.part_size < big.part_size
    assert small.memory <= 2**29
    assert big.memory <= 2**31


async def test_a_plan_asks_for_one_tile_and_writes_nothing(serve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiler = serve(latency=0.05)
    plan = await plan_mosaic(tiler.template, AREA, zoom=ZOOM, concurrency=3)
    assert tiler.requests == plan.requests == 1
    assert (plan.tiles, plan.parts, plan.width, plan.height) == (16, 1, 1024, 1024)
    assert (plan.count, plan.dtype, plan.mask, plan.assumed) == (3, "uint8", "internal", False)
    assert plan.raw_bytes == pytest.approx(1024 * 1024 * 3, rel=0.1)
    assert plan.seconds >= 16 / 3 * 0.05
    assert left_behind(tmp_path) == []
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert (report.width, report.height, report.bounds) == (plan.width, plan.height, plan.bounds)
    assert report.bytes_written == pytest.approx(plan.estimated_bytes, rel=0.5)
    assert report.bytes_received == pytest.approx(plan.download_bytes, rel=0.1)


async def test_a_plan_says_what_each_profile_would_cost(serve):
    plan = await plan_mosaic(serve().template, AREA, zoom=ZOOM, profile="zstd")
    assert list(plan.profiles) == ["zstd", "deflate", "lzw", "webp", "jpeg", "lerc", "raw"]
    assert plan.profiles["zstd"].nbytes == plan.estimated_bytes < plan.profiles["raw"].nbytes
    assert plan.profiles["raw"].nbytes == pytest.approx(plan.raw_bytes * 4 / 3, rel=0.1)
    assert all(cost.seconds >= 0 for cost in plan.profiles.values())
    assert json.loads(json.dumps(plan.as_dict()))["profiles"]["raw"]["nbytes"] == plan.profiles["raw"].nbytes
    many_bands = serve(pattern=Pattern(count=5, dtype="int16"))
    plan = await plan_mosaic(many_bands.template, AREA, zoom=ZOOM)
    assert list(plan.profiles) == ["deflate", "zstd", "lzw", "lerc", "raw"]


async def test_a_plan_over_an_empty_centre_says_that_it_guesses(serve):
    async def nothing(tile, hit):
        return web.Response(status=204)

    tiler = serve(mood=nothing)
    plan = await plan_mosaic(tiler.template, AREA, zoom=ZOOM)
    assert tiler.requests == 1
    assert plan.assumed
    assert plan.seconds is None


async def test_a_plan_against_a_refusing_server_is_a_source_error(serve):
    async def refuse(tile, hit):
        return web.Response(status=403)

    with pytest.raises(SourceError, match="403"):
        await plan_mosaic(serve(mood=refuse).template, AREA, zoom=ZOOM)


async def test_a_template_with_a_bad_port_is_a_usage_error_and_leaves_nothing(tmp_path):
    with pytest.raises(UsageError, match="not a URL"):
        await build_mosaic("http://h:port/{z}/{x}/{y}", AREA, tmp_path / "out.tif", zoom=3)
    assert left_behind(tmp_path) == []


@dataclass(frozen=True)
class Striped(Pattern):
    """Valid in every other column of 512 pixels."""

    def mask(self, x, y):
        return (x // 512) % 2 == 0


@pytest.mark.quick(2)
@pytest.mark.parametrize(("mask", "nodata"), [("none", None), ("auto", None), ("alpha", None), ("auto", 255.0)])
async def test_parts_without_a_valid_pixel_are_the_same_in_one_part_and_in_many(serve, tmp_path, mask, nodata):
    tiler = serve(pattern=Striped())
    options = {"zoom": ZOOM, "mask": mask, "nodata": nodata}
    await build_mosaic(tiler.template, AREA, tmp_path / "one.tif", **options)
    await build_mosaic(tiler.template, AREA, tmp_path / "many.tif", part_size=512, **options)
    assert_same_levels(tmp_path / "many.tif", tmp_path / "one.tif")
    pixels, valid, _ = expected(tiler.pattern, AREA, ZOOM, 256)
    with rasterio.open(tmp_path / "many.tif") as dataset:
        found = dataset.read()[:3]
    if mask != "none":
        pixels[:, ~valid] = nodata or 0
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("clip", [False, True])
async def test_each_tile_is_told_of_once_and_what_is_counted_is_what_was_told(serve, tmp_path, clip):
    events = []
    tiler = serve(mood=failing)
    area = (-3.3, 38.5, 8.7, 46.1)
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(
            tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, clip=clip, part_size=512, on_event=events.append
        )
    told = Counter(event.tile for event in events if isinstance(event, TilePlaced | TileFailed | TileEmpty))
    report = error.value.report
    assert set(told.values()) == {1}
    assert len(told) == report.tiles_total == report.tiles_placed + report.tiles_failed
    assert report.tiles_failed == 1


async def test_an_unreadable_tile_of_several_parts_fails_once(serve, tmp_path):
    async def garbage(tile, hit):
        return web.Response(body=b"II*\0 but no tile") if tile == BAD else None

    tiler = serve(mood=garbage)
    area = (-3.3, 38.5, 8.7, 46.1)
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, clip=True, part_size=512)
    assert error.value.report.tiles_failed == 1
    assert {tile: hits for tile, hits in tiler.hits.items() if hits > 1} == {BAD: 2}


async def test_a_rate_spaces_the_requests(serve, tmp_path):
    starts = []

    async def note(tile, hit):
        starts.append(time.monotonic())

    tiler = serve(mood=note)
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, rate=40)
    assert starts[-1] - starts[0] >= 14 / 40


async def test_an_output_that_appears_meanwhile_is_kept_and_so_is_the_work(serve, tmp_path, monkeypatch):
    output = tmp_path / "out.tif"
    assemble = Run._assemble

    async def interfere(*args):
        await asyncio.to_thread(output.write_text, "precious")
        return await assemble(*args)

    monkeypatch.setattr(Run, "_assemble", interfere)
    tiler = serve()
    with pytest.raises(UsageError, match="appeared during the run"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM)
    assert output.read_text() == "precious"
    monkeypatch.setattr(Run, "_assemble", assemble)
    await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=True)
    assert tiler.requests == 16
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_a_run_cancelled_while_it_finishes_keeps_its_lock_until_the_disk_is_quiet(serve, tmp_path, monkeypatch):
    begun, ended = threading.Event(), threading.Event()
    finish = Assembly.finish

    def slow(*args, **options):
        begun.set()
        time.sleep(0.5)
        try:
            return finish(*args, **options)
        finally:
            ended.set()

    monkeypatch.setattr(Assembly, "finish", slow)
    tiler = serve()
    task = asyncio.ensure_future(build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, part_size=512))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    monkeypatch.setattr(Assembly, "finish", finish)
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, part_size=512)
    assert tiler.requests == 16
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


async def test_the_detector_of_blocking_calls_would_find_one(tmp_path):
    from mosaic_async.build.work_folder import WorkFolder

    with pytest.raises(BlockingError):
        WorkFolder(tmp_path / "out.tif", "label", print)._open(resume=True)
