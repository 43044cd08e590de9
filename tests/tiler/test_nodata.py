"""Which pixels have data: by the file, by what lies beside it, or by the item alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from mosaic_async.tiler.scenes.scene import open_scene
from tests.tiler.in_process import InProcessTiler
from tests.tiler.world import read_alone, three_tiles, values_of, write_item, write_raster

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
]


def with_rim(seed: int = 0, *, nodata: float = 0, dtype: str = "uint16") -> np.ndarray:
    values = values_of(seed, dtype=dtype)
    y, x = np.mgrid[:300, :300]
    values[(x + y < 90) | (x - y > 230)] = nodata
    return values


async def check(folder: Path, expected_of, *, atol: float = 0, **rendering) -> None:
    """Compare tiles at three zooms with arrays of rio-tiler."""
    tiler = InProcessTiler(folder)
    masked = 0
    for tile in three_tiles(str(next(folder.rglob("*.tif")))):
        answer = await tiler.tile(tile, **rendering)
        expected = expected_of(tile)
        there = ~np.ma.getmaskarray(expected)
        if answer.status != 200:
            assert not there.any(), answer.body
            continue
        data, valid = answer.pixels()
        np.testing.assert_array_equal(valid, there.any(axis=0))
        rtol = 1e-6 if data.dtype.kind == "f" else 0
        np.testing.assert_allclose(data[:, valid].astype(float), expected.data[:, valid], rtol, atol)
        masked += (~valid).sum()
    assert masked > 1000


ITEMS = {
    "raster:bands": {"raster:bands": [{"nodata": 0}]},
    "bands": {"bands": [{"name": "B4", "nodata": 0}]},
    "asset": {"nodata": 0},
    "the second list": {"raster:bands": [{"scale": 1e-4}], "bands": [{"nodata": 0}]},
    "text": {"raster:bands": [{"nodata": "0"}]},
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("where", ITEMS)
async def test_an_untagged_file_has_the_nodata_value_of_its_item(where, tmp_path):
    write_raster(tmp_path / "a.tif", with_rim())
    write_item(tmp_path / "a.json", {"B4": {"href": "a.tif", **ITEMS[where]}})
    tagged = write_raster(tmp_path.parent / f"{tmp_path.name}.tif", with_rim(), nodata=0)
    await check(tmp_path, lambda tile: read_alone(tagged, tile), bands=["B4"])


@pytest.mark.parametrize("crs", ["EPSG:32721", "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
async def test_integers_of_64_bits_have_nodata_as_those_of_32_have_it(dtype, crs, tmp_path):
    """For GDAL's warps of them all pixels are valid, so rio-tiler reads the same values in 32 bits."""
    write_raster(tmp_path / "scenes" / "a.tif", with_rim(dtype=dtype), nodata=0, crs=crs)
    oracle = write_raster(tmp_path / "a.tif", with_rim(dtype="int32"), nodata=0, crs=crs)
    await check(tmp_path / "scenes", lambda tile: read_alone(oracle, tile), atol=1)  # a mean is rounded once


async def test_the_item_s_nodata_counts_among_integers_of_64_bits(tmp_path):
    values = with_rim(dtype="int64")
    oracle = write_raster(tmp_path / "a.tif", values.astype("int32"), nodata=0)
    write_raster(tmp_path / "item" / "a.tif", values)
    write_item(tmp_path / "item" / "a.json", {"ids": {"href": "a.tif", "nodata": 0}})
    await check(tmp_path / "item", lambda tile: read_alone(oracle, tile), atol=1, bands=["ids"])


@pytest.mark.parametrize("value", [-9999, "nan", "inf", 65536, 0.5])
async def test_a_nodata_value_that_no_pixel_can_have_marks_none(value, tmp_path):
    plain = write_raster(tmp_path / "a.tif", with_rim(nodata=1))
    write_item(tmp_path / "a.json", {"B4": {"href": "a.tif", "raster:bands": [{"nodata": value}]}})
    await check(tmp_path, lambda tile: read_alone(plain, tile), bands=["B4"])


@pytest.mark.parametrize("key", ["eo:bands", "bands"])
async def test_a_single_entry_of_raster_bands_counts_for_all_bands_that_have_names(key, tmp_path):
    bands = np.array([with_rim(seed, dtype="uint8") for seed in range(3)])
    names = [{"name": name} for name in ("one", "two", "three")]
    write_raster(tmp_path / "item" / "a.tif", bands)
    assets = {"image": {"href": "a.tif", "raster:bands": [{"nodata": 0, "scale": 0.5}], key: names}}
    item = write_item(tmp_path / "item" / "a.json", assets)
    tagged = write_raster(tmp_path / "a.tif", bands, nodata=0)
    await check(tmp_path / "item", lambda tile: read_alone(tagged, tile), bands=["image"])
    assert open_scene(str(item), is_item=True).files["image"].scales == ((0.5, 0.0),) * 3


async def test_what_the_file_says_comes_before_what_the_item_says(tmp_path):
    tagged = write_raster(tmp_path / "a.tif", with_rim(), nodata=0)
    write_item(tmp_path / "a.json", {"B4": {"href": "a.tif", "raster:bands": [{"nodata": 120}]}})
    await check(tmp_path, lambda tile: read_alone(tagged, tile), bands=["B4"])


