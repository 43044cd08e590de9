"""A cropped COG is the upper left of what it was, as GDAL and rio-cogeo see it, with the same blocks."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rio_cogeo import cog_validate

from mosaic_async.raster.cropping import crop
from mosaic_async.raster.digest import digest_of
from mosaic_async.raster.tiff import read_images


@pytest.mark.parametrize("bigtiff", ["YES", "NO"])
@pytest.mark.parametrize(("width", "height"), [(1021, 1017), (1024, 640), (515, 1024), (130, 70), (1024, 1024)])
def test_a_cog_is_cut_to_its_upper_left_pixels(tmp_path, width, height, bigtiff):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 250, (3, 1024, 1024)).astype("uint8")
    valid = rng.random((1024, 1024)) > 0.4
    path = tmp_path / "a.tif"
    options = {"COMPRESS": "DEFLATE", "BLOCKSIZE": "128", "BIGTIFF": bigtiff, "OVERVIEWS": "FORCE_USE_EXISTING"}
    place = {"crs": "EPSG:3857", "transform": from_origin(100, 200, 2, 2)}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile(ext=".tif") as memory:
        with memory.open(driver="GTiff", count=3, width=1024, height=1024, dtype="uint8", **place) as dataset:
            dataset.write(pixels)
            dataset.write_mask(valid)
            dataset.build_overviews([2, 4, 8], Resampling.nearest)
        rasterio.shutil.copy(memory.name, path, driver="COG", **options)
    with rasterio.open(path, overview_level=1) as level:
        smaller = level.read(), level.dataset_mask()
    crop(path, width, height)
    with rasterio.open(path) as dataset:
        assert (dataset.width, dataset.height) == (width, height)
        assert dataset.transform == place["transform"]
        assert np.array_equal(dataset.dataset_mask() > 0, valid[:height, :width])
        assert np.array_equal(dataset.read(), pixels[:, :height, :width])
        assert len(dataset.overviews(1)) == 3
    with rasterio.open(path, overview_level=1) as level:
        rows, cols = -(-height // 4), -(-width // 4)
        assert level.shape == (rows, cols)
        assert np.array_equal(level.read(), smaller[0][:, :rows, :cols])
        assert np.array_equal(level.dataset_mask(), smaller[1][:rows, :cols])
    is_valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert is_valid, (errors, warnings)
    assert len(digest_of(path, read_images(path))) == 64
