"""Selections against references in plain NumPy that share no code with them, nor with rio-tiler's methods."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_async import UsageError
from mosaic_async.tiler.pixels.ordering import sort_in_place
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.selection import PIXEL_SELECTIONS, Selection

SHAPE = (3, 40, 70)


def made_scenes(dtype="uint16", count=9, seed=0, holes=0.35) -> list[Pixels]:
    """Random scenes whose bands are not always valid in the same pixels, some pixels valid in none."""
    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        if np.issubdtype(dtype, np.floating):
            data = rng.normal(size=SHAPE).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            data = rng.integers(limits.min, limits.max, SHAPE, dtype=dtype, endpoint=True)
        valid = rng.random(SHAPE) > holes
        valid[:, :4] = False
        valid[:, 4:8] = True
        scenes.append(Pixels(data, valid))
    return scenes


def composed(name, scenes, *, rounding=False) -> Pixels:
    return Selection.parse(name, rounding=rounding).compose([reader(scene) for scene in scenes])


def reader(scene):
    def read(window):
        place = (slice(None), *(window.toslices() if window else ()))
        return Pixels(scene.data[place], scene.valid[place])

    return read


def columns(scenes):
    """Every pixel of every band by itself, slowly: (place, the valid values in the order of the scenes)."""
    for place in np.ndindex(SHAPE):
        yield place, [scene.data[place] for scene in scenes if scene.valid[place]]


ONE_BY_ONE = {
    "first": lambda values: values[0],
    "highest": max,
    "lowest": min,
    "mean": lambda values: int(np.trunc(sum(map(int, values)) / len(values))),
    "median": lambda values: int(np.trunc(np.median(np.array(values, "float64")))),
    "percentile:0": min,
    "percentile:100": max,
    "percentile:25": lambda values: int(np.trunc(np.percentile(np.array(values, "float64"), 25))),
    "percentile:61.8": lambda values: int(np.trunc(np.percentile(np.array(values, "float64"), 61.8))),
}


@pytest.mark.quick(9)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_each_band_is_what_numpy_makes_of_the_valid_values_of_each_pixel(name, dtype):
    scenes = made_scenes(dtype)
    result = composed(name, scenes)
    assert result.data.dtype == dtype
    for place, values in columns(scenes):
        assert result.valid[place] == bool(values)
        if values:
            assert result.data[place] == ONE_BY_ONE[name](values), place


def test_rounding_is_to_the_nearest_and_of_halves_to_the_even():
    scenes = made_scenes("int16")
    for name in ("mean", "median", "percentile:25"):
        result = composed(name, scenes, rounding=True)
        exact = {"mean": np.mean, "median": np.median, "percentile:25": lambda values: np.percentile(values, 25)}[name]
        for place, values in columns(scenes):
            if values:
                assert result.data[place] == np.rint(exact(np.array(values, "float64")))


def test_the_median_of_floats_and_the_deviation_are_numpy_s_masked_ones():
    scenes = made_scenes("float32")
    stack = np.ma.MaskedArray([scene.data for scene in scenes], mask=[~scene.valid for scene in scenes])
    for name, expected in (("median", np.ma.median(stack, axis=0)), ("mean", np.ma.mean(stack, axis=0))):
        result = composed(name, scenes)
        assert result.data.dtype == "float32"
        there = ~np.ma.getmaskarray(expected)
        np.testing.assert_array_equal(result.valid, there)
        np.testing.assert_array_equal(result.data[there], expected.data[there].astype("float32"))
    result, expected = composed("stdev", made_scenes("uint8")), None
    stack = np.ma.MaskedArray(
        [scene.data for scene in made_scenes("uint8")], mask=[~scene.valid for scene in made_scenes("uint8")]
    )
    expected = np.ma.std(stack, axis=0)
    np.testing.assert_allclose(result.data[result.valid], expected.compressed(), rtol=1e-12, atol=1e-12)


def test_values_as_large_as_the_dtype_has_are_not_taken_for_missing_ones():
    full = np.full(SHAPE, 65535, "uint16")
    scenes = [
        Pixels(full, np.ones(SHAPE, bool)),
        Pixels(full, np.zeros(SHAPE, bool)),
        Pixels(full, np.ones(SHAPE, bool)),
    ]
    for name in ("median", "percentile:90", "mean"):
        result = composed(name, scenes)
        assert result.valid.all()
        assert (result.data == 65535).all()


def test_count_counts_the_first_band_and_none_is_a_number_too():
    scenes = made_scenes()
    result = composed("count", scenes)
    assert result.data.dtype == "uint8"
    assert result.valid.all()
    np.testing.assert_array_equal(result.data[0], sum(scene.valid[0].astype(int) for scene in scenes))
    assert (result.data[0, :4] == 0).all()


@pytest.mark.parametrize(
    ("name", "best"), [("lastbandhigh", np.argmax), ("lastbandlow", np.argmin), ("lastband", np.argmax)]
)
def test_a_last_band_selection_takes_all_bands_of_a_pixel_from_one_scene(name, best):
    scenes = made_scenes(holes=0.15)
    result = composed(name, scenes)
    assert result.data.shape == (2, *SHAPE[1:])
    for row, column in np.ndindex(SHAPE[1:]):
        spectra = [scene.data[:, row, column] for scene in scenes if scene.valid[:, row, column].all()]
        assert result.valid[:, row, column].tolist() == [bool(spectra)] * 2
        if spectra:
            chosen = spectra[best([int(spectrum[-1]) for spectrum in spectra])]
            assert result.data[:, row, column].tolist() == chosen[:-1].tolist()


def spectra_at(scenes, row, column) -> np.ndarray:
    return np.array(
        [scene.data[:, row, column] for scene in scenes if scene.valid[:, row, column].all()], "float64"
    ).reshape(-1, SHAPE[0])


def test_the_medoid_is_the_scene_nearest_to_all_others():
    scenes = made_scenes(holes=0.15)
    result = composed("medoid", scenes)
    for row, column in np.ndindex(SHAPE[1:]):
        spectra = spectra_at(scenes, row, column)
        assert result.valid[:, row, column].all() == bool(len(spectra))
        if len(spectra):
            distances = np.array([[np.linalg.norm(one - other) for other in spectra] for one in spectra])
            assert result.data[:, row, column].tolist() == spectra[distances.sum(axis=1).argmin()].tolist()


def test_no_point_around_the_geometric_median_is_nearer_to_all_spectra():
    scenes = made_scenes("float32", holes=0.15)
    result = composed("geomedian", scenes)
    rng = np.random.default_rng(1)
    for row, column in np.ndindex(SHAPE[1:]):
        spectra = spectra_at(scenes, row, column)
        assert result.valid[:, row, column].all() == bool(len(spectra))
        if not len(spectra):
            continue
        point = result.data[:, row, column].astype("float64")
        cost = np.linalg.norm(spectra - point, axis=1).sum()
        others = np.concatenate([point + rng.normal(scale=0.05, size=(40, 3)), spectra, spectra.mean(axis=0)[None]])
        costs = np.linalg.norm(spectra[:, None] - others[None], axis=2).sum(axis=0)
        assert cost <= costs.min() * (1 + 1e-4)


def test_the_geometric_median_of_integers_is_rounded():
    scenes = [Pixels(np.full(SHAPE, value, "uint8"), np.ones(SHAPE, bool)) for value in (10, 10, 10, 200)]
    assert (composed("geomedian", scenes).data == 10).all()


def test_first_reads_only_where_pixels_are_missing_and_ends_when_none_is():
    whole = made_scenes()[0]
    left, right = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    left[:, :, :30] = True
    asked = []

    def noted(name, scene):
        def read(window):
            asked.append((name, window and (window.col_off, window.width)))
            return reader(scene)(window)

        return read

    scenes = [Pixels(whole.data, left), Pixels(whole.data + 1, right), Pixels(whole.data + 2, right)]
    result = Selection.parse("first").compose([noted(name, scene) for name, scene in zip("abc", scenes, strict=True)])
    assert asked == [("a", None), ("b", (30, 40))]
    np.testing.assert_array_equal(result.data, np.where(left, whole.data, whole.data + 1))


@pytest.mark.parametrize("count", [*range(1, 34), 63, 64, 65, 105, 128, 129])
def test_the_sorting_network_sorts_any_number_of_values(count):
    values = np.random.default_rng(count).integers(0, 2, (count, 2000)).astype("uint16")  # zeros and ones prove it
    expected = np.sort(values, axis=0)
    sort_in_place(values)
    np.testing.assert_array_equal(values, expected)


def test_no_scene_gives_nothing():
    for name in PIXEL_SELECTIONS:
        assert Selection.parse(name.replace("N", "50")).compose([lambda _: None]) is None


@pytest.mark.parametrize("name", ["percentile", "percentile:", "percentile:101", "percentile:-1", "bdix", "", "sum"])
def test_a_selection_that_there_is_not_is_a_usage_error_that_names_those_there_are(name):
    with pytest.raises(UsageError, match="geomedian"):
        Selection.parse(name)
