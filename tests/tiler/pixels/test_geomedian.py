"""The geometric median against Weiszfeld's plain iteration, which is slow and stops early where it is slow."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_async.tiler.pixels.geomedian import geometric_median


def distances(spectra, valid, place):
    """The sum of distances from each place to the valid spectra of its pixel."""
    return np.where(valid, np.linalg.norm(spectra - place, axis=1), 0).sum(axis=0)


def weiszfeld(spectra, valid, steps=300):
    """From the mean, the mean weighted by the inverse of the distances, again and again."""
    weights = valid[:, None].astype(float)
    place = (spectra * weights).sum(axis=0) / weights.sum(axis=0)
    for _ in range(steps):
        pull = weights / np.maximum(np.linalg.norm(spectra - place, axis=1, keepdims=True), 1e-9)
        place = (pull * spectra).sum(axis=0) / pull.sum(axis=0)
    return place


def clouded(rng, scenes, bands, pixels):
    """Spectra that vary a little, some below bright clouds, and 7 % without data."""
    ground = rng.normal(2000, 400, (bands, pixels)) * rng.normal(1, 0.05, (scenes, 1, pixels))
    is_cloud = rng.random((scenes, 1, pixels)) < 0.2
    spectra = ground + rng.normal(0, 60, ground.shape) + is_cloud * rng.normal(3000, 900, (scenes, 1, pixels))
    valid = rng.random((scenes, pixels)) < 0.93
    valid[0] |= ~valid.any(axis=0)
    return spectra.round(), valid


@pytest.mark.parametrize(("scenes", "bands"), [(2, 3), (3, 2), (4, 2), (7, 3), (7, 8), (20, 4), (140, 3)])
def test_no_sum_of_distances_exceeds_that_of_three_hundred_steps_of_weiszfeld(scenes, bands):
    spectra, valid = clouded(np.random.default_rng(scenes * bands), scenes, bands, 400)
    best = distances(spectra, valid, weiszfeld(spectra, valid))
    found = distances(spectra, valid, geometric_median(spectra, valid))
    assert (found <= best * (1 + 3e-6) + 1e-9).all()


def test_where_weiszfeld_settles_the_results_are_the_same():
    rng = np.random.default_rng(5)
    spectra, valid = rng.normal(1000, 100, (9, 3, 500)), np.ones((9, 500), bool)
    expected = weiszfeld(spectra, valid, 2000)
    assert np.abs(weiszfeld(spectra, valid, 1000) - expected).max(axis=0).mean() < 0.01
    is_settled = np.abs(weiszfeld(spectra, valid, 1000) - expected).max(axis=0) < 1e-3
    assert is_settled.mean() > 0.9
    np.testing.assert_allclose(geometric_median(spectra, valid)[:, is_settled], expected[:, is_settled], atol=0.05)


def test_a_spectrum_that_most_others_surround_is_the_median_itself():
    corners = np.array([[0, 0], [8, 1], [2, 9], [3, 3]], float)[:, :, None]  # the last lies in the triangle
    np.testing.assert_allclose(geometric_median(corners, np.ones((4, 1), bool))[:, 0], [3, 3], atol=1e-5)
    twice = np.concatenate([corners[:2], corners[:1], corners[:1]])  # three of four coincide
    np.testing.assert_allclose(geometric_median(twice, np.ones((4, 1), bool))[:, 0], [0, 0], atol=1e-5)


def test_a_start_at_a_spectrum_that_is_not_the_median_is_left():
    spectra = np.array([[5, 5, 0], [0, 9, 9], [9, 0, 5.5], [4, 6, 30], [6, 4, 31]], float)[:, :, None]
    start = np.median(spectra, axis=0)
    spectra[0] = start  # the median of each band is the first spectrum
    valid = np.ones((5, 1), bool)
    found = geometric_median(spectra, valid)
    assert distances(spectra, valid, found) <= distances(spectra, valid, weiszfeld(spectra + 1e-7, valid)) + 1e-4


def test_one_band_gives_a_median_and_of_an_even_number_the_point_nearest_to_the_mean():
    values = np.array([[1.0, 1, 1, 7], [2, 2, 2, 7], [9, 3, 40, 7], [9, 60, 9, 7]])[:, None]
    valid = np.ones((4, 4), bool)
    valid[3, 0] = False
    np.testing.assert_allclose(geometric_median(values, valid), [[2, 3, 9, 7]])


def test_equal_single_and_missing_spectra_are_kept_as_they_are():
    spectra = np.array([[5, 7, 1e30, 4], [5, 0, 1e30, 0], [5, 0, 3e30, 0]])[:, None].repeat(2, axis=1)
    valid = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]], bool)
    with np.errstate(all="raise"):
        found = geometric_median(spectra, valid)
    np.testing.assert_allclose(found[:, :3], [[5, 7, 1e30]] * 2)


def test_spectra_on_a_line_and_of_any_dtype_have_a_median_between_the_middle_two():
    steps = np.array([0, 1, 10, 11])[:, None, None]
    for dtype in ("uint8", "int16", "float32"):
        found = geometric_median((steps * np.array([[1], [2]])).astype(dtype), np.ones((4, 1), bool))
        assert 1 <= found[0, 0] <= 10
        assert found[1, 0] == pytest.approx(2 * found[0, 0], abs=1e-3)
