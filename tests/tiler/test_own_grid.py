"""A grid of the user's own for scenes: the stored pixels, not resampled; other scenes as gdalwarp has them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from rio_cogeo import cog_validate

from mosaic_async import UsageError, build_mosaic
from mosaic_async.tiler import local_tiler, open_mosaic
from mosaic_async.tiler.own_grid import matrix_set_for
from tests.cli.test_main import run
from tests.conftest import COLORADO, PARANA
from tests.tiler.test_mosaics import scenes_of

pytestmark = [
    pytest.mark.usefixtures("forked_tilers"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),  # rio-tiler: missing
]


def stored(path: Path, dataset: rasterio.DatasetReader) -> np.ma.MaskedArray:
    """The pixels of a file where an output lies, which must be on the file's own pixels."""
    with rasterio.open(path) as source:
        assert source.crs == dataset.crs
        column, row = ~source.transform @ (dataset.transform.c, dataset.transform.f)
        assert (abs(column - round(column)) < 1e-6, abs(row - round(row)) < 1e-6) == (True, True)
        window = Window(round(column), round(row), dataset.width, dataset.height)
        return source.read(1, window=window, boundless=True, masked=True, fill_value=source.nodata)


def first_of(scenes: list[np.ma.MaskedArray]) -> np.ma.MaskedArray:
    found = scenes[0].copy()
    for scene in scenes[1:]:
        found = np.ma.where(np.ma.getmaskarray(found), scene, found)
    return found


def assert_same(dataset: rasterio.DatasetReader, expected: np.ma.MaskedArray, band: int = 1) -> None:
    valid = ~np.ma.getmaskarray(expected)
    np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
    np.testing.assert_array_equal(dataset.read(band)[valid], expected.data[valid])
    assert valid.any()


@pytest.mark.parametrize(
    "options", [{"tile_size": 512}, pytest.param({"tile_size": 256, "resampling": "cubic"}, marks=pytest.mark.slow)]
)
async def test_first_of_landsat_scenes_in_their_own_zone_is_their_stored_pixels(options, tmp_path):
    """Two scenes that overlap; pixels of Landsat begin 15 m beside multiples of 30 m, which is found in the files."""
    area = (-54.95, -25.5, -54.6, -25.2)
    async with local_tiler(PARANA, bands=["B4"], crs="EPSG:32621", resolution=60, workers=1, **options) as source:
        report = await build_mosaic(source, area, tmp_path / "a.tif", part_size=512)
    assert report.requests == report.tiles_total
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.res == (60, 60)
        files = [next(Path(scene).parent.glob("*_B4.tif")) for scene in scenes_of(PARANA)]
        assert_same(dataset, first_of([stored(file, dataset) for file in files]))
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    assert (west <= area[0], south <= area[1], east >= area[2], north >= area[3]) == (True,) * 4
    assert cog_validate(tmp_path / "a.tif", strict=True, quiet=True)[0]


def write(path: Path, crs: str, left: float, top: float, resolution: float, dtype="uint16", seed=1) -> Path:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 4000, (300, 340)).astype(dtype)
    pixels[40:60, 100:200] = 0
    profile = {
        "driver": "GTiff", "width": 340, "height": 300, "count": 1, "dtype": dtype, "nodata": 0, "crs": crs,
        "transform": from_origin(left, top, resolution, resolution), "tiled": True, "blockxsize": 128,
        "blockysize": 128,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels, 1)
    return path


def around(path: Path) -> tuple[float, float, float, float]:
    with rasterio.open(path) as dataset:
        return transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)


