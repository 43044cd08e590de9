"""Reading a scene, pixel by pixel as rio-tiler reads it; and the index, the pool and the quality bands."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
from cogeo_mosaic.backends.memory import MemoryBackend
from cogeo_mosaic.mosaic import MosaicJSON
from rasterio.crs import CRS
from rasterio.windows import Window
from rio_tiler.reader import part

from mosaic_async import SourceError, UsageError
from mosaic_async.tiler import open_mosaic
from mosaic_async.tiler.pixels.clouds import KNOWN, CloudMask
from mosaic_async.tiler.pixels.datasets import DatasetPool
from mosaic_async.tiler.pixels.expression import evaluate
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.radiometry import factors, reflectance
from mosaic_async.tiler.pixels.raster_facts import grouped
from mosaic_async.tiler.pixels.reading import Layer, read_layers
from mosaic_async.tiler.scenes.quadkey_index import QuadkeyIndex
from mosaic_async.tiler.scenes.scene import Scene, SceneFile, open_scene
from tests.conftest import COLORADO, PARANA, SCENES

NEW_YORK = SCENES.parents[2] / "shared" / "data" / "landsat8-newyork-2018"
needs_new_york = pytest.mark.skipif(not NEW_YORK.exists(), reason="the New York scenes are not part of the project")
MERCATOR = CRS.from_epsg(3857)


def scenes_of(folder: Path, count: int | None = None):
    paths = [path for path in sorted(folder.rglob("*.json")) if path.name != "collection.json"]
    return [open_scene(str(path), is_item=True) for path in paths[:count]]


def frame_of(tile, size, method="bilinear") -> Frame:
    return Frame(
        bounds=tuple(mercantile.xy_bounds(tile)), crs=MERCATOR, width=size, height=size, padding=2,
        resampling=method, reprojection=method,
    )  # fmt: skip


def read_by_rio_tiler(hrefs, frame) -> np.ma.MaskedArray:
    """One open and one warp a file, as plain TiTiler has it."""
    images = []
    for href in hrefs:
        with rasterio.open(href) as dataset:
            image = part(
                dataset, frame.bounds, height=frame.height, width=frame.width, dst_crs=MERCATOR, bounds_crs=MERCATOR,
                padding=2, resampling_method=frame.resampling, reproject_method=frame.reprojection,
            )  # fmt: skip
        images.append(image.array)
    return np.ma.concatenate(images)


def assert_same(pixels, expected) -> None:
    there = ~np.ma.getmaskarray(expected)
    if pixels is None:
        assert not there.any()
        return
    assert pixels.data.dtype == expected.dtype
    np.testing.assert_array_equal(pixels.valid, there)
    np.testing.assert_array_equal(pixels.data[there], expected.data[there])


CASES = [
    *((PARANA, ("B4", "B3", "B2"), zoom, size) for zoom, size in ((7, 256), (9, 256), (10, 512), (11, 256), (12, 512))),
    *((COLORADO, ("b5", "b4", "b3"), zoom, size) for zoom, size in ((12, 128), (14, 256), (15, 512))),
]


@pytest.mark.quick(8)
@pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize(("folder", "bands", "zoom", "size"), CASES)
def test_bands_warped_together_are_bands_warped_one_by_one(folder, bands, zoom, size, method):
    pool = DatasetPool()
    for scene in scenes_of(folder, 2):
        hrefs = [scene.files[band].href for band in bands]
        for tile in list(mercantile.tiles(*scene.bounds, zooms=[zoom]))[:2]:
            frame = frame_of(tile, size, method)
            assert_same(read_layers(pool, [Layer(href) for href in hrefs], frame), read_by_rio_tiler(hrefs, frame))


@needs_new_york
def test_scenes_at_three_kilometres_are_read_as_rio_tiler_reads_them():
    pool = DatasetPool()
    for scene in scenes_of(NEW_YORK)[::3]:
        hrefs = [scene.files[band].href for band in ("B4", "B3", "B2")]
        for tile in list(mercantile.tiles(*scene.bounds, zooms=[9]))[::5]:
            frame = frame_of(tile, 512)
            assert_same(read_layers(pool, [Layer(href) for href in hrefs], frame), read_by_rio_tiler(hrefs, frame))


@pytest.mark.parametrize("window", [Window(0, 0, 512, 512), Window(3, 120, 17, 200), Window(200, 511, 312, 1)])
def test_a_part_of_a_tile_is_the_part_of_the_tile(window):
    scene = scenes_of(PARANA)[0]
    layers = [Layer(scene.files[band].href) for band in ("B4", "B3")]
    for tile in list(mercantile.tiles(*scene.bounds, zooms=[11]))[:6]:
        pool, frame = DatasetPool(), frame_of(tile, 512)
        whole, some = read_layers(pool, layers, frame), read_layers(pool, layers, frame, window)
        place = (slice(None), *window.toslices())
        if some is None:
            assert whole is None or not whole.valid[place].any()
            continue
        np.testing.assert_array_equal(some.valid, whole.valid[place])
        np.testing.assert_array_equal(some.data[some.valid], whole.data[place][some.valid])


def made_band(path, holes, *, nodata=0, size=300, dtype="uint16", seed=0) -> str:
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 5, (size, size)).astype(dtype)
    data[holes] = nodata
    options = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": dtype, "crs": "EPSG:32621"}
    transform = rasterio.transform.from_origin(700_000, 7_170_000, 60, 60)
    with rasterio.open(path, "w", transform=transform, nodata=nodata, **options) as file:
        file.write(data, 1)
    return str(path)


@pytest.mark.filterwarnings("ignore:The dataset has no Overviews")
@pytest.mark.parametrize("nodata", [0, 3])
def test_bands_that_are_not_valid_alike_do_not_lend_each_other_their_holes(tmp_path, nodata):
    """Also where values lie on both sides of the nodata value, and their mean is just that."""
    hrefs = [
        made_band(tmp_path / "a.tif", np.s_[100:140, 100:140], nodata=nodata),
        made_band(tmp_path / "b.tif", np.s_[:, 200:], nodata=nodata, seed=1),
    ]
    assert len(grouped(tuple(hrefs))) == 1
    with rasterio.open(hrefs[0]) as dataset:
        bounds = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    pool = DatasetPool()
    for zoom, step in ((11, 1), (12, 2), (13, 7)):
        for tile in list(mercantile.tiles(*bounds, zooms=[zoom]))[::step]:
            frame = frame_of(tile, 256)
            assert_same(read_layers(pool, [Layer(href) for href in hrefs], frame), read_by_rio_tiler(hrefs, frame))


def test_files_on_other_grids_or_of_other_kinds_are_not_put_together(tmp_path):
    scene = scenes_of(PARANA)[0]
    one = scene.files["B4"].href
    other = made_band(tmp_path / "a.tif", np.s_[0:0])
    assert grouped((one, other, one)) == ((one,), (other,), (one,))
    assert grouped((one, scene.files["B3"].href)) == ((one, scene.files["B3"].href),)


def test_the_masks_of_idle_datasets_have_a_limit_in_bytes_and_are_read_again(tmp_path):
    """The last used keep theirs; a single one beyond the limit keeps none; the pixels stay the same."""
    hrefs = [made_band(tmp_path / f"{seed}.tif", np.s_[10:50, 10:50], seed=seed) for seed in range(6)]
    with rasterio.open(hrefs[0]) as dataset:
        bounds = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    frame = frame_of(next(mercantile.tiles(*bounds, zooms=[12])), 256)
    for limit, kept in ((0, 0), (90_000, 1), (300_000, 3), (10**9, 6)):
        pool = DatasetPool(mask_limit=limit)
        for _ in range(2):
            for href in hrefs:
                assert_same(read_layers(pool, [Layer(href)], frame), read_by_rio_tiler([href], frame))
        remembered = []
        for href in hrefs:
            with pool.lent((href,)) as stack:
                remembered.append(stack.mask_bytes)
        assert remembered == [0] * (6 - kept) + [90_000] * kept


def test_the_pool_keeps_so_many_datasets_and_closes_what_failed():
    files = [file.href for scene in scenes_of(COLORADO, 5) for file in scene.files.values()]
    pool = DatasetPool(limit=4)
    for href in files:
        with pool.lent((href,)):
            pass
    assert len(pool) == 4
    with pool.lent((files[-1],)) as kept:
        assert len(pool) == 3
    with pool.lent((files[-1],)) as again:
        assert again is kept
    with pytest.raises(RuntimeError), pool.lent((files[-1],)) as failed:
        raise RuntimeError
    assert failed.dataset.closed
    pool.close()
    assert len(pool) == 0


def made_document(bytes_wanted: int) -> dict:
    """A mosaic of a country: cells of z9, 20 scenes each, with names as long as Sentinel's or Landsat's."""
    name = (
        "https://data.example/collection02/level-2/standard/oli-tirs/2020/{:03}/{:03}/LC08_L2SP_{:06}_02_T1_stac.json"
    )
    tiles, size = {}, 0
    for x in range(512):
        for y in range(512):
            names = [name.format(x, y // 3, (x * 31 + y * 7 + number) % 99_999) for number in range(20)]
            tiles[mercantile.quadkey(x, y, 9)] = names
            size += sum(len(one) + 3 for one in names)
            if size > bytes_wanted:
                return {"mosaicjson": "0.0.3", "minzoom": 7, "maxzoom": 13, "quadkey_zoom": 9, "tiles": tiles}
    raise AssertionError


def test_looking_up_a_tile_in_a_mosaic_of_60_mb_takes_less_than_a_millisecond():
    document = made_document(60_000_000)
    index = QuadkeyIndex(document["tiles"], 9)
    places = [mercantile.quadkey_to_tile(key) for key in list(document["tiles"])[::17]]
    took = []
    for tile in places:
        for x, y, z in ((tile.x, tile.y, 9), (tile.x * 16 + 5, tile.y * 16 + 9, 13)):
            started = time.perf_counter()
            found = index.scenes(x, y, z)
            took.append(time.perf_counter() - started)
            assert found == document["tiles"][mercantile.quadkey(tile)]
    assert len(took) > 1000
    assert statistics.median(took) < 1e-4
    assert statistics.quantiles(took, n=100)[-1] < 1e-3


@pytest.mark.parametrize("folder", [PARANA, COLORADO])
def test_tiles_of_all_zooms_list_the_library_s_scenes_in_its_order(folder):
    document = open_mosaic(folder).document
    index = QuadkeyIndex(document["tiles"], document["quadkey_zoom"])
    with MemoryBackend(mosaic_def=MosaicJSON(**document)) as library:
        for zoom in range(document["quadkey_zoom"] - 3, document["quadkey_zoom"] + 4):
            for tile in mercantile.tiles(*document["bounds"], zooms=[zoom]):
                assert index.scenes(*tile) == library.assets_for_tile(*tile)
    assert index.scenes(-1, 0, 3) == index.scenes(8, 0, 3) == []


def test_quality_bands_are_read_by_value_by_bit_and_by_field():
    flags = np.array([[0, 1, 2, 4, 8, 16, 0b1_1000_0000, 0b0_1000_0000]], "uint16")
    valid = np.ones(flags.shape, bool)
    for text, good in [
        ("fmask:values=2,4", [1, 1, 0, 0, 1, 1, 1, 1]),
        ("qa:bits=0,3", [1, 0, 1, 1, 0, 1, 1, 1]),
        ("qa:bits=7-8>=3", [1, 1, 1, 1, 1, 1, 0, 1]),
        ("qa:bits=7-8", [1, 1, 1, 1, 1, 1, 0, 0]),
        ("BQA", [1, 0, 1, 1, 1, 0, 0, 1]),
    ]:
        assert CloudMask.parse(text).is_good(flags, valid).tolist() == [[bool(one) for one in good]], text
    assert not CloudMask.parse("fmask").is_good(flags, ~valid).any()
    assert {CloudMask.parse(name.upper()).asset.lower() for name in KNOWN} == set(KNOWN)


def test_fmask_has_bits_in_scenes_of_hls_unless_a_rule_is_given():
    flags = np.array([[0, 1, 2, 4, 8, 16, 64 + 2, 128 + 64, 255]], "uint8")
    valid = np.ones(flags.shape, bool)
    bits, rule, other = CloudMask.parse("Fmask"), CloudMask.parse("Fmask:values=16"), CloudMask.parse("scl")
    assert bits.of_hls.is_good(flags, valid).tolist() == [[True, True, False, False, False, True, False, True, False]]
    assert bits.is_good(flags, valid).tolist() == [[True, True, False, False, True, True, True, True, False]]
    assert (rule.of_hls, other.of_hls) == (rule, other)


@pytest.mark.parametrize(
    "text", ["", "B4", "fmask:", "fmask:values=x", "qa:bits=8-7", "qa:bits=99", "qa:bits=", "q:q:bits=1"]
)
def test_a_cloud_mask_that_makes_no_sense_is_a_usage_error(text):
    with pytest.raises(UsageError):
        CloudMask.parse(text)


def test_reflectance_comes_of_the_raster_extension_or_of_the_mtl_file():
    counts = Pixels(np.array([[[0, 8000, 20_000, 65_535]]], "uint16"), np.array([[[False, True, True, True]]]))
    scene = Scene("s", {"red": SceneFile("r", ((2.75e-5, -0.2),)), "B4": SceneFile("b")}, properties={
        "REFLECTANCE_MULT_BAND_4": 2e-5, "REFLECTANCE_ADD_BAND_4": -0.1, "view:sun_elevation": 30.0,
    })  # fmt: skip
    surface = reflectance(counts, factors(scene, "red", ()), "float")
    np.testing.assert_allclose(surface.data[0, 0, 1:], [0.02, 0.35, 65_535 * 2.75e-5 - 0.2], rtol=1e-6)
    top = reflectance(counts, factors(scene, "B4", (1,)), "integer")
    assert top.data.tolist() == [
        [[0, int(10_000 * 0.06 / 0.5 + 1e-6), 6000, int(10_000 * (65_535 * 2e-5 - 0.1) / 0.5)]]
    ]
    assert top.data.dtype == "uint16"
    below = reflectance(Pixels(counts.data // 10, counts.valid), factors(scene, "red", ()), "integer")
    assert below.data.max() == 0  # and not 65 thousand
    with pytest.raises(SourceError, match="has no scale and offset"):
        factors(Scene("s", {"B4": SceneFile("b")}), "B4", ())


def test_what_is_no_number_is_masked_and_not_made_one():
    data = np.array([[[0.0, 1.0, 2.0]], [[0.0, 0.0, 1.0]]])
    made = evaluate(Pixels(data, np.ones(data.shape, bool)), "b1/b2;b1")
    assert made.valid.tolist() == [[[False, False, True]], [[True, True, True]]]
    assert made.data[0, 0, 2] == 2


def test_items_are_read_once(tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(scenes_path := Path(scenes_of(PARANA)[0].name).parent, folder)
    path = folder / Path(scenes_of(PARANA)[0].name).name
    assert scenes_path.exists()
    first = open_scene(str(path), is_item=True)
    path.write_text("no longer JSON")
    assert open_scene(str(path), is_item=True) is first


@pytest.mark.parametrize(
    ("asset", "scales"),
    [
        ({"raster:bands": [{"scale": 2.0, "offset": 1}]}, ((2.0, 1.0),)),
        ({"bands": [{"raster:scale": 2.0}]}, ((2.0, 0.0),)),
        ({"raster:scale": 2.0, "raster:offset": 1.0}, ((2.0, 1.0),)),
        ({"raster:scale": 2.0, "bands": [{}, {"raster:offset": 3}]}, ((2.0, 0.0), (2.0, 3.0))),
        ({"raster:bands": [{"nodata": 0}]}, ()),
        ({}, ()),
    ],
)
def test_scales_are_found_wherever_stac_lets_them_stand(tmp_path, asset, scales):
    path = tmp_path / "item.json"
    path.write_text(json.dumps({"properties": {}, "assets": {"a": {"href": "./a.tif", **asset}}}))
    scene = open_scene(str(path), is_item=True)
    assert scene.files["a"].scales == scales
    assert scene.files["a"].href == str(tmp_path / "a.tif")
