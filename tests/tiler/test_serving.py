"""The tiler over HTTP: the notebook's contract, selections of real scenes, and scenes that cannot be read.

What a tile should be is worked out from pixels that rio-tiler reads, in plain NumPy.
"""

from __future__ import annotations

import io
import json
import shutil
from itertools import chain
from pathlib import Path

import aiohttp
import mercantile
import numpy as np
import pytest
import rasterio
from color_operations import parse_operations, scale_dtype, to_math_type
from rasterio.io import MemoryFile
from rio_cogeo.cogeo import cog_validate
from rio_tiler.io import STACReader

from mosaic_async import IncompleteError, SourceError, UsageError, build_mosaic
from mosaic_async.tiler import Rendering, local_tiler, open_mosaic, serve
from mosaic_async.tiler.pixels.composer import Composer
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.view import View
from tests.conftest import COLORADO, PARANA
from tests.loopback import held
from tests.tiler.pixels.test_reading import NEW_YORK, needs_new_york

pytestmark = [
    pytest.mark.usefixtures("forked_tilers"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),  # of the pictures
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),  # rio-tiler: missing
]
COLORADO_AREA = (-106.925, 40.2799, -106.9033, 40.2966)


def items_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.json")) if path.name != "collection.json"]


def stack_of(folder: Path, bands, tile, size, *, nearest=False) -> np.ma.MaskedArray:
    """All scenes of a folder in one tile, read by rio-tiler: (scenes, bands, height, width)."""
    method = "nearest" if nearest else "bilinear"
    images = []
    for item in items_of(folder):
        with STACReader(item) as reader:
            if reader.tile_exists(*tile):
                images.append(
                    reader.tile(*tile, assets=list(bands), tilesize=size, padding=2, resampling_method=method,
                                reproject_method=method).array
                )  # fmt: skip
    return np.ma.stack(images)


async def answer(url: str, **params) -> aiohttp.ClientResponse:
    async with aiohttp.ClientSession(max_line_size=2**18, max_field_size=2**18) as session:
        response = await session.get(url, params=params or None)
        await response.read()
        return response


async def pixels_at(url: str, **params) -> tuple[np.ndarray, np.ndarray]:
    response = await answer(url, **params)
    body = await response.read()
    assert response.status == 200, body
    with MemoryFile(body) as file, file.open() as dataset:
        *bands, mask = dataset.read()
    return np.array(bands), mask > 0


def nan_stack(stack) -> np.ndarray:
    return np.where(np.ma.getmaskarray(stack), np.nan, stack.data.astype("float64"))


REFERENCES = {
    "first": lambda stack: stack[np.argmax(~np.isnan(stack), axis=0)[None], *np.indices(stack.shape)[1:, :1]][0],
    "oldest": lambda stack: stack[np.argmax(~np.isnan(stack), axis=0)[None], *np.indices(stack.shape)[1:, :1]][0],
    "newest": lambda stack: REFERENCES["first"](stack[::-1]),
    "highest": lambda stack: np.nanmax(stack, axis=0),
    "lowest": lambda stack: np.nanmin(stack, axis=0),
    "mean": lambda stack: np.trunc(np.nanmean(stack, axis=0)),
    "median": lambda stack: np.trunc(np.nanmedian(stack, axis=0)),
    "percentile:25": lambda stack: np.trunc(np.nanpercentile(stack, 25, axis=0)),
    "stdev": lambda stack: np.nanstd(stack, axis=0),
}


def medoid(stack):
    """The valid scene whose distances to all other valid ones add up to least; the first of equals."""
    whole = ~np.isnan(stack).any(axis=1)
    filled = np.nan_to_num(stack)
    cost = np.full(whole.shape, np.inf)
    for one, spectrum in enumerate(filled):
        distances = np.sqrt(((filled - spectrum) ** 2).sum(axis=1))
        cost[one] = np.where(whole[one], np.where(whole, distances, 0).sum(axis=0), np.inf)
    return np.take_along_axis(stack, cost.argmin(axis=0)[None, None], axis=0)[0]


