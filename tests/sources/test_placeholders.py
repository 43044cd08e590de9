"""Every way in which people write the URL of a tile leads to that tile, or to words that say what to set."""

from __future__ import annotations

import re
from collections import Counter

import mercantile
import morecantile
import pytest
from aiohttp import web
from mercantile import Tile

from mosaic_async import UsageError, build_mosaic, plan_mosaic, verify_mosaic
from mosaic_async.errors import MosaicError
from mosaic_async.sources.opening import open_source
from mosaic_async.sources.source import from_template
from tests.loopback import running
from tests.map_server import AREA, ZOOM, MapServer, assert_is_the_map, map_body

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

TILE = Tile(9, 7, 5)
WMS = "SERVICE=WMS&REQUEST=GetMap&LAYERS=a&STYLES=&FORMAT=image/png&BBOX={bbox-epsg-3857}"
WAYS = (
    "xyz/{z}/{x}/{y}.png",
    "tms/{z}/{x}/{-y}.png",
    "quad/{q}.png",
    "arcgis/{level}/{row}/{col}",
    "matrix/{TileMatrix}/{TileRow}/{TileCol}.png",
    f"map?{WMS}&VERSION=1.1.1&SRS=EPSG:3857&WIDTH={{width}}&HEIGHT={{height}}",
    f"map?{WMS}&VERSION=1.3.0&CRS=EPSG:3857&WIDTH=256&HEIGHT=256",
)


async def test_each_way_of_requesting_a_tile_gives_the_same_exact_mosaic(tmp_path):
    server = MapServer()
    with running(server.app) as url:
        for number, way in enumerate(WAYS):
            report = await build_mosaic(f"{url}/{way}", AREA, tmp_path / f"{number}.tif", zoom=ZOOM)
            assert_is_the_map(tmp_path / f"{number}.tif")
            assert report.tiles_placed == 4, way


async def test_a_map_server_sends_maps_of_the_requested_tile_size(tmp_path):
    server = MapServer(size=512)
    export = "map?bbox={bbox-epsg-3857}&bboxSR=3857&imageSR=3857&size={width},{height}&format=png32&f=image"
    with running(server.app) as url:
        await build_mosaic(f"{url}/{export}", AREA, tmp_path / "export.tif", zoom=ZOOM - 1, tile_size=512)
        assert_is_the_map(tmp_path / "export.tif", size=512, zoom=ZOOM - 1)
        checked = await verify_mosaic(tmp_path / "export.tif", source=f"{url}/{export}")
        assert checked.is_sound
        plan = await plan_mosaic(f"{url}/map?{WMS}&SRS=EPSG:900913&WIDTH=512&HEIGHT=512", AREA, zoom=ZOOM - 1)
        assert plan.tile_size == 512
        plan = await plan_mosaic(f"{url}/xyz/{{z}}/{{x}}/{{y}}{{r}}", AREA, zoom=ZOOM - 1, tile_size=512)
        assert server.requests[-1].path.endswith("@2x")


async def test_subdomains_share_the_requests_and_a_tile_always_has_the_same_one(tmp_path):
    server = MapServer()
    with running(server.app) as url:
        template = url.replace("127.0.0.1", "{switch:127.0.0.1,localhost}") + "/xyz/{z}/{x}/{y}.png"
        await build_mosaic(template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert_is_the_map(tmp_path / "out.tif")
    asked = {(request.host.partition(":")[0], request.path) for request in server.requests}
    assert Counter(host for host, _ in asked) == {"127.0.0.1": 2, "localhost": 2}
    source = from_template("https://{s}.h/{z}/{x}/{y}.png")
    hosts = {tile: source.url(tile)[8] for tile in mercantile.tiles(-180, -85, 179, 85, zooms=[4])}
    assert all(count in (85, 86) for count in Counter(hosts.values()).values())
    assert hosts == {tile: source.url(tile)[8] for tile in hosts}


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://h/${z}/${x}/${y}.png", "https://h/5/9/7.png"),
        ("https://h/{Z}/{X}/{Y}.png", "https://h/5/9/7.png"),
        ("https://h/{zoom}/{x}/{!y}.png", "https://h/5/9/24.png"),
        ("https://h/%7Bquadkey%7D", f"https://h/{mercantile.quadkey(TILE)}"),
        ("https://{a-c}.h/{z}/{x}/{y}", "https://b.h/5/9/7"),
        ("https://t{0-3}.h/{z}/{x}/{y}", "https://t0.h/5/9/7"),
        ("https://{a,b,c}.h/{z}/{x}/{y}", "https://b.h/5/9/7"),
        ("https://{switch:mt0,mt1}.h/{z}/{x}/{y}", "https://mt0.h/5/9/7"),
        ("https://h/{z}/{x}/{y}{r}.png", "https://h/5/9/7.png"),
        ("https://h/{z}/{x}/{y}@{ratio}x.png", "https://h/5/9/7@1x.png"),
        ("https://h/{prefix}/{z}/{x}/{y}.png", "https://h/97/5/9/7.png"),
        ("https://h/wmts?TILEMATRIX=EPSG:3857:{TileMatrix}&TILEROW={TileRow}&TILECOL={TileCol}",
         "https://h/wmts?TILEMATRIX=EPSG:3857:5&TILEROW=7&TILECOL=9"),
        ('https://h/{z}/{x}/{y}?colormap={"0":"#fff"}&rule={2,4}', 'https://h/5/9/7?colormap={"0":"#fff"}&rule={2,4}'),
    ],
)  # fmt: skip
def test_a_placeholder_stands_for_what_maps_mean_by_it(template, url):
    assert from_template(template).url(TILE) == url


