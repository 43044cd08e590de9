"""What the notebook of 2020 asks of its endpoint, as it asks it: with requests, the same searches, the same URLs.

`mosaic-async serve` answers, over scenes of Bretagne that are made up. What tiles should be is worked out from pixels
that rio-tiler reads, in plain NumPy.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode

import mercantile
import numpy as np
import pytest
import rasterio
import requests
from affine import Affine
from rasterio.io import MemoryFile
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_translate, cog_validate
from rio_cogeo.profiles import cog_profiles
from rio_tiler.io import STACReader
from supermercado.burntiles import tile_extrema

from mosaic_async.stac import create_mosaic
from tests.cli.test_main import command, run
from tests.loopback import free_port, wait_for
from tests.tiler.awspds.bretagne import taken, write_scenes
from tests.tiler.test_serving import COLOURS, coloured

pytestmark = [
    pytest.mark.filterwarnings("ignore:All-NaN slice"),
    pytest.mark.filterwarnings("ignore:Source dataset should be opened"),  # the notebook translates what it writes to
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),  # rio-tiler: missing
]
BRETAGNE = [-5.833740234375, 46.15700496290803, -0.9118652343749999, 49.23912083246698]
INLAND = [-3.4, 47.2, -2.2, 48.2]
CORNER = [-4.9, 48.5, -4.1, 48.9]
"""Where the scenes end: some of its tiles have no scene, and some have one in a part."""
FRANCE = [-6.8115234375, 42.35854391749705, 9.580078125, 52.07950600379697]
YEAR = "2019-01-01T00:00:00Z/2019-12-31T23:59:59Z"
SIZE = 512
MEDIAN = {"bands": "4,3,2", "color_ops": COLOURS, "pixel_selection": "median", "group_by": "none"}
GREENEST = {"expr": "b4,b3,b2,(b5-b4)/(b5+b4)", "color_ops": COLOURS, "pixel_selection": "lastband"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bretagne")
    write_scenes(folder)
    return folder


@pytest.fixture(scope="module")
def endpoint(scenes, tmp_path_factory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command("serve", scenes, "--port", port), stdout=errors, stderr=errors) as process,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/info", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def search(bounds, *, time=YEAR, cloud=3, by_cloud=True) -> dict:
    query = {
        "bbox": bounds,
        "time": time,
        "query": {
            "eo:sun_elevation": {"gt": 0},
            "landsat:tier": {"eq": "T1"},
            "collection": {"eq": "landsat-8-l1"},
            "eo:cloud_cover": {"gte": 0, "lt": cloud},
        },
    }
    return query | ({"sort": [{"field": "eo:cloud_cover", "direction": "asc"}]} if by_cloud else {})


def create(endpoint, query, *, seasons="spring,summer") -> dict:
    params = {"minzoom": 9, "seasons": seasons, "tile_format": "tif", "tile_scale": 2}
    answer = requests.post(f"{endpoint}/mosaic/create", json=query, params=params, timeout=60)
    answer.raise_for_status()
    return answer.json()


def listed(endpoint, name) -> dict[str, list[str]]:
    """The scenes of each cell, by name and in order."""
    document = requests.get(f"{endpoint}/mosaic/{name}.json", timeout=60).json()
    return {cell: [Path(item).stem for item in items] for cell, items in document["tiles"].items()}


def mosaic_of(tiles_url, bounds, zoom, path) -> dict[mercantile.Tile, int]:
    """Fetch all tiles as the notebook does, write them as it does, and give their statuses."""
    extrema = tile_extrema(bounds, zoom)
    columns, rows = (range(extrema[axis]["min"], extrema[axis]["max"]) for axis in "xy")
    tiles = [mercantile.Tile(x, y, zoom) for x in columns for y in rows]
    west, north = mercantile.xy(*mercantile.ul(columns[0], rows[0], zoom))
    resolution = 2 * math.pi * 6378137 / SIZE / 2**zoom
    params = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "crs": "epsg:3857", "nodata": 0, "tiled": True,
        "width": len(columns) * SIZE, "height": len(rows) * SIZE, "blockxsize": SIZE, "blockysize": SIZE,
        "transform": Affine(resolution, 0, west, 0, -resolution, north),
    }  # fmt: skip
    with ThreadPoolExecutor(50) as threads:
        urls = [tiles_url.format(z=tile.z, x=tile.x, y=tile.y) for tile in tiles]
        answers = dict(zip(tiles, threads.map(lambda url: requests.get(url, timeout=100), urls), strict=True))
    with MemoryFile() as file, file.open(**params) as memory:
        for tile, answer in answers.items():
            if answer.status_code == 200:
                window = Window((tile.x - columns[0]) * SIZE, (tile.y - rows[0]) * SIZE, SIZE, SIZE)
                with rasterio.open(BytesIO(answer.content)) as dataset:
                    memory.write(dataset.read(indexes=(1, 2, 3)), window=window)
        cog_translate(memory, path, cog_profiles.get("deflate"), quiet=True)
    return {tile: answer.status_code for tile, answer in answers.items()}


def reflectances(folder, names, tile, bands) -> np.ndarray:
    """10,000 x reflectance of scenes in a tile, NaN without data: (scenes, bands, height, width)."""
    made = [np.full((len(bands), SIZE, SIZE), np.nan)]
    for item in (folder / name / f"{name}.json" for name in names):
        sine = math.sin(math.radians(json.loads(item.read_text())["properties"]["eo:sun_elevation"]))
        with STACReader(str(item)) as reader:
            if reader.tile_exists(*tile):
                assets = [f"B{band}" for band in bands]
                image = reader.tile(*tile, assets=assets, tilesize=SIZE, padding=2, resampling_method="bilinear",
                                    reproject_method="bilinear")  # fmt: skip
                counts = image.array
                values = np.clip(counts.data * (0.2 / sine) - 1000 / sine, 0, 65_535)
                made.append(np.where(np.ma.getmaskarray(counts), np.nan, np.trunc(values)))
    return np.array(made)


def median_of(stack) -> tuple[np.ndarray, np.ndarray]:
    values = np.trunc(np.nanmedian(stack, axis=0))
    return coloured(values, "uint16"), ~np.isnan(values).any(axis=0)


def greenest_of(stack) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(invalid="ignore"):
        greenness = (stack[:, 3] - stack[:, 0]) / (stack[:, 3] + stack[:, 0])
    best = np.where(np.isnan(greenness), -np.inf, greenness).argmax(axis=0)
    values = np.take_along_axis(stack, best[None, None], axis=0)[0][:3]
    return coloured(values, "int16"), ~np.isnan(greenness).all(axis=0)


def test_its_search_finds_the_scenes_that_a_look_at_all_of_them_finds(endpoint):
    results = create(endpoint, search(BRETAGNE))
    assert (results["minzoom"], results["maxzoom"], results["bounds"]) == (9, 12, BRETAGNE)
    assert results["tiles"] == [f"{endpoint}/tiles/{results['name']}/{{z}}/{{x}}/{{y}}@2x.tif?"]
    cells = listed(endpoint, results["name"])
    wanted = {one.name: one.cloud for one in taken() if one.is_wanted}
    assert set(chain.from_iterable(cells.values())) == wanted.keys()
    for names in cells.values():
        assert [wanted[name] for name in names] == sorted(wanted[name] for name in names)


def test_making_the_mosaic_beforehand_finds_the_same_scenes(scenes):
    created = create_mosaic(search(BRETAGNE), items=scenes, seasons=["spring", "summer"])
    assert {one["id"] for one in created.scenes["features"]} == {one.name for one in taken() if one.is_wanted}


def test_a_filter_that_the_endpoint_cannot_apply_is_refused(endpoint):
    query = {"bbox": BRETAGNE, "filter": "eo:cloud_cover < 1", "filter-lang": "cql2-text"}
    answer = requests.post(f"{endpoint}/mosaic/create", json=query, timeout=60)
    assert (answer.status_code, "filter" in answer.json()["detail"]) == (422, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "bands", "expected_of"),
    [
        pytest.param(MEDIAN, (4, 3, 2), median_of, marks=pytest.mark.slow, id="median"),
        pytest.param(GREENEST, (4, 3, 2, 5), greenest_of, id="greenest"),
    ],
)
def test_its_two_recipes_end_in_a_cog(recipe, bands, expected_of, endpoint, scenes, tmp_path):
    results = create(endpoint, search(CORNER))
    zoom = results["maxzoom"] - 1
    tiles_url = results["tiles"][0] + urlencode(recipe)
    statuses = mosaic_of(tiles_url, CORNER, zoom, tmp_path / "out.tif")
    assert set(statuses.values()) == {200, 204}
    assert cog_validate(tmp_path / "out.tif", strict=True, quiet=True)[0]
    cells = listed(endpoint, results["name"])
    compared = 0
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.shape == (SIZE * len({tile.y for tile in statuses}), SIZE * len({tile.x for tile in statuses}))
        for tile, status in sorted(statuses.items())[::2]:
            pixels = dataset.read(window=dataset.window(*mercantile.xy_bounds(tile)).round())
            names = cells.get(mercantile.quadkey(mercantile.parent(tile, zoom=9)), [])
            expected, valid = expected_of(reflectances(scenes, names, tile, bands))
            assert valid.any() == (status == 200)
            np.testing.assert_array_equal(pixels[:, valid], expected[:, valid], err_msg=str(tile))
            assert not pixels[:, ~valid].any()
            compared += valid.sum()
    assert compared > 3 * SIZE * SIZE


COMMANDS = {
    "median": (MEDIAN, ("--bands", "4,3,2", "--pixel-selection", "median", "--group-by", "none")),
    "greenest": (GREENEST, ("--expression", "b4;b3;b2;(b5-b4)/(b5+b4)", "--pixel-selection", "lastband")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "area", "zoom"),
    [
        ("greenest", CORNER, 10),
        pytest.param("median", CORNER, 10, marks=pytest.mark.slow),
        pytest.param("greenest", INLAND, 9, marks=pytest.mark.slow),
        pytest.param("median", INLAND, 9, marks=pytest.mark.slow),
    ],
)
def test_its_two_recipes_are_one_command_each_with_the_same_pixels(recipe, area, zoom, endpoint, scenes, tmp_path):
    query, options = COMMANDS[recipe]
    mosaic_of(create(endpoint, search(area))["tiles"][0] + urlencode(query), area, zoom, tmp_path / "theirs.tif")
    (tmp_path / "search.json").write_text(json.dumps(search(area)))
    run(
        "build", tmp_path / "search.json", tmp_path / "ours.tif", "--items", scenes, "--seasons", "spring,summer",
        "--bounds", *area, "-z", zoom, "--reflectance", "integer", "--color-formula", COLOURS, *options,
    )  # fmt: skip
    with rasterio.open(tmp_path / "theirs.tif") as theirs, rasterio.open(tmp_path / "ours.tif") as ours:
        window = ours.window(*theirs.bounds).round()
        valid = ours.dataset_mask(window=window) > 0
        expected = theirs.read()
        np.testing.assert_array_equal(ours.read(window=window)[:, valid], expected[:, valid])
        assert not expected[:, ~valid].any()
        assert valid.mean() > 0.1
        assert valid.sum() > SIZE * SIZE / 2


@pytest.mark.slow
def test_its_country_is_asked_for_under_batch(endpoint, scenes):
    years = "2013-01-01T00:00:00Z/2019-12-31T23:59:59Z"
    results = create(endpoint, search(FRANCE, time=years, cloud=5, by_cloud=False), seasons="summer")
    mosaicid, tilescale = results["name"], 2
    cells = listed(endpoint, mosaicid)
    moments = {one.name: one.date for one in taken()}
    for names in cells.values():
        assert [moments[name] for name in names] == sorted((moments[name] for name in names), reverse=True)
        assert {moments[name][5:7] for name in names} <= {"06", "07", "08"}
    tiles_url = f"{endpoint}/batch/{mosaicid}/{{z}}/{{x}}/{{y}}@{tilescale}x.tif?" + urlencode(MEDIAN)
    tile = mercantile.tile(-2.9, 47.9, 11)
    answer = requests.get(tiles_url.format(z=tile.z, x=tile.x, y=tile.y), timeout=100)
    with rasterio.open(BytesIO(answer.content)) as dataset:
        pixels = dataset.read()
    names = cells[mercantile.quadkey(mercantile.parent(tile, zoom=9))]
    expected, valid = median_of(reflectances(scenes, names, tile, (4, 3, 2)))
    assert valid.mean() > 0.5
    np.testing.assert_array_equal(pixels[3] > 0, valid)
    np.testing.assert_array_equal(pixels[:3, valid], expected[:, valid])
    sea = mercantile.tile(-6.7, 51.9, 11)
    assert requests.get(tiles_url.format(z=sea.z, x=sea.x, y=sea.y), timeout=100).status_code == 204