def by_last_band(stack, best, worst):
    """All bands but the last of the scene whose last band is best; the first of equals."""
    whole = ~np.isnan(stack).any(axis=1)
    place = best(np.where(whole, stack[:, -1], worst), axis=0)
    return np.take_along_axis(stack, place[None, None], axis=0)[0][:-1]


SPECTRAL = {
    "medoid": medoid,
    "lastbandhigh": lambda stack: by_last_band(stack, np.argmax, -np.inf),
    "lastbandlow": lambda stack: by_last_band(stack, np.argmin, np.inf),
}


def dated(folder: Path, tile) -> list[int]:
    """The order by date of the scenes that reach a tile; those of a day stay as they are."""
    dates = []
    for item in items_of(folder):
        with STACReader(item) as reader:
            if reader.tile_exists(*tile):
                dates.append(json.loads(Path(item).read_text())["properties"]["datetime"])
    return sorted(range(len(dates)), key=lambda place: dates[place])


@needs_new_york
@pytest.mark.filterwarnings("ignore:All-NaN slice")
async def test_selections_of_whole_scenes_are_numpy_s():
    """Those that take all bands of a pixel from one scene; the reference knows nothing of rio-tiler's."""
    tile, bands = mercantile.tile(-74.6, 41.0, 9), ("B4", "B3", "B5")
    plain = nan_stack(stack_of(NEW_YORK, bands, tile, 128))
    valid = (~np.isnan(plain).any(axis=1)).any(axis=0)
    mosaic = open_mosaic(NEW_YORK)
    async with serve(mosaic, host="127.0.0.1", port=0, workers=1) as url:
        for name, reference in SPECTRAL.items():
            query = Rendering(bands=bands, pixel_selection=name, group_by="none").query(mosaic)
            place = f"{url}/tiles/WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.tif?tilesize=128&{query}"
            data, there = await pixels_at(place)
            np.testing.assert_array_equal(there, valid, err_msg=name)
            np.testing.assert_array_equal(data[:, valid], reference(plain)[:, valid], err_msg=name)
        query = Rendering(bands=bands, pixel_selection="geomedian", group_by="none").query(mosaic)
        data, _ = await pixels_at(f"{url}/tiles/WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.tif?tilesize=128&{query}")
    whole = ~np.isnan(plain).any(axis=1)
    for row, col in np.random.default_rng(0).permutation(np.argwhere(valid))[:200]:
        spectra = plain[whole[:, row, col], :, row, col]
        cost = np.linalg.norm(spectra - data[:, row, col], axis=1).sum()
        best = min(np.linalg.norm(spectra - other, axis=1).sum() for other in (*spectra, spectra.mean(axis=0)))
        assert cost <= best + len(spectra)  # integers: each coordinate is rounded


@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:Mean of empty slice", "ignore:Degrees of freedom")
@pytest.mark.parametrize(
    ("folder", "bands", "tile"),
    [
        pytest.param(NEW_YORK, ("B4", "B3"), mercantile.tile(-74.6, 41.0, 9), marks=needs_new_york, id="new-york"),
        pytest.param(
            COLORADO, ("b5", "b4"), mercantile.tile(-106.914, 40.288, 14), marks=pytest.mark.slow, id="colorado"
        ),
    ],
)
async def test_selections_of_real_scenes_are_numpy_s(folder, bands, tile):
    stack = stack_of(folder, bands, tile, 128)
    plain = nan_stack(stack)
    valid = ~np.isnan(plain).all(axis=0)
    assert valid.mean() > 0.2
    assert len(plain) >= 12
    order = dated(folder, tile)
    mosaic = open_mosaic(folder)
    async with serve(mosaic, host="127.0.0.1", port=0, workers=1) as url:
        for name, reference in REFERENCES.items():
            query = Rendering(bands=bands, pixel_selection=name, group_by="none").query(mosaic)
            place = f"{url}/tiles/WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.tif?tilesize=128&{query}"
            data, there = await pixels_at(place)
            expected = reference(plain[order] if name in ("newest", "oldest") else plain)
            np.testing.assert_array_equal(there, valid.any(axis=0), err_msg=name)
            if name == "stdev":
                np.testing.assert_allclose(data[valid], expected[valid], rtol=1e-9, atol=1e-9)
            else:
                np.testing.assert_array_equal(data[valid], expected[valid], err_msg=name)
        data, _ = await pixels_at(place.replace("stdev", "count"))
        np.testing.assert_array_equal(data[0], (~np.isnan(plain[:, 0])).sum(axis=0))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:All-NaN slice")