def test_the_edges_of_maps_are_those_of_the_grid_and_neighbours_share_them():
    grid = morecantile.tms.get("WebMercatorQuad")
    source = from_template(
        "https://h/?bbox={bbox-epsg-3857}&width={width}&height={height}&bboxsr=3857&imagesr=3857&f=image"
    )
    assert source.tile_size == 256
    for tile in (Tile(0, 0, 0), Tile(9, 7, 5), Tile(2**22 - 1, 2**21, 22)):
        bbox = [float(number) for number in source.url(tile).split("bbox=")[1].split("&")[0].split(",")]
        assert bbox == pytest.approx(list(grid.xy_bounds(tile)), abs=1e-6)
        if tile.z:
            east = source.url(Tile(tile.x - 1, tile.y, tile.z)).split("bbox=")[1].split("&")[0].split(",")[2]
            assert float(east) == bbox[0]


@pytest.mark.parametrize(
    ("template", "params", "message", "hint"),
    [
        ("https://h/{z}/{x}/{y}.png?key={apikey}", {}, "`{apikey}` is not a tile placeholder", "apikey="),
        ("https://h/{style}/{z}/{x}/{y}.png", {"other": "1"}, "`{style}` is not", "`params` style=…"),
        ("https://h/{z}/{x}/{yy}.png", {}, "no {y}", "XYZ template"),
        ("https://h/{foo}", {}, "no {x}, {y}, {z}", "XYZ template"),
        ("https://h/?SERVICE=WMS&REQUEST=GetMap&BBOX={box}", {}, "no {x}, {y}, {z}", "BBOX={bbox-epsg-3857}"),
        (f"https://h/?{WMS}&SRS=EPSG:4326&WIDTH=256&HEIGHT=256", {}, "EPSG:4326 as the grid", "`tms`"),
        (f"https://h/?{WMS}&VERSION=1.3.0&WIDTH=256&HEIGHT=256", {}, "does not state CRS", "CRS=EPSG:3857"),
        (f"https://h/?{WMS}&SRS=EPSG:3857&WIDTH=256&HEIGHT=128", {}, "256 x 128", "the same"),
        ("https://h/MapServer/export?bbox={bbox}&size=256,256&f=image", {}, "bboxSR and imageSR", "imageSR=3857"),
    ],
)  # fmt: skip
async def test_what_is_missing_in_a_url_is_named_before_any_request(template, params, message, hint):
    with pytest.raises(MosaicError) as error:
        await plan_mosaic(template, AREA, zoom=ZOOM, params=params)
    assert message in error.value.message
    assert hint in str(error.value.hint)


async def test_parameters_fill_their_placeholders_and_only_the_others_are_added():
    source = await open_source("https://h/{id}/{z}/{x}/{y}.{ext}", params={"id": "a/b", "ext": "png", "v": "1 2"})
    assert source.url(TILE) == "https://h/a/b/5/9/7.png?v=1+2"
    source = await open_source("https://{s}.h/{z}/{x}/{y}?k={apikey}", params={"apikey": "a&b", "s": "1"})
    assert source.url(TILE) == "https://b.h/5/9/7?k=a%26b&s=1"
    source = await open_source("https://h/{token}/{z}/{x}/{y}", secrets={"token": "hush-hush"})
    assert source.url(TILE) == "https://h/hush-hush/5/9/7"
    with pytest.raises(UsageError, match="apikey"):
        await open_source(from_template("https://h/{z}/{x}/{y}?k={apikey}"))


