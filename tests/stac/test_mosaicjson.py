"""From a search to a MosaicJSON, against brute force over the same items and real HTTP."""

from __future__ import annotations

import calendar
import itertools
import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import mercantile
import pytest
import rustac
import shapely
from aiohttp import web
from cogeo_mosaic.mosaic import MosaicJSON
from hypothesis import given
from hypothesis import strategies as st
from shapely.affinity import translate
from shapely.geometry import mapping, shape

from mosaic_async import RefusedError, SourceError, UsageError
from mosaic_async.sources.footprint import outline_of
from mosaic_async.sources.outlines import cells_of
from mosaic_async.sources.seasons import SEASONS, read_seasons, season_of
from mosaic_async.sources.stac_query import Search
from mosaic_async.stac import create_mosaic
from tests.cli.test_main import run
from tests.conftest import COLORADO, PARANA
from tests.loopback import running

SHARED = Path(__file__).parents[3] / "shared" / "data"
NEWYORK = SHARED / "landsat8-newyork-2018"
needs_newyork = pytest.mark.skipif(not NEWYORK.is_dir(), reason="the scenes of New York are not on this machine")
CLOUD = "fixture:cloud_percent_from_bqa"


def items_of(folder: Path) -> list[dict]:
    documents = [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]
    return [document for document in documents if document["type"] == "Feature"]


def ids(created) -> list[str]:
    return [feature["id"] for feature in created.scenes["features"]]


def listed(created) -> set[str]:
    return {Path(name).stem for names in created.document["tiles"].values() for name in names}


def item(name, geometry, **properties):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": geometry,
        "properties": {"datetime": "2020-07-01T00:00:00Z", **properties},
        "links": [],
        "assets": {"red": {"href": f"{name}.tif"}},
    }


# Seasons -------------------------------------------------------------------------------------------------------------

NORTH = dict(
    zip(range(1, 13), ["winter"] * 2 + ["spring"] * 3 + ["summer"] * 3 + ["autumn"] * 3 + ["winter"], strict=True)
)
SOUTH = dict(
    zip(range(1, 13), ["summer"] * 2 + ["autumn"] * 3 + ["winter"] * 3 + ["spring"] * 3 + ["summer"], strict=True)
)


@pytest.mark.parametrize("month", range(1, 13), ids=list(calendar.month_abbr)[1:])
def test_every_month_has_its_season_on_both_hemispheres(month):
    assert season_of(month, 45.0) == NORTH[month]
    assert season_of(month, -25.0) == SOUTH[month]


def test_a_season_that_does_not_exist_is_refused_and_fall_is_autumn():
    assert read_seasons(["Fall", "winter"]) == {"autumn", "winter"}
    with pytest.raises(UsageError, match="monsoon"):
        read_seasons(["monsoon"])


@pytest.mark.parametrize("latitude", [40.0, -40.0])
@pytest.mark.parametrize("season", SEASONS)
def test_seasons_of_several_years_are_those_of_the_scene_s_hemisphere(tmp_path, latitude, season):
    box = mapping(shapely.box(10, latitude, 11, latitude + 1))
    for year, month in itertools.product((2017, 2018, 2019), range(1, 13)):
        scene = item(f"{year}-{month:02}", box, datetime=f"{year}-{month:02}-15T10:00:00Z")
        (tmp_path / f"{year}-{month}.json").write_text(json.dumps(scene))
    created = create_mosaic({"datetime": "2018/2019"}, items=tmp_path, seasons=[season])
    table = NORTH if latitude > 0 else SOUTH
    expected = {f"{year}-{month:02}" for year in (2018, 2019) for month in range(1, 13) if table[month] == season}
    assert set(ids(created)) == expected


# Filters against brute force -----------------------------------------------------------------------------------------


def brute_force(items, bbox, start, end, tests):
    """Filter with plain comparisons and shapely: none of the package's code."""
    box = shapely.box(*bbox)
    return {
        one["id"]
        for one in items
        if shape(one["geometry"]).intersects(box)
        and start <= datetime.fromisoformat(one["properties"]["datetime"]) <= end
        and all(test(one["properties"]) for test in tests)
    }