async def test_pixels_that_the_quality_band_calls_bad_are_left_out():
    tile = mercantile.tile(-106.914, 40.288, 14)
    red, flags = (stack_of(COLORADO, [band], tile, 128, nearest=band == "fmask") for band in ("b3", "fmask"))
    bad = np.ma.getmaskarray(flags) | np.isin(flags.data, [2, 3, 4])
    expected = np.trunc(np.nanmedian(np.where(bad, np.nan, nan_stack(red)), axis=0))
    valid = ~np.isnan(expected)
    mosaic = open_mosaic(COLORADO)
    async with serve(mosaic, host="127.0.0.1", port=0, workers=1) as url:
        query = Rendering(
            bands=["b3"], pixel_selection="median", group_by="none", cloud_mask="fmask:values=2,3,4"
        ).query(mosaic)
        place = f"{url}/tiles/WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.tif?tilesize=128&{query}"
        data, there = await pixels_at(place)
        everything, _ = await pixels_at(
            place.partition("&cloud_mask")[0] + "&reproject=bilinear&resampling=bilinear&padding=2"
        )
        scaled, _ = await pixels_at(place + "&reflectance=float")
    np.testing.assert_array_equal(there, valid[0])
    np.testing.assert_array_equal(data[valid], expected[valid])
    assert (everything[:, valid[0]] > data[:, valid[0]]).mean() > 0.5  # snow and cloud are bright
    np.testing.assert_allclose(scaled[valid], data[valid] * 1e-4, atol=1e-4)


def test_what_only_items_can_tell_is_refused_for_plain_files_and_unknown_bands(tmp_path):
    shutil.copy(next(PARANA.rglob("*_B3.tif")), tmp_path / "a.tif")
    plain, items = open_mosaic(tmp_path), open_mosaic(COLORADO)
    for mosaic, options in [
        (plain, {"cloud_mask": "fmask"}),
        (plain, {"reflectance": "float"}),
        (items, {"bands": ["b3"], "cloud_mask": "qa_pixel"}),
        (items, {"bands": ["b3"], "reflectance": "double"}),
    ]:
        with pytest.raises(UsageError):
            Rendering(**options).query(mosaic)