@pytest.mark.parametrize(
    ("crs", "left", "top", "resolution", "dtype"),
    [
        ("EPSG:32633", 399_960, 5_100_000, 10, "uint16"),  # Sentinel-2
        pytest.param("EPSG:32655", 300_015, -4_000_005, 30, "int16", marks=pytest.mark.slow),  # Landsat, in the south
        ("EPSG:3035", 4_321_003.5, 3_210_001.25, 2.5, "float32"),
        pytest.param("EPSG:4326", 10.0001, 50.0002, 1 / 3600, "uint8", marks=pytest.mark.slow),
        pytest.param("EPSG:3413", -1_200_000, -900_000, 100, "int16", marks=pytest.mark.slow),  # polar
    ],
)
async def test_a_grid_like_a_file_gives_the_file(crs, left, top, resolution, dtype, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    path = write(folder / "a.tif", crs, left, top, resolution, dtype)
    async with local_tiler(folder, bands=["1"], like=path, tile_size=256, workers=1) as source:
        await build_mosaic(source, around(path), tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert_same(dataset, stored(path, dataset))


async def test_scenes_of_another_zone_are_warped_to_the_grid_as_gdal_does(tmp_path):
    """The neighbour's pixels are resampled; those of the grid's own zone are not, whichever comes first."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    own = write(folder / "a.tif", "EPSG:32633", 300_000, 5_100_000, 10)
    other = write(folder / "b.tif", "EPSG:32632", 761_500, 5_101_000, 10, seed=2)
    west, south, east, north = around(own)
    area = (west - 0.02, south, east, north + 0.01)
    async with local_tiler(
        folder, bands=["1"], crs="EPSG:32633", resolution=10, resampling="nearest", workers=1
    ) as source:
        await build_mosaic(source, area, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        expected = stored(own, dataset)
        with rasterio.open(other) as source, WarpedVRT(
            source, crs=dataset.crs, transform=dataset.transform, width=dataset.width, height=dataset.height,
            resampling=Resampling.nearest, tolerance=0.01,
        ) as vrt:  # fmt: skip
            warped = vrt.read(1, masked=True)
        mask = dataset.dataset_mask() > 0
        pixels = dataset.read(1)
    assert (~warped.mask & expected.mask).any()
    np.testing.assert_array_equal(pixels[~expected.mask], expected.data[~expected.mask])
    beside = expected.mask & ~np.ma.getmaskarray(warped)
    assert (mask[beside]).mean() > 0.99
    assert (
        pixels[beside] == warped.data[beside]
    ).mean() > 0.98  # within a hundredth of a pixel, another may be nearest


def test_the_command_brings_scenes_to_a_grid(tmp_path):
    area = ("--bounds", "-106.92", "40.281", "-106.905", "40.295")
    scene = COLORADO / "LE70350322008118EDC00"
    files = tmp_path / "scenes"
    files.mkdir()
    path = next(scene.glob("*_b3.tif"))
    (files / path.name).write_bytes(path.read_bytes())
    run("build", files, tmp_path / "a.tif", *area, "--like", path, "--bands", "1", "--tile-size", 256)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert_same(dataset, stored(path, dataset))
    stdout, _ = run("plan", files, *area, "--crs", "EPSG:32613", "--resolution", 30, "--bands", "1", "--json")
    assert (json.loads(stdout)["crs"], json.loads(stdout)["resolution"]) == ("EPSG:32613", 30)
    _, stderr = run("plan", "https://h.invalid/{z}/{x}/{y}", *area, "--like", path, "-z", 3, code=2)
    assert "--like" in stderr


@pytest.mark.parametrize(
    ("crs", "left", "top", "resolution"),
    [
        ("EPSG:32655", 300_015, -4_000_005, 30),
        pytest.param("EPSG:4326", 10.0001, 50.0002, 1 / 3600, marks=pytest.mark.slow),
        pytest.param("EPSG:3413", -10_000, 7_000, 50, marks=pytest.mark.slow),  # around a pole
    ],
)
def test_like_a_file_and_without_an_area_the_output_has_the_files_extent(crs, left, top, resolution, tmp_path):
    files = tmp_path / "scenes"
    files.mkdir()
    path = write(files / "a.tif", crs, left, top, resolution)
    run("build", files, tmp_path / "out.tif", "--like", path, "--bands", "1", "--tile-size", 128)
    with rasterio.open(path) as source, rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.crs, dataset.shape) == (source.crs, source.shape)
        assert dataset.transform.almost_equals(source.transform, 1e-9)
        assert_same(dataset, source.read(1, masked=True))
    _, stderr = run("build", files, tmp_path / "none.tif", "--bands", "1", code=2)
    assert "--like" in stderr


def test_grids_that_cannot_be_are_refused(tmp_path):
    mosaic = open_mosaic(PARANA)
    path = write(tmp_path / "a.tif", "EPSG:32633", 300_000, 5_100_000, 10)
    turned = tmp_path / "turned.tif"
    with rasterio.open(path) as dataset:
        profile = {**dataset.profile, "transform": dataset.transform @ rasterio.Affine.rotation(20)}
    with rasterio.open(turned, "w", **profile) as dataset:
        dataset.write(np.ones((1, 300, 340), "uint16"))
    for options, words in (
        ({"like": str(turned)}, "north up"),
        ({"like": str(tmp_path / "none.tif")}, "cannot be read"),
        ({"like": str(path), "crs": "EPSG:3035"}, "whole grid"),
        ({"crs": "EPSG:999999", "resolution": 10}, "not known"),
        ({"crs": "EPSG:32633"}, "both a coordinate system and a resolution"),
        ({"crs": "EPSG:32633", "resolution": float("nan")}, "not a width"),
    ):
        given = {"crs": None, "resolution": None, "like": None, **options}
        with pytest.raises(UsageError, match=words):
            matrix_set_for(mosaic, **given, tile_size=256)
