"""Tiles of one layer that differ in format, bands, dtype, mask or nodata become one file, the same in every order."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import pairwise

import imagecodecs
import mercantile
import numpy as np
import pytest
import rasterio
from aiohttp import web
from PIL import Image
from rasterio.features import geometry_mask
from rasterio.io import MemoryFile
from rio_cogeo.cogeo import cog_validate

from mosaic_async import (
    IncompleteError,
    RefusedError,
    ResourceError,
    StoppedError,
    TilesDiffer,
    build_mosaic,
    plan_mosaic,
    verify_mosaic,
)
from mosaic_async.cli.terminal import report_text
from mosaic_async.geo.cover import Cover, Tile
from tests.loopback import running
from tests.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, png
from tests.raster.test_meaning import tiff

pytestmark = pytest.mark.usefixtures("unblocked_loop")

AREA, ZOOM, SIZE = (-4.0, 38.0, 4.0, 44.0), 7, 128
TILES = sorted(mercantile.tiles(*AREA, zooms=[ZOOM]), key=lambda tile: (tile.y, tile.x))
OPTIONS = {"zoom": ZOOM, "part_size": 256, "creation_options": {"BLOCKSIZE": "128"}, "concurrency": 1}
"""Four parts of four tiles, in the order of the parts."""
FIRST, LAST = TILES[0], TILES[-1]
ALL = np.ones((SIZE, SIZE), bool)


def values(seed, bands, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (bands, SIZE, SIZE))


def blocks(seed, bands):
    """Return colours that hardly change in JPEG."""
    return values(seed, bands)[:, ::64, ::64].repeat(64, axis=1).repeat(64, axis=2)


def jpeg(bands):
    def make(seed):
        array = np.ascontiguousarray(blocks(seed, bands).astype("uint8").transpose(1, 2, 0).squeeze())
        body = imagecodecs.jpeg_encode(array, level=95, subsampling="444")
        found = imagecodecs.jpeg_decode(body)
        return body, np.broadcast_to(found if found.ndim == 3 else found[..., None], (SIZE, SIZE, 3)), ALL

    return make


def grey_png(depth):
    def make(seed):
        array = values(seed, 1, 0, 2**depth)[0]
        return png(array, kind=GREY, depth=depth, transparent=1), _grey(array * 255 // (2**depth - 1)), array != 1

    return make


def _grey(array):
    return np.repeat(array[..., None], 3, axis=-1)


def rgba_png(seed):
    array = values(seed, 4).transpose(1, 2, 0)
    array[..., 3] %= 2
    return png(array, kind=RGBA), array[..., :3], array[..., 3] > 0


def keyed_png(seed):
    array = values(seed, 3, 0, 4).transpose(1, 2, 0)
    return png(array, kind=RGB, transparent=(1, 2, 3)), array, (array != (1, 2, 3)).any(axis=-1)


def grey_alpha_png(seed):
    array = values(seed, 2).transpose(1, 2, 0)
    array[..., 1] %= 3
    return png(array, kind=GREY_ALPHA), _grey(array[..., 0]), array[..., 1] > 0


def palette_png(seed):
    array, palette = values(seed, 1, 0, 16)[0], values(seed, 3)[:, :16, 0].T
    body = png(array, kind=PALETTE, depth=4, palette=palette, transparent=(0, 255, 0))
    return body, palette[array], (array != 0) & (array != 2)


def webp(seed):
    array = np.ascontiguousarray(values(seed, 4).transpose(1, 2, 0).astype("uint8"))
    array[..., 3] = 255 * (array[..., 3] % 2)
    body = imagecodecs.webp_encode(array, lossless=True)
    return body, array[..., :3], array[..., 3] > 0


def blank(seed):
    """Return a tile of another kind without a valid pixel: it decides nothing."""
    return png(np.zeros((SIZE, SIZE, 4), int), kind=RGBA, depth=16), np.zeros((SIZE, SIZE, 1)), ~ALL


def small_blank(seed):
    """Return the one pixel that some servers send where they have no data."""
    return png(np.zeros((1, 1, 2), int), kind=GREY_ALPHA), np.zeros((SIZE, SIZE, 1)), ~ALL


def data(dtype, bands=1, nodata=None, **options):
    """Return how to make a GeoTIFF that has gaps where a value is divisible by 5, if it has a nodata value."""

    def make(seed):
        array = values(seed, bands).astype(dtype) + np.array(seed, dtype)
        gaps = np.zeros(array.shape, bool)
        if nodata is not None:
            gaps = array % 5 == 0
            array[gaps] = nodata
        body = tiff(array, nodata=nodata, photometric="MINISBLACK", **options)
        found = np.where(gaps, np.nan, array.astype("float64")).transpose(1, 2, 0)
        return body, found, ~gaps.all(axis=0)

    return make


def array(dtype):
    """Return how to make an npy with a mask."""

    def make(seed):
        planes = values(seed, 2).astype(dtype)
        planes[1] %= 2
        np.save(stream := io.BytesIO(), planes)
        return stream.getvalue(), planes[0].astype("float64")[..., None], planes[1] > 0

    return make


class Layer:
    """A layer whose tiles come from makers in turn, and what they mean."""

    def __init__(self, *makers, shift=0):
        made = [makers[(index + shift) % len(makers)](index) for index in range(len(TILES))]
        self.bodies = {(tile.z, tile.x, tile.y): one[0] for tile, one in zip(TILES, made, strict=True)}
        bands = max(one[1].shape[-1] for one in made)
        self.pixels = _mosaic([_in_bands(one[1], bands) for one in made])
        self.valid = _mosaic([one[2][..., None] for one in made])[..., 0]
        self.hits = Counter()
        self.failing = set()
        self.stop, self.requests_left = asyncio.Event(), 1000

    async def tile(self, request):
        tile = tuple(int(request.match_info[name]) for name in "zxy")
        self.hits[tile] += 1
        self.requests_left -= 1
        if self.requests_left == 0:
            self.stop.set()
        if tile in self.failing:
            return web.Response(status=500)
        return web.Response(body=self.bodies[tile], content_type="image/png")

    def app(self):
        app = web.Application()
        app.router.add_get("/{path:.*}{z:\\d+}/{x}/{y}", self.tile)
        return app


def _in_bands(pixels, bands):
    grey = pixels[..., :1] if pixels.shape[-1] < bands else pixels
    return np.broadcast_to(grey, (SIZE, SIZE, bands)).astype("float64")


def _mosaic(tiles):
    return np.concatenate([np.concatenate(tiles[start : start + 4], axis=1) for start in range(0, 16, 4)])


@pytest.fixture
def serve():
    """Serve a layer, and return its template."""
    with ExitStack() as stack:
        yield lambda layer: stack.enter_context(running(layer.app())) + "/{z}/{x}/{y}"


def begin_with(monkeypatch, tile):
    """Let the probe look at one tile first."""
    outward = Cover.outward

    def reordered(cover):
        first = Tile(tile.x, tile.y, tile.z)
        yield first
        yield from (other for other in outward(cover) if other != first)

    monkeypatch.setattr(Cover, "outward", reordered)


def assert_holds(path, layer, dtype, bands=1):
    with rasterio.open(path) as dataset:
        assert (dataset.dtypes[0], dataset.count) == (dtype, bands)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, layer.valid)
        found = np.moveaxis(dataset.read(masked=True).astype("float64").filled(np.nan), 0, -1)
        expected = np.where(layer.valid[..., None], layer.pixels[..., :bands], np.nan)
        np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
    assert cog_validate(path, strict=True, quiet=True)[0]


PICTURES = (jpeg(3), rgba_png, grey_png(1), jpeg(1), palette_png, grey_alpha_png, blank, keyed_png, grey_png(4), webp)
LAYERS = {
    "jpeg and png": ((jpeg(3), small_blank, rgba_png), "uint8", 3),
    "pictures": (PICTURES, "uint8", 3),
    "grey": ((jpeg(1), grey_png(2), grey_png(8), blank), "uint8"),
    "integers": ((data("uint8"), data("uint16"), data("int16"), blank), "int32"),
    "integers and floats": ((data("int16"), data("uint16"), data("float32"), array("float16")), "float32"),
    "wide": ((data("int32"), data("float32"), array("uint8")), "float64"),
    "nodata of integers": ((data("int16", nodata=-9999), data("int16", nodata=-32768), data("uint8")), "int16"),
    "nodata of floats": (
        (data("float32", 2, -9999.0), data("float32", 2, np.nan), data("int16", 2, 32767)),
        "float32",
        2,
    ),
    "nodata and a mask": ((data("float64", nodata=-1.0), array("float32"), blank), "float64"),
}


SLOW = pytest.mark.slow
QUICK_LAYERS = ("pictures", "integers and floats", "nodata of integers", "nodata of floats")


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK_LAYERS else [SLOW]) for name in LAYERS])
async def test_unlike_tiles_become_the_same_file_whichever_comes_first(serve, tmp_path, monkeypatch, name):
    makers, *kind = LAYERS[name]
    template = serve(layer := Layer(*makers))
    digests = set()
    for index, first in enumerate((FIRST, TILES[1], LAST) if name == "pictures" else (FIRST, LAST)):
        with monkeypatch.context() as patch:
            begin_with(patch, first)
            report = await build_mosaic(template, AREA, path := tmp_path / f"{index}.tif", **OPTIONS)
        assert report.requests <= 17  # one may ask whether the connection is in step
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert_holds(path, layer, *kind)
    assert len(digests) == 1
    verified = await verify_mosaic(path, source=template, sample=16)
    assert verified.is_sound, verified


def opaque_png(depth):
    """Return how to make grey PNGs, whose numbers are those that Pillow reads."""

    def make(seed):
        array = values(seed, 1, 0, 2**depth)[0]
        array[0, 0] = 2**depth - 1
        body = png(array, kind=GREY, depth=depth)
        found = np.asarray(Image.open(io.BytesIO(body))).astype("float64")
        assert found.max() == 2**depth - 1
        return body, found[..., None], ALL

    return make


def grey_tiff(seed):
    """Return shares of white from 0 to 1."""
    array = (values(seed, 1) / np.float32(255)).astype("float32")
    return tiff(array, photometric="MINISBLACK"), array.transpose(1, 2, 0).astype("float64"), ALL


@pytest.mark.parametrize(("wide", "dtypes"), [(opaque_png(16), ("uint16", "uint8")), (grey_tiff, ("float32", "uint8"))])
async def test_numbers_of_unlike_depth_are_kept_as_gdal_and_pillow_read_them_and_that_is_said(
    serve, tmp_path, wide, dtypes
):
    template = serve(layer := Layer(opaque_png(8), wide))
    report = await build_mosaic(template, AREA, path := tmp_path / "out.tif", **OPTIONS)
    assert_holds(path, layer, dtypes[0])
    assert report.tile_dtypes == dtypes
    assert f"the tiles are {dtypes[0]} and {dtypes[1]}, and their numbers are kept" in report_text(report)


async def built(template, path, **options):
    await build_mosaic(template, AREA, path, **(OPTIONS | options))
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "loses_job_file"),
    [
        ("pictures", True),
        pytest.param("nodata of integers", False, marks=SLOW),
        pytest.param("nodata of floats", True, marks=SLOW),
    ],
)
async def test_a_run_that_stops_before_the_widest_tile_resumes_to_the_same_file(serve, tmp_path, name, loses_job_file):
    makers, *kind = LAYERS[name]
    template = serve(layer := Layer(*makers))
    whole = await built(template, tmp_path / "whole.tif")
    layer.hits.clear()
    path = tmp_path / "out.tif"
    for _ in range(2):
        layer.stop, layer.requests_left = asyncio.Event(), 5
        with pytest.raises(StoppedError):
            await built(template, path, stop=layer.stop)
        if loses_job_file:
            (tmp_path / "out.tif.work" / "job.json").unlink()
    assert await built(template, path) == whole
    assert_holds(path, layer, *kind)
    assert layer.hits.total() <= 16 + 8  # one per run asks whether the connection is in step, or learns again


@pytest.mark.parametrize("requests", [15, 16, 17])
async def test_a_run_that_is_stopped_when_all_parts_are_there_but_some_are_narrow_resumes(serve, tmp_path, requests):
    """The widest tile is in the last part, so the parts before it are made again when it is sealed."""
    template = serve(layer := Layer(*by_row(grey_png(8), grey_png(8), grey_png(8), rgba_png)))
    whole = await built(template, tmp_path / "whole.tif")
    layer.stop, layer.requests_left = asyncio.Event(), requests
    with suppress(StoppedError):
        await built(template, path := tmp_path / "out.tif", stop=layer.stop)
    layer.hits.clear()
    if path.exists():
        assert requests > 16
    else:
        assert await built(template, path) == whole
        assert layer.hits.total() <= 2
    assert path.read_bytes() == whole


def by_row(*makers):
    """Return how to make tiles of one kind in each row of four."""
    return [maker for maker in makers for _ in range(4)]


async def test_parts_that_are_stored_with_loss_are_fetched_again_when_a_wider_tile_comes(serve, tmp_path, monkeypatch):
    template = serve(layer := Layer(*by_row(grey_png(8), grey_png(8), rgba_png, rgba_png)))
    early = await built(template, tmp_path / "early.tif", profile="jpeg")
    assert layer.hits.total() > 16
    layer.hits.clear()
    begin_with(monkeypatch, LAST)
    assert await built(template, tmp_path / "late.tif", profile="jpeg") == early
    assert layer.hits.total() <= 17


@pytest.mark.parametrize(
    ("other", "options", "reason"),
    [
        (data("uint8", 2), {}, "band count is 2"),
        (data("float32"), {}, "band count is 1"),
        (data("uint16"), {"profile": "jpeg"}, "jpeg holds uint8 only, the pixels are uint16"),
    ],
)
async def test_a_tile_that_no_output_holds_beside_the_others_fails_and_says_why(
    serve, tmp_path, monkeypatch, other, options, reason
):
    template = serve(layer := Layer(*[rgba_png] * 5, other, *[rgba_png] * 10))
    begin_with(monkeypatch, FIRST)
    with pytest.raises(IncompleteError) as error:
        await built(template, tmp_path / "out.tif", **options)
    assert [reason in failure.reason for failure in error.value.report.failed] == [True]
    await built(template, tmp_path / "out.tif", on_error="nodata", **options)
    layer.valid[SIZE : 2 * SIZE, SIZE : 2 * SIZE] = False
    if "profile" not in options:
        assert_holds(tmp_path / "out.tif", layer, "uint8", 3)


async def test_gaps_in_single_bands_of_integers_need_a_nodata_value_where_tiles_differ_in_theirs(serve, tmp_path):
    template = serve(layer := Layer(data("int16", 2, -9999), data("int16", 2, -32768)))
    with pytest.raises(IncompleteError) as error:
        await built(template, tmp_path / "out.tif")
    assert "set a nodata value" in error.value.report.failed[0].reason
    await built(template, tmp_path / "out.tif", resume=False, nodata=-1)
    assert_holds(tmp_path / "out.tif", layer, "int16", 2)


async def test_a_run_ends_before_wider_tiles_take_more_than_its_memory_and_resumes_with_more(
    serve, tmp_path, monkeypatch
):
    template = serve(layer := Layer(*[data("uint8")] * 15, data("float64")))
    begin_with(monkeypatch, FIRST)
    options = {"zoom": ZOOM, "concurrency": 1}
    memory = (await plan_mosaic(template, AREA, **options)).memory
    with pytest.raises(ResourceError, match="wider than the first one"):
        await build_mosaic(template, AREA, tmp_path / "out.tif", **options, memory=memory)
    assert not (tmp_path / "out.tif").exists()
    await build_mosaic(template, AREA, tmp_path / "out.tif", **options, memory=4 * memory)
    assert_holds(tmp_path / "out.tif", layer, "float64")


@pytest.mark.parametrize(
    ("options", "dtype", "bands"),
    [
        ({"mask": "alpha"}, "uint8", 3),
        pytest.param({"mask": "internal", "dtype": "int32"}, "int32", 3, marks=SLOW),
        ({"nodata": 300, "dtype": "uint16", "overview_resampling": "mode"}, "uint16", 3),
    ],
)
async def test_what_the_user_sets_holds_for_unlike_tiles(serve, tmp_path, monkeypatch, options, dtype, bands):
    template = serve(layer := Layer(*PICTURES))
    files = set()
    for tile in (FIRST, LAST):
        begin_with(monkeypatch, tile)
        files.add(await built(template, path := tmp_path / f"{tile.x}-{tile.y}.tif", **options))
    with rasterio.open(path) as dataset:
        assert dataset.dtypes[0] == dtype
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, layer.valid)
        found = np.moveaxis(dataset.read([1, 2, 3]), 0, -1)
        np.testing.assert_array_equal(found[layer.valid], layer.pixels[layer.valid])
    assert len(files) == 1


async def test_holes_are_filled_by_tiles_that_are_wider_than_all_others(serve, tmp_path):
    template = serve(layer := Layer(*[data("uint8")] * 15, data("int16", nodata=-5)))
    whole = await built(template, tmp_path / "whole.tif")
    layer.failing = {(LAST.z, LAST.x, LAST.y), (FIRST.z, FIRST.x, FIRST.y)}
    path = tmp_path / "out.tif"
    await built(template, path, on_error="nodata", attempts=1)
    layer.failing.clear()
    filled = await built(template, path, on_error="nodata", overwrite=True)
    assert_holds(path, layer, "int16")
    assert len(filled) == len(whole)


def scaled(factor):
    def make(seed):
        array = values(seed, 2).astype("int16")
        with MemoryFile() as file:
            with file.open(driver="GTiff", count=2, height=SIZE, width=SIZE, dtype="int16") as dataset:
                dataset.write(array)
                dataset.scales, dataset.offsets = (factor, 1.0), (-5.0, 0.0)
            return bytes(file.getbuffer()), array.transpose(1, 2, 0), ALL

    return make


async def test_the_scale_of_numbers_is_kept_and_tiles_of_another_scale_are_not_placed_beside_them(serve, tmp_path):
    path = tmp_path / "out.tif"
    await built(serve(layer := Layer(scaled(0.01))), path)
    assert_holds(path, layer, "int16", 2)
    with rasterio.open(path) as dataset:
        assert (dataset.scales, dataset.offsets) == ((0.01, 1.0), (-5.0, 0.0))
    with pytest.raises(IncompleteError) as error:
        await built(serve(Layer(*[scaled(0.01)] * 15, scaled(0.02))), path, overwrite=True, resume=False)
    (failure,) = error.value.report.failed
    assert "scaled by 0.02 and -5; 1 and 0, the first tile's were by 0.01" in failure.reason


async def test_a_user_is_told_that_tiles_differ(serve, tmp_path, monkeypatch):
    seen = []
    begin_with(monkeypatch, FIRST)
    template = serve(Layer(*[data("uint8", nodata=0)] * 4, *[data("int16")] * 12))
    await built(template, tmp_path / "out.tif", on_event=seen.append)
    (told,) = [event for event in seen if isinstance(event, TilesDiffer)]
    assert (told.count, told.dtype, told.mask) == (1, "int16", "internal")


async def test_a_polygon_cuts_unlike_tiles_alike_whichever_comes_first(serve, tmp_path, monkeypatch):
    ring = [[-3.5, 38.5], [3.5, 39.0], [2.0, 43.5], [-1.0, 41.0], [-3.5, 38.5]]
    area = {"type": "Polygon", "coordinates": [ring]}
    template = serve(Layer(data("uint8", nodata=0), data("int16", nodata=-9), grey_png(8)))
    files = []
    for first in (FIRST, LAST):
        begin_with(monkeypatch, first)
        await build_mosaic(template, area, path := tmp_path / f"{first.x}.tif", clip=True, **OPTIONS)
        files.append(path.read_bytes())
    with rasterio.open(path) as dataset:
        inside = geometry_mask([densified(ring)], dataset.shape, dataset.transform, invert=True)
        assert np.count_nonzero(dataset.dataset_mask()[~inside]) < 10  # pixels whose centre an edge all but touches
        assert (dataset.dataset_mask()[inside] > 0).mean() > 0.7
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "ring",
    [
        [[0.001, 40.001], [0.0012, 40.001], [0.0012, 40.0012], [0.001, 40.001]],
        [[-3.5, 40.001], [3.5, 40.001], [3.5, 40.0011], [-3.5, 40.001]],
        [[-3.5, 38.5], [3.5, 43.5], [3.5, 43.50001], [-3.5, 38.5]],
    ],
    ids=["in a pixel", "between two rows", "across"],
)
async def test_an_area_that_holds_the_centre_of_no_pixel_is_refused_unless_touch_is_enough(serve, tmp_path, ring):
    area, template = {"type": "Polygon", "coordinates": [ring]}, serve(Layer(data("uint8")))
    with pytest.raises(RefusedError, match="holds the centre of no pixel") as error:
        await build_mosaic(template, area, tmp_path / "a.tif", clip=True, **OPTIONS)
    assert "`all_touched`" in str(error.value.hint)
    await build_mosaic(template, area, path := tmp_path / "b.tif", clip=True, all_touched=True, **OPTIONS)
    with rasterio.open(path) as dataset:
        assert dataset.dataset_mask().any()


def densified(ring):
    """Return a polygon whose edges are straight in degrees, in Web Mercator."""
    points = [
        mercantile.xy(*(np.array(one) + (np.array(other) - one) * share))
        for one, other in pairwise(ring)
        for share in np.linspace(0, 1, 200, endpoint=False)
    ]
    return {"type": "Polygon", "coordinates": [[*points, points[0]]]}
