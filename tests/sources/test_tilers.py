"""Tilers as sources: real TiTilers of two generations, and stand-ins that follow the contracts of others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import mercantile
import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import SourceError, TileSource, UsageError, build_mosaic
from mosaic_async.sources.dialects import DIALECTS
from mosaic_async.sources.openapi import kind_of, open_endpoint
from mosaic_async.sources.rendering import Rendering, split_formulas
from mosaic_async.sources.tilers import awspds_mosaic, titiler_mosaic, titiler_search, with_rendering
from mosaic_async.stac import create_mosaic
from tests.cli.test_main import run
from tests.conftest import PARANA
from tests.fake_tiler import Pattern, encode
from tests.loopback import SERVERS, environment, running, uvicorn_of
from tests.tiler.test_mosaics import assert_holds, mosaic_directly, scenes_of

pytestmark = pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid")  # rio-tiler: missing

PLACE = (-54.9, -25.45, -54.75, -25.3)
APP = """
from fastapi import FastAPI
from rio_tiler.io import STACReader
from titiler.core import dependencies
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.mosaic.errors import MOSAIC_STATUS_CODES
from titiler.mosaic.factory import MosaicTilerFactory

try:
    from cogeo_mosaic.backends import MosaicBackend
    backend = {"backend": MosaicBackend}
    assets = dependencies.AssetsExprParams
except AttributeError:  # the generations before 2
    backend = {}
    assets = dependencies.AssetsBidxExprParams
app = FastAPI(title="TiTiler")
for prefix, options in (
    ("/mosaicjson", {}), ("/stac", {"dataset_reader": STACReader, "layer_dependency": assets})
):
    factory = MosaicTilerFactory(router_prefix=prefix, **backend, **options)
    app.include_router(factory.router, prefix=prefix)
add_exception_handlers(app, DEFAULT_STATUS_CODES)
add_exception_handlers(app, MOSAIC_STATUS_CODES)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two MosaicJSONs of the sample scenes: of items, and of the files of one band."""
    path = tmp_path_factory.mktemp("endpoints")
    (path / "tiler.py").write_text(APP)
    (path / "items.json").write_text(json.dumps(create_mosaic({}, items=PARANA).document))
    (path / "files.json").write_text(json.dumps(create_mosaic({}, items=PARANA, asset="B4").document))
    return path


@pytest.fixture(scope="module")
def titiler(folder) -> Iterator[str]:
    """A TiTiler 2 of this project's own environment."""
    with uvicorn_of(Path(sys.executable), "tiler:app", folder) as url:
        yield url


@pytest.fixture(scope="module")
def old_titiler(folder) -> Iterator[str]:
    """A TiTiler 0.11 in an environment of its own, which is kept for the next time."""
    try:
        python = environment(".venv-servers", SERVERS)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"TiTiler 0.11 cannot be installed here: {type(error).__name__}")
    with uvicorn_of(python, "tiler:app", folder) as url:
        yield url


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0


# TiTiler 2 -----------------------------------------------------------------------------------------------------------


async def test_titiler_2_renders_a_mosaic_of_items_as_rio_tiler_does(titiler, folder, tmp_path):
    rendering = Rendering(bands=["B4", "B3"], pixel_selection="highest", resampling="bilinear")
    source = await titiler_mosaic(f"{titiler}/stac", str(folder / "items.json"), rendering=rendering)
    assert (source.tile_size, source.minzoom, source.maxzoom) == (512, 6, 11)
    report = await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
    assert report.tiles_placed > 0
    pixels, valid = mosaic_directly(
        PLACE, 10, scenes=scenes_of(PARANA), assets=["B4", "B3"], selection="highest", slivers=False
    )
    assert_holds(tmp_path / "out.tif", pixels, valid)


async def test_titiler_2_renders_an_expression_over_asset_names(titiler, folder, tmp_path):
    ratio = Rendering(expression="B4*2, where(B3>0, B4-B3, 0)")
    bands = Rendering(bands=["B4", "B3"])
    for name, rendering in (("ratio", ratio), ("bands", bands)):
        source = await titiler_mosaic(f"{titiler}/stac", str(folder / "items.json"), rendering=rendering, tile_size=256)
        await build_mosaic(source, PLACE, tmp_path / f"{name}.tif", zoom=10)
    (red, green), valid = read(tmp_path / "bands.tif")
    (twice, difference), _ = read(tmp_path / "ratio.tif")
    assert valid.any()
    np.testing.assert_array_equal(twice[valid], 2 * red[valid].astype(int))
    np.testing.assert_array_equal(difference[valid], red[valid].astype(int) - green[valid])


