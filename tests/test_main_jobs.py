"""The main jobs from the command line: build, create, serve, in a form that needs no more than the extra of each.

`make test-lowest` runs them with the lowest versions that pyproject.toml declares.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from tests.conftest import COLORADO, PARANA, SCENES

AREA = (-4.0, 38.0, 4.0, 44.0)
PLACE = (-54.9, -25.45, -54.6, -25.25)
needs_tiler = pytest.mark.skipif(find_spec("titiler") is None, reason="requires the extra tiler")
needs_stac = pytest.mark.skipif(find_spec("pystac_client") is None, reason="requires the extra stac")
needs_geoparquet = pytest.mark.skipif(find_spec("rustac") is None, reason="requires the extra geoparquet")


def mosaic_async(*args) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mosaic_async", *map(str, args)], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_valid(path: Path) -> None:
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as dataset:
        assert dataset.dataset_mask().any()


def test_build_from_a_tiler_puts_every_pixel_in_its_place(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    report = json.loads(
        mosaic_async("build", tiler.template, output, "--bounds", *AREA, "-z", 7, "--tile-size", 256, "--json")
    )
    assert report["tiles_placed"] == tiler.requests
    assert_valid(output)
    tiles = list(mercantile.tiles(*AREA, zooms=[7]))
    left, top = 256 * min(tile.x for tile in tiles), 256 * min(tile.y for tile in tiles)
    with rasterio.open(output) as dataset:
        pixels, valid = tiler.pattern.expected(left, top, dataset.height, dataset.width)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(dataset.read()[:, valid], pixels[:, valid])


@pytest.mark.slow
@needs_tiler
def test_a_folder_of_scenes_becomes_a_mosaic_in_one_command(tmp_path):
    output = tmp_path / "out.tif"
    query = ("--bands", "B4,B3,B2", "--pixel-selection", "median", "--rescale", "5000,12000")
    mosaic_async("build", PARANA, output, "--bounds", *PLACE, *query)
    assert_valid(output)


@needs_tiler
@pytest.mark.slow
def test_the_demo_runs(tmp_path):
    subprocess.run([sys.executable, str(SCENES.parent / "demo.py"), str(tmp_path)], check=True, timeout=110)
    for path in tmp_path.glob("*.tif"):
        assert_valid(path)


@needs_tiler
@pytest.mark.slow  # tests/cli/test_main.py has the short form
def test_a_served_folder_is_built_from_its_tilejson(tmp_path, unused_tcp_port):
    args = [sys.executable, "-m", "mosaic_async", "serve", str(PARANA), "--port", str(unused_tcp_port)]
    with subprocess.Popen([*args, "--workers", "1"], stdout=subprocess.PIPE, text=True) as process:
        try:
            tilejson = process.stdout.readline().strip()
            mosaic_async("build", f"{tilejson}&tile_format=tif", tmp_path / "out.tif", "--bounds", *PLACE)
        finally:
            process.send_signal(signal.SIGINT)
    assert_valid(tmp_path / "out.tif")


@needs_stac
def test_create_lists_the_items_that_a_search_matches(tmp_path):
    search = tmp_path / "search.json"
    search.write_text(json.dumps({"datetime": "2009/2011"}))
    mosaic_async("create", search, "--items", COLORADO, "-o", tmp_path / "mosaic.json")
    listed = json.loads((tmp_path / "mosaic.json").read_text())["tiles"]
    items = [json.loads(path.read_text()) for path in COLORADO.rglob("*.json")]
    years = {item["id"]: item["properties"]["datetime"][:4] for item in items if item["type"] == "Feature"}
    matched = {name for name, year in years.items() if "2009" <= year <= "2011"}
    assert {Path(name).stem for names in listed.values() for name in names} == matched


@needs_stac
@needs_geoparquet
@pytest.mark.slow  # tests/stac/test_mosaicjson.py has the short form
async def test_create_reads_stac_geoparquet_as_it_reads_json(tmp_path):
    import rustac

    items = [json.loads(path.read_text()) for path in COLORADO.rglob("*.json")]
    items = [item for item in items if item["type"] == "Feature"]
    collection = {"type": "FeatureCollection", "features": items}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    await rustac.write(str(tmp_path / "items.parquet"), items)
    (tmp_path / "search.json").write_text("{}")
    made = []
    for name in ("items.json", "items.parquet"):
        stdout = mosaic_async("create", tmp_path / "search.json", "--items", tmp_path / name, "--asset", "b4")
        made.append(json.loads(stdout)["tiles"])
    assert made[0].keys() == made[1].keys()