def day(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@needs_newyork
@pytest.mark.parametrize("cloud", [5, 20, 60])
@pytest.mark.parametrize("bbox", [(-75, 40, -73, 41), (-72.5, 40, -72, 40.5), (-76, 42.4, -75.3, 42.9)])
@pytest.mark.parametrize("span", [("2018-01-01", "2018-12-31"), ("2018-04-01", "2018-09-30")])
def test_a_search_of_new_york_equals_brute_force(cloud, bbox, span):
    expected = brute_force(
        items_of(NEWYORK), bbox, day(span[0]), day(span[1] + "T23:59:59"), [lambda p: p[CLOUD] < cloud]
    )
    search = {"bbox": bbox, "datetime": "/".join(span), "query": {CLOUD: {"lt": cloud}}}
    cql2 = {
        "intersects": mapping(shapely.box(*bbox)),
        "datetime": "/".join(span),
        "filter": {"op": "<", "args": [{"property": CLOUD}, cloud]},
    }
    sat_api = {
        "bbox": bbox,
        "time": "/".join(span),
        "query": {"eo:platform": {"eq": "landsat-8"}, CLOUD: {"lt": cloud}},
    }
    for request in (search, cql2, sat_api):
        if expected:
            assert set(ids(create_mosaic(request, items=NEWYORK))) == expected
        else:
            with pytest.raises(SourceError, match="the search matched no scenes"):
                create_mosaic(request, items=NEWYORK)


@pytest.mark.parametrize("platform", ["landsat-5", "landsat-7"])
@pytest.mark.parametrize("cloud", [0, 10, 50])
def test_a_search_of_colorado_equals_brute_force(platform, cloud):
    name = "fixture:cloud_percent_from_fmask"
    expected = brute_force(
        items_of(COLORADO), (-180, -90, 180, 90), day("2009-01-01"), day("2012-06-30T23:59:59"),
        [lambda p: p[name] <= cloud, lambda p: p["platform"] == platform],
    )  # fmt: skip
    assert expected
    span = "2009/2012-06"
    by_query = {"datetime": span, "query": {"platform": {"eq": platform}, name: {"lte": cloud}}}
    by_text = {"datetime": span, "filter": f"platform = '{platform}' AND \"{name}\" <= {cloud}"}
    assert set(ids(create_mosaic(by_query, items=COLORADO))) == expected
    assert set(ids(create_mosaic(by_text, items=COLORADO))) == expected


def test_sun_elevation_tier_and_category_are_filtered_under_both_names():
    search = Search.parse(
        {
            "time": "2018-01-01T00:00:00Z/2019-12-31T23:59:59Z",
            "query": {
                "eo:sun_elevation": {"gt": 30}, "landsat:tier": {"eq": "T1"}, "eo:platform": {"eq": "landsat-8"},
                "collection": {"eq": "landsat-8-l1"}, "eo:cloud_cover": {"gte": 0, "lt": 5},
            },
            "sort": [{"field": "eo:cloud_cover", "direction": "asc"}],
            "limit": 500,
        }
    )  # fmt: skip
    assert search.body() == {
        "collections": ["landsat-c2-l2"],
        "datetime": "2018-01-01T00:00:00Z/2019-12-31T23:59:59Z",
        "query": {
            "view:sun_elevation": {"gt": 30}, "landsat:collection_category": {"eq": "T1"},
            "platform": {"eq": "landsat-8"}, "eo:cloud_cover": {"gte": 0, "lt": 5},
        },
        "sortby": [{"field": "properties.eo:cloud_cover", "direction": "asc"}],
        "limit": 500,
    }  # fmt: skip
    good = {"view:sun_elevation": 31, "landsat:collection_category": "T1", "platform": "landsat-8", "eo:cloud_cover": 0}
    scene = item("a", None, **good, datetime="2018-05-01T00:00:00Z") | {"collection": "landsat-c2-l2"}
    assert search.accepts(scene)
    for name, bad in (("view:sun_elevation", 30), ("landsat:collection_category", "RT"), ("eo:cloud_cover", 5)):
        assert not search.accepts({**scene, "properties": {**scene["properties"], name: bad}})
    without = {name: value for name, value in scene["properties"].items() if name != "eo:cloud_cover"}
    assert not search.accepts({**scene, "properties": without})


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"cloud": 5}, "cloud"),
        ({"query": {"a": {"like": 5}}}, "like"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}}, "both"),
        ({"datetime": "soon"}, "malformed"),
        ({"datetime": "2020/2019"}, "before it begins"),
        ({"filter": {"op": "?"}}, "CQL2"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(document, says):
    with pytest.raises(UsageError, match=says):
        create_mosaic(document, items=COLORADO)


def test_collections_that_hold_nothing_else_can_be_replaced():
    search = {"query": {"collection": {"eq": "landsat-8-l1"}}}
    with pytest.raises(SourceError, match="the search matched no scenes"):
        create_mosaic(search, items=COLORADO)
    found = create_mosaic({"collections": ["elsewhere"]}, items=COLORADO, collections=["landsat57-colorado-2008-2013"])
    assert len(ids(found)) == 105


# Order, cap, one a path and row --------------------------------------------------------------------------------------


@needs_newyork
def test_scenes_come_in_the_order_of_the_sort_and_equals_by_id():
    created = create_mosaic({"sortby": [{"field": f"properties.{CLOUD}", "direction": "asc"}]}, items=NEWYORK)
    expected = sorted(items_of(NEWYORK), key=lambda one: (one["properties"][CLOUD], one["id"]))
    assert ids(created) == [one["id"] for one in expected]
    rank = {one["id"]: index for index, one in enumerate(expected)}
    for names in created.document["tiles"].values():
        ranks = [rank[Path(name).stem] for name in names]
        assert ranks == sorted(ranks)
    backwards = create_mosaic({"sortby": f"-{CLOUD}"}, items=NEWYORK)
    clouds = {one["id"]: one["properties"][CLOUD] for one in expected}
    found = [clouds[name] for name in ids(backwards)]
    assert found == sorted(found, reverse=True)


@needs_newyork
def test_optimized_selection_keeps_the_clearest_scene_of_each_path_and_row():
    clearest = {}
    for one in sorted(items_of(NEWYORK), key=lambda one: one["properties"][CLOUD]):
        place = one["properties"]["landsat:wrs_path"], one["properties"]["landsat:wrs_row"]
        clearest.setdefault(place, one["id"])
    created = create_mosaic({"sortby": f"+{CLOUD}"}, items=NEWYORK, optimized_selection=True)
    assert set(ids(created)) == set(clearest.values())
    assert len(clearest) == 3


def test_optimized_selection_of_scenes_without_path_and_row_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(item("a", mapping(shapely.box(0, 0, 1, 1)))))
    with pytest.raises(UsageError, match="wrs_path"):
        create_mosaic({}, items=tmp_path, optimized_selection=True)