async def test_titiler_2_renders_a_mosaic_of_plain_files_by_band_number(titiler, folder, tmp_path):
    items = await titiler_mosaic(f"{titiler}/stac", str(folder / "items.json"), rendering=Rendering(bands=["B4"]))
    # Of the two groups of routes the one of plain files is meant when the tiler's own URL is given.
    files = await titiler_mosaic(titiler, str(folder / "files.json"), rendering=Rendering(bands=["1"]))
    assert "/mosaicjson/tiles/WebMercatorQuad/" in files.template
    for name, source in (("items", items), ("files", files)):
        await build_mosaic(source, PLACE, tmp_path / f"{name}.tif", zoom=10)
    for one, other in zip(read(tmp_path / "items.tif"), read(tmp_path / "files.tif"), strict=True):
        np.testing.assert_array_equal(one, other)


async def test_titiler_2_is_asked_for_any_size_and_stretch_and_colours(titiler, folder, tmp_path):
    rendering = Rendering(bands=["B4", "B3", "B2"], rescale=[(5000, 15000)], color_formula="gamma RGB 1.2")
    source = await titiler_mosaic(
        f"{titiler}/stac", str(folder / "items.json"), rendering=rendering, tile_size=128, tile_format="png"
    )
    report = await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=11)
    assert report.tile_size == 128
    found, _ = read(tmp_path / "out.tif")
    assert (found.dtype, len(found)) == ("uint8", 3)


@pytest.mark.parametrize(
    ("rendering", "says"),
    [
        (Rendering(bands=["B4"], pixel_selection="darkest"), "no pixel selection darkest"),
        (Rendering(), "does not know which assets"),
    ],
)
async def test_what_titiler_2_cannot_do_is_refused_with_the_reason(titiler, folder, rendering, says):
    with pytest.raises(UsageError, match=says):
        await titiler_mosaic(f"{titiler}/stac", str(folder / "items.json"), rendering=rendering)


async def test_names_for_plain_files_and_mosaics_that_are_not_there_are_refused(titiler, folder):
    with pytest.raises(UsageError, match="have numbers and not names"):
        await titiler_mosaic(titiler, str(folder / "files.json"), rendering=Rendering(bands=["red"]))
    with pytest.raises(SourceError, match="No such file"):
        await titiler_mosaic(titiler, str(folder / "missing.json"), rendering=Rendering(bands=["1"]))
    with pytest.raises(SourceError, match="has no OpenAPI description"), running(web.Application()) as url:
        await titiler_mosaic(url, "https://host/mosaic.json", rendering=Rendering())
    with pytest.raises(SourceError, match="no answer from"):
        await titiler_mosaic("http://127.0.0.1:9", "https://host/mosaic.json", rendering=Rendering())


# TiTiler 0.11 --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_titiler_0_11_renders_the_same_mosaic_with_its_own_words(old_titiler, titiler, folder, tmp_path):
    rendering = Rendering(bands=["B4", "B3"], pixel_selection="lowest")
    for name, url in (("old", old_titiler), ("new", titiler)):
        source = await titiler_mosaic(f"{url}/stac", str(folder / "items.json"), rendering=rendering)
        await build_mosaic(source, PLACE, tmp_path / f"{name}.tif", zoom=10)
    old = await titiler_mosaic(f"{old_titiler}/stac", str(folder / "items.json"), rendering=rendering)
    assert "@2x.tif" in old.template
    (before, valid_before), (after, valid) = read(tmp_path / "old.tif"), read(tmp_path / "new.tif")
    assert valid.any()
    both = valid & valid_before
    assert both.mean() > 0.98 * valid.mean()
    assert (before[:, both] == after[:, both]).mean() > 0.98


