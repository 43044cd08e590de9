"""Own grids at every zoom, against the file's own decimation; and where pixels of other systems lie, by coordinates."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from mosaic_async import UsageError, build_mosaic
from mosaic_async.tiler import local_tiler
from tests.conftest import PARANA
from tests.tiler.test_mosaics import scenes_of
from tests.tiler.test_own_grid import around, write

pytestmark = pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid")  # rio-tiler: missing
SLOW = pytest.mark.slow


def decimated(path: Path, step: int) -> np.ma.MaskedArray:
    """Return the pixels of a file at 1/step: of each group in its smallest fitting overview the one at the centre.

    At the file's edges, where a group is not whole, the last pixel counts.
    """
    with rasterio.open(path) as dataset:
        factors = dataset.overviews(1)
        height, width = dataset.shape
    fitting = [(factor, level) for level, factor in enumerate(factors) if step % factor == 0]
    factor, level = max(fitting, default=(1, None))
    with rasterio.open(path, **({} if level is None else {"overview_level": level})) as dataset:
        pixels = dataset.read(1, masked=True)
    rest = step // factor
    rows, columns = (
        np.minimum(np.arange(-(-size // step)) * rest + rest // 2, -(-size // factor) - 1) for size in (height, width)
    )
    return pixels[np.ix_(rows, columns)]


def placed(path: Path, dataset: rasterio.DatasetReader, step: int) -> np.ma.MaskedArray:
    """Return the decimated pixels of a file where an output lies, masked outside of the file."""
    found = decimated(path, step)
    with rasterio.open(path) as source:
        column, row = ~source.transform @ (dataset.transform.c, dataset.transform.f)
    place = [round(row) / step, round(column) / step]
    assert place == [round(one) for one in place], "a pixel of the output begins where one of the file begins"
    expected = np.ma.masked_all(dataset.shape, found.dtype)
    (top, below), (left, right) = (
        (max(0, -int(start)), min(size, count - int(start)))
        for start, size, count in zip(place, dataset.shape, found.shape, strict=True)
    )
    rows, columns = int(place[0]), int(place[1])
    expected[top:below, left:right] = found[top + rows : below + rows, left + columns : right + columns]
    return expected


def landsat(folder: Path) -> tuple[Path, int]:
    """Return a band of 1003 x 758 pixels with an overview of 1/4."""
    path = next(Path(scenes_of(PARANA)[0]).parent.glob("*_B4.tif"))
    return Path(shutil.copy(path, folder)), 60


def sentinel(overviews: list[int] | None) -> object:
    def make(folder: Path) -> tuple[Path, int]:
        path = write(folder / "a.tif", "EPSG:32633", 399_960, 5_100_000, 10)
        if overviews:
            with rasterio.open(path, "r+") as dataset:
                dataset.build_overviews(overviews, Resampling.average)
        return path, 10

    return make


@pytest.mark.parametrize(
    ("scene", "steps"),
    [
        (landsat, (1, 2, 4, 8, 32)),
        (sentinel(None), (1, 2, 4)),
        pytest.param(sentinel([2, 4, 8]), (1, 2, 4, 8), marks=SLOW),
        pytest.param(sentinel([8, 16]), (2, 8, 16), marks=SLOW),
    ],
)
async def test_first_is_the_files_own_decimation_at_every_zoom_of_the_grid(scene, steps, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    path, resolution = scene(folder)
    with rasterio.open(path) as dataset:
        crs = dataset.crs.to_string()
    options = {"crs": crs, "resolution": resolution, "resampling": "nearest", "tile_size": 128, "workers": 1}
    async with local_tiler(folder, bands=["1"], **options) as source:
        assert source.matrix_set.matrices[0].zoom == source.minzoom == 0
        for step in steps:
            zoom = source.maxzoom - step.bit_length() + 1
            out = tmp_path / f"{step}.tif"
            report = await build_mosaic(source, around(path), out, zoom=None if step == 1 else zoom)
            assert report.zoom == zoom
            with rasterio.open(out) as dataset:
                assert dataset.res == (resolution * step, resolution * step)
                expected = placed(path, dataset, step)
                valid = ~np.ma.getmaskarray(expected)
                np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
                np.testing.assert_array_equal(dataset.read(1)[valid], expected.data[valid])
                assert valid.sum() == (~np.ma.getmaskarray(decimated(path, step))).sum()
        with pytest.raises(UsageError, match="zoom"):
            await build_mosaic(source, around(path), tmp_path / "none.tif", zoom=source.maxzoom + 1)


def coordinates(path: Path, crs: str, left: float, top: float, resolution: float) -> None:
    """Write a raster whose two bands are the coordinates of its pixels' centres."""
    size = 1024
    along = (np.arange(size) + 0.5) * resolution
    pixels = np.stack(np.meshgrid(left + along, top - along))
    profile = {
        "driver": "GTiff", "width": size, "height": size, "count": 2, "dtype": "float64", "nodata": -9999, "crs": crs,
        "transform": from_origin(left, top, resolution, resolution), "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)


@pytest.mark.parametrize(
    ("of_scene", "of_grid", "corner", "resolution", "resampling"),
    [
        ("EPSG:32632", "EPSG:32633", (700_000, 5_100_000), 10, "bilinear"),
        pytest.param("EPSG:3413", "EPSG:32640", (1_500_000, -1_000_000), 1000, "nearest", marks=SLOW),
        pytest.param("EPSG:32632", "EPSG:3035", (400_000, 5_800_000), 30, "cubic", marks=SLOW),
        pytest.param("EPSG:2154", "EPSG:4326", (600_000, 6_600_000), 10, "bilinear", marks=SLOW),
    ],
)
async def test_pixels_of_other_systems_lie_within_a_hundredth_of_a_pixel(
    of_scene, of_grid, corner, resolution, resampling, tmp_path
):
    """The output's values are the places that they were taken from; PROJ says where that should have been."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    coordinates(folder / "a.tif", of_scene, *corner, resolution)
    with rasterio.open(folder / "a.tif") as dataset:
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    across, up = 0.4 * (east - west), 0.4 * (north - south)
    size = resolution / 111_320 if of_grid == "EPSG:4326" else resolution
    options = {"crs": of_grid, "resolution": size, "resampling": resampling, "tile_size": 128, "workers": 1}
    async with local_tiler(folder, bands=["1", "2"], **options) as source:
        await build_mosaic(source, (west + across, south + up, east - across, north - up), tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        x, y = dataset.transform @ tuple(np.meshgrid(np.arange(dataset.width) + 0.5, np.arange(dataset.height) + 0.5))
        pixels, valid = dataset.read(), dataset.dataset_mask() > 0
    truth = pyproj.Transformer.from_crs(of_grid, of_scene, always_xy=True).transform(x, y)
    beside = np.abs(pixels - np.stack(truth))[:, valid] / resolution
    assert valid.sum() > 30_000
    assert beside.max() < (0.51 if resampling == "nearest" else 0.01)