def test_a_cap_keeps_the_first_of_each_cell_and_says_that_it_cut():
    whole = create_mosaic({"sortby": "-datetime"}, items=COLORADO)
    capped = create_mosaic({"sortby": "-datetime"}, items=COLORADO, max_per_cell=7)
    assert whole.warnings == ()
    assert len(capped.warnings) == 1
    assert "more than 7 scenes, up to 105" in capped.warnings[0]
    for key, names in whole.document["tiles"].items():
        assert capped.document["tiles"][key] == names[:7]
    assert set(ids(capped)) == listed(capped)
    few = create_mosaic({"sortby": "-datetime"}, items=COLORADO, max_scenes=3)
    assert ids(few) == ids(whole)[:3]
    assert "only the first 3" in few.warnings[0]


def test_the_same_request_has_the_same_name_and_document_and_another_has_another():
    request = {"datetime": "2009/2010", "query": {"platform": {"eq": "landsat-7"}}}
    turned = dict(reversed(request.items()))
    first, second = (create_mosaic(one, items=COLORADO) for one in (request, turned))
    assert first == second
    assert len(first.document["name"]) == 56
    others = [
        create_mosaic({**request, "datetime": "2009/2011"}, items=COLORADO),
        create_mosaic(request, items=COLORADO, seasons=["summer"]),
        create_mosaic(request, items=COLORADO, max_per_cell=5),
        create_mosaic(request, items=COLORADO, maxzoom=12),
    ]
    assert len({first.document["name"], *(other.document["name"] for other in others)}) == 5