@pytest.mark.slow
async def test_titiler_0_11_renders_an_expression_over_asset_names(old_titiler, folder, tmp_path):
    for name, rendering in (("bands", Rendering(bands=["B4"])), ("twice", Rendering(expression="B4*2;B4-B3"))):
        source = await titiler_mosaic(f"{old_titiler}/stac", str(folder / "items.json"), rendering=rendering)
        await build_mosaic(source, PLACE, tmp_path / f"{name}.tif", zoom=10)
    (red,), valid = read(tmp_path / "bands.tif")
    (twice, _), _ = read(tmp_path / "twice.tif")
    np.testing.assert_array_equal(twice[valid], 2 * red[valid].astype(int))


@pytest.mark.slow
async def test_an_empty_tile_of_titiler_0_11_is_a_404_and_no_failure(old_titiler, folder, tmp_path):
    source = await titiler_mosaic(
        f"{old_titiler}/stac", str(folder / "items.json"), rendering=Rendering(bands=["B4"]), tile_size=256
    )
    report = await build_mosaic(source, (-58, -26, -54.5, -25), tmp_path / "out.tif", zoom=8)
    assert report.tiles_empty > 0
    assert report.tiles_placed > 0


@pytest.mark.slow
async def test_what_titiler_0_11_cannot_do_is_refused_with_the_reason(old_titiler, folder):
    mosaic = str(folder / "items.json")
    with pytest.raises(UsageError, match="no pixel selection lastbandhigh"):
        await titiler_mosaic(
            f"{old_titiler}/stac", mosaic, rendering=Rendering(bands=["B4"], pixel_selection="lastband")
        )
    with pytest.raises(UsageError, match="no tiles of 300 pixels"):
        await titiler_mosaic(f"{old_titiler}/stac", mosaic, rendering=Rendering(bands=["B4"]), tile_size=300)


class OldTitiler:
    """What TiTiler 0.11 answers, without it: its own description of its routes, and tiles of its contract."""

    DESCRIPTION = Path(__file__).with_name("titiler_0_11.json")
    """From a real one; of the routes those that are requested."""

    def __init__(self) -> None:
        self.queries: list[list[tuple[str, str]]] = []
        """Of tiles."""
        self.pattern = Pattern(count=2, dtype="uint16")

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/openapi.json", self.describe)
        app.router.add_get("/stac/WebMercatorQuad/tilejson.json", self.tilejson)
        app.router.add_get(r"/stac/tiles/WebMercatorQuad/{z}/{x}/{y:\d+}@{scale}x.tif", self.tile)
        return app

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response(text=self.DESCRIPTION.read_text())

    async def tilejson(self, request: web.Request) -> web.Response:
        return web.json_response({"tiles": ["http://inside/{z}/{x}/{y}@1x"], "minzoom": 6, "maxzoom": 11})

    async def tile(self, request: web.Request) -> web.Response:
        self.queries.append(list(request.query.items()))
        z, x, y = (int(request.match_info[name]) for name in "zxy")
        if x % 2:
            return web.json_response({"detail": "Method returned an empty array"}, status=404)
        size = 256 * int(request.match_info["scale"])
        pixels, mask = self.pattern.expected(x * size, y * size, size, size)
        return web.Response(body=encode(pixels, mask, "tif", mercantile.xy_bounds(x, y, z)), content_type="image/tiff")


async def test_titiler_0_11_is_requested_in_its_own_words_and_its_404_is_an_empty_tile(tmp_path):
    server, mosaic = OldTitiler(), "https://host/items.json"
    rendering = Rendering(expression="B4*2;B4-B3", pixel_selection="lowest")
    with running(server.app()) as url:
        source = await titiler_mosaic(f"{url}/stac", mosaic, rendering=rendering)
        assert (source.tile_size, source.minzoom, source.maxzoom) == (512, 6, 11)
        assert "@2x.tif" in source.template
        report = await build_mosaic(source, (0.1, 45.1, 11, 47), tmp_path / "out.tif", zoom=7)
        with pytest.raises(UsageError, match="no pixel selection lastbandhigh"):
            await titiler_mosaic(url + "/stac", mosaic, rendering=Rendering(bands=["B4"], pixel_selection="lastband"))
        with pytest.raises(UsageError, match="no tiles of 300 pixels"):
            await titiler_mosaic(url + "/stac", mosaic, rendering=Rendering(bands=["B4"]), tile_size=300)
    assert report.tiles_empty > 0
    assert report.tiles_placed > 0
    assert server.queries[0] == [
        ("url", mosaic), ("assets", "B4"), ("assets", "B3"), ("asset_as_band", "true"), ("expression", "B4*2;B4-B3"),
        ("pixel_selection", "lowest"),
    ]  # fmt: skip
    found, valid = read(tmp_path / "out.tif")
    tile = mercantile.tile(0.1, 47, 7)
    assert tile.x % 2 == 0
    pixels, there = server.pattern.expected(tile.x * 512, tile.y * 512, 512, 512)
    np.testing.assert_array_equal(valid[:512, :512], there)
    np.testing.assert_array_equal(found[:, :512, :512][:, there], pixels[:, there])


