"""README's lines from a search to a mosaic, run as they are printed, against a STAC API on this machine and files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rustac
from aiohttp import web
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from tests.cli.test_main import run
from tests.loopback import running

README = Path(__file__).parents[2] / "README.md"
API = "https://earth-search.aws.element84.com/v1"
TAKEN = {"a": "2020-06-12", "b": "2020-07-14", "c": "2020-10-03"}
METRES = 3000


def lines() -> list[str]:
    """The commands of README's chapter, in its order, each in one line."""
    chapter = README.read_text().partition("### From a search to a mosaic")[2]
    block = re.search(r"```sh\n(.*?)```", chapter, re.DOTALL)[1].replace("\\\n", " ")
    return [line for line in block.splitlines() if line.startswith("mosaic-async ")]


def write_scenes(folder: Path) -> list[dict]:
    """Scenes over Bretagne that overlap, as items with files beside them."""
    items = []
    for place, (name, day) in enumerate(TAKEN.items()):
        grid = from_origin(300_000 + 20 * place * METRES, 5_440_000, METRES, METRES)
        stated = {"proj:code": "EPSG:32630", "proj:shape": [90, 90], "proj:transform": list(grid)[:6]}
        assets = {}
        for seed, band in enumerate(("red", "green", "blue")):
            values = np.random.default_rng(9 * place + seed).integers(1, 3000, (90, 90)).astype("uint16")
            values[:, :4] = 0
            options = {"driver": "GTiff", "width": 90, "height": 90, "count": 1, "dtype": "uint16", "nodata": 0}
            folder.mkdir(exist_ok=True)
            with rasterio.open(folder / f"{name}-{band}.tif", "w", crs="EPSG:32630", transform=grid, **options) as file:
                file.write(values, 1)
                ring = rasterio.transform.array_bounds(90, 90, grid)
            assets[band] = {"href": f"{name}-{band}.tif", "type": "image/tiff; application=geotiff", **stated}
        west, south, east, north = ring
        square = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        geometry = json.loads(
            json.dumps(transform_geom("EPSG:32630", "EPSG:4326", {"type": "Polygon", "coordinates": [square]}))
        )
        corners = np.array(geometry["coordinates"][0])
        items.append(
            {
                "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "links": [],
                "geometry": geometry, "bbox": [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()],
                "properties": {"datetime": f"{day}T11:00:00Z", "landsat:wrs_path": f"{place}", "landsat:wrs_row": "27"},
                "assets": assets,
            }
        )  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(items[-1]))
    return items


def with_hrefs(item: dict, start: str) -> dict:
    assets = {key: {**asset, "href": f"{start}{asset['href']}"} for key, asset in item["assets"].items()}
    return {**item, "assets": assets}


@contextmanager
def api_of(items: list[dict], folder: Path) -> Iterator[str]:
    """Serve items, one per page, at URLs without `.json`."""

    def served(request, item):
        own = f"http://{request.host}/v1/collections/c/items/{item['id']}"
        return with_hrefs(item, f"http://{request.host}/files/") | {"links": [{"rel": "self", "href": own}]}

    async def search(request):
        page = (await request.json()).get("token", 0)
        link = {"rel": "next", "href": str(request.url), "method": "POST", "body": {"token": page + 1}, "merge": True}
        found = {"type": "FeatureCollection", "features": [served(request, items[page])]}
        return web.json_response(found | {"links": [link] if page + 1 < len(items) else []})

    async def one(request):
        return web.json_response(served(request, next(one for one in items if one["id"] == request.match_info["id"])))

    app = web.Application()
    app.router.add_post("/v1/search", search)
    app.router.add_get("/v1/collections/c/items/{id}", one)
    app.router.add_static("/files", folder)
    with running(app) as url:
        yield f"{url}/v1"


@pytest.fixture
def place(tmp_path):
    """Return what runs a line of README in a folder with the files that it names."""
    items = write_scenes(tmp_path / "scenes")
    (tmp_path / "search.json").write_text(json.dumps({"sortby": [{"field": "id", "direction": "asc"}]}))
    absolute = [with_hrefs(item, f"{tmp_path}/scenes/") for item in items]
    rustac.write_sync(str(tmp_path / "items.parquet"), absolute)
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": absolute}))
    with api_of(items, tmp_path / "scenes") as url:

        def follow(line: str) -> bytes:
            """Run a line and return the bytes that it writes."""
            words = shlex.split(line.replace(API, url))[1:]
            words = [str(tmp_path / word) if is_file(word) else word for word in words]
            run(*words)
            if words[0] == "create":
                return Path(words[3]).read_bytes()
            made = Path(words[2]).read_bytes()
            Path(words[2]).unlink()
            return made

        yield follow


def is_file(word: str) -> bool:
    return word == "scenes/" or re.fullmatch(r"[a-z.]+\.(json|tif|parquet|geojson)", word) is not None


def test_a_search_in_one_command_and_geoparquet_make_the_same_file(place):
    _, _, one_command, _, _, geoparquet = lines()
    expected = place(one_command)
    assert place(geoparquet) == expected


@pytest.mark.slow
def test_every_line_makes_the_file_that_the_same_scenes_make_in_any_form(place):
    by_api, by_files, one_command, of_mosaic, of_summer, geoparquet = lines()
    place(by_api)
    median = place(of_mosaic)
    place(by_files)
    assert place(of_mosaic) == median
    assert place(f"{geoparquet} --pixel-selection median") == median
    expected = place(one_command)
    for source in ("items.parquet", "items.json", "scenes/"):
        assert place(geoparquet.replace("items.parquet", source)) == expected
    summer = place(of_summer)
    assert summer != place(geoparquet.replace("red,green,blue", "red"))
