"""From a search to a mosaic as the README prints it: against a STAC API, a folder, an item collection, stac-geoparquet.

The same scenes make the same file, byte for byte, whatever they are read from.
"""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pystac
import pytest
import rustac
from aiohttp import web

from mosaic_async.tiler import open_mosaic
from mosaic_async.tiler.scenes.scene import open_scene
from tests.cli.test_main import run
from tests.conftest import PARANA
from tests.loopback import running
from tests.stac.test_mosaicjson import items_of

BOUNDS = ("--bounds", "-54.8", "-25.4", "-54.7", "-25.3", "-z", "9")
RENDERING = ("--bands", "B4,B3,B2", "--pixel-selection", "median")
SEARCH = {"datetime": "2020", "sortby": [{"field": "id", "direction": "asc"}]}


@contextmanager
def stac_api(*, absolute: bool = False, token: str | None = None, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve Paraná's items, one per page, at URLs without `.json`; their assets have relative or absolute hrefs."""
    items = {one["id"]: one for one in items_of(PARANA)}
    requests: list[web.Request] = []

    def item(request: web.Request, name: str) -> dict:
        root = f"{request.scheme}://{request.host}"
        own = f"{root}/collections/c/items/{name}"
        assets = {
            key: {**asset, "href": f"{root}/files/{name}/{Path(asset['href']).name}" if absolute
                  else f"../../../files/{name}/{Path(asset['href']).name}"}
            for key, asset in items[name]["assets"].items()
        }  # fmt: skip
        return {**items[name], "collection": "c", "assets": assets, "links": [{"rel": "self", "href": own}]}

    @web.middleware
    async def doorman(request: web.Request, handler) -> web.StreamResponse:
        requests.append(request)
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401)
        return await handler(request)

    async def search(request: web.Request) -> web.Response:
        page = (await request.json()).get("token", 0)
        names = sorted(items)
        link = {"rel": "next", "href": str(request.url), "method": "POST", "body": {"token": page + 1}, "merge": True}
        return web.json_response(
            {
                "type": "FeatureCollection",
                "features": [item(request, names[page])],
                "links": [link] if page + 1 < len(names) else [],
            }
        )

    async def one(request: web.Request) -> web.Response:
        return web.json_response(item(request, request.match_info["name"]))

    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(next(PARANA.rglob(request.match_info["file"])))

    app = web.Application(middlewares=[doorman])
    app.router.add_post("/search", search)
    app.router.add_get("/collections/c/items/{name}", one)
    app.router.add_get("/files/{name}/{file}", file)
    with running(app, tls=tls) as url:
        yield url


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> bytes:
    """The mosaic of the folder of scenes, as the earliest versions built it."""
    output = tmp_path_factory.mktemp("folder") / "out.tif"
    run("build", PARANA, output, *BOUNDS, *RENDERING)
    return output.read_bytes()


@pytest.fixture
def search(tmp_path) -> Path:
    path = tmp_path / "search.json"
    path.write_text(json.dumps(SEARCH))
    return path