WMTS = "SERVICE=WMTS&REQUEST=GetTile&VERSION=1.0.0&LAYER=a&STYLE=b&FORMAT=image/jpeg"
PASTED = {
    "https://{s}.tile.osm.example/{z}/{x}/{y}.png": "",
    "https://tile.osm.example/${z}/${x}/${y}.png": "",
    "https://mt{0-3}.maps.example/vt/lyrs=s&x={x}&y={y}&z={z}": "",
    "https://ecn.t{switch:0,1,2,3}.tiles.example/tiles/a{q}.jpeg?g=1": "",
    "https://api.box.example/v4/box.satellite/{z}/{x}/{y}.png?access_token={token}": "`{token}`",
    "https://api.box.example/styles/v1/box/satellite-v9/tiles/{z}/{x}/{y}?access_token=pk.abcdefgh": "",
    "https://tiles.stadia.example/tiles/stamen_terrain/{z}/{x}/{y}{r}.png": "",
    "https://{s}.tile.forest.example/cycle/{z}/{x}/{y}.png?apikey={apikey}": "`{apikey}`",
    "https://server.esri.example/ArcGIS/rest/services/World_Imagery/MapServer/tile/{z}/{y}/{x}": "",
    "https://server.esri.example/ArcGIS/rest/services/a/MapServer/tile/{level}/{row}/{col}": "",
    "https://gibs.example/wmts/epsg3857/best/MODIS_Terra/default/{time}/GoogleMapsCompatible_Level9/{z}/{y}/{x}.jpg":
        "`{time}`",
    f"https://data.geopf.example/wmts?{WMTS}&TILEMATRIXSET=PM&TILEMATRIX={{z}}&TILEROW={{y}}&TILECOL={{x}}": "",
    "https://h/geoserver/gwc/service/tms/1.0.0/ws:layer@EPSG:900913@png/{z}/{x}/{-y}.png": "",
    f"https://h/gwc?{WMTS}&TILEMATRIXSET=EPSG:900913&TILEMATRIX=EPSG:900913:{{z}}&TILEROW={{y}}&TILECOL={{x}}": "",
    f"https://h/wms?{WMS}&version=1.1.1&width=256&height=256&srs=EPSG:3857": "",
    "https://h/wms?REQUEST=GetMap&VERSION=1.3.0&CRS={proj}&WIDTH={width}&HEIGHT={height}&BBOX={bbox}": "",
    "https://h/%7Bz%7D/%7Bx%7D/%7By%7D.png": "",
    "https://titiler.example/cog/tiles/WebMercatorQuad/{z}/{x}/{y}@1x?url=https%3A%2F%2Fh%2Fa.tif": "",
    "https://h/12/2048/1362.png": "write http://127.0.0.1",
    "https://{s}.basemaps.example/{variant}/{z}/{x}/{y}{r}.png": "`{variant}`",
    "https://service.pdok.example/wmts/v2_0/standaard/EPSG:28992/{z}/{x}/{y}.png": "EPSG:28992",
    "https://h/{z}/{x}/{reverseY}.png": "",
    "https://h/cesium/{z}/{x}.png": "no {y}",
}  # fmt: skip
"""Tile URLs as people paste them, and what the error names; empty: the plan works."""


async def test_a_url_as_people_paste_it_works_or_the_error_names_what_to_give():
    async def tile(request: web.Request) -> web.Response:
        return web.Response(body=map_body(0, 0, 256), content_type="image/png")

    app = web.Application()
    app.router.add_get("/{path:.*}", tile)
    with running(app) as url:
        for pasted, words in PASTED.items():
            template = re.sub(r"https://(?:[^/{]|\{[^}]*\})+", url, pasted, count=1)
            if not words:
                assert (await plan_mosaic(template, AREA, zoom=ZOOM)).tiles == 4, pasted
                continue
            with pytest.raises(MosaicError) as error:
                await plan_mosaic(template, AREA, zoom=ZOOM)
            assert words in str(error.value), pasted
