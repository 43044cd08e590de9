"""An average overview in NumPy is GDAL's, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.io import MemoryFile

from mosaic_async.raster.halving import halve, is_exact

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")


def halved_by_gdal(pixels, mask):
    count, height, width = pixels.shape
    options = {"GDAL_TIFF_INTERNAL_MASK": True, "GDAL_OVR_CHUNK_MAX_SIZE": 2_000_000_000}
    with rasterio.Env(**options), MemoryFile() as file:
        with file.open(driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype) as dataset:
            dataset.write(pixels)
            if mask is not None:
                dataset.write_mask(mask)
        with rasterio.open(file.name, "r+") as dataset:
            dataset.build_overviews([2], Resampling.average)
        with rasterio.open(file.name, overview_level=0) as dataset:
            return dataset.read(), dataset.dataset_mask()


def some_pixels(dtype, seed, shape=(3, 32, 48)):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (random.normal(size=shape) * 1000).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@given(st.sampled_from((*DTYPES, "float32")), st.integers(0, 2**32), st.sampled_from([None, 0.0, 0.1, 0.5, 0.9, 1.0]))
def test_half_the_pixels_are_gdal_s_average(dtype, seed, share_valid):
    pixels = some_pixels(dtype, seed)
    mask = None
    if share_valid is not None:
        mask = np.where(np.random.default_rng(seed + 1).random(pixels.shape[1:]) < share_valid, 255, 0).astype("uint8")
    assume(is_exact(dtype, masked=mask is not None))
    expected, expected_mask = halved_by_gdal(pixels, mask)
    means, found_mask = halve(pixels, mask)
    assert means.dtype == pixels.dtype
    valid = expected_mask > 0
    np.testing.assert_array_equal(means[:, valid], expected[:, valid])
    if mask is not None:
        np.testing.assert_array_equal(found_mask, expected_mask)
        assert (means[:, ~valid] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_extremes_of_a_dtype_do_not_overflow(dtype):
    limits = np.iinfo(dtype)
    for value in (limits.min, limits.max):
        means, mask = halve(np.full((1, 4, 4), value, dtype), None)
        assert mask is None
        assert (means == value).all()


def test_float64_and_float32_without_a_mask_are_left_to_gdal():
    assert not is_exact("float64", masked=True)
    assert not is_exact("float32", masked=False)
    assert is_exact("float32", masked=True)