async def test_a_scene_that_cannot_be_read_is_left_out_and_named(tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(PARANA, folder)
    broken = min(folder.rglob("*_B4.tif"))
    broken.write_bytes(broken.read_bytes()[:20_000])
    mosaic = open_mosaic(folder)
    both = mercantile.tile(-54.6, -25.3, 11)
    query = Rendering(bands=["B4"], pixel_selection="median", group_by="none").query(mosaic)
    async with serve(mosaic, host="127.0.0.1", port=0, workers=1) as url:
        place = f"{url}/tiles/WebMercatorQuad/{both.z}/{both.x}/{both.y}.tif?tilesize=256&{query}"
        response = await answer(place)
        data, valid = await pixels_at(place)
    assert response.headers["X-Skipped-Assets"] == str(next(broken.parent.glob("*.json")))
    assert response.headers["X-Assets"] == next(item for item in items_of(folder) if str(broken.parent) not in item)
    assert "mosaicking" in response.headers["Server-Timing"]
    shutil.rmtree(broken.parent)
    (expected,) = stack_of(folder, ["B4"], both, 256)
    assert valid.any()
    np.testing.assert_array_equal(valid, ~np.ma.getmaskarray(expected)[0])
    np.testing.assert_array_equal(data[:, valid], expected.data[:, valid])


async def test_a_tile_all_of_whose_scenes_cannot_be_read_fails_and_is_no_hole(tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(PARANA, folder)
    for path in folder.rglob("*_B4.tif"):
        path.unlink()
    async with local_tiler(folder, bands=["B4"], tile_size=256, workers=1) as source:
        with pytest.raises((IncompleteError, SourceError)):
            await build_mosaic(source, (-54.7, -25.4, -54.6, -25.3), tmp_path / "out.tif", zoom=10, attempts=1)


def test_queries_and_users_of_urls_are_not_shown():
    composer = Composer(is_stac=False, is_local=True)
    frame = Frame(bounds=(0, 0, 10, 10), crs=rasterio.CRS.from_epsg(3857), width=8, height=8)
    name = "https://me:word@127.0.0.1:1/ä b.tif?sig=hidden"
    view, selection = View(assets=(("", ()),)), Selection.parse("first")
    with pytest.raises(SourceError) as caught:
        composer.compose([name], frame, (0, 0, 1, 1), view, selection)
    assert "https://127.0.0.1:1/%C3%A4 b.tif" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("assets=B4&pixel_selection=bdix", 422),
        ("assets=B4&pixel_selection=percentile:101", 422),
        ("assets=B4&cloud_mask=fmask:what", 422),
        ("assets=B4&reflectance=double", 422),
        ("assets=B4&reflectance=float", 500),
        ("assets=B9", 404),
        ("assets=B4|expression=b1*2", 422),
        ("assets=B4&expression=b7", 400),
    ],
)
async def test_what_cannot_be_drawn_is_refused_with_the_reason(query, status, parana_tiler):
    tile = mercantile.tile(-54.6, -25.4, 10)
    response = await answer(f"{parana_tiler}/tiles/WebMercatorQuad/10/{tile.x}/{tile.y}.tif?{query}")
    assert response.status == status
    assert (await response.json())["detail"]


async def test_titiler_s_own_routes_are_there(parana_tiler):
    tilejson = await (await answer(f"{parana_tiler}/WebMercatorQuad/tilejson.json", assets="B4")).json()
    assert "{z}/{x}/{y}" in tilejson["tiles"][0]
    page = await answer(f"{parana_tiler}/WebMercatorQuad/map.html", assets="B4")
    assert "leaflet" in (await page.text()).lower() or "maplibre" in (await page.text()).lower()
    info = await (await answer(f"{parana_tiler}/info")).json()
    assert info["bounds"] == list(open_mosaic(PARANA).document["bounds"])
    point = await (await answer(f"{parana_tiler}/point/-54.6,-25.4", assets="B4")).json()
    assert point
    tile = mercantile.tile(-54.6, -25.4, 10)
    listed = await (await answer(f"{parana_tiler}/tiles/WebMercatorQuad/10/{tile.x}/{tile.y}/assets")).json()
    assert set(listed) <= set(items_of(PARANA))
    buffered, _ = await pixels_at(
        f"{parana_tiler}/tiles/WebMercatorQuad/10/{tile.x}/{tile.y}.tif", assets="B4", tilesize=128, buffer=1
    )
    assert buffered.shape == (1, 130, 130)


@pytest.fixture(scope="module")
def parana_tiler():
    with held(serve(open_mosaic(PARANA), host="127.0.0.1", port=0, workers=1)) as url:
        yield url


# --- the notebook's contract -----------------------------------------------------------------------------------------

SEARCH = {
    "bbox": [-75.5, 40.3, -73.5, 42.0],
    "time": "2018-01-01T00:00:00Z/2018-12-31T23:59:59Z",
    "query": {
        "eo:sun_elevation": {"gt": 0},
        "landsat:tier": {"eq": "T1"},
        "collection": {"eq": "landsat-8-l1"},
        "eo:cloud_cover": {"gte": 0, "lt": 20},
        "eo:platform": {"eq": "landsat-8"},
    },
    "sort": [{"field": "eo:cloud_cover", "direction": "asc"}],
}
COLOURS = "gamma RGB 3.5, saturation 1.7, sigmoidal RGB 15 0.35"


