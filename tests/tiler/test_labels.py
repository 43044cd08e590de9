"""What items say of their bands is in the output: names, scale and offset, units, days."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from mosaic_async import build_mosaic
from mosaic_async.tiler import Rendering, local_tiler, open_mosaic
from mosaic_async.tiler.scenes.survey import names_in, survey
from tests.tiler.world import values_of, write_item, write_raster

pytestmark = [
    pytest.mark.usefixtures("forked_tilers"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
]
BANDS = {
    "B04": {"eo:bands": [{"name": "B04", "common_name": "red"}], "raster:bands": [{"unit": "1"}]},
    "temperature": {"raster:bands": [{"scale": 0.01, "offset": 100, "unit": "K"}]},
    "all": {"bands": [{"name": "a", "unit": "m"}, {"name": "b"}]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels") / "scenes"
    for place, properties in enumerate(({"s2:processing_baseline": "03.01"}, {"s2:processing_baseline": "05.00"})):
        write_raster(folder / f"{place}.tif", np.array([values_of(0), values_of(1)]), nodata=0, shift=(40 * place, 0))
        write_raster(folder / f"{place}-one.tif", values_of(2) + 2000, nodata=0, shift=(40 * place, 0))
        assets = {name: {"href": f"{place}-one.tif", **described} for name, described in BANDS.items()}
        assets["all"]["href"] = f"{place}.tif"
        write_item(folder / f"{place}.json", assets, platform="sentinel-2a", datetime=f"2022-0{place + 3}-01T10:00:00Z",
                   **properties)  # fmt: skip
    return folder


def labels(folder, **rendering) -> list[tuple]:
    mosaic = open_mosaic(folder)
    wanted = Rendering(**rendering)
    wanted.query(mosaic)
    agreed = survey(names_in(mosaic.document), wanted.shown(mosaic), is_stac=True)
    return [(one.name, one.scale, one.offset, one.unit) for one in wanted.labels(mosaic, agreed)]


def test_bands_keep_their_labels_as_far_as_pixels_keep_their_meaning(folder):
    kelvin = ("temperature", 0.01, 100, "K")
    assert labels(folder, bands=["B04", "temperature"]) == [("red", 1e-4, 0, "1"), kelvin]  # both baselines
    assert labels(folder, bands=["all:2,1"]) == [("b", None, None, None), ("a", None, None, "m")]
    assert labels(folder, bands=["B04"], reflectance="integer") == [("red", 1e-4, 0, "1")]
    assert labels(folder, bands=["B04"], reflectance="float") == [("red", None, None, "1")]
    assert labels(folder, bands=["B04"], pixel_selection="count") == [("red", None, None, None)]
    assert labels(folder, bands=["temperature"], rescale=[(0, 9)]) == [("temperature", None, None, None)]
    formulas = [("B04*2", None, None, None)]
    assert labels(folder, expression="B04*2;temperature", pixel_selection="lastbandhigh") == formulas


async def test_labels_and_days_are_in_the_file(folder, tmp_path):
    async with local_tiler(folder, bands=["red", "temperature"], tile_size=256, workers=1) as source:
        await build_mosaic(source, (-54.7, -25.4, -54.6, -25.3), tmp_path / "out.tif", zoom=11)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.descriptions == ("red", "temperature")
        assert (dataset.scales, dataset.offsets, dataset.units) == ((1e-4, 0.01), (0.0, 100.0), ("1", "K"))
        tags = dataset.tags()
    assert (tags["MOSAIC_SCENES_FIRST"], tags["MOSAIC_SCENES_LAST"]) == ("2022-03-01", "2022-04-01")