@pytest.mark.parametrize("absolute", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_readme_s_lines_make_the_same_file_from_an_api_as_from_a_folder(tmp_path, search, expected, absolute):
    mosaic, output = tmp_path / "mosaic.json", tmp_path / "summer.tif"
    with stac_api(absolute=absolute) as url:
        run(
            "create", search, "-o", mosaic, "--api", url, "--seasons", "autumn,winter", "--max-per-cell", "20"
        )  # fmt: skip
        run("build", mosaic, output, *BOUNDS, *RENDERING, "--scenes", tmp_path / "scenes.geojson")
    assert output.read_bytes() == expected
    features = json.loads((tmp_path / "scenes.geojson").read_text())["features"]
    assert {one["id"] for one in features} == {one["id"] for one in items_of(PARANA)}


def test_one_command_searches_and_builds(tmp_path, search, expected):
    with stac_api() as url:
        run("build", search, tmp_path / "api.tif", "--api", url, *BOUNDS, *RENDERING)
    run("build", search, tmp_path / "files.tif", "--items", PARANA, "--seasons", "autumn", *BOUNDS, *RENDERING)
    assert (tmp_path / "api.tif").read_bytes() == (tmp_path / "files.tif").read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.tif", "files.tif", "search.json"]


@pytest.mark.parametrize("form", ["its API", pytest.param("its items", marks=pytest.mark.slow)])
def test_a_token_reaches_the_search_the_items_and_their_files(tmp_path, search, expected, form):
    header = ("--header", "Authorization: Bearer t, 1")
    with stac_api(absolute=True, token="t, 1") as url:
        if form == "its API":
            run("build", search, tmp_path / "out.tif", "--api", url, *header, *BOUNDS, *RENDERING)
        else:
            run("create", search, "-o", tmp_path / "m.json", "--api", url, *header)
            listed = ("--scenes", tmp_path / "scenes.geojson")
            run("build", tmp_path / "m.json", tmp_path / "out.tif", *header, *BOUNDS, *RENDERING, *listed)
        _, stderr = run("build", search, tmp_path / "no.tif", "--api", url, *BOUNDS, *RENDERING, code=4)
    assert (tmp_path / "out.tif").read_bytes() == expected
    assert "t, 1" not in stderr


def collection(folder: Path) -> list[pystac.Item]:
    """The items with absolute hrefs and without links, as a client that searched has them."""
    items = [pystac.Item.from_file(str(path)) for path in sorted(folder.glob("*/*.json"))]
    for item in items:
        item.make_asset_hrefs_absolute()
        item.clear_links()
    return items


def as_item_collection(path: Path) -> Path:
    pystac.ItemCollection(collection(PARANA)).save_object(str(path / "items.json"))
    return path / "items.json"


def as_geoparquet(path: Path) -> Path:
    items = [one.to_dict() for one in collection(PARANA)]
    rustac.write_sync(str(path / "items.parquet"), items)
    return path / "items.parquet"


def as_lines(path: Path) -> Path:
    (path / "items.ndjson").write_text("\n".join(json.dumps(one.to_dict()) for one in collection(PARANA)))
    return path / "items.ndjson"


def beside_its_files(path: Path) -> Path:
    """An item collection whose hrefs are relative to itself."""
    shutil.copytree(PARANA, path / "scenes")
    documents = [
        {**one, "assets": {key: {**asset, "href": f"{one['id']}/{Path(asset['href']).name}"}
                           for key, asset in one["assets"].items()}, "links": []}
        for one in items_of(PARANA)
    ]  # fmt: skip
    (path / "scenes" / "all.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": documents}))
    return path / "scenes" / "all.geojson"


FORMS = [as_item_collection, as_geoparquet, as_lines, beside_its_files]


def places(mosaic) -> dict[str, list[str]]:
    """The cells of a mosaic, with the files of its scenes' B4 in place of their names."""
    return {
        key: [str(Path(open_scene(name, is_item=True).files["B4"].href).resolve().name) for name in names]
        for key, names in mosaic.document["tiles"].items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_scenes_in_any_file_are_the_same_scenes(tmp_path, form):
    path = form(tmp_path)
    mosaic, folder = open_mosaic(path), open_mosaic(PARANA)
    assert places(mosaic) == places(folder)
    assert mosaic.assets == folder.assets
    assert mosaic.digest == open_mosaic(path).digest
    home = Path(mosaic.home)
    assert mosaic.folder is not None
    assert home.is_dir()
    del mosaic
    assert not home.exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_scenes_in_any_file_make_the_same_mosaic(tmp_path, search, expected, form):
    path = form(tmp_path)
    run("build", path, tmp_path / "out.tif", *BOUNDS, *RENDERING)
    assert (tmp_path / "out.tif").read_bytes() == expected
    run("create", search, "-o", tmp_path / "mosaic.json", "--items", path, "--keep-items", tmp_path / "kept")
    run("build", tmp_path / "mosaic.json", tmp_path / "kept.tif", *BOUNDS, *RENDERING)
    assert (tmp_path / "kept.tif").read_bytes() == expected