async def test_the_item_s_nodata_leaves_a_file_with_a_mask_alone(tmp_path):
    mask = with_rim() > 0
    masked = write_raster(tmp_path / "a.tif", values_of(0, low=0, high=9), mask=mask)
    write_item(tmp_path / "a.json", {"B4": {"href": "a.tif", "raster:bands": [{"nodata": 5}]}})
    await check(tmp_path, lambda tile: read_alone(masked, tile), bands=["B4"])


async def test_nodata_that_is_not_a_number_in_json_is_read_from_text(tmp_path):
    values = with_rim(dtype="float32", nodata=-1)
    values[values == -1] = np.nan
    write_raster(tmp_path / "a.tif", values)
    write_item(tmp_path / "a.json", {"B4": {"href": "a.tif", "bands": [{"nodata": "nan"}]}})
    tagged = write_raster(tmp_path.parent / f"{tmp_path.name}.tif", values, nodata=math.nan)
    await check(tmp_path, lambda tile: read_alone(tagged, tile), bands=["B4"])


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("values", "is_tagged", "dtype"),
    [((0, 999), False, "uint16"), ((-9999, -9999), True, "float32"), ((np.nan, np.nan), True, "float64"),
     ((-9999, -9999), False, "int16")],
)  # fmt: skip
async def test_bands_of_one_file_with_masks_of_their_own_keep_nodata_out_of_each_other(
    values, is_tagged, dtype, tmp_path
):
    """GDAL takes a pixel for valid if one of its bands is, and means of 120 and -9999 would stand at every rim."""
    bands = [values_of(seed).astype(dtype) for seed in range(2)]
    for seed, (band, nodata) in enumerate(zip(bands, values, strict=True)):
        band[70 + 40 * seed : 150, 100:200] = nodata
        band[::9, ::7] = nodata
    write_raster(tmp_path / "a.tif", np.array(bands), nodata=values[0] if is_tagged else None)
    stated = {} if is_tagged else {"raster:bands": [{"nodata": nodata} for nodata in values]}
    write_item(tmp_path / "a.json", {"both": {"href": "a.tif", **stated}})
    alone = [
        write_raster(tmp_path.parent / f"{tmp_path.name}-{seed}.tif", band, nodata=nodata)
        for seed, (band, nodata) in enumerate(zip(bands, values, strict=True))
    ]

    def expected(tile):
        both = np.ma.concatenate([read_alone(path, tile) for path in alone])
        gone = np.ma.getmaskarray(both) | (np.isnan(both.data) if both.dtype.kind == "f" else False)
        return np.ma.MaskedArray(both.data, np.broadcast_to(gone.any(axis=0), both.shape))

    await check(tmp_path, expected, bands=["both"])


@pytest.mark.parametrize("is_item", [False, True])
async def test_masks_metadata_and_overviews_beside_a_local_file_belong_to_it(is_item, tmp_path):
    mask = with_rim() > 0
    for name, options in [("a", {"mask_beside": True}), ("b", {})]:
        folder = tmp_path / name
        whole = write_raster(folder / "a.tif", values_of(0), mask=mask, **options)
        if is_item:
            write_item(folder / "a.json", {"B4": {"href": "a.tif"}})
        rendering = {"bands": ["B4"]} if is_item else {}
        await check(folder, lambda tile, whole=whole: read_alone(whole, tile), **rendering)
    assert (tmp_path / "a" / "a.tif.msk").exists()


async def test_a_nodata_value_that_only_the_metadata_beside_the_file_has_counts(tmp_path):
    folder = tmp_path / "a"
    path = Path(write_raster(folder / "a.tif", with_rim()))
    band = '<PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand>'
    path.with_name("a.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    tagged = write_raster(tmp_path / "b.tif", with_rim(), nodata=0)
    await check(folder, lambda tile: read_alone(tagged, tile))


async def test_a_pixel_that_only_some_files_have_is_no_valid_zero(tmp_path):
    """Bands of 10 m and 20 m end at different places."""
    fine = write_raster(tmp_path / "b04.tif", with_rim(0), nodata=0)
    coarse = write_raster(tmp_path / "b05.tif", values_of(1, 140), pixel=120, nodata=0)
    write_item(tmp_path / "a.json", {"red": {"href": "b04.tif"}, "rededge": {"href": "b05.tif"}})

    def expected(tile):
        both = np.ma.concatenate([read_alone(path, tile) for path in (fine, coarse)])
        return np.ma.MaskedArray(both.data, np.broadcast_to(np.ma.getmaskarray(both).any(axis=0), both.shape))

    for selection in ("first", "median", "highest"):
        await check(tmp_path, expected, bands=["red", "rededge"], pixel_selection=selection)


async def test_a_colour_with_one_channel_at_nodata_is_still_a_colour(tmp_path):
    rgb = np.array([with_rim(seed, dtype="uint8") for seed in range(3)])
    rgb[0, 100:200, 100:200] = 0
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    path = write_raster(tmp_path / "a.tif", rgb, nodata=0, colours=colours, photometric="rgb")
    await check(tmp_path, lambda tile: read_alone(path, tile, indexes=(1, 2, 3)))


def test_a_malformed_band_is_an_error_of_its_scene(tmp_path):
    write_raster(tmp_path / "a.tif", with_rim())
    item = write_item(tmp_path / "a.json", {"B4": {"href": "a.tif", "raster:bands": [{"nodata": "none"}]}})
    with pytest.raises(ValueError, match="none"):
        open_scene(str(item), is_item=True)
