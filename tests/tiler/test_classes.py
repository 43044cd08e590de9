"""Scenes whose values are classes with a colour table: never averaged, and coloured in the output."""

from __future__ import annotations

import mercantile
import numpy as np
import pytest
import rasterio

from mosaic_async import build_mosaic
from mosaic_async.tiler import local_tiler
from tests.tiler.in_process import InProcessTiler
from tests.tiler.test_unlike_scenes import first_of, nan_stack
from tests.tiler.world import PLACE, values_of, write_item, write_raster

pytestmark = [
    pytest.mark.usefixtures("forked_tilers"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
]
PALETTE = {0: (0, 0, 0, 255), 10: (255, 0, 0, 255), 40: (0, 200, 0, 255), 80: (0, 0, 250, 255)}
TILE = mercantile.tile(*PLACE, 11)


def classes(seed: int) -> np.ndarray:
    return np.array([10, 40, 80], "uint8")[values_of(seed, low=0, high=2.99, dtype="uint8")]


@pytest.mark.parametrize("is_item", [False, True])
async def test_classes_and_their_colours_reach_the_file(is_item, tmp_path):
    folder = tmp_path / "scenes"
    paths = [
        write_raster(folder / f"{place}.tif", classes(place), nodata=0, palette=PALETTE, shift=(90 * place, 0))
        for place in range(2)
    ]
    for place in range(2) if is_item else ():
        write_item(folder / f"{place}.json", {"cover": {"href": f"{place}.tif"}})
    output = tmp_path / "out.tif"
    async with local_tiler(folder, bands=["cover"] if is_item else (), tile_size=256, workers=1) as source:
        box = mercantile.bounds(TILE)
        inside = (box.west + 1e-6, box.south + 1e-6, box.east - 1e-6, box.north - 1e-6)
        await build_mosaic(source, inside, output, zoom=11)
    expected = first_of(nan_stack(paths, TILE, method="nearest"))[0]
    there = ~np.isnan(expected)
    with rasterio.open(output) as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, there)
        np.testing.assert_array_equal(dataset.read(1)[there], expected[there])
        colours = dataset.colormap(1)
    assert {value: colours[value] for value in (10, 40, 80)} == {value: PALETTE[value] for value in (10, 40, 80)}


async def test_pictures_show_the_colours_and_means_of_classes_are_plain_numbers(tmp_path):
    path = write_raster(tmp_path / "a.tif", classes(0), nodata=0, palette=PALETTE)
    tiler = InProcessTiler(tmp_path)
    data, valid = (await tiler.tile(TILE, extension="png")).pixels()
    expected = nan_stack([path], TILE, method="nearest")[0, 0]
    assert len(data) == 3
    for value in (10, 40, 80):
        at = (expected == value) & valid
        assert at.any()
        assert set(map(tuple, data[:, at].T)) == {PALETTE[value][:3]}
    answer = await tiler.tile(TILE, pixel_selection="mean")
    assert len(answer.pixels()[0]) == 1


async def test_scenes_with_other_colour_tables_keep_their_classes(tmp_path):
    write_raster(tmp_path / "a.tif", classes(0), nodata=0, palette=PALETTE)
    write_raster(tmp_path / "b.tif", classes(1), nodata=0, palette={**PALETTE, 10: (9, 9, 9, 255)}, shift=(90, 0))
    data, valid = (await InProcessTiler(tmp_path).tile(TILE)).pixels()
    assert set(np.unique(data[0, valid])) == {10, 40, 80}
