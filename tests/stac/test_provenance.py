"""Which scenes a mosaic of an area is made of."""

from __future__ import annotations

import json

import pytest
import rasterio
import shapely
from aiohttp import web
from shapely.geometry import mapping, shape

from mosaic_async import SourceError
from mosaic_async.stac import create_mosaic
from mosaic_async.stac.provenance import scenes_of
from tests.cli.test_main import run
from tests.conftest import COLORADO, PARANA
from tests.loopback import running
from tests.stac.test_mosaicjson import item, items_of

NORTH = (-55.0, -25.1, -54.8, -25.0)
BOTH = (-54.8, -25.45, -54.5, -25.2)


def expected(area) -> list[str]:
    box = shapely.box(*area)
    return [one["id"] for one in items_of(PARANA) if shape(one["geometry"]).intersection(box).area > 0]


def found(collection) -> list[str]:
    return [feature["id"] for feature in collection["features"]]


@pytest.mark.parametrize("area", [NORTH, BOTH, (-56, -27, -53, -23)])
def test_the_scenes_of_an_area_are_those_whose_footprints_share_it(tmp_path, area):
    document = create_mosaic({}, items=PARANA).document
    (tmp_path / "mosaic.json").write_text(json.dumps(document))
    for mosaic in (document, tmp_path / "mosaic.json", PARANA, PARANA / "collection.json"):
        for place in (area, mapping(shapely.box(*area))):
            assert sorted(found(scenes_of(mosaic, place))) == sorted(expected(area))
    assert 0 < len(expected(NORTH)) < len(expected((-56, -27, -53, -23)))


def test_each_scene_has_its_date_and_footprint_and_place():
    feature = scenes_of(COLORADO, (-107, 40, -106, 41))["features"][0]
    one = next(one for one in items_of(COLORADO) if one["id"] == feature["id"])
    assert feature["properties"]["datetime"] == "2008-04-27T00:00:00+00:00"
    assert feature["properties"]["collection"] == "landsat57-colorado-2008-2013"
    assert feature["properties"]["location"].endswith(f"{one['id']}.json")
    assert shape(feature["geometry"]).equals(shape(one["geometry"]))


def test_plain_files_are_told_by_their_names_and_boxes():
    document = create_mosaic({}, items=PARANA, asset="B4").document
    collection = scenes_of(document, BOTH)
    assert {name.removesuffix("_B4") for name in found(collection)} <= {one["id"] for one in items_of(PARANA)}
    for feature in collection["features"]:
        with rasterio.open(feature["properties"]["location"]) as dataset:
            west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        assert shape(feature["geometry"]).bounds == pytest.approx((west, south, east, north))


def test_items_at_urls_are_asked_for_and_secrets_in_them_are_not_told():
    items = {one["id"]: one for one in items_of(PARANA)}

    async def one(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return web.json_response(items[name]) if name in items else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/items/{name}", one)
    with running(app) as url:
        document = create_mosaic({}, items=PARANA).document
        for names in document["tiles"].values():
            names[:] = [f"{url}/items/{name.split('/')[-2]}?token=abc" for name in names]
        collection = scenes_of(document, BOTH)
        assert sorted(found(collection)) == sorted(expected(BOTH))
        assert "abc" not in json.dumps(collection)
        document["tiles"] = {key: [f"{url}/items/none"] for key in document["tiles"]}
        with pytest.raises(SourceError, match="cannot be read"):
            scenes_of(document, BOTH)


def test_an_area_across_the_antimeridian_finds_scenes_on_both_sides(tmp_path):
    for name, west in (("east", 178), ("west", -179.5), ("far", 0)):
        box = mapping(shapely.box(west, 10, west + 1, 11))
        (tmp_path / f"{name}.json").write_text(json.dumps(item(name, box)))
    assert sorted(found(scenes_of(tmp_path, (177, 9, -178, 12)))) == ["east", "west"]


def test_what_is_no_mosaic_is_a_source_error():
    with pytest.raises(SourceError, match="not a MosaicJSON"):
        scenes_of({}, BOTH)
    with pytest.raises(SourceError, match="malformed"):
        scenes_of({"mosaicjson": "0.0.3", "tiles": {"9": ["a"]}}, BOTH)


def test_build_writes_the_scenes_of_its_area(tmp_path, serve):
    bounds = ("--bounds", *map(str, BOTH), "-z", "8")
    scenes = tmp_path / "out.scenes.geojson"
    run("build", PARANA, tmp_path / "out.tif", *bounds, "--bands", "B4", "--scenes", scenes)
    assert sorted(found(json.loads(scenes.read_text()))) == sorted(expected(BOTH))
    _, stderr = run("build", serve().template, tmp_path / "no.tif", *bounds, "--scenes", scenes, code=2)
    assert "leave --scenes out" in stderr