# awspds-mosaic -------------------------------------------------------------------------------------------------------


class Awspds:
    """What awspds-mosaic answers: routes, parameters, statuses and tiles of its contract, over a pattern."""

    ALLOWED = frozenset({"bands", "expr", "rescale", "color_ops", "color_map", "pixel_selection"})
    METHODS = frozenset({"first", "highest", "lowest", "mean", "median", "stdev", "all", "count", "lastband"})

    def __init__(self) -> None:
        self.created: list[tuple[dict, dict]] = []
        self.tiles: list[tuple[str, dict]] = []
        self.pattern = Pattern(dtype="uint8")

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/mosaic/create", self.create)
        app.router.add_get("/mosaic/openapi.json", self.describe)
        for prefix in ("tiles", "batch"):
            app.router.add_get(rf"/{prefix}/{{id:[0-9a-f]{{56}}}}/{{z}}/{{x}}/{{y:\d+}}@{{scale}}x.{{ext}}", self.tile)
        return app

    async def describe(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"openapi": "3.0.2", "info": {"title": "awspds"}, "paths": {"/mosaic/create": {"post": {}}}}
        )

    async def create(self, request: web.Request) -> web.Response:
        body, query = await request.json(), dict(request.query)
        self.created.append((body, query))
        if "query" not in body:
            return web.json_response({"errorMessage": "'query'"}, status=500)
        scale, ext = query.get("tile_scale", "1"), query.get("tile_format", "png")
        known = {
            "minzoom", "maxzoom", "optimized_selection", "maximum_items_per_tile", "stac_collection_limit", "seasons",
            "tile_format", "tile_scale",
        }  # fmt: skip
        extras = "&".join(f"{key}={value}" for key, value in query.items() if key not in known)
        url = f"{request.url.origin()}/tiles/{'0a' * 28}/{{z}}/{{x}}/{{y}}@{scale}x.{ext}?{extras}"
        zooms = {"minzoom": int(query.get("minzoom", 7)), "maxzoom": int(query.get("maxzoom", 12))}
        bounds = {"bounds": [-5.2, 47.2, -0.9, 48.95], "center": [-3, 48, 7]}
        return web.json_response({**bounds, **zooms, "name": "0a" * 28, "tilejson": "2.1.0", "tiles": [url]})

    async def tile(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.tiles.append((request.path.split("/")[1], query))
        if unknown := query.keys() - self.ALLOWED:
            return web.json_response({"errorMessage": f"unexpected keyword argument {unknown}"}, status=500)
        if query.get("pixel_selection", "first") not in self.METHODS:
            return web.json_response({"errorMessage": query["pixel_selection"]}, status=500)
        if "bands" not in query and "expr" not in query:
            return web.json_response({"errorMessage": "No bands nor expression given"}, status=400)
        z, x, y = (int(request.match_info[name]) for name in "zxy")
        size = 256 * int(request.match_info["scale"])
        pixels, mask = self.pattern.expected(x * size, y * size, size, size)
        half = 20037508.342789244
        side = 2 * half / 2**z
        west, north = -half + x * side, half - y * side
        body = encode(pixels, mask, "tif", (west, north - side, west + side, north))
        return web.Response(body=body, content_type="image/tiff")


async def test_awspds_makes_a_mosaic_of_a_search_and_its_batch_tiles_are_built(tmp_path):
    server = Awspds()
    search = {
        "bbox": [-5.2, 47.2, -0.9, 48.95],
        "time": "2019-01-01/2019-12-31",
        "query": {"eo:cloud_cover": {"lt": 5}},
    }
    rendering = Rendering(
        expression="B4;B3;B2;(b5-b4)/(b5+b4)", pixel_selection="lastbandhigh", rescale=[(0, 10000)],
        color_formula="gamma RGB 3.5, saturation 1.7",
    )  # fmt: skip
    with running(server.app()) as url:
        source = await awspds_mosaic(
            url, search, rendering=rendering, minzoom=9, seasons=["spring", "summer"], optimized_selection=True
        )
        assert kind_of(await open_endpoint(url)) == "awspds"
        report = await build_mosaic(source, (-4, 48, -3.5, 48.3), tmp_path / "out.tif", zoom=10)
    assert server.created == [
        (
            search,
            {
                "minzoom": "9", "maxzoom": "12", "optimized_selection": "True", "maximum_items_per_tile": "0",
                "tile_format": "tif", "tile_scale": "2", "seasons": "spring,summer",
            },
        )
    ]  # fmt: skip
    assert (source.tile_size, source.minzoom, source.maxzoom) == (512, 9, 12)
    wanted = {
        "expr": "b4,b3,b2,(b5-b4)/(b5+b4)", "pixel_selection": "lastband", "rescale": "0,10000",
        "color_ops": "gamma RGB 3.5, saturation 1.7",
    }  # fmt: skip
    assert server.tiles[0] == ("batch", wanted)
    assert report.tiles_placed == len(server.tiles)
    found, valid = read(tmp_path / "out.tif")
    assert 0.5 < valid.mean() < 0.9
    left, top = corner(tmp_path / "out.tif", 10, 512)
    pixels, mask = server.pattern.expected(left, top, *valid.shape)
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(found[:, mask], pixels[:, mask])


def corner(path: Path, zoom: int, size: int) -> tuple[int, int]:
    """Return the global pixel of a mosaic's upper left corner."""
    with rasterio.open(path) as dataset:
        resolution = 2 * 20037508.342789244 / 2**zoom / size
        return (
            round((dataset.bounds.left + 20037508.342789244) / resolution),
            round((20037508.342789244 - dataset.bounds.top) / resolution),
        )


async def test_bands_for_awspds_are_numbers_and_a_search_without_query_gets_one():
    server = Awspds()
    with running(server.app()) as url:
        source = await awspds_mosaic(url, {"bbox": [0, 0, 1, 1]}, rendering=Rendering(bands=["B4", "3"]), batch=False)
    assert dict(parse_qsl(urlsplit(source.template).query)) == {"bands": "4,3"}
    assert "/tiles/" in source.template
    assert server.created[0][0] == {"query": {}, "bbox": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rendering": Rendering(bands=["4"], resampling="cubic")}, "always resamples bilinearly"),
        ({"rendering": Rendering(bands=["4"], rescale=[(0, 1), (0, 2)])}, "stretches all bands alike"),
        ({"rendering": Rendering(bands=["4"], pixel_selection="lastbandlow")}, "no pixel selection lastbandlow"),
        ({"rendering": Rendering(bands=["red"])}, "by number"),
        ({"rendering": Rendering()}, "does not know which bands"),
        ({"rendering": Rendering(bands=["4"]), "tile_size": 300}, "no tiles of 300"),
        ({"rendering": Rendering(bands=["4"]), "tile_format": "npy"}, "pickled"),
    ],
)
async def test_what_awspds_cannot_do_is_refused_and_never_sent(options, says):
    with pytest.raises(UsageError, match=says):
        await awspds_mosaic("http://127.0.0.1:9", {}, **options)


