"""Documents that describe tiles lead to the pixels that they describe: WMTS, OGC API Tiles, ArcGIS."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from mosaic_async import RefusedError, UsageError, build_mosaic, plan_mosaic
from mosaic_async.errors import MosaicError
from tests.cli.test_main import run
from tests.fake_tiler import HALF_WORLD
from tests.loopback import running, uvicorn_of
from tests.map_server import AREA, PATTERN, ZOOM, MapServer, assert_is_the_map, map_body

pytestmark = [
    pytest.mark.usefixtures("unblocked_loop"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]

SCALE = 559082264.0287178
NAMESPACES = (
    'xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" version="1.0.0"'
)
GET = (
    '<ows:Get xlink:href="{href}"><ows:Constraint name="GetEncoding"><ows:AllowedValues>'
    "<ows:Value>{encoding}</ows:Value></ows:AllowedValues></ows:Constraint></ows:Get>"
)
GET_TILE = (
    '<ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP>{}</ows:HTTP></ows:DCP></ows:Operation>'
    "</ows:OperationsMetadata>"
)
LIMITED = (
    "<TileMatrixLimits><TileMatrix>{name}</TileMatrix><MinTileRow>0</MinTileRow><MaxTileRow>{last}</MaxTileRow>"
    "<MinTileCol>0</MinTileCol><MaxTileCol>{last}</MaxTileCol></TileMatrixLimits>"
)


def matrix_set(
    name: str, crs: str, names: str, *, zooms=range(12), size=256, corner=(-HALF_WORLD, HALF_WORLD), k=1.0, digits=9
):
    matrices = "".join(
        f"<TileMatrix><ows:Identifier>{names.format(zoom=zoom)}</ows:Identifier>"
        f"<ScaleDenominator>{round(k * SCALE / 2**zoom * 256 / size, digits)}</ScaleDenominator>"
        f"<TopLeftCorner>{corner[0]} {corner[1]}</TopLeftCorner><TileWidth>{size}</TileWidth>"
        f"<TileHeight>{size}</TileHeight><MatrixWidth>{2**zoom}</MatrixWidth><MatrixHeight>{2**zoom}</MatrixHeight>"
        "</TileMatrix>"
        for zoom in zooms
    )
    return (
        f"<TileMatrixSet><ows:Identifier>{name}</ows:Identifier><ows:SupportedCRS>{crs}</ows:SupportedCRS>"
        f"{matrices}</TileMatrixSet>"
    )


def layer(name: str, sets: dict[str, str], *, urls: str = "", formats=("image/jpeg", "image/png"), box="0 44 6 49"):
    west, south, east, north = box.split()
    links = "".join(
        f"<TileMatrixSetLink><TileMatrixSet>{one}</TileMatrixSet>"
        + (f"<TileMatrixSetLimits>{limits}</TileMatrixSetLimits>" if limits else "")
        + "</TileMatrixSetLink>"
        for one, limits in sets.items()
    )
    return (
        f"<Layer><ows:Title>t</ows:Title><ows:WGS84BoundingBox><ows:LowerCorner>{west} {south}</ows:LowerCorner>"
        f"<ows:UpperCorner>{east} {north}</ows:UpperCorner></ows:WGS84BoundingBox><ows:Identifier>{name}"
        "</ows:Identifier><Style isDefault='true'><ows:Identifier>bright</ows:Identifier></Style>"
        + "".join(f"<Format>{one}</Format>" for one in formats)
        + "<Dimension><ows:Identifier>Time</ows:Identifier><Default>2020</Default><Value>2020</Value></Dimension>"
        + links + urls + "</Layer>"
    )  # fmt: skip


def capabilities(*parts: str, operations: str = "") -> tuple[bytes, str]:
    inner = "".join(parts)
    return f"<Capabilities {NAMESPACES}>{operations}<Contents>{inner}</Contents></Capabilities>".encode(), "text/xml"


DEGREES = matrix_set("inspire", "urn:ogc:def:crs:EPSG::4326", "{zoom}", corner=(90, -180))
URN = "urn:ogc:def:crs:EPSG::3857"


async def test_a_wmts_with_parameters_and_matrices_that_are_not_named_by_zoom(tmp_path):
    server = MapServer()
    with running(server.app) as url:
        names = "EPSG:900913:{zoom}"
        limits = "".join(LIMITED.format(name=f"EPSG:900913:{zoom}", last=2**zoom - 1) for zoom in (7, 8))
        server.documents["/wmts"] = capabilities(
            layer("a", {"inspire": "", "google": limits}),
            layer("b", {"google": ""}),
            DEGREES,
            matrix_set("google", "urn:ogc:def:crs:EPSG::900913", names, corner=(-2.003750834e7, 2.0037508e7)),
            operations=GET_TILE.format(
                GET.format(href=f"{url}/rest", encoding="RESTful") + GET.format(href=f"{url}/kvp?map=a", encoding="KVP")
            ),
        )
        place = f"{url}/wmts?SERVICE=WMTS&REQUEST=GetCapabilities"
        await build_mosaic(place, AREA, tmp_path / "out.tif", params={"layer": "a", "key": "open"})
        assert_is_the_map(tmp_path / "out.tif")
        query = server.requests[-1].query
        assert (query["LAYER"], query["STYLE"], query["TILEMATRIXSET"]) == ("a", "bright", "google")
        assert (query["TILEMATRIX"], query["FORMAT"], query["TIME"]) == ("EPSG:900913:8", "image/png", "2020")
        assert (query["map"], query["key"]) == ("a", "open")
        with pytest.raises(UsageError, match="the WMTS has 2 layers") as error:
            await plan_mosaic(place, AREA)
        assert "`params` layer=NAME, one of a, b" in str(error.value.hint)
        with pytest.raises(UsageError, match="zoom 9 is above the source's highest, 8"):
            await plan_mosaic(place, AREA, zoom=9, params={"layer": "a"})
        with pytest.raises(RefusedError, match="outside of what the source covers"):
            await plan_mosaic(place, (100, 10, 101, 11), params={"layer": "a"})


async def test_a_wmts_with_paths_larger_tiles_and_chosen_dimensions(tmp_path):
    server = MapServer(size=512)
    with running(server.app) as url:
        urls = "".join(
            f'<ResourceURL format="{kind}" resourceType="{use}" template="{{url}}/matrix/{{{{TileMatrix}}}}/'
            f'{{{{TileRow}}}}/{{{{TileCol}}}}.png?l={{{{Style}}}}-{{{{Time}}}}-{{{{TileMatrixSet}}}}"/>'
            for kind, use in (("text/plain", "FeatureInfo"), ("image/png", "tile"))
        ).format(url=url)
        zooms = range(5, 8)
        server.documents["/1.0.0/WMTSCapabilities.xml"] = capabilities(
            layer("only", {"quad": ""}, urls=urls), matrix_set("quad", URN, "{zoom:02}", zooms=zooms, size=512)
        )
        place = f"{url}/1.0.0/WMTSCapabilities.xml"
        await build_mosaic(place, AREA, tmp_path / "out.tif", params={"time": "2021"})
        assert_is_the_map(tmp_path / "out.tif", size=512, zoom=7)
        assert server.requests[-1].path.startswith("/matrix/07/")
        assert server.requests[-1].query_string == "l=bright-2021-quad"
        with pytest.raises(UsageError, match="zoom 4 is below"):
            await plan_mosaic(place, AREA, zoom=4)


async def test_scales_that_a_wmts_rounds_are_still_those_of_web_mercator(tmp_path):
    server = MapServer()
    with running(server.app) as url:
        operations = GET_TILE.format(GET.format(href=f"{url}/kvp", encoding="KVP"))
        for number, (digits, size, zooms) in enumerate(
            [(2, 256, range(24)), (0, 256, range(8, 20)), (-2, 256, range(12)), (1, 512, range(22))]
        ):
            server.size = size
            server.documents["/wmts"] = capabilities(
                layer("a", {"q": ""}), matrix_set("q", URN, "{zoom}", digits=digits, size=size, zooms=zooms),
                operations=operations,
            )  # fmt: skip
            path, zoom = tmp_path / f"{number}.tif", 8 - (size == 512)
            await build_mosaic(f"{url}/wmts", AREA, path, zoom=zoom)
            assert_is_the_map(path, size=size, zoom=zoom)


async def test_a_dimension_without_a_default_is_left_to_the_wmts_or_the_user(tmp_path):
    server = MapServer()
    with running(server.app) as url:
        server.documents["/wmts"] = capabilities(
            layer("a", {"q": ""}).replace("<Default>2020</Default>", "<Default/>"), matrix_set("q", URN, "{zoom}"),
            operations=GET_TILE.format(GET.format(href=f"{url}/kvp", encoding="KVP")),
        )  # fmt: skip
        for params, time in (({}, "default"), ({"Time": "2021"}, "2021")):
            await build_mosaic(f"{url}/wmts", AREA, tmp_path / f"{time}.tif", zoom=ZOOM, params=params)
            assert_is_the_map(tmp_path / f"{time}.tif")
            assert server.requests[-1].query["TIME"] == time


@pytest.mark.parametrize(
    ("parts", "params", "words"),
    [
        ([layer("a", {"own": ""}), matrix_set("own", "urn:x:mars", "{zoom}")], {}, "own as the grid"),
        ([layer("a", {"inspire": ""}), DEGREES], {"layer": "z"}, "has no layer z"),
        ([layer("a", {"inspire": ""}), DEGREES], {"tilematrixset": "z"}, "has no tilematrixset z"),
        (["<Layer/>"], {}, "the WMTS has no layer"),
    ],
)
async def test_a_wmts_that_cannot_be_used_is_refused_with_the_reason(parts, params, words):
    server = MapServer(documents={"/wmts": capabilities(*parts)})
    with running(server.app) as url, pytest.raises(MosaicError, match=words):
        await plan_mosaic(f"{url}/wmts", AREA, zoom=ZOOM, params=params)


async def test_a_wms_and_a_page_are_told_apart_from_tiles(tmp_path):
    wms = b'<?xml version="1.0"?><WMS_Capabilities version="1.3.0"></WMS_Capabilities>'
    server = MapServer(documents={"/wms": (wms, "text/xml"), "/page": (b"<html><h1>hi</h1>", "text/html")})
    with running(server.app) as url:
        with pytest.raises(MosaicError, match="maps and no tiles") as error:
            await plan_mosaic(f"{url}/wms?REQUEST=GetCapabilities", AREA, zoom=ZOOM)
        assert "CRS=EPSG:3857&BBOX={bbox-epsg-3857}&WIDTH={width}" in str(error.value.hint)
        with pytest.raises(MosaicError, match="is not JSON"):
            await plan_mosaic(f"{url}/page", AREA, zoom=ZOOM)
        for number in ("/xyz/8/34/56.png", "/12/34/56@2x.png?key=abc"):  # one is there, the other is not
            with pytest.raises(MosaicError, match="JSON") as error:
                await plan_mosaic(f"{url}{number}", AREA, zoom=ZOOM)
            assert "/{z}/{x}/{y}" in str(error.value.hint)
        server.documents["/style.json"] = {"version": 8, "sources": {"a": {"type": "raster", "url": "/a.json"}}}
        with pytest.raises(MosaicError, match="the style of a map"):
            await plan_mosaic(f"{url}/style.json", AREA, zoom=ZOOM)
        server.documents["/ows"] = (b"<ExceptionReport><ExceptionText>no such service</ExceptionText>", "text/xml")
        with pytest.raises(MosaicError, match="capabilities of a WMTS: no such service"):
            await plan_mosaic(f"{url}/ows", AREA, zoom=ZOOM)
        with pytest.raises(MosaicError) as error:
            await plan_mosaic(f"{url}/wms?service=WMS&request=GetMap&bbox=1,2,3,4", AREA, zoom=ZOOM)
        assert "BBOX={bbox-epsg-3857}" in str(error.value.hint)
        with pytest.raises(MosaicError) as error:
            await plan_mosaic(f"{url}/kvp?REQUEST=GetTile&TILEMATRIX=8&TILEROW=90&TILECOL=129", AREA, zoom=ZOOM)
        assert "TILEROW={TileRow}" in str(error.value.hint)


def test_the_command_prints_what_a_tilejson_on_the_disk_leaves_out(tmp_path):
    with running(MapServer().app) as url:
        document = {"tiles": f"{url}/xyz/{{z}}/{{x}}/{{y}}.png", "maxzoom": ZOOM, "bounds": "everywhere"}
        (tmp_path / "tiles.json").write_text(json.dumps(document))
        stdout, stderr = run("plan", tmp_path / "tiles.json", "--bounds", *map(str, AREA))
    assert "tiles       4" in stdout
    assert stderr == "note: `bounds` of the TileJSON cannot be read and is left out\n"


SET = "http://www.opengis.net/def/tilematrixset/OGC/1.0/{}"


async def test_a_collection_of_ogc_api_tiles_leads_to_its_tileset_in_web_mercator(tmp_path):
    server = MapServer(
        documents={
            "/collections/a": {"id": "a", "links": [
                {"rel": "self", "href": "/collections/a"},
                {"rel": "http://www.opengis.net/def/rel/ogc/1.0/tilesets-map", "href": "/collections/a/map/tiles"},
            ]},
            "/collections/a/map/tiles": {"tilesets": [
                {"dataType": "vector", "tileMatrixSetURI": SET.format("WebMercatorQuad"),
                 "links": [{"rel": "self", "href": "/nowhere"}]},
                {"dataType": "map", "tileMatrixSetURI": SET.format("WorldCRS84Quad"),
                 "links": [{"rel": "self", "href": "/nowhere"}]},
                {"dataType": "map", "tileMatrixSetURI": SET.format("WebMercatorQuad"),
                 "links": [{"rel": "self", "href": "/collections/a/map/tiles/WebMercatorQuad?f=json"}]},
            ]},
            "/collections/a/map/tiles/WebMercatorQuad": {
                "dataType": "map", "tileMatrixSetURI": SET.format("WebMercatorQuad"),
                "boundingBox": {"lowerLeft": [0, 44], "upperRight": [6, 49]},
                "tileMatrixSetLimits": [{"tileMatrix": str(zoom), "minTileRow": 0} for zoom in (6, 7, 8)],
                "links": [
                    {"rel": "item", "type": "image/jpeg", "href": "/no/{tileMatrix}/{tileRow}/{tileCol}.jpg"},
                    {"rel": "item", "type": "image/png", "href": "/matrix/{tileMatrix}/{tileRow}/{tileCol}.png"},
                ],
            },
            "/vectors": {"dataType": "vector", "links": [
                {"rel": "item", "type": "application/vnd.mapbox-vector-tile", "href": "/{tileMatrix}/{tileRow}/x"}]},
            "/own": {"dataType": "map", "crs": "http://www.opengis.net/def/crs/EPSG/0/3857",
                     "boundingBox": {"lowerLeft": [0, 44], "upperRight": [6, 49]},
                     "tileMatrixSetLimits": [{"tileMatrix": "8", "minTileRow": 3, "maxTileRow": 4,
                                              "minTileCol": 0, "maxTileCol": 1}],
                     "links": [{"rel": "item", "type": "image/png", "href": "/{tileMatrix}/{tileRow}/{tileCol}"}]},
            "/landing": {"title": "a", "links": [{"rel": "data", "href": "/collections"}]},
            "/degrees": {"dataType": "map", "crs": "http://www.opengis.net/def/crs/EPSG/0/3035", "links": [
                {"rel": "item", "type": "image/png", "href": "/{tileMatrix}/{tileRow}/{tileCol}"}]},
        }
    )  # fmt: skip
    with running(server.app) as url:
        for place in ("/collections/a", "/collections/a/map/tiles", "/collections/a/map/tiles/WebMercatorQuad"):
            report = await build_mosaic(f"{url}{place}", AREA, tmp_path / f"{len(place)}.tif")
            assert_is_the_map(tmp_path / f"{len(place)}.tif")
            assert report.zoom == 8
        with pytest.raises(UsageError, match="zoom 9 is above"):
            await plan_mosaic(f"{url}/collections/a", AREA, zoom=9)
        with pytest.raises(MosaicError, match="vectors"):
            await plan_mosaic(f"{url}/vectors", AREA, zoom=8)
        with pytest.raises(MosaicError, match="limits that are not those of its bounds"):
            await plan_mosaic(f"{url}/own", AREA, zoom=8)
        with pytest.raises(MosaicError, match="links to no tiles of images"):
            await plan_mosaic(f"{url}/landing", AREA, zoom=8)
        with pytest.raises(MosaicError, match="EPSG/0/3035 as the grid"):
            await plan_mosaic(f"{url}/degrees", AREA, zoom=8)


def arcgis(*, first: int = 0, wkid: int = 102100, origin: float = 20037508.342787, **more: object) -> dict[str, object]:
    resolutions = [(level, 156543.03392800014 / 2 ** (level + first)) for level in range(9 - first)]
    lods = [
        {"level": level, "resolution": size, "scale": 591657527.591555 / 2 ** (level + first)}
        for level, size in resolutions
    ]
    reference = {"wkid": wkid, "latestWkid": {102100: 3857}.get(wkid, wkid)}
    return {
        "currentVersion": 10.9, "mapName": "Layers", "singleFusedMapCache": True, "capabilities": "Map",
        "tileInfo": {"rows": 256, "cols": 256, "format": "PNG32", "origin": {"x": -origin, "y": origin},
                     "spatialReference": reference, "lods": lods},
        "fullExtent": {"xmin": 0, "ymin": 5465442.2, "xmax": 667916.9, "ymax": 6274861.4,
                       "spatialReference": {"wkid": 102100, "latestWkid": 3857}},
        **more,
    }  # fmt: skip


async def test_a_cached_map_service_has_levels_that_may_begin_at_any_zoom(tmp_path):
    for first in (0, 5):
        server = MapServer(first_zoom=first, documents={"/a/MapServer": arcgis(first=first)})
        with running(server.app) as url:
            place = f"{url}/a/MapServer?token=abc"
            report = await build_mosaic(place, AREA, tmp_path / f"{first}.tif")
            assert_is_the_map(tmp_path / f"{first}.tif")
            assert report.zoom == 8
            assert server.requests[0].query_string == "token=abc&f=json"
            assert server.requests[-1].query_string == "token=abc"
            with pytest.raises(UsageError, match="zoom 9 is above"):
                await plan_mosaic(place, AREA, zoom=9)
            with pytest.raises(RefusedError, match="outside"):
                await plan_mosaic(place, (46, 2, 47, 3.5))


def test_descriptions_on_the_disk_are_sources_too_and_say_what_they_lack(tmp_path):
    server = MapServer()
    with running(server.app) as url:
        item = {"rel": "item", "type": "image/png", "href": url + "/matrix/{tileMatrix}/{tileRow}/{tileCol}.png"}
        files = {
            "tiles": {"dataType": "map", "tileMatrixSetURI": SET.format("WebMercatorQuad"), "links": [item]},
            "relative": {"dataType": "map", "links": [{**item, "href": "/{tileMatrix}/{tileRow}/{tileCol}"}]},
            "service": arcgis(),
            "image": {"name": "heights", "pixelSizeX": 10, "extent": {}},
        }
        for name, document in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        run("build", tmp_path / "tiles.json", tmp_path / "out.tif", "--bounds", *AREA, "-z", ZOOM)
        assert_is_the_map(tmp_path / "out.tif")
        for name in ("service", "image"):
            _, stderr = run("plan", tmp_path / f"{name}.json", "--bounds", *AREA, "-z", ZOOM, code=4)
            assert "pass the URL of the service" in stderr
        _, stderr = run("plan", tmp_path / "relative.json", "--bounds", *AREA, "-z", ZOOM, code=2)
        assert "http" in stderr
        server.documents["/wmts"] = capabilities(
            layer("a", {"google": ""}, urls=f'<ResourceURL format="image/png" resourceType="tile" template="{url}'
                  '/matrix/{{TileMatrix}}/{{TileRow}}/{{TileCol}}.png"/>'.replace("{{", "{").replace("}}", "}")),
            matrix_set("google", URN, "{zoom}"),
        )  # fmt: skip
        _, stderr = run("plan", f"{url}/wmts", "--bounds", *AREA, "-z", ZOOM)
        assert "no limits, so its zooms are those of google, 0 to 11; set the zoom" in stderr


async def test_map_and_image_services_without_a_cache_draw_the_tiles(tmp_path):
    drawn = {**arcgis(), "singleFusedMapCache": False}
    image = {"name": "heights", "pixelSizeX": 611.496226281, "pixelType": "U8", "extent": drawn["fullExtent"]}
    server = MapServer(documents={"/a/MapServer": drawn, "/a/ImageServer": image})
    with running(server.app) as url:
        await build_mosaic(f"{url}/a/MapServer/", AREA, tmp_path / "map.tif", zoom=ZOOM, params={"layers": "show:1"})
        assert_is_the_map(tmp_path / "map.tif")
        query = server.requests[-1].query
        assert (query["format"], query["imageSR"], query["layers"]) == ("png32", "3857", "show:1")
        report = await build_mosaic(f"{url}/a/ImageServer", AREA, tmp_path / "image.tif")
        assert_is_the_map(tmp_path / "image.tif")
        assert (report.zoom, server.requests[-1].query["format"]) == (8, "tiff")
        with pytest.raises(UsageError, match="does not state its zooms"):
            await plan_mosaic(f"{url}/a/MapServer", AREA)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"error": {"code": 499, "message": "Token Required", "details": []}}, "Token Required"),
        (arcgis(wkid=2154), "EPSG:2154 as the grid"),
        (arcgis(origin=0.0), "EPSG:3857 with levels of its own"),
        ({"mapName": "a", "tileInfo": {"rows": 256}}, "malformed tileInfo"),
    ],
)
async def test_a_service_that_cannot_be_used_is_refused_with_the_reason(document, words):
    server = MapServer(documents={"/a/MapServer": document})
    with running(server.app) as url, pytest.raises(MosaicError, match=words):
        await plan_mosaic(f"{url}/a/MapServer", AREA, zoom=ZOOM)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize("entities", [f'<!ENTITY l0 "ha">{LAUGHS}', '<!ENTITY l9 SYSTEM "file:///etc/passwd">'])
async def test_capabilities_cannot_expand_without_end_or_read_files(entities):
    inner = capabilities(layer("&l9;", {"inspire": ""}), DEGREES)[0].decode()
    body = f"<!DOCTYPE Capabilities [{entities}]>{inner}".encode()
    server = MapServer(documents={"/wmts": (body, "text/xml")})
    with running(server.app) as url, pytest.raises(MosaicError) as error:
        await plan_mosaic(f"{url}/wmts", AREA, zoom=ZOOM)
    assert "root" not in str(error.value)
    assert len(str(error.value)) < 1000


TITILER = """
from fastapi import FastAPI
from titiler.core.factory import TilerFactory
app = FastAPI()
app.include_router(TilerFactory(router_prefix="/cog").router, prefix="/cog")
"""


@pytest.mark.slow
async def test_titiler_s_list_of_tilesets_leads_to_the_pixels_of_its_file(tmp_path):
    (tmp_path / "app.py").write_text(TITILER)
    x0, y0, size = 129 * 256, 90 * 256, 512
    (tmp_path / "land.tif").write_bytes(map_body(x0, y0, size, "tif"))
    with uvicorn_of(Path(sys.executable), "app:app", tmp_path) as url:
        for place in ("/cog/tiles", "/cog/tiles/WebMercatorQuad"):
            source, output = f"{url}{place}?url={tmp_path}/land.tif", tmp_path / f"{len(place)}.tif"
            await build_mosaic(source, AREA, output, zoom=ZOOM, params={"tilesize": "256", "format": "png"})
            with rasterio.open(output) as dataset:
                np.testing.assert_array_equal(dataset.read(), PATTERN.expected(x0, y0, size, size)[0])
                assert dataset.dataset_mask().all()