# Cells ---------------------------------------------------------------------------------------------------------------


def cells_by_brute_force(geometry, zoom) -> set[str]:
    """Intersect with every tile of the world and of the worlds beside it."""
    whole = shapely.union_all([translate(geometry, shift) for shift in (-360, 0, 360)])
    shapely.prepare(whole)
    found = set()
    for x, y in itertools.product(range(2**zoom), repeat=2):
        tile = shapely.box(*mercantile.bounds(x, y, zoom))
        if whole.intersects(tile) and whole.intersection(tile).area > 1e-12:
            found.add(mercantile.quadkey(x, y, zoom))
    return found


SQUARES = shapely.MultiPolygon([shapely.box(0, 0, 20, 20), shapely.box(60, -40, 90, -10)])
FRAME = shapely.box(-60, -60, 60, 60).difference(shapely.box(-45, -45, 45, 45))
FOOTPRINTS = {
    "a multipolygon": (mapping(SQUARES), SQUARES),
    "a polygon with heights": (mapping(shapely.force_3d(shapely.box(5, 5, 30, 30), 100)), shapely.box(5, 5, 30, 30)),
    "a polygon with a hole": (mapping(FRAME), FRAME),
    "past +180": (mapping(shapely.box(170, 10, 190, 40)), shapely.box(170, 10, 190, 40)),
    "past -180": (mapping(shapely.box(-190, 10, -170, 40)), shapely.box(170, 10, 190, 40)),
    "jumping at 180": (
        {"type": "Polygon", "coordinates": [[[170, 10], [-170, 10], [-170, 40], [170, 40], [170, 10]]]},
        shapely.box(170, 10, 190, 40),
    ),
    "cut at 180": (
        mapping(shapely.MultiPolygon([shapely.box(170, 10, 180, 40), shapely.box(-180, 10, -170, 40)])),
        shapely.box(170, 10, 190, 40),
    ),
    "the whole world": (mapping(shapely.box(-180, -90, 180, 90)), shapely.box(-180, -90, 180, 90)),
    "exactly one cell": (
        mapping(shapely.box(*mercantile.bounds(9, 5, 4))), shapely.box(*mercantile.bounds(9, 5, 4))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOOTPRINTS)
def test_the_cells_of_a_footprint_are_those_that_share_an_area_with_it(name):
    geometry, truth = FOOTPRINTS[name]
    found = cells_of([outline_of(item("a", geometry))], 4)
    assert set(found) == cells_by_brute_force(truth, 4)


@given(
    west=st.floats(-180, 179), south=st.floats(-80, 79), width=st.floats(0.5, 170), height=st.floats(0.5, 80),
    lean=st.floats(-20, 20),
)  # fmt: skip
def test_the_cells_of_any_leaning_footprint_are_right(west, south, width, height, lean):
    north = min(south + height, 84)
    ring = [(west, south), (west + width, south), (west + width + lean, north), (west + lean, north), (west, south)]
    truth = shapely.Polygon(ring)
    found = set(cells_of([outline_of(item("a", mapping(truth)))], 3))
    sure = cells_by_brute_force(truth.buffer(-1e-6), 3)
    assert sure <= found <= cells_by_brute_force(truth.buffer(1e-6), 3)


def test_a_scene_without_a_geometry_is_where_its_bbox_says():
    by_bbox = outline_of({"id": "a", "geometry": None, "bbox": [170, 10, 0, -170, 40, 9]})
    assert cells_of([by_bbox], 4) == cells_of([outline_of(item("a", FOOTPRINTS["past +180"][0]))], 4)
    with pytest.raises(SourceError, match="is malformed"):
        outline_of({"id": "a", "geometry": None})


def test_cells_that_would_be_millions_are_refused():
    with pytest.raises(RefusedError, match="quadkey_zoom"):
        cells_of([shapely.box(-180, -85, 180, 85)], 12)


def test_the_document_is_a_mosaicjson_that_cogeo_mosaic_reads_and_looks_up():
    created = create_mosaic({}, items=PARANA)
    document = MosaicJSON(**created.document)
    assert created.document["mosaicjson"] == "0.0.3"
    assert document.minzoom < document.quadkey_zoom <= document.maxzoom
    union = shapely.union_all([shape(one["geometry"]) for one in items_of(PARANA)])
    assert created.document["bounds"] == pytest.approx(union.bounds)
    assert all(len(key) == document.quadkey_zoom for key in document.tiles)
    scene = items_of(PARANA)[0]
    point = shape(scene["geometry"]).representative_point()
    key = mercantile.quadkey(mercantile.tile(point.x, point.y, document.quadkey_zoom))
    assert scene["id"] in {Path(name).stem for name in document.tiles[key]}


def test_the_zooms_are_those_of_the_scenes_own_resolution():
    """Landsat at 30 m and 40 degrees of latitude: zoom 12, where a pixel of a 256-pixel tile has 38.2 * cos(40) m."""
    document = create_mosaic({}, items=COLORADO).document
    assert (document["minzoom"], document["maxzoom"]) == (7, 12)


@pytest.mark.parametrize(("count", "limit"), [(1_000, 3), pytest.param(10_000, 10, marks=pytest.mark.slow)])
def test_thousands_of_scenes_take_seconds(tmp_path, count, limit):
    features = []
    for index in range(count):
        west, south = -120 + (index * 7919 % 50_000) / 1000, 30 + (index * 104_729 % 15_000) / 1000
        ring = [[west, south + 0.4], [west + 1.8, south], [west + 2.3, south + 1.7], [west + 0.5, south + 2.1]]
        scene = item(f"s{index:05}", {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, gsd=30)
        scene["links"] = [{"rel": "self", "href": f"/scenes/{index}.json"}]
        features.append(scene)
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    started = time.process_time()  # of this process alone: the machine may be busy with others
    created = create_mosaic({"sortby": "-datetime", "bbox": [-125, 20, -60, 50]}, items=path)
    seconds = time.process_time() - started
    assert len(ids(created)) == count
    assert seconds < limit
    zoom = created.document["quadkey_zoom"]
    for index in (0, count * 432 // 1000, count - 1):
        outline = shape(features[index]["geometry"])
        cells = {key for key, names in created.document["tiles"].items() if f"/scenes/{index}.json" in names}
        near = mercantile.tiles(*outline.buffer(0.1).bounds, zooms=[zoom])
        assert cells == {
            mercantile.quadkey(tile) for tile in near
            if outline.intersection(shapely.box(*mercantile.bounds(tile))).area > 1e-12
        }  # fmt: skip


# Catalogues ----------------------------------------------------------------------------------------------------------


def test_folder_collection_item_collection_lines_and_geoparquet_give_the_same_scenes(tmp_path):
    items = items_of(PARANA)
    for one in items:
        one["links"] = [{"rel": "self", "href": str(PARANA / one["id"] / f"{one['id']}.json")}]
    collection = {"type": "FeatureCollection", "features": items}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    (tmp_path / "items.ndjson").write_text("\n".join(map(json.dumps, items)))
    rustac.write_sync(str(tmp_path / "items.parquet"), collection)
    by_folder = create_mosaic({}, items=PARANA)
    for path in (PARANA / "collection.json", *sorted(tmp_path.iterdir())):
        assert create_mosaic({}, items=path).document == by_folder.document, path.name


def test_the_files_of_an_asset_can_be_listed_instead_of_the_items():
    created = create_mosaic({}, items=PARANA, asset="B4")
    names = {name for names in created.document["tiles"].values() for name in names}
    assert names == {str(path) for path in PARANA.rglob("*_B4.tif")}
    assert created.document["asset_type"] == "COG"
    with pytest.raises(UsageError, match="no asset B11"):
        create_mosaic({}, items=PARANA, asset="B11")


def test_items_without_a_file_of_their_own_need_an_asset(tmp_path):
    scene = item("a", mapping(shapely.box(0, 0, 1, 1)))
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [scene]}))
    with pytest.raises(UsageError, match="of its own"):
        create_mosaic({}, items=tmp_path / "items.json")


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"features": [3]}'])
def test_what_is_no_catalogue_is_a_source_error(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(SourceError):
        create_mosaic({}, items=tmp_path / "bad.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no STAC items"):
        create_mosaic({}, items=tmp_path / "empty")


# A STAC API ----------------------------------------------------------------------------------------------------------


class StacApi:
    """Pages by tokens, counts nothing, repeats an item on the next page, and fails now and then."""

    def __init__(self, items, *, page=4, moods=()):
        self.items, self.page, self.moods = items, page, list(moods)
        self.bodies: list[dict] = []
        self.hits: Counter[int] = Counter()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/stac/search", self.search)
        return app

    async def search(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        start = int(body.pop("token", "next:0").removeprefix("next:"))
        self.hits[start] += 1
        if self.moods:
            status = self.moods.pop(0)
            if status != 200:
                return web.json_response({"description": "no"}, status=status, headers={"Retry-After": "0"})
        search = Search.parse(body)
        found = [one for one in self.items if search.accepts(one)]
        url = f"{request.url.origin()}/stac/search"
        follow = {**body, "token": f"next:{start + self.page}"}
        links = [{"rel": "next", "href": url, "method": "POST", "body": follow}]
        end = start + self.page
        return web.json_response(
            {
                "type": "FeatureCollection",
                "features": found[max(start - 1, 0) : end],
                "links": links if end < len(found) else [],
            }
        )


def test_an_api_is_followed_by_its_next_links_and_gives_each_item_once():
    items = items_of(COLORADO)
    api = StacApi(items)
    with running(api.app()) as url:
        search = {
            "datetime": "2009/2011",
            "sortby": "+datetime",
            "limit": 4,
            "query": {"platform": {"eq": "landsat-7"}},
        }
        created = create_mosaic(search, api=f"{url}/stac")
    by_files = create_mosaic(search, items=COLORADO)
    assert ids(created) == ids(by_files)
    assert created.document["name"] == by_files.document["name"]
    assert created.document["tiles"].keys() == by_files.document["tiles"].keys()
    assert set(api.hits.values()) == {1}
    first = api.bodies[0]
    assert first["limit"] == 4
    assert first["sortby"] == [{"field": "properties.datetime", "direction": "asc"}]
    name = next(iter(created.document["tiles"].values()))[0]
    assert name.startswith(f"{url}/stac/collections/landsat57-colorado-2008-2013/items/LE7")


def test_an_api_that_ignores_the_query_gives_no_other_scenes_than_those_wanted():
    class Ignorant(StacApi):
        async def search(self, request: web.Request) -> web.Response:
            return web.json_response({"type": "FeatureCollection", "features": self.items, "links": []})

    search = {"datetime": "2010", "query": {"fixture:cloud_percent_from_fmask": {"lt": 10}}}
    with running(Ignorant(items_of(COLORADO)).app()) as url:
        created = create_mosaic(search, api=f"{url}/stac")
    assert set(ids(created)) == set(ids(create_mosaic(search, items=COLORADO)))
    assert 0 < len(ids(created)) < 20


def test_a_filter_in_text_is_sent_to_an_api_as_json():
    api = StacApi(items_of(PARANA))
    with running(api.app()) as url:
        create_mosaic({"filter": "platform = 'landsat-8'"}, api=f"{url}/stac/search")
    assert api.bodies[0]["filter"] == {"op": "=", "args": [{"property": "platform"}, "landsat-8"]}
    assert api.bodies[0]["filter-lang"] == "cql2-json"


def test_an_api_that_fails_now_and_then_is_asked_again_and_one_that_refuses_is_not():
    api = StacApi(items_of(COLORADO), page=50, moods=[503, 200, 429, 502, 200])
    with running(api.app()) as url:
        assert len(ids(create_mosaic({}, api=f"{url}/stac"))) == 105
        assert api.hits == {0: 2, 50: 3, 100: 1}
        api.moods = [400]
        with pytest.raises(SourceError, match="does not answer the search"):
            create_mosaic({}, api=f"{url}/stac?token=abc")
        api.moods, before = [400], sum(api.hits.values())
        with pytest.raises(SourceError, match="does not answer the search"):
            create_mosaic({}, api=f"{url}/stac")
        assert sum(api.hits.values()) == before + 1
        api.moods = [503] * 9
        with pytest.raises(SourceError):
            create_mosaic({}, api=f"{url}/stac", attempts=2)


# The command ---------------------------------------------------------------------------------------------------------


def test_create_writes_a_mosaic_that_build_takes(tmp_path):
    search, mosaic, scenes = tmp_path / "search.json", tmp_path / "mosaic.json", tmp_path / "scenes.geojson"
    search.write_text(json.dumps({"bbox": [-55, -26, -54, -25], "datetime": "2020"}))
    args = ("--seasons", "autumn,winter", "--max-per-cell", 1, "--scenes", scenes)
    stdout, stderr = run("create", search, "-o", mosaic, "--items", PARANA, *args)
    assert stdout == ""
    assert "warning: " in stderr
    assert "more than 1 scenes" in stderr
    assert {one["id"] for one in json.loads(scenes.read_text())["features"]} <= {one["id"] for one in items_of(PARANA)}
    bounds = ("-54.9", "-25.45", "-54.6", "-25.25")
    stdout, _ = run("build", mosaic, tmp_path / "out.tif", "--bounds", *bounds, "--bands", "B4", "-z", 10, "--json")
    assert json.loads(stdout)["tiles_placed"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "mosaic.json", "out.tif", "scenes.geojson", "search.json",
    ]  # fmt: skip


def test_create_without_an_output_prints_the_document_and_reads_stdin():
    stdout, stderr = run("create", "-", "--items", PARANA, stdin="{}")
    assert json.loads(stdout)["mosaicjson"] == "0.0.3"
    assert stderr == ""


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ([], 2, "--api"),
        (["--items", PARANA, "--seasons", "monsoon"], 2, "monsoon"),
        (["--items", PARANA, "--seasons", "summer"], 4, "--seasons"),
        (["--api", "http://127.0.0.1:9"], 4, "does not answer"),
    ],
)
def test_a_create_that_cannot_be_exits_with_its_code_and_says_what_to_try(args, code, says):
    _, stderr = run("create", "-", *args, code=code, stdin="{}")
    assert says in stderr
    assert "Traceback" not in stderr


def test_create_without_the_extra_says_what_to_install(tmp_path):
    import subprocess
    import sys

    code = "import sys; sys.modules['pystac_client'] = None; from mosaic_async.cli.main import main; main()"
    (tmp_path / "s.json").write_text("{}")
    arguments = ["create", str(tmp_path / "s.json"), "--items", str(PARANA)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'mosaic-async[stac]'" in done.stderr


def test_the_command_line_keeps_items_in_a_folder_and_the_mosaic_lists_them(tmp_path):
    search = tmp_path / "search.json"
    search.write_text("{}")
    kept = tmp_path / "items"
    run("create", search, "-o", tmp_path / "mosaic.json", "--items", PARANA, "--keep-items", kept)
    document = json.loads((tmp_path / "mosaic.json").read_text())
    listed = {Path(asset).resolve() for assets in document["tiles"].values() for asset in assets}
    assert listed == {path.resolve() for path in kept.rglob("*.json")} != set()
    hrefs = [asset["href"] for path in listed for asset in json.loads(path.read_text())["assets"].values()]
    assert all(Path(href).is_absolute() and Path(href).exists() for href in hrefs)
