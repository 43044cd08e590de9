"""How few different values a layer has, counted tile by tile."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mosaic_async.raster.few_values import MOST, FewValues


def noise(count, dtype, *, seed=0, start=0):
    return (start + np.random.default_rng(seed).integers(0, count, (3, 128, 128))).astype(dtype)


def bands(first, *others):
    return np.stack((first, *others))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
def test_the_band_with_the_fewest_values_counts_over_all_tiles(dtype):
    few = FewValues()
    few.note(bands(noise(5, dtype)[0], noise(100, dtype)[0]), None)
    few.note(bands(noise(7, dtype)[0], noise(100, dtype)[0]), None)
    assert few.count == 7
    few.note(bands(noise(7, dtype, start=50)[0], noise(100, dtype)[0]), None)
    assert few.count == 14
    few.note(bands(noise(100, dtype)[0], noise(2, dtype)[0]), None)
    assert few.count == 0


def test_rare_values_count_too_and_the_limit_is_inclusive():
    pixels = np.zeros((1, 128, 128), "int32")
    pixels[0, 3, 1:MOST] = np.arange(1, MOST)
    few = FewValues()
    few.note(pixels, None)
    assert few.count == MOST
    few.note(pixels + MOST, None)
    assert few.count == 0


def test_masked_pixels_nodata_and_what_is_not_a_number_are_no_values():
    pixels, mask = noise(3, "float32")[:1], np.full((128, 128), 255, "uint8")
    pixels[0, :40], mask[:40] = 77, 0
    pixels[0, 50:60], pixels[0, 60:64], pixels[0, 64] = -9999, np.nan, np.inf
    few = FewValues()
    few.note(pixels, mask, -9999.0)
    assert few.count == 3
    few.note(pixels[:, :8], mask[:8], None)
    assert few.count == 3
    one = FewValues()
    one.note(np.full((1, 8, 8), 4, "uint8"), None)
    assert one.count == 0


def test_a_later_run_continues_from_json():
    few = FewValues()
    few.note(bands(noise(5, "uint16")[0], noise(200, "uint16")[0]), None)
    again = FewValues(json.loads(json.dumps(few.as_dict())))
    again.note(bands(noise(5, "uint16", start=5)[0], noise(3, "uint16")[0]), None)
    assert again.count == 10
    assert FewValues({}).count == 0