@pytest.fixture
def landsat(tmp_path) -> Path:
    """The New York scenes with the metadata that their search and their reflectance need."""
    folder = tmp_path / "scenes"
    shutil.copytree(NEW_YORK, folder)
    for item in items_of(folder):
        document = json.loads(Path(item).read_text())
        properties = document["properties"]
        properties["eo:cloud_cover"] = properties["fixture:cloud_percent_from_bqa"]
        properties["view:sun_elevation"] = 30.0 + int(properties["datetime"][5:7])
        for band in (2, 3, 4, 5):
            properties |= {f"REFLECTANCE_MULT_BAND_{band}": 2e-5, f"REFLECTANCE_ADD_BAND_{band}": -0.1}
        Path(item).write_text(json.dumps(document))
    return folder


def reflectances(folder: Path, mosaic: dict, tile, bands, size=512) -> np.ndarray:
    """Counts of the scenes listed for a tile, made 10,000 x reflectance: (scenes, bands, y, x), NaN masked."""
    cell = mercantile.quadkey(mercantile.parent(tile, zoom=mosaic["minzoom"]) if tile.z > mosaic["minzoom"] else tile)
    made = []
    for item in mosaic["tiles"][cell]:
        assert str(folder) in item
        properties = json.loads(Path(item).read_text())["properties"]
        sine = np.sin(np.radians(properties["view:sun_elevation"]))
        with STACReader(item) as reader:
            if not reader.tile_exists(*tile):
                continue
            counts = reader.tile(*tile, assets=[f"B{band}" for band in bands], tilesize=size, padding=2,
                                 resampling_method="bilinear", reproject_method="bilinear").array  # fmt: skip
        values = np.trunc(np.clip(counts.data * (10_000 * (2e-5 / sine)) + 10_000 * (-0.1 / sine), 0, 65_535))
        made.append(np.where(np.ma.getmaskarray(counts), np.nan, values))
    return np.array(made)


def coloured(pixels, dtype) -> np.ndarray:
    out = np.nan_to_num(pixels).astype(dtype)
    out[out < 0] = 0
    for operation in parse_operations(COLOURS):
        out = scale_dtype(operation(to_math_type(out)), "uint8")
    return out


async def created(session, url, search=SEARCH, **params):
    params = {"minzoom": 8, "maxzoom": 11, "tile_format": "tif", "tile_scale": 2, **params}
    async with session.post(f"{url}/mosaic/create", params=params, data=json.dumps(search)) as response:
        return response.status, await response.json()


