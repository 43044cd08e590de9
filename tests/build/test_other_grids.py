"""Every sign that tiles lie in another grid than Web Mercator's is seen, wherever a server writes it."""

from __future__ import annotations

import io

import mercantile
import numpy as np
import pytest
from aiohttp import web
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning

from mosaic_async import SourceError, UsageError, build_mosaic, plan_mosaic
from mosaic_async.build.body_checks import check_answer
from mosaic_async.errors import MisplacedTileError, TileError
from mosaic_async.http.request import Answer
from mosaic_async.sources.grid_signs import grid_in_url
from mosaic_async.sources.source import from_template
from tests.build.test_attacks import HOME, PLACE, tiff
from tests.fake_tiler import FakeTiler
from tests.test_api import AREA, ZOOM

OGC = "<http://www.opengis.net/def/crs/{}>"
LAEA = CRS.from_proj4("+proj=laea +lat_0=45 +lon_0=10 +ellps=WGS84 +units=m")


def placed(body: bytes, **headers: str) -> bool:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return check_answer(Answer(200, body, names), PLACE, None)


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 256, 256), np.uint8))
    return stream.getvalue()


BODIES = {"png": FakeTiler(ext="png").body((7, 64, 49)), "npy": npy()}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.filterwarnings("ignore", category=NotGeoreferencedWarning)
def test_a_header_that_names_another_system_is_an_error_of_the_tile(body):
    for crs in (
        OGC.format("EPSG/0/4326"),
        OGC.format("OGC/1.3/CRS84"),
        OGC.format("EPSG/0/3035"),
        "urn:ogc:def:crs:EPSG::32633",
        "EPSG:38570",
        "[EPSG:4326]",
        "somewhere",
    ):
        with pytest.raises(TileError, match=r"is in .*, not in EPSG:3857"):
            placed(body, Content_Crs=crs)
    for crs in (OGC.format("EPSG/0/3857"), "urn:ogc:def:crs:EPSG:6.18.3:3857", "EPSG:900913", "[epsg:3857]"):
        assert not placed(body, Content_Crs=crs)
        assert placed(body, Content_Crs=crs, Content_Bbox=",".join(map(str, HOME)))


def test_a_box_without_a_system_must_be_the_tiles_in_metres_or_degrees():
    """TiTiler names no system for one that has no code, such as a projection made for one country."""
    body = BODIES["npy"]
    assert placed(body, Content_Bbox=",".join(map(str, HOME)))
    assert placed(body, Content_Bbox=",".join(map(str, mercantile.bounds(PLACE))))
    for bbox in ("0,0,90,90", "4300000,2500000,4400000,2600000", "nan,nan,nan,nan"):
        with pytest.raises(MisplacedTileError):
            placed(body, Content_Bbox=bbox)


@pytest.mark.parametrize(
    ("crs", "words"),
    [("EPSG:4326", "EPSG:4326"), ("EPSG:3035", "EPSG:3035"), ("EPSG:3395", "EPSG:3395"), (LAEA, "own")],
)
@pytest.mark.parametrize("bounds", [None, HOME], ids=["without a place", "at the tile's place"])
def test_a_geotiff_in_another_system_is_refused_even_without_a_place(crs, words, bounds):
    with pytest.raises(TileError, match=words):
        placed(tiff(crs=crs, bounds=bounds))


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:3785", "ESRI:102100", None])
def test_a_geotiff_in_web_mercator_is_accepted_whatever_it_calls_it(crs):
    assert placed(tiff(crs=crs))


@pytest.mark.parametrize(
    ("url", "grid"),
    [
        ("https://h/cog/tiles/WorldCRS84Quad/{z}/{x}/{y}.png?url=a.tif", "WorldCRS84Quad"),
        ("https://h/tiles/%7Bz%7D/{x}/{y}?TileMatrixSetId=EuropeanETRS89_LAEAQuad", "EuropeanETRS89_LAEAQuad"),
        ("https://h/wmts?tilematrixset=anything&z={z}&x={x}&y={y}", "anything"),
        ("https://h/gwc/service/tms/1.0.0/layer@EPSG%3A4326@png/{z}/{x}/{-y}.png", "EPSG:4326"),
        ("https://h/wmts/epsg4326/best/layer/{z}/{y}/{x}.jpg", "EPSG:4326"),
        ("https://h/1.0.0/layer/default/current/21781/{z}/{y}/{x}.jpeg", "EPSG:21781"),
        ("https://h/w?TILEMATRIX=EPSG:4326:{z}&TILEROW={y}&TILECOL={x}", "EPSG:4326"),
        ("https://h/export?bboxSR=102100&imageSR=4326&z={z}&x={x}&y={y}", "EPSG:4326"),
        ("https://h/tms/1.0.0/global-geodetic/{z}/{x}/{y}.png", "global-geodetic"),
        ("https://h/cog/tiles/WebMercatorQuad/{z}/{x}/{y}.png?url=s3://b/EPSG_4326.tif", None),
        ("https://h/{z}/{x}/{y}.png?tms=true", None),
        ("https://h/w?TILEMATRIXSET=PM&TILEMATRIX={z}&TILEROW={y}&TILECOL={x}", None),
        ("https://h/GoogleMapsCompatible_Level9/{z}/{y}/{x}.jpg", None),
        ("https://h/layer/default/2023/{z}/{x}/{y}.png", None),
        ("https://h/wmts/layer/EPSG900913/{z}/{x}/{y}.png", None),
    ],
)
def test_a_url_tells_its_grid_where_servers_write_it(url, grid):
    assert grid_in_url(url) == grid
    assert from_template(url).stated_grid == grid


async def test_tiles_of_another_grid_are_never_placed_as_web_mercator(serve, tmp_path):
    """PNGs of WorldCRS84Quad have no place of their own: the pixel of Paris once was at 90 degrees west."""
    tiler = serve(ext="png")
    with pytest.raises(UsageError, match="EPSG:4326"):
        await build_mosaic(f"{tiler.url}/EPSG:4326/{{z}}/{{x}}/{{y}}.png", AREA, tmp_path / "a.tif", zoom=ZOOM)
    for names in ({"crs": "EPSG:4326"}, {"tileMatrixSet": {"id": "LAEA"}}, {"crs": {"properties": {"name": "CRS:84"}}}):
        tiler.documents["/t.json"] = {"tilejson": "3.0.0", "tiles": [tiler.template], "maxzoom": ZOOM, **names}
        with pytest.raises(UsageError, match="not Web Mercator"):
            await plan_mosaic(f"{tiler.url}/t.json", AREA)
    assert tiler.requests == 0

    async def in_degrees(served, tile):
        crs = OGC.format("EPSG/0/4326")
        return web.Response(body=served.body(tile), content_type="image/png", headers={"Content-Crs": crs})

    tiler.mood = lambda tile, _: in_degrees(tiler, tile)
    with pytest.raises(SourceError, match="not in EPSG:3857"):
        await build_mosaic(tiler.template, AREA, tmp_path / "b.tif", zoom=ZOOM)
