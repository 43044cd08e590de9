"""Requests that would hang, fill or crash a tiler, sent to a real one: each is a 4xx, and the tiler still serves."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import time
from dataclasses import replace
from urllib.parse import quote, urlencode

import aiohttp
import mercantile
import numpy as np
import pytest
import rasterio
import rasterio.transform
from aiohttp import web

from mosaic_async import UsageError
from mosaic_async.tiler import open_mosaic, serve
from mosaic_async.tiler.edge.limits import PUBLIC
from mosaic_async.tiler.pixels.composer import Composer, Room
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.view import View
from tests.conftest import COLORADO, PARANA
from tests.loopback import running

pytestmark = pytest.mark.usefixtures("forked_tilers")
TILE = mercantile.tile(-54.6, -25.4, 10)
PLAIN = f"/tiles/WebMercatorQuad/10/{TILE.x}/{TILE.y}.tif?assets=B4&tilesize=128"
LANDSAT = {"bbox": [-55, -26, -54, -25]}
TOO_DEAR = {
    "a tower of powers": f"{PLAIN}&expression=b1%2B9**9**9",
    "the least integer by minus one": f"{PLAIN}&expression=(b1*0-2147483647-1)//(b1*0-1)",
    "a large tile": PLAIN.replace("tilesize=128", "tilesize=30000"),
    "a large tile by its buffer": f"{PLAIN.replace('128', '2048')}&buffer=100",
    "a tile of many bands": f"{PLAIN.replace('128', '2048')}&assets=B4&assets=B3",
    "a buffer": f"{PLAIN}&buffer=5000",
    "no buffer": f"{PLAIN}&buffer=nan",
    "a padding": f"{PLAIN}&padding=100000",
    "an infinite padding": f"{PLAIN}&padding=1e999",
    "deep brackets": f"{PLAIN}&expression={'(' * 200}b1{')' * 200}",
    "many formulas": f"{PLAIN}&expression={';'.join(['b1'] * 500)}",
    "many assets": f"{PLAIN}&{'&'.join(['assets=B4'] * 3000)}",
    "many bands of assets": f"{PLAIN}&{'&'.join(['assets=B4|indexes=' + ','.join('1' * 100)] * 500)}",
    "many parameters": f"{PLAIN}&{urlencode([('rescale', '0,1')] * 1100)}",
    "many rescales": f"{PLAIN}&{urlencode([('rescale', '0,1')] * 600)}",
    "many colour operations": f"{PLAIN}&color_formula={quote(','.join(['gamma R 1.1'] * 300))}",
    "a long colour map": f"{PLAIN}&colormap={quote('[' + '0,' * 19_000 + '0]', safe='[],')}",
    "a deep colour map": f"{PLAIN}&colormap={quote('[' * 1000, safe='[')}",
    "many bad values": f"{PLAIN}&cloud_mask=B4:values={','.join(['1'] * 1000)}",
    "a bad value of many digits": f"{PLAIN}&cloud_mask=B4:values={'9' * 200}",
    "a band of many digits": f"{PLAIN}&expression=b{'9' * 12}",
    "an algorithm": f"{PLAIN}&algorithm=contours",
    "another source": f"{PLAIN}&url=/etc/passwd",
    "an unknown parameter": f"{PLAIN}&bans=B4",
    "a negative zoom": "/tiles/WebMercatorQuad/-1/0/0.tif?assets=B4",
    "a zoom without end": "/tiles/WebMercatorQuad/999999999/0/0.tif?assets=B4",
    "a negative column": "/tiles/WebMercatorQuad/3/-1/0.tif?assets=B4",
    "a column without end": f"/tiles/WebMercatorQuad/3/{'9' * 400}/0.tif?assets=B4",
    "zooms without end": "/tiles/WebMercatorQuad?maxzoom=99999999",
    "a TileJSON of zooms without end": "/WebMercatorQuad/tilejson.json?assets=B4&maxzoom=99999999",
    "a map with an unknown parameter": "/WebMercatorQuad/map.html?assets=B4&src=x",
    "a point that is not one": "/point/nan,1?assets=B4",
    "an infinite point": "/point/inf,-inf?assets=B4",
    "a reference system from a URL": "/info.geojson?crs=http://127.0.0.1:1/crs",
    "a reference system from a file": "/info.geojson?crs=/etc/passwd",
    "a reference system as a document": f"/tiles?crs={quote('GEOGCS[' * 50)}",
    "the world at cell size": "/bbox/-180,-85,180,85/assets",
    "statistics": "/statistics?assets=B4",
    "a preview": "/preview.tif?assets=B4&max_size=30000",
}


@pytest.fixture(scope="module")
def tiler():
    """Serve Paraná from one process, in a loop of its own that all tests of this module share."""
    with asyncio.Runner() as runner:
        context = serve(open_mosaic(PARANA), host="127.0.0.1", port=0, workers=1)
        url = runner.run(context.__aenter__())
        yield url
        runner.run(context.__aexit__(None, None, None))


async def get(url: str, path: str, **options) -> tuple[int, bytes]:
    limits = {"max_line_size": 2**18, "max_field_size": 2**18}  # of X-Assets
    async with aiohttp.ClientSession(**limits) as session, session.get(f"{url}{path}", **options) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("path", TOO_DEAR.values(), ids=TOO_DEAR.keys())
async def test_a_request_that_is_too_dear_is_refused_with_the_reason(path, tiler):
    status, body = await get(tiler, path)
    assert 400 <= status < 500, body
    assert json.loads(body)["detail"]
    assert (await get(tiler, PLAIN))[0] == 200


async def test_unknown_parameters_are_named(tiler):
    _, body = await get(tiler, f"{PLAIN}&bans=1&colour=2")
    assert "unknown parameter: bans, colour" in json.loads(body)["detail"]


async def test_heads_that_flood_and_methods_that_are_not_known_are_refused(tiler):
    status, _ = await get(tiler, PLAIN, headers={f"X-{number}": "y" * 1000 for number in range(100)})
    assert status == 431
    async with aiohttp.ClientSession() as session:
        for method in ("BREW", "PUT", "DELETE", "TRACE"):
            async with session.request(method, f"{tiler}{PLAIN}") as response:
                assert response.status == 405
    assert (await get(tiler, f"{PLAIN}&expression=b1{'%20' * 30_000}"))[0] in (400, 431)
    assert (await get(tiler, PLAIN))[0] == 200


async def test_other_sites_cannot_use_it_and_read_nothing(tiler):
    async with aiohttp.ClientSession() as session, session.get(f"{tiler}{PLAIN}") as response:
        assert not [name for name in response.headers if name.lower().startswith("access-control")]
    assert (await get(tiler, PLAIN, headers={"Origin": "https://other.example"}))[0] == 403
    assert (await get(tiler, PLAIN, headers={"Host": "rebound.example"}))[0] == 400


async def test_hosts_and_origins_can_be_opened():
    options = {"hosts": ["tiles.example"], "origins": ["https://map.example"]}
    async with serve(open_mosaic(PARANA), host="127.0.0.1", port=0, workers=1, **options) as url:
        assert (await get(url, "/info", headers={"Host": "tiles.example"}))[0] == 200
        headers = {"Origin": "https://map.example"}
        async with aiohttp.ClientSession() as session, session.get(f"{url}/info", headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "https://map.example"
        assert (await get(url, "/info", headers={"Origin": "https://other.example"}))[0] == 403


async def test_files_of_many_bands_have_the_limit_of_the_bands_that_they_have(tmp_path):
    transform = rasterio.transform.from_origin(0, 1, 0.01, 0.01)
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:4326",
        "transform": transform,
        "count": 300,
        "dtype": "uint8",
        "nodata": 0,
    }
    with rasterio.open(tmp_path / "a.tif", "w", width=100, height=100, **profile) as file:
        file.write(np.ones((300, 100, 100), "uint8"))
    tile = mercantile.tile(0.5, 0.5, 8)
    async with serve(open_mosaic(tmp_path), host="127.0.0.1", port=0, workers=1) as url:
        place = f"/tiles/WebMercatorQuad/8/{tile.x}/{tile.y}.tif"
        status, body = await get(url, f"{place}?tilesize=512")
        assert (status, b"values is too large" in body) == (422, True)
        status, _ = await get(url, f"{place}?tilesize=64")
        assert status == 200


def test_what_a_selection_holds_at_once_is_limited_by_what_the_files_have():
    scenes = sorted(str(path) for path in PARANA.rglob("*_B4.tif"))
    frame = Frame(bounds=tuple(mercantile.xy_bounds(TILE)), crs=rasterio.CRS.from_epsg(3857), width=256, height=256)
    view, degrees = View(assets=(("", ()),)), tuple(mercantile.bounds(TILE))
    for selection in ("median", "percentile:10", "medoid"):
        small = Composer(is_stac=False, is_local=True, room=Room(bytes_held=256 * 256 * 4))
        with pytest.raises(UsageError, match="MiB"):
            small.compose(scenes, frame, degrees, view, Selection.parse(selection))
        assert Composer(is_stac=False, is_local=True).compose(scenes, frame, degrees, view, Selection.parse(selection))
    assert small.compose(scenes, frame, degrees, view, Selection.parse("highest")).pixels is not None


NOTEBOOK = {
    "a tower of powers": {"expr": "b4,9**9**9*b3"},
    "many formulas": {"expr": ",".join(["b4"] * 200)},
    "many colour operations": {"bands": "4", "color_ops": ",".join(["gamma R 1.1"] * 100)},
    "many bands": {"bands": ",".join(["4"] * 400)},
    "an unknown parameter": {"bands": "4", "resampling": "nearest"},
    "a scale without end": {"bands": "4", "scale": "999999"},
}


async def test_the_notebook_s_routes_have_the_same_edge(tmp_path):
    shutil.copytree(PARANA, tmp_path / "scenes")
    mosaic = open_mosaic(tmp_path / "scenes")
    async with (
        serve(mosaic, host="127.0.0.1", port=0, workers=1) as url,
        aiohttp.ClientSession() as session,
    ):

        async def create(search, **params):
            async with session.post(f"{url}/mosaic/create", params=params, data=json.dumps(search)) as response:
                return response.status, await response.json()

        status, tilejson = await create(LANDSAT, minzoom=8, maxzoom=11, bands="4", rescale="0,30000")
        assert status == 200
        assert tilejson["tiles"][0].endswith("?bands=4&rescale=0%2C30000")
        place = f"/tiles/{tilejson['name']}/10/{TILE.x}/{TILE.y}@1x.png"
        assert (await get(url, f"{place}?bands=4"))[0] == 200
        for name, params in NOTEBOOK.items():
            path = place.replace("@1x", "") if "scale" in params else place
            status, body = await get(url, f"{path}?{urlencode(params)}")
            assert 400 <= status < 500, (name, body)
        for search, params in [
            (LANDSAT, {"minzoom": 25, "maxzoom": 26}),
            ({"bbox": [-180, -85, 180, 85]}, {"minzoom": 14, "maxzoom": 15}),
            (LANDSAT, {"minzoom": 8, "maxzoom": 11, "colour": "x"}),
            (LANDSAT, {"minzoom": 8, "maxzoom": 11, "expr": "b4**9**9**9"}),
        ]:
            status, refusal = await create(search, **params)
            assert status == 422, refusal
        async with session.post(f"{url}/mosaic/create", data=io.BytesIO(b"[" * 2**23)) as response:
            assert response.status == 413


async def test_a_tile_that_takes_too_long_ends_at_the_deadline_and_its_place_is_free_again():
    tile = mercantile.tile(-106.914, 40.288, 14)
    place = f"/tiles/WebMercatorQuad/14/{tile.x}/{tile.y}.tif?assets=b5&assets=b4&assets=b3"
    limits = replace(PUBLIC, deadline=4, values_held=2**40, bytes_held=2**40, work=2**50)
    async with serve(open_mosaic(COLORADO), host="127.0.0.1", port=0, workers=1, limits=limits) as url:
        for _ in range(2):
            started = time.monotonic()
            status, body = await get(url, f"{place}&pixel_selection=geomedian&tilesize=1024")
            assert status == 504, body
            assert time.monotonic() - started < 30
        statuses = [(await get(url, f"{place}&tilesize=64"))[0] for _ in range(3)]
    assert 200 in statuses


async def test_a_server_of_items_cannot_name_files_of_this_machine_and_learns_nothing(tmp_path):
    """A hostile item that names a file which is not a raster: the answer says no more than for one that is missing."""
    item = json.loads(next(path for path in PARANA.rglob("*.json") if path.name != "collection.json").read_text())
    documents = open_mosaic(PARANA).document

    def response(request):
        item["assets"]["B4"] = {"href": {"1": "file:///etc/passwd", "2": "file:///no/such"}[request.match_info["n"]]}
        return web.json_response(item)

    async def answer(request):
        return response(request)

    app = web.Application()
    app.router.add_get("/{n}.json", answer)
    details = []
    with running(app) as server:
        for number in "12":
            document = {
                **documents,
                "tiles": {key: [f"{server}/{number}.json"] for key in documents["tiles"]},
            }
            (tmp_path / "mosaic.json").write_text(json.dumps(document))
            async with serve(open_mosaic(tmp_path / "mosaic.json"), host="127.0.0.1", port=0, workers=1) as url:
                status, body = await get(url, PLAIN)
                assert status >= 400
                details.append(body.replace(f"{number}.json".encode(), b"N.json"))
    assert details[0] == details[1]
    assert b"passwd" not in details[0]


async def test_what_a_local_file_is_stays_untold(tmp_path):
    """Neither the words of GDAL nor the existence of a path that is not a raster."""
    told = []
    for content in (b"secret words", None):
        folder = tmp_path / f"scenes{len(told)}"
        shutil.copytree(PARANA, folder)
        mosaic = open_mosaic(folder)
        for path in folder.rglob("*_B4.tif"):
            path.unlink()
            if content:
                path.write_bytes(content)
        async with serve(mosaic, host="127.0.0.1", port=0, workers=1) as url:
            status, body = await get(url, PLAIN)
            assert status == 500
            told.append(body.replace(str(folder).encode(), b""))
            status, body = await get(url, "/point/-54.6,-25.4?assets=B4")
            assert status == 500
            assert b"_B4" not in body
    assert told[0] == told[1]
    assert b"B4.tif" not in told[0]
