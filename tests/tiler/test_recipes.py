"""The notebook's recipes as settings of one command, and what is refused before a tiler starts."""

from __future__ import annotations

import json

import mercantile
import numpy as np
import pytest

from mosaic_async import UsageError
from mosaic_async.tiler import Rendering, open_mosaic
from mosaic_async.tiler.scenes.naming import find_bands, has_bands
from mosaic_async.tiler.scenes.scene import open_scene
from tests.conftest import PARANA
from tests.pairwise import quick_only
from tests.tiler.awspds.bretagne import taken, write_scenes
from tests.tiler.in_process import InProcessTiler
from tests.tiler.world import values_of, write_item, write_raster

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
]
COLOURS = "gamma RGB 3.5, saturation 1.7, sigmoidal RGB 15 0.35"
NDVI = "(b5-b4)/(b5+b4)"
RECIPES = {
    "median": (
        {"bands": "4,3,2", "pixel_selection": "median"},
        [{"bands": [spelled], "pixel_selection": "median"} for spelled in ("4,3,2", "b4,b3,b2", "B4 B3 B2")],
    ),
    "greenest": (
        {"expr": f"b4,b3,b2,{NDVI}", "pixel_selection": "lastband"},
        [
            {"expression": f"b4;b3;b2;{NDVI}", "pixel_selection": "lastbandhigh"},
            {"expression": f"B4, B3, B2, {NDVI}", "pixel_selection": "lastband"},
            {"expression": f"B4;b3,B2; {NDVI}", "pixel_selection": "lastbandhight"},
        ],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bretagne(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "scenes"
    folder.mkdir()
    write_scenes(folder, [one for one in taken() if one.is_wanted and one.row == 27], metres=2400)
    return folder


@pytest.mark.parametrize("recipe", quick_only(RECIPES, "greenest"))
async def test_a_recipe_in_one_command_is_the_notebook_s_flow(recipe, bretagne):
    tiler = InProcessTiler(bretagne)
    notebook, spellings = RECIPES[recipe]
    search = {"bbox": [-5, 46.5, -1, 48], "sort": [{"field": "id", "direction": "asc"}]}
    made = await tiler.get("/mosaic/create?maximum_items_per_tile=0", body=json.dumps(search).encode())
    assert made.status == 200, made.body
    name = json.loads(made.body)["name"]
    seen = 0
    for tile in [mercantile.tile(-2.4, 47.4, 8), mercantile.tile(-1.2, 47.3, 9), mercantile.tile(-3.4, 47.9, 9)]:
        query = "&".join(f"{key}={value.replace('+', '%2B')}" for key, value in notebook.items())
        url = f"/tiles/{name}/{tile.z}/{tile.x}/{tile.y}@1x.tif?{query}"
        for colours in ("", f"&color_ops={COLOURS.replace(' ', '%20')}"):
            theirs = await tiler.get(url + colours)
            for spelled in spellings if colours else spellings[:1]:
                ours = await tiler.tile(
                    tile, reflectance="integer", color_formula=COLOURS if colours else None, **spelled
                )
                assert (theirs.status, ours.status) == (200, 200), (theirs.body[:300], ours.body[:300])
                (data, valid), (expected, there) = ours.pixels(), theirs.pixels()
                np.testing.assert_array_equal(valid, there)
                assert data.dtype == expected.dtype
                np.testing.assert_array_equal(data[:, valid], expected[:, valid])
            seen += valid.sum()
    assert seen > 50_000


@pytest.mark.quick(3)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int64", "float64", "float32", "int16"])
async def test_colours_work_on_any_data_type(dtype, tmp_path):
    for seed, name in enumerate(("red", "green", "blue")):
        write_raster(tmp_path / f"{name}.tif", values_of(seed, high=100).astype(dtype), nodata=0)
    write_item(tmp_path / "a.json", {name: {"href": f"{name}.tif"} for name in ("red", "green", "blue")})
    tile = mercantile.tile(-54.6, -25.3, 11)
    answer = await InProcessTiler(tmp_path).tile(tile, 64, bands=["red,green,blue"], color_formula="gamma RGB 2")
    data, valid = answer.pixels()
    assert data.dtype == "uint8"
    assert len(np.unique(data[:, valid])) > 5


def test_sentinel_2_and_landsat_know_the_notebook_s_numbers(tmp_path):
    def assets(*names):
        return {name: {"href": "a.tif"} for name in names}

    write_raster(tmp_path / "a.tif", values_of(0), nodata=0)
    layouts = [
        (assets("B02", "B03", "B04", "B8A"), {}, ["4,3,2", "b4,b3,b2", "8A", "b8a"]),
        (assets("blue", "green", "red", "nir08"), {"platform": "landsat-9"}, ["4,3,2", "b5"]),
        ({"red": {"href": "a.tif", "eo:bands": [{"name": "OLI_B4"}]}}, {}, ["4", "b4", "OLI_B4"]),
        (assets("SR_B4", "ST_B10"), {"platform": "landsat-8"}, ["4", "b4"]),
    ]
    for place, (described, properties, spellings) in enumerate(layouts):
        item = write_item(tmp_path / f"{place}.json", described, **properties)
        mosaic = open_mosaic(item)
        for spelled in spellings:
            assert Rendering(bands=[spelled]).query(mosaic)
        with pytest.raises(UsageError, match="no band"):
            Rendering(bands=["11"]).query(mosaic)


MSI = {
    "1": "coastal", "4": "red", "5": "rededge1", "b6": "rededge2", "07": "rededge3", "8": "nir", "8A": "nir08",
    "9": "nir09", "11": "swir16", "12": "swir22",
}  # fmt: skip


def test_a_number_of_sentinel_2_s_bands_is_not_one_of_landsat_s(tmp_path):
    """Earth Search names bands by colour alone; for Landsat 8, band 5 is `nir08` and band 6 `swir16`."""
    write_raster(tmp_path / "a.tif", values_of(0), nodata=0)
    named = {name: {"href": "a.tif"} for name in MSI.values()}
    of_satellite = write_item(tmp_path / "a.json", named, platform="Sentinel-2B")
    of_id = write_item(tmp_path / "b.json", named, id="S2A_21JYN_20200518_0_L2A")
    for item in (of_satellite, of_id):
        scene = open_scene(str(item), is_item=True)
        assert {number: find_bands(scene, number)[0] for number in MSI} == MSI
    for satellite in ("SkySat", "terra", "gaofen-1"):
        other = open_scene(str(write_item(tmp_path / f"{satellite}.json", named, platform=satellite)), is_item=True)
        assert not any(has_bands(other, number) for number in MSI)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"resampling": "bilinar"}, "resampling 'bilinar' is not known"),
        ({"color_formula": "gama RGB 3"}, "colour formula is malformed"),
        ({"color_formula": "gamma RGB"}, "colour formula is malformed"),
        ({"bands": (), "expression": "(B4-B3"}, "expression is malformed"),
        ({"bands": (), "expression": "B4-B9"}, "B9 names no band"),
        ({"bands": (), "expression": "wher(B4 > 1, B3, 0)"}, "expression is malformed"),
        ({"group_by": "week"}, "cannot be grouped"),
    ],
)
def test_what_cannot_work_is_refused_before_a_tiler_starts(wrong, words):
    with pytest.raises(UsageError, match=words):
        Rendering(**{"bands": ["B4"], **wrong}).query(open_mosaic(PARANA))
