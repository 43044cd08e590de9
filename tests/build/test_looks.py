"""How a file looks where it is opened: statistics of valid pixels, colours, and QGIS's picture of it."""

from __future__ import annotations

from dataclasses import replace

import mercantile
import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from mosaic_async import build_mosaic
from mosaic_async.sources.band_label import BandLabel
from mosaic_async.sources.source import from_template
from tests.conftest import PARANA, SCENES
from tests.fake_tiler import Pattern
from tests.forks import server

AREA = (-4.0, 38.0, 4.0, 44.0)
COLOURS = ("red", "green", "blue")


def statistics(dataset, band):
    """The metadata of a band, without the prefix."""
    tags = {name.removeprefix("STATISTICS_"): value for name, value in dataset.tags(band).items()}
    return {name: value == "YES" if name == "APPROXIMATE" else float(value) for name, value in tags.items()}


def expected(values, total):
    return {
        "MINIMUM": values.min(), "MAXIMUM": values.max(), "MEAN": values.mean(dtype=float),
        "STDDEV": values.std(dtype=float), "VALID_PERCENT": 100 * values.size / total,
    }  # fmt: skip


def picture_of_qgis(path):
    """The colours of the valid pixels in QGIS's default picture, as QGIS 3.22 was seen to choose them.

    Without statistics in the file it counts masked pixels too. A band is stretched from minimum to maximum, several
    bands from 2 to 98 % of the values between these, and several bands of bytes not at all.
    """
    with rasterio.open(path) as dataset:
        colours = [dataset.colorinterp.index(ColorInterp[name]) + 1 for name in COLOURS if is_picture(dataset)]
        bands = colours or ([1, 2, 3] if dataset.count >= 3 else [1])
        valid = dataset.dataset_mask() > 0
        shown = []
        for band in bands:
            pixels = dataset.read(band).astype(float)
            tags = statistics(dataset, band)
            low, high = tags.get("MINIMUM", np.nanmin(pixels)), tags.get("MAXIMUM", np.nanmax(pixels))
            if len(bands) > 1:
                low, high = np.percentile(pixels[(pixels >= low) & (pixels <= high)], (2, 98))
            if len(bands) > 1 and dataset.dtypes[0] == "uint8":
                low, high = 0, 255
            shown.append(np.clip((pixels[valid] - low) / (high - low), 0, 1) * 255)
        return np.array(shown)


def is_picture(dataset):
    return {ColorInterp[name] for name in COLOURS} <= set(dataset.colorinterp)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("uint16", {}),
        ("uint16", {"mask": "alpha"}),
        ("int16", {"nodata": -32768}),
        ("float32", {"nodata": float("nan")}),
        ("uint8", {"mask": "internal", "clip": True}),
    ],
)
async def test_statistics_are_of_valid_pixels_only_and_exact_for_a_small_output(serve, tmp_path, dtype, options):
    tiler = serve(pattern=Pattern(count=2, dtype=dtype))
    tile = mercantile.bounds(mercantile.tile(1, 41, 9))
    area = (tile.west + 0.01, tile.south + 0.01, tile.east - 0.01, tile.north - 0.01)
    await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=9, **options)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        valid = dataset.read_masks(1) > 0
        for band in (1, 2):
            values = dataset.read(band)[valid]
            assert statistics(dataset, band) == pytest.approx(expected(values, valid.size), rel=1e-9)
        assert dataset.count == 2 or dataset.tags(3) == {}  # an alpha band has none


async def test_statistics_of_an_output_with_parts_are_close_and_say_so(serve, tmp_path):
    tiler = serve(pattern=Pattern(count=3, dtype="uint16", smooth=True))
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=7, part_size=512)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        valid = dataset.read_masks(1) > 0
        for band in (1, 2, 3):
            found, exact = statistics(dataset, band), expected(dataset.read(band)[valid], valid.size)
            assert found.pop("APPROXIMATE")
            assert found["MINIMUM"] >= exact["MINIMUM"]
            assert found["MAXIMUM"] <= exact["MAXIMUM"]
            assert found["MEAN"] == pytest.approx(exact["MEAN"], rel=0.02)
            assert found["STDDEV"] == pytest.approx(exact["STDDEV"], rel=0.1)
    assert 40 < picture_of_qgis(tmp_path / "out.tif").mean() < 200


async def test_three_colours_are_red_green_and_blue_in_whatever_order_they_come(serve, tmp_path):
    tiler = serve(pattern=Pattern(count=4, dtype="uint16"))
    cases = {
        ("red", "green", "blue", "nir"): ("red", "green", "blue", "undefined"),
        ("nir", "blue", "green", "red"): ("undefined", "blue", "green", "red"),
        ("nir", "red", "green", "swir"): ("gray", "undefined", "undefined", "undefined"),
        ("red", "red", "green", "blue"): ("gray", "undefined", "undefined", "undefined"),
    }
    for number, (names, colours) in enumerate(cases.items()):
        source = replace(from_template(tiler.template), bands=tuple(BandLabel(name=name) for name in names))
        await build_mosaic(source, AREA, tmp_path / f"{number}.tif", zoom=7)
        with rasterio.open(tmp_path / f"{number}.tif") as dataset:
            assert tuple(one.name for one in dataset.colorinterp) == colours
            assert dataset.descriptions == names


def test_a_picture_with_a_colour_table_has_no_statistics(tmp_path):
    """Indices of colours have no mean."""
    from mosaic_async.raster.canvas import Canvas
    from mosaic_async.raster.encoding import Encoding
    from mosaic_async.raster.form import TileFormat

    palette = tuple((index, 0, 0, 255) for index in range(256))
    encoding = Encoding.of(TileFormat(size=256, count=3, dtype="uint8", palette=palette))
    assert encoding.palette
    with Canvas(256, 256, 0, rasterio.transform.from_origin(0, 0, 1, 1), encoding) as canvas:
        canvas.seal(tmp_path / "out.tif", tags={"A": "b"})
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags(1) == {}


SAMPLES = {
    "landsat8-parana-2020-60m": ("-54.9", "-25.45", "-54.6", "-25.25"),
    "landsat57-colorado-2008-2013": ("-106.95", "40.25", "-106.9", "40.3"),
}
RENDERINGS = {
    "colours": ("--bands", "{0},{1},{2}"),
    "a band": ("--bands", "{0}"),
    "an index": ("--expression", "({0}-{1})/({0}+{1})"),
    "a nodata value": ("--bands", "{0},{1},{2}", "--nodata", "0", "--clip"),
}


@pytest.mark.parametrize(
    ("scenes", "rendering"),
    [
        pytest.param(
            scenes, rendering, marks=() if (scenes, rendering) == (PARANA.name, "colours") else pytest.mark.slow
        )
        for scenes in SAMPLES
        for rendering in RENDERINGS
    ],
)
def test_qgis_shows_an_output_of_scenes_neither_washed_out_nor_dark(tmp_path, scenes, rendering):
    pytest.importorskip("titiler.core")
    bands = ("B4", "B3", "B2") if scenes == PARANA.name else ("b5", "b4", "b3")
    options = [option.format(*bands) for option in RENDERINGS[rendering]]
    args = ["build", SCENES / scenes, tmp_path / "out.tif", "--bounds", *SAMPLES[scenes], *options]
    with server().start(args) as process:
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    least = 20 if rendering == "a band" else 40  # a few bright clouds are the maximum
    assert least < picture_of_qgis(tmp_path / "out.tif").mean() < 200
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert is_picture(dataset) == (dataset.count == 3 and scenes == PARANA.name)
        assert dataset.tags()["MOSAIC_SCENES_FIRST"]
