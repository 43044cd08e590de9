"""Scenes of different kinds in one mosaic: data types, numbers of bands, names, and meanings of counts."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import mercantile
import numpy as np
import pytest
from aiohttp import web
from rasterio.enums import ColorInterp

from mosaic_async import SourceError, UsageError
from mosaic_async.tiler import Rendering, open_mosaic
from mosaic_async.tiler.scenes import survey
from mosaic_async.tiler.scenes.archives import meaning_of
from mosaic_async.tiler.scenes.scene import open_scene
from tests.loopback import running
from tests.tiler.in_process import InProcessTiler
from tests.tiler.world import PLACE, read_alone, values_of, write_item, write_raster

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
    pytest.mark.filterwarnings("ignore:All-NaN slice"),
]
TILES = [mercantile.tile(*PLACE, zoom) for zoom in (9, 11, 12)]
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def nan_stack(paths, tile, **options) -> np.ndarray:
    """Scenes in a tile, read by rio-tiler: (scenes, bands, height, width), NaN without data."""
    arrays = [read_alone(path, tile, **options) for path in paths]
    return np.array([np.where(np.ma.getmaskarray(one), np.nan, one.data.astype(np.float64)) for one in arrays])


def first_of(stack: np.ndarray) -> np.ndarray:
    made = stack[0].copy()
    for one in stack[1:]:
        made = np.where(np.isnan(made), one, made)
    return made


SELECTIONS = {
    "first": first_of,
    "median": lambda stack: np.nanmedian(stack, axis=0),
    "highest": lambda stack: np.nanmax(stack, axis=0),
}


def assert_is(answer, expected: np.ndarray, dtype: str) -> None:
    there = ~np.isnan(expected).any(axis=0)
    assert answer.status == 200, answer.body
    data, valid = answer.pixels()
    assert data.dtype == dtype
    np.testing.assert_array_equal(valid, there)
    whole = np.dtype(dtype).kind in "iu"
    np.testing.assert_allclose(
        data[:, there], (np.trunc(expected) if whole else expected)[:, there], 0 if whole else 1e-6
    )


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        (("uint8", "uint16"), "uint16"),
        (("int16", "float32"), "float32"),
        (("uint16", "int16", "uint8"), "int32"),
        (("float32", "uint16"), "float32"),
    ],
)
async def test_scenes_of_several_data_types_share_one_that_holds_all(dtypes, common, tmp_path):
    paths = [
        write_raster(
            tmp_path / f"{place}.tif",
            values_of(place, high=250 if dtype == "uint8" else 30_000, dtype=dtype),
            shift=(60 * place, 40 * place), nodata=0,
        )
        for place, dtype in enumerate(dtypes)
    ]  # fmt: skip
    tiler = InProcessTiler(tmp_path)
    for selection, reference in SELECTIONS.items():
        for tile in TILES if selection == "first" else TILES[1:2]:
            answer = await tiler.tile(tile, bands=["1"], pixel_selection=selection)
            assert_is(answer, reference(nan_stack(paths, tile)), common)


async def test_a_tile_of_small_scenes_has_the_type_of_the_whole_mosaic(tmp_path):
    """Otherwise neighbouring tiles of one mosaic would differ."""
    near = write_raster(tmp_path / "a.tif", values_of(0, dtype="uint8"), nodata=0)
    write_raster(tmp_path / "b.tif", values_of(1, high=60_000), shift=(5000, 0), nodata=0)
    assert_is(await InProcessTiler(tmp_path).tile(TILES[2], bands=["1"]), nan_stack([near], TILES[2])[0], "uint16")


async def test_grey_scenes_stand_among_coloured_ones_and_alpha_is_a_mask(tmp_path):
    colour = np.array([values_of(seed, dtype="uint8") for seed in range(3)])
    alpha = np.where(values_of(5) > 20, 255, 0).astype("uint8")[np.newaxis]
    rgb = {"photometric": "rgb"}
    a = write_raster(tmp_path / "a.tif", values_of(7, dtype="uint8"), nodata=0)
    b = write_raster(tmp_path / "b.tif", colour, shift=(80, 0), colours=RGB, nodata=0, **rgb)
    c = write_raster(
        tmp_path / "c.tif",
        np.concatenate([colour, alpha]),
        shift=(-60, 90),
        colours=(*RGB, ColorInterp.alpha),
        alpha="yes",
        **rgb,
    )
    tiler = InProcessTiler(tmp_path)
    for tile in TILES:
        grey = np.repeat(nan_stack([a], tile), 3, axis=1)
        expected = first_of(np.concatenate([grey, nan_stack([b, c], tile, indexes=(1, 2, 3))]))
        assert_is(await tiler.tile(tile), expected, "uint8")
    answer = await tiler.tile(TILES[1], bands=["2"])
    assert_is(answer, first_of(nan_stack([b, c], TILES[1], indexes=2)), "uint8")
    assert answer.headers["x-skipped-assets"] == a
    assert answer.headers["x-skipped-reasons"] == "the file has no band 2: it has 1"


async def test_scenes_with_other_bands_are_refused_until_bands_are_chosen(tmp_path):
    four = np.array([values_of(seed) for seed in range(4)])
    paths = [write_raster(tmp_path / "a.tif", four[:3], nodata=0), write_raster(tmp_path / "b.tif", four, nodata=0)]
    tiler = InProcessTiler(tmp_path)
    answer = await tiler.tile(TILES[1])
    assert (answer.status, "different numbers of bands" in answer.body.decode()) == (422, True)
    assert_is(await tiler.tile(TILES[1], bands=["1"]), first_of(nan_stack(paths, TILES[1], indexes=1)), "uint16")
    expected = first_of(nan_stack(paths, TILES[1], indexes=(3, 1)))
    assert_is(await tiler.tile(TILES[1], bands=["b3,1"]), expected, "uint16")


def write_pair(folder: Path) -> list[str]:
    """A Landsat and a Sentinel-2 scene, whose red has another number."""
    paths = []
    for place, names in enumerate((("B3", "B4", "B5"), ("B03", "B04", "B08"))):
        assets = {}
        for seed, (name, common) in enumerate(zip(names, ("green", "red", "nir"), strict=True)):
            path = write_raster(
                folder / f"{place}-{name}.tif", values_of(seed + place), shift=(90 * place, 0), nodata=0
            )
            assets[name] = {"href": Path(path).name, "eo:bands": [{"name": name, "common_name": common}]}
            paths.append(path)
        assets["visual"] = {"href": "none.tif", "eo:bands": [{"common_name": "red"}, {"common_name": "green"}]}
        write_item(folder / f"{place}.json", assets, platform="landsat-8" if place == 0 else "other")
    return paths


async def test_common_names_and_numbers_are_found_in_each_scene_anew(tmp_path):
    paths = write_pair(tmp_path)
    red, green = [paths[1], paths[4]], [paths[0], paths[3]]
    tiler = InProcessTiler(tmp_path)
    both = [nan_stack(one, TILES[1]) for one in (red, green)]
    expected = first_of(np.concatenate(both, axis=1))
    for bands in (["red", "green"], ["4,3"], ["b4", "b3"], ["04", "03"]):
        answer = await tiler.tile(TILES[1], bands=bands)
        assert_is(answer, expected, "uint16")
        assert "x-skipped-assets" not in answer.headers
    for formula in ("red*2, green*2", "b4*2;b3*2"):
        assert_is(await tiler.tile(TILES[1], expression=formula), expected * 2, "int32")
    answer = await tiler.tile(TILES[1], bands=["B04"])
    assert_is(answer, nan_stack(red[1:], TILES[1])[0], "uint16")
    assert answer.headers["x-skipped-reasons"] == "it has no band B04: it has B3%2C B4%2C B5%2C visual"


def test_a_name_of_several_bands_is_refused(tmp_path):
    href = Path(write_raster(tmp_path / "a.tif", values_of(0), nodata=0)).name
    edges = {name: {"href": href, "eo:bands": [{"name": name, "common_name": "rededge"}]} for name in ("B05", "B06")}
    write_item(tmp_path / "a.json", {**edges, "scl": {"href": href}})
    with pytest.raises(UsageError, match="the scenes have no band rededge"):
        from_bands(tmp_path, bands=["rededge"])
    with pytest.raises(UsageError, match="they have B05, B06, scl"):
        from_bands(tmp_path, expression="B05/B9")


def from_bands(folder: Path, **rendering) -> str:
    return Rendering(**rendering).query(open_mosaic(folder))


async def test_bands_of_one_file_are_chosen_by_number_or_by_their_own_names(tmp_path):
    bands = np.array([values_of(seed) for seed in range(4)])
    path = write_raster(tmp_path / "a.tif", bands, nodata=0)
    named = [{"name": name, "common_name": name.lower()} for name in ("Red", "Green", "Blue", "NIR")]
    for name in ("image", "natural colour, 4 bands"):
        write_item(tmp_path / "a.json", {name: {"href": "a.tif", "eo:bands": named}})
        open_scene.cache_clear()
        tiler = InProcessTiler(tmp_path)
        for spelled, indexes in [
            ([f"{name}:1,3"], (1, 3)), ([f"{name}:4"], (4,)), ([name], (1, 2, 3, 4)), (["nir", "blue"], (4, 3)),
            ([f"{name}:2", f"{name}:1,2"], (2, 1, 2)), ([f"{name}:1"], (1,)),
        ]:  # fmt: skip
            expected = nan_stack([path], TILES[1], indexes=indexes)[0]
            assert_is(await tiler.tile(TILES[1], bands=spelled), expected, "uint16")


async def test_alternate_hrefs_are_read_by_their_key(tmp_path):
    write_raster(tmp_path / "a.tif", values_of(0), nodata=0)
    other = write_raster(tmp_path / "b.tif", values_of(1), nodata=0)
    asset = {"href": "a.tif", "alternate": {"copy": {"href": "b.tif"}, "s3": {}, "bad": None}}
    write_item(tmp_path / "a.json", {"red": asset})
    tiler = InProcessTiler(tmp_path)
    for key, path in (("copy", other), ("s3", str(tmp_path / "a.tif")), ("none", str(tmp_path / "a.tif"))):
        answer = await tiler.tile(TILES[1], bands=["red"], alternate=key)
        assert_is(answer, nan_stack([path], TILES[1])[0], "uint16")


def test_complex_numbers_are_refused_in_words(tmp_path):
    write_raster(tmp_path / "a.tif", values_of(0).astype("complex64"))
    with pytest.raises(SourceError, match="complex numbers"):
        InProcessTiler(tmp_path)


S2 = {"platform": "sentinel-2a"}
BEFORE, LATER = "sentinel-2_before_04.00", "sentinel-2_from_04.00"
OLD, NEW = {**S2, "s2:processing_baseline": "03.01"}, {**S2, "processing:version": "05.10"}
BANDS = {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}
HALF = {"raster:bands": [{"scale": 1e-4}]}
SUN = {"view:sun_elevation": 30}
MTL = {"REFLECTANCE_MULT_BAND_4": 3e-5, "REFLECTANCE_ADD_BAND_4": -0.2}
C2, L1 = "LC09_L2SP_224077_20200518_20200820_02_T1", "LC08_L1TP_224077_20200518_20200518_01_RT"
MEANINGS = [
    ("old", "B04", {}, OLD, (1e-4, 0, BEFORE)),
    ("new", "B04", {}, NEW, (1e-4, -0.1, LATER)),
    ("new", "B8A", HALF, NEW, (1e-4, -0.1, LATER)),
    ("S2B_MSIL2A_20220301T095029_N0400_R079_T33UXP_20220301T104753", "B02", {}, {}, (1e-4, -0.1, LATER)),
    ("S2B_MSIL2A_20220301T095029_N0301_R079_T33UXP_20220301T104753", "B02", {}, {}, (1e-4, 0, BEFORE)),
    ("a number", "B04", {}, {**S2, "s2:processing_baseline": 5.0}, (1e-4, -0.1, LATER)),
    ("a number", "B04", {}, {**S2, "s2:processing_baseline": 2.14}, (1e-4, 0, BEFORE)),
    ("as in ids", "B04", {}, {**S2, "processing:version": "N0510"}, (1e-4, -0.1, LATER)),
    ("as in ids", "B04", {}, {**S2, "processing:version": "0209"}, (1e-4, 0, BEFORE)),
    ("whole", "B04", {}, {**S2, "s2:processing_baseline": 4}, (1e-4, -0.1, LATER)),
    ("by date", "red", {}, {**S2, "datetime": "2022-03-01T00:00:00Z"}, (1e-4, -0.1, LATER)),
    ("applied", "red", BANDS, {**NEW, "earthsearch:boa_offset_applied": True}, (1e-4, 0, "boa_offset_applied")),
    ("v0", "B04", {}, {**NEW, "sentinel:boa_offset_applied": True}, (1e-4, 0, "boa_offset_applied")),
    ("not applied", "red", BANDS, {**NEW, "earthsearch:boa_offset_applied": False}, (1e-4, -0.1, "item")),
    ("stated", "red", {"bands": [{"raster:scale": 1e-4, "raster:offset": 0}]}, NEW, (1e-4, 0, "item")),
    ("flags", "scl", {}, NEW, None),
    ("picture", "visual", {"eo:bands": [{"common_name": "red"}]}, NEW, None),
    (C2, "red", {}, {}, (2.75e-5, -0.2, "landsat_c2_surface")),
    (C2, "SR_B7", {}, {}, (2.75e-5, -0.2, "landsat_c2_surface")),
    (C2, "qa_pixel", {}, {}, None),
    ("c2", "nir08", {}, {"landsat:correction": "L2SP", "landsat:collection_number": "02", "platform": "LANDSAT_7"},
     (2.75e-5, -0.2, "landsat_c2_surface")),
    (L1.replace("L1TP", "L2SP"), "B4", {}, {}, (1e-4, 0, "landsat_c1_surface")),
    (L1, "B4", {}, SUN, (4e-5, -0.2, "landsat_8_9_level_1")),
    (L1, "B4", {}, {}, None),
    (L1, "B4", {}, {**SUN, **MTL}, (6e-5, -0.4, "landsat_mtl")),
    (L1.replace("LC08", "LT05"), "B4", {}, SUN, None),
    ("HLS.S30.T33UXP.2022060T095029.v2.0", "B04", {}, {"platform": "sentinel-2b"}, (1e-4, 0, "hls")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "asset", "described", "properties", "meaning"), MEANINGS)
def test_counts_mean_what_the_archive_says(name, asset, described, properties, meaning, tmp_path):
    path = tmp_path / "item.json"
    fields = {"datetime": "2020-05-18T00:00:00Z", **properties}
    path.write_text(json.dumps({"id": name, "properties": fields, "assets": {asset: {"href": "a.tif", **described}}}))
    found = meaning_of(open_scene(str(path), is_item=True), asset, 1)
    if meaning is None:
        assert found is None
        return
    assert found is not None
    assert (found.scale, found.offset) == pytest.approx(meaning[:2])
    assert found.rule == meaning[2]


def write_baselines(folder: Path, *, scales: tuple[dict, ...]) -> None:
    """Scenes of one ground, 1155 in counts without an offset."""
    for place, fields in enumerate(scales):
        counts = np.full((300, 300), fields.pop("counts"), "uint16")
        write_raster(folder / f"{place}.tif", counts, nodata=0, shift=(place, 0))
        asset = {"href": f"{place}.tif", **fields.pop("asset", {})}
        write_item(folder / f"{place}.json", {"B04": asset}, **fields)


async def test_baselines_are_harmonised_in_counts_and_reported(tmp_path):
    write_baselines(tmp_path, scales=({**OLD, "counts": 1155}, {**NEW, "counts": 2155}, {**NEW, "counts": 2155}))
    tiler = InProcessTiler(tmp_path)
    for options in ({}, {"reflectance": "integer"}):
        answer = await tiler.tile(TILES[1], bands=["B04"], pixel_selection="median", group_by="none", **options)
        data, valid = answer.pixels()
        assert set(np.unique(data[0, valid])) == {1155}
    assert answer.headers["x-assets-rules"] == f"{BEFORE},{LATER},{LATER}"
    answer = await tiler.tile(TILES[1], bands=["B04"])
    assert answer.headers["x-assets-rules"] == f"{BEFORE}: counts +0,{LATER}: counts -1000,{LATER}: counts -1000"


async def test_counts_below_the_offset_become_zero_and_counts_of_one_kind_stay(tmp_path):
    write_baselines(tmp_path / "both", scales=({**NEW, "counts": 900}, {**OLD, "counts": 7}))
    data, valid = (await InProcessTiler(tmp_path / "both").tile(TILES[1], bands=["B04"])).pixels()
    assert data[0, 128, 128] == 0
    assert valid[128, 128]
    write_baselines(tmp_path / "one", scales=({**NEW, "counts": 2155}, {**NEW, "counts": 2155}))
    answer = await InProcessTiler(tmp_path / "one").tile(TILES[1], bands=["B04"])
    assert set(np.unique(answer.pixels()[0][0, answer.pixels()[1]])) == {2155}
    assert "x-assets-rules" not in answer.headers


async def test_counts_on_different_scales_are_refused_and_mixed_as_reflectance(tmp_path):
    landsat = {"asset": {"raster:bands": [{"scale": 2.75e-5, "offset": -0.2}]}, "counts": 11_473}
    write_baselines(tmp_path, scales=({**NEW, "counts": 2155}, landsat))
    tiler = InProcessTiler(tmp_path)
    answer = await tiler.tile(TILES[1], bands=["B04"])
    assert (answer.status, "mean different things" in answer.body.decode()) == (422, True)
    answer = await tiler.tile(TILES[1], bands=["B04"], reflectance="float", pixel_selection="median")
    np.testing.assert_allclose(answer.pixels()[0][0, 128, 128], 0.1155, atol=1e-5)
    assert answer.headers["x-assets-rules"] == "sentinel-2_from_04.00,item"


async def test_tiles_of_scenes_that_were_not_surveyed_refuse_to_mix_them(tmp_path):
    write_baselines(tmp_path, scales=({**OLD, "counts": 1155}, {**NEW, "counts": 2155}))
    tiler = InProcessTiler(tmp_path, is_surveyed=False)
    answer = await tiler.tile(TILES[1], bands=["B04"], pixel_selection="median")
    assert (answer.status, "mean different things" in answer.body.decode()) == (422, True)


FAR = mercantile.tile(PLACE[0] + 1, PLACE[1], 11)


def write_spread(folder: Path, scenes: dict[str, dict], *, far: str) -> None:
    """Scenes of one value each by name; one of them lies in tiles of its own."""
    for name, fields in scenes.items():
        counts = np.full((300, 300), fields.pop("counts"), fields.pop("dtype", "uint16"))
        shift = {"shift": (1700, 0)} if name == far else {}
        write_raster(folder / f"{name}.tif", counts, nodata=0, **shift)
        write_item(folder / f"{name}.json", {"B04": {"href": f"{name}.tif"}}, **fields)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({**NEW, "counts": 2155}, "its counts of B04 mean 0.0001 x count -0.1, and those of the mosaic 0.0001 x count"),
        ({**SUN, "platform": "landsat-8", "id": L1, "counts": 2155}, "by the sun's elevation"),
        ({**OLD, "counts": 0.1155, "dtype": "float32"}, "its values are float32, and those of the mosaic uint16"),
    ],
)
async def test_a_scene_that_the_survey_missed_is_left_out_everywhere_where_it_does_not_fit(fields, reason, tmp_path):
    """Otherwise tiles that only it reaches would show its own counts beside others."""
    for far in ("late", ""):
        folder = tmp_path / f"far-{far}"
        write_spread(folder, {"early": {**OLD, "counts": 1155}, "late": dict(fields)}, far=far)
        tiler = InProcessTiler(folder, unsurveyed=["late.json"])
        answer = await tiler.tile(FAR if far else TILES[1], bands=["B04"], pixel_selection="newest")
        said = answer.body.decode(errors="replace") if far else unquote(answer.headers["x-skipped-reasons"])
        assert reason in said
        if not far:
            data, valid = answer.pixels()
            assert set(np.unique(data[0, valid])) == {1155}


async def test_a_scene_that_the_survey_missed_is_harmonised_with_others_of_its_kind(tmp_path):
    scenes = {"a": {**OLD, "counts": 1155}, "b": {**NEW, "counts": 2155}, "c": {**NEW, "counts": 2200}}
    write_spread(tmp_path, scenes, far="c")
    data, valid = (await InProcessTiler(tmp_path, unsurveyed=["c.json"]).tile(FAR, bands=["B04"])).pixels()
    assert set(np.unique(data[0, valid])) == {1200}


def test_of_very_many_scenes_on_a_server_a_sample_speaks_that_is_the_same_in_every_run(tmp_path, monkeypatch):
    write_baselines(tmp_path, scales=tuple({**(OLD if place % 2 else NEW), "counts": 1155} for place in range(24)))
    asked = []

    async def answer(request):
        asked.append(request.path)
        return web.FileResponse(tmp_path / request.path[1:])

    app = web.Application()
    app.router.add_get("/{name}", answer)
    monkeypatch.setattr(survey, "_MAX_SCENES", 12)
    monkeypatch.setattr(survey, "_MAX_FILES", 5)
    with running(app) as url:
        found = []
        for _ in range(2):
            open_scene.cache_clear()
            found.append(survey.survey([f"{url}/{place}.json" for place in range(24)], ["B04"], is_stac=True))
    assert found[0] == found[1]
    assert found[0].of("B04").dtype == "uint16"
    assert len(found[0].of("B04").units) == 2
    items = [path for path in asked if path.endswith(".json")]
    assert len(items) == 24
    assert len(set(items)) == 12
    assert len({path for path in asked if path.endswith(".tif")}) == 5


async def test_a_selection_by_the_last_band_of_one_is_refused_and_is_no_hole(tmp_path):
    write_raster(tmp_path / "a.tif", values_of(0), nodata=0)
    write_raster(tmp_path / "items" / "a.tif", values_of(0))
    write_item(tmp_path / "items" / "a.json", {"red": {"href": "a.tif"}})
    file, items = tmp_path / "a.tif", tmp_path / "items"
    cases = [(file, {}), (file, {"expression": "b1*2"}), (items, {"bands": ["red"]})]
    for place, shown in cases:
        for selection in ("lastbandhigh", "lastbandlow"):
            answer = await InProcessTiler(place).tile(TILES[1], pixel_selection=selection, **shown)
            assert (answer.status, "there is one band" in answer.body.decode()) == (422, True)


async def test_scenes_of_hls_are_masked_by_the_bits_of_their_fmask(tmp_path):
    """The same numbers are values in older archives: there 66 is no cloud."""
    flags = np.where(values_of(3) < 80, 64 + 2, 64).astype("uint8")
    write_raster(tmp_path / "red.tif", values_of(0), nodata=0)
    quality = write_raster(tmp_path / "flags.tif", flags, nodata=255)
    assets = {"B04": {"href": "red.tif"}, "Fmask": {"href": "flags.tif"}}
    for name in ("HLS.S30.T21JYN.2020139T134219.v2.0", "HLS.L30.T21JYN.2020139T133000.v2.0", "LC08_CFMASK"):
        item = write_item(tmp_path / f"{name}.json", assets, id=name)
        _, valid = (await InProcessTiler(item).tile(TILES[2], bands=["B04"], cloud_mask="Fmask")).pixels()
        bad = (2 if name.startswith("HLS") else 0) & read_alone(quality, TILES[2], method="nearest")[0]
        np.testing.assert_array_equal(valid, bad == 0)
        assert valid.mean() > 0.1