@needs_new_york
@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize(
    ("area", "least"), [((-74.6, 40.9, -74.5, 41.0), 1), pytest.param(SEARCH["bbox"], 9, marks=pytest.mark.slow)]
)
async def test_the_notebook_s_flow_runs_unchanged_and_ends_in_a_cog(landsat, tmp_path, area, least):
    async with (
        serve(open_mosaic(landsat), host="127.0.0.1", port=0, workers=1) as url,
        aiohttp.ClientSession() as session,
    ):
        status, tilejson = await created(session, url)
        assert status == 200
        name = tilejson["name"]
        assert (len(name), tilejson["tilejson"], tilejson["minzoom"], tilejson["maxzoom"]) == (56, "2.1.0", 8, 11)
        assert tilejson["bounds"] == SEARCH["bbox"]
        assert tilejson["tiles"] == [f"{url}/tiles/{name}/{{z}}/{{x}}/{{y}}@2x.tif?"]
        assert (await created(session, url))[1] == tilejson
        mosaic = await (await answer(f"{url}/mosaic/{name}.json")).json()
        listed = {item for items in mosaic["tiles"].values() for item in items}
        clouds = {item: json.loads(Path(item).read_text())["properties"]["eo:cloud_cover"] for item in listed}
        assert 3 < len(listed) < 19
        assert max(clouds.values()) < 20
        for items in mosaic["tiles"].values():
            assert [clouds[item] for item in items] == sorted(clouds[item] for item in items)

        tile = mercantile.tile(-74.6, 41.0, 9)
        place = f"{url}/tiles/{name}/9/{tile.x}/{tile.y}@2x.tif"
        stack = reflectances(landsat, mosaic, tile, (4, 3, 2))
        median = np.trunc(np.nanmedian(stack, axis=0))
        valid = ~np.isnan(median).all(axis=0)
        data, there = await pixels_at(place, bands="4,3,2", pixel_selection="median", group_by="none")
        assert data.dtype == "uint16"
        np.testing.assert_array_equal(there, valid)
        np.testing.assert_array_equal(data[:, valid], median[:, valid])
        data, _ = await pixels_at(place, bands="4,3,2", color_ops=COLOURS, pixel_selection="median", group_by="none")
        np.testing.assert_array_equal(data[:, valid], coloured(median, "uint16")[:, valid])
        batch, _ = await pixels_at(place.replace("/tiles/", "/batch/"), bands="4,3,2", color_ops=COLOURS,
                                   pixel_selection="median", group_by="none")  # fmt: skip
        np.testing.assert_array_equal(batch, data)

        params = {"bands": "4,3,2", "color_ops": COLOURS, "pixel_selection": "median", "group_by": "none"}
        report = await build_mosaic(tilejson["tiles"][0], tuple(area), tmp_path / "out.tif", zoom=9, params=params)
    assert report.tile_size == 512
    assert report.tiles_placed >= least
    assert cog_validate(report.output, strict=True, quiet=True)[0]
    with rasterio.open(report.output) as dataset:
        bounds = mercantile.xy_bounds(tile)
        window = rasterio.windows.from_bounds(*bounds, dataset.transform)
        pixels = dataset.read(window=window)
    np.testing.assert_array_equal(pixels[:, valid], data[:, valid])


@needs_new_york
async def test_the_notebook_s_expression_takes_the_greenest_scene_of_each_pixel(landsat):
    async with (
        serve(open_mosaic(landsat), host="127.0.0.1", port=0, workers=1) as url,
        aiohttp.ClientSession() as session,
    ):
        _, tilejson = await created(session, url, search={"bbox": SEARCH["bbox"]}, maximum_items_per_tile=0)
        name = tilejson["name"]
        mosaic = await (await answer(f"{url}/mosaic/{name}.json")).json()
        tile = mercantile.tile(-74.6, 41.0, 9)
        place = f"{url}/tiles/{name}/9/{tile.x}/{tile.y}@1x.tif"
        expr = {"expr": "b4,b3,b2,(b5-b4)/(b5+b4)", "pixel_selection": "lastband"}
        data, there = await pixels_at(place, **expr)
        colours, _ = await pixels_at(place, color_ops=COLOURS, **expr)
        array = await answer(place.replace(".tif", ".npy"), **expr)
    stack = reflectances(landsat, mosaic, tile, (4, 3, 2, 5), size=256)
    with np.errstate(invalid="ignore"):
        greenness = (stack[:, 3] - stack[:, 0]) / (stack[:, 3] + stack[:, 0])
    complete = ~np.isnan(greenness) & ~np.isnan(stack).any(axis=1)
    best = np.where(complete, greenness, -np.inf).argmax(axis=0)
    expected = np.take_along_axis(stack, best[None, None], axis=0)[0][:3]
    valid = complete.any(axis=0)
    assert len(np.unique(best[valid])) > 3
    np.testing.assert_array_equal(there, valid)
    np.testing.assert_array_equal(data[:, valid], expected[:, valid])
    np.testing.assert_array_equal(colours[:, valid], coloured(expected, "int16")[:, valid])
    pixels, mask = np.load(io.BytesIO(await array.read()), allow_pickle=True)
    np.testing.assert_array_equal(mask > 0, valid)
    np.testing.assert_array_equal(pixels[:, valid], expected[:, valid])