# Dialects ------------------------------------------------------------------------------------------------------------


def sent(source: TileSource) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(source.template).query)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("awspds", [("expr", "b5,(b5-b4)/(b5+b4)"), ("pixel_selection", "lastband"), ("color_ops", "gamma G 2")]),
        (
            "titiler-0.18",
            [
                ("assets", "B5"), ("assets", "B4"), ("asset_as_band", "true"), ("expression", "B5;(B5-B4)/(B5+B4)"),
                ("pixel_selection", "lastbandhight"), ("color_formula", "gamma G 2"),
            ],
        ),
        (
            "titiler-2",
            [
                ("assets", "B5"), ("assets", "B4"), ("expression", "b1;(b1-b2)/(b1+b2)"),
                ("pixel_selection", "lastbandhigh"), ("color_formula", "gamma G 2"),
            ],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("separator", [",", ";"])
def test_one_rendering_is_written_in_each_dialect(dialect, expected, separator):
    rendering = Rendering(
        expression=f"B5{separator}(B5-B4)/(B5+B4)", pixel_selection="lastband", color_formula="gamma G 2"
    )
    assert sent(with_rendering("http://host/{z}/{x}/{y}.tif", dialect, rendering)) == expected


@pytest.mark.parametrize(
    ("rendering", "expected"),
    [
        (Rendering(bands=["4", "3"]), [("bidx", "4"), ("bidx", "3")]),
        (Rendering(bands=["B4", "B3"]), [("assets", "B4"), ("assets", "B3")]),
        (Rendering(expression="b1/b2"), [("expression", "b1/b2")]),
        (
            Rendering(expression="red/nir"),
            [("assets", "red"), ("assets", "nir"), ("asset_as_band", "true"), ("expression", "red/nir")],
        ),
    ],
)
def test_numbers_are_bands_of_files_and_names_are_assets_where_a_tiler_may_read_either(rendering, expected):
    assert sent(with_rendering("http://host/{z}/{x}/{y}.tif", "titiler-0.18", rendering)) == expected


def test_commas_inside_of_brackets_separate_no_formulas():
    assert split_formulas("where(a>b, a, b), c;max(a,(b,c))") == ["where(a>b, a, b)", "c", "max(a,(b,c))"]


def test_a_dialect_that_does_not_exist_is_refused_and_every_dialect_has_its_name():
    assert all(name == dialect.name for name, dialect in DIALECTS.items())
    with pytest.raises(UsageError, match="titiler-2"):
        with_rendering("http://host/{z}/{x}/{y}.tif", "mapbox", Rendering(bands=["1"]))


# Planetary Computer --------------------------------------------------------------------------------------------------


class PlanetaryComputer:
    """Its tiler's contract: `searchid`, `@2x`, a collection in every tile's query, and no description of itself."""

    def __init__(self) -> None:
        self.registered: list[dict] = []
        self.queries: list[list[tuple[str, str]]] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/data/v1/mosaic/register", self.register)
        base = "/api/data/v1/mosaic/cafe/"
        app.router.add_get(base + "WebMercatorQuad/tilejson.json", self.tilejson)
        app.router.add_get(base + r"tiles/WebMercatorQuad/{z}/{x}/{y:\d+}@{scale}x.{ext}", self.tile)
        app.router.add_get(base + "{z}/{x}/{y}/assets", self.assets)
        return app

    async def register(self, request: web.Request) -> web.Response:
        self.registered.append(await request.json())
        return web.json_response({"searchid": "cafe", "links": []})

    async def assets(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def tilejson(self, request: web.Request) -> web.Response:
        if "collection" not in request.query:
            return web.json_response({"detail": [{"loc": ["query", "collection"], "msg": "missing"}]}, status=422)
        return web.json_response({"tiles": ["http://inside/{z}/{x}/{y}"], "minzoom": 8, "maxzoom": 13})

    async def tile(self, request: web.Request) -> web.Response:
        self.queries.append(list(request.query.items()))
        if "collection" not in request.query:
            return web.json_response({"detail": "collection"}, status=422)
        z, x, y = (int(request.match_info[name].partition(".")[0]) for name in "zxy")
        bounds = mercantile.xy_bounds(x, y, z)
        body = encode(np.ones((1, 512, 512), "uint16"), np.ones((512, 512), bool), "tif", bounds)
        return web.Response(body=body, content_type="image/tiff")


async def test_planetary_computer_gets_the_collection_with_every_tile_and_its_limit_is_noted(tmp_path):
    server = PlanetaryComputer()
    search = {
        "collections": ["landsat-c2-l2"],
        "bbox": [-5, 47, -1, 49],
        "filter": {"op": "<", "args": [{"property": "eo:cloud_cover"}, 5]},
    }
    rendering = Rendering(bands=["red"], pixel_selection="median")
    with running(server.app()) as url:
        source = await titiler_search(f"{url}/api/data/v1", search, rendering=rendering, dialect="planetary-computer")
        await build_mosaic(source, (-4, 48, -3.9, 48.1), tmp_path / "out.tif", zoom=11)
        with pytest.raises(UsageError, match="renders one collection"):
            await titiler_search(f"{url}/api/data/v1", {}, rendering=rendering, dialect="planetary-computer")
    assert server.registered[0]["filter-lang"] == "cql2-json"
    assert {("collection", "landsat-c2-l2"), ("assets", "red"), ("exitwhenfull", "false")} <= set(server.queries[0])
    assert (source.tile_size, source.minzoom, source.maxzoom) == (512, 8, 13)
    assert "at most 10 scenes per tile" in source.notes[0]


# The command line ----------------------------------------------------------------------------------------------------

BOUNDS = ("--bounds", "-54.9", "-25.45", "-54.75", "-25.3", "-z", "10", "--json")


def test_build_has_a_titiler_render_a_mosaic(titiler, folder, tmp_path):
    look = ("--bands", "B4,B3", "--pixel-selection", "median", "--resampling", "bilinear")
    stdout, _ = run("build", folder / "items.json", tmp_path / "out.tif", "--tiler", f"{titiler}/stac", *look, *BOUNDS)
    assert json.loads(stdout)["tiles_placed"] > 0
    pixels, valid = mosaic_directly(
        PLACE, 10, scenes=scenes_of(PARANA), assets=["B4", "B3"], selection="median", slivers=False
    )
    assert_holds(tmp_path / "out.tif", pixels, valid)
    args = ("plan", folder / "items.json", "--tiler", f"{titiler}/stac", *BOUNDS)
    _, stderr = run(*args, "--bands", "B4", "--pixel-selection", "darkest", code=2)
    assert "no pixel selection darkest" in stderr


def test_build_has_awspds_render_a_search(tmp_path):
    server = Awspds()
    search = tmp_path / "search.json"
    search.write_text(json.dumps({"bbox": [-5.2, 47.2, -0.9, 48.95], "query": {}}))
    bounds = ("--bounds", "-4", "48", "-3.9", "48.1", "-z", "10", "--json")
    with running(server.app()) as url:
        stdout, _ = run("build", search, tmp_path / "out.tif", "--tiler", url, "--bands", "4,3,2", *bounds)
        _, stderr = run(
            "build", tmp_path / "no.json", tmp_path / "a.tif", "--tiler", url, "--bands", "4", *bounds, code=2
        )
    assert json.loads(stdout)["tiles_placed"] == len(server.tiles) > 0
    assert "is not a search" in stderr


def test_a_tile_url_takes_a_rendering_when_its_dialect_is_named(serve, tmp_path):
    tiler = serve()
    look = ("--dialect", "awspds", "--bands", "B4,B3", "--pixel-selection", "lastband")
    run("build", tiler.template, tmp_path / "out.tif", "--bounds", "-4", "38", "4", "44", "-z", "7", *look)
    assert dict(parse_qsl(tiler.queries_seen[0])) == {"bands": "4,3", "pixel_selection": "lastband"}
    _, stderr = run("plan", tiler.template, "--bounds", "0", "0", "1", "1", "-z", "7", "--bands", "4", code=2)
    assert "--dialect" in stderr


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "changes",
    [
        {"tiles": {"a": "https://h/{z}/{x}/{y}.tif"}},
        {"tiles": [7]},
        {"maxzoom": "low"},
        {"maxzoom": 99},
        {"scheme": "zxy"},
        {"tileSize": -1},
    ],
    ids=repr,
)
async def test_a_malformed_tilejson_of_a_tiler_is_a_source_error(changes):
    async def create(request: web.Request) -> web.Response:
        told = {"tiles": ["https://h/{z}/{x}/{y}.tif"], "minzoom": 3, "maxzoom": 9, "bounds": [0, 0, 1, 1]}
        return web.json_response({**told, **changes})

    app = web.Application()
    app.router.add_post("/mosaic/create", create)
    with running(app) as url, pytest.raises(SourceError, match="malformed TileJSON"):
        await awspds_mosaic(url, {}, rendering=Rendering(bands=["4"]))