@needs_new_york
async def test_searches_go_by_season_date_place_and_extra_parameters_go_to_the_tiles(landsat):
    async with (
        serve(open_mosaic(landsat), host="127.0.0.1", port=0, workers=2) as url,
        aiohttp.ClientSession() as session,
    ):

        async def items(search, **params) -> list[str]:
            status, tilejson = await created(session, url, search, **params)
            assert status == 200, tilejson
            mosaic = await (await answer(f"{url}/mosaic/{tilejson['name']}.json")).json()
            return [Path(item).stem for item in dict.fromkeys(chain.from_iterable(mosaic["tiles"].values()))]

        everywhere = {"bbox": SEARCH["bbox"]}
        every = await items(everywhere, maximum_items_per_tile=0)
        assert len(every) == 19
        winter = await items(everywhere, maximum_items_per_tile=0, seasons="winter")
        assert {name.split("_")[3][4:6] for name in winter} == {"01", "12"}
        spring = {**everywhere, "time": "2018-03-01T00:00:00Z/2018-04-21T00:00:00Z"}
        assert {name.split("_")[3] for name in await items(spring)} == {"20180311", "20180405", "20180421"}
        assert len(await items(everywhere, optimized_selection="True", maximum_items_per_tile=0)) == 3
        one = {"query": {"eo:row": {"eq": "031"}, "eo:cloud_cover": {"gt": -1}}}
        assert all("_014031_" in name for name in await items(one))
        corner = mercantile.feature(mercantile.tile(-73.0, 39.4, 12))["geometry"]
        assert all("_013032_" in name for name in await items({"intersects": corner}))
        newest = await items(everywhere, maximum_items_per_tile=1)
        assert max(name.split("_")[3] for name in every) in {name.split("_")[3] for name in newest}

        _, tilejson = await created(session, url, everywhere, bands="4,3,2", tile_format="png", tile_scale=1)
        assert tilejson["tiles"][0].endswith("@1x.png?bands=4%2C3%2C2")
        again = await (await answer(f"{url}/tiles/{tilejson['name']}/tilejson.json", tile_format="jpg")).json()
        assert again["name"] == f"{tilejson['name']}.json.gz"
        assert len(again["center"]) == 2
        cells = await (await answer(f"{url}/mosaic/{tilejson['name']}/geojson")).json()
        assert {cell["properties"]["quadkey"] for cell in cells["features"]}
        name = tilejson["name"]
        tile = mercantile.tile(-74.6, 41.0, 9)
        for ext in ("png", "jpg", "webp"):
            picture = await answer(f"{url}/tiles/{name}/9/{tile.x}/{tile.y}.{ext}?bands=4,3,2&rescale=0,4000")
            assert (picture.status, picture.content_type) == (200, f"image/{ext.replace('jpg', 'jpeg')}")
        for path, status in [
            (f"/tiles/{name}/9/{tile.x}/{tile.y}.tif", 400),
            (f"/tiles/{name}/9/{tile.x}/{tile.y}.tif?bands=9", 400),
            (f"/tiles/{name}/9/{tile.x}/{tile.y}.tif?bands=4&pixel_selection=what", 400),
            (f"/tiles/{name}/9/{tile.x}/{tile.y}@5x.tif?bands=4", 400),
            (f"/tiles/{name}/9/0/0.tif?bands=4", 204),
            (f"/tiles/{name}/12/{tile.x * 8}/{tile.y * 8}.tif?bands=4", 204),
            (f"/tiles/{'0' * 56}/9/{tile.x}/{tile.y}.tif?bands=4", 404),
            (f"/mosaic/{'0' * 56}.json", 404),
        ]:
            assert (await answer(f"{url}{path}")).status == status, path
        for search in ({"bbox": [1, 2, 3]}, {"bbox": [0, 0, 1, 1]}, {"query": {"platform": {"like": "x"}}}):
            assert (await created(session, url, search))[0] == 422
        assert (await created(session, url, everywhere, seasons="monsoon"))[0] == 422
