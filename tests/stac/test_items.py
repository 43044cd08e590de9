"""Items that are malformed, and filters that cannot be applied: an error that names the place, never a traceback."""

from __future__ import annotations

import gzip
import json

import pytest
from aiohttp import web
from shapely.geometry import box, mapping

from mosaic_async import SourceError, UsageError
from mosaic_async.sources import remote_json
from mosaic_async.stac import create_mosaic, scenes_of
from tests.cli.test_main import run
from tests.loopback import running
from tests.stac.test_mosaicjson import ids, item

SQUARE = mapping(box(10, 50, 11, 51))


def filtered(text: str, *items: dict, tmp_path) -> list[str]:
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}))
    return ids(create_mosaic({"filter": text}, items=path, asset="red"))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (b'{"id": ', "line 2 of"),
        (b"\n\nnot json", "line 4 of"),
        (b"[" * 100_000, "line 2 of"),
        (b"\xff\xfe", "cannot be read"),
        (b"7", "not a STAC item: 7"),
        (b"[]", "not a STAC item"),
        (b'{"type": "Feature"}', "not a STAC item"),
    ],
)
def test_bad_lines_of_items_are_a_source_error_that_names_the_line(tmp_path, lines, says):
    path = tmp_path / "items.ndjson"
    path.write_bytes(json.dumps(item("a", SQUARE)).encode() + b"\n" + lines)
    with pytest.raises(SourceError, match=says):
        create_mosaic({}, items=path, asset="red", max_bad_scenes=0)
    if says != "cannot be read":  # the command's own default, as everywhere
        created = create_mosaic({}, items=path, asset="red")
        assert ids(created) == ["a"]
        assert says in str(created.warnings)


def test_a_line_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path):
    path = tmp_path / "items.ndjson"
    path.write_text(json.dumps(item("a", SQUARE, title="one\u2028two\x85"), ensure_ascii=False), encoding="utf-8")
    assert ids(create_mosaic({}, items=path, asset="red")) == ["a"]


@pytest.mark.parametrize("name", ["items.ndjson", "items.jsonl.gz", "items.geojsonl.gz"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_items_in_lines_may_be_gzipped_and_begin_with_a_mark_of_the_byte_order(tmp_path, name, start):
    text = "\r\n".join(json.dumps(item(one, SQUARE)) for one in ("a", "b"))
    data = (start + text).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert ids(create_mosaic({}, items=tmp_path / name, asset="red", max_bad_scenes=0)) == ["a", "b"]
    (tmp_path / "a.json").write_text(start + json.dumps(item("c", SQUARE)))
    assert ids(create_mosaic({}, items=tmp_path / "a.json", asset="red", max_bad_scenes=0)) == ["c"]


def test_bytes_that_are_not_utf_8_are_a_source_error_in_every_kind_of_file(tmp_path):
    for name in ("a.json", "a.geojsonl", "a.ndjson"):
        (tmp_path / name).write_bytes(b'{"id": "\xe9"}')
        with pytest.raises(SourceError, match="cannot be read"):
            create_mosaic({}, items=tmp_path / name)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"id": "\xe9"}'))
    with pytest.raises(SourceError, match="cannot be read"):
        create_mosaic({}, items=tmp_path / "a.json.gz")


@pytest.mark.parametrize(
    "changes",
    [
        {"links": [{"rel": "self"}, 7]},
        {"links": {"rel": "self"}},
        {"links": [{"rel": "self", "href": "http://[::1"}]},
        {"assets": ["red"]},
        {"assets": {"red": "a.tif"}},
        {"assets": {"red": {}}},
        {"assets": {"red": {"href": "http://[::1"}}, "links": [{"rel": "self", "href": "https://h/a.json"}]},
        {"properties": ["datetime"]},
        {"properties": {"datetime": "yesterday"}},
        {"properties": {"datetime": 2020}},
        {"properties": {"datetime": None, "start_datetime": "2020-01-01", "end_datetime": "2020-13-01"}},
        {"properties": {"datetime": "2020-07-01T00:00:00Z", "gsd": "fine"}},
        {"properties": {"datetime": "2020-07-01T00:00:00Z", "proj:transform": ["x"]}},
        {"id": None, "geometry": {"type": "Polygon", "coordinates": "x"}},
    ],
    ids=repr,
)
def test_a_malformed_item_is_a_source_error_and_no_traceback(tmp_path, changes):
    document = {"type": "FeatureCollection", "features": [{**item("a", SQUARE), **changes}]}
    (tmp_path / "items.json").write_text(json.dumps(document))
    with pytest.raises(SourceError):
        create_mosaic({"datetime": "2020"}, items=tmp_path / "items.json", asset="red")


def test_a_self_link_without_an_href_is_no_location(tmp_path):
    document = {"features": [{**item("a", SQUARE), "links": [{"rel": "self"}]}]}
    (tmp_path / "items.json").write_text(json.dumps(document))
    assert ids(create_mosaic({}, items=tmp_path / "items.json", asset="red")) == ["a"]


# Filters -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "clouds < 20",
        "NOT (missing < 3) OR clouds < 20",
        "clouds < 20 AND T_AFTER(datetime, TIMESTAMP('2019-01-01T00:00:00Z'))",
        "clouds IN (5, 10)",
        "clouds BETWEEN 0 AND 20",
    ],
)
def test_an_item_without_the_property_does_not_match_and_others_do(tmp_path, text):
    items = [item("with", SQUARE, clouds=10), item("without", SQUARE), item("null", SQUARE, clouds=None)]
    assert filtered(text, *items, tmp_path=tmp_path) == ["with"]


@pytest.mark.parametrize(
    "text",
    [
        "missing < 3",
        "NOT (missing < 3)",
        "missing IN (1, 2)",
        "missing LIKE 'a%'",
        "missing + 1 < 3",
        "casei(missing) = 'x'",
        "S_INTERSECTS(missing, POINT(1 2))",
        "clouds < 20 AND missing < 3",
        "T_DURING(missing, INTERVAL('2019-01-01','2021-01-01'))",
    ],
)
def test_a_property_that_no_item_has_matches_nothing(tmp_path, text):
    with pytest.raises(SourceError, match="scene"):
        filtered(text, item("a", SQUARE, clouds=10), tmp_path=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "clouds < 'abc'",
        "clouds LIKE 'a%'",
        "no_such_function(clouds) = 3",
        "clouds",
        "clouds + 3",
        "title < 3",
        "S_INTERSECTS(title, POINT(1 2))",
        "T_AFTER(title, TIMESTAMP('2019-01-01T00:00:00Z'))",
        "missing < 3 AND clouds < 'abc'",
        "missing < 3 OR clouds = title",
    ],
)
def test_a_filter_that_does_not_fit_the_values_is_a_usage_error(tmp_path, text):
    with pytest.raises(UsageError, match="the filter cannot be applied to a"):
        filtered(text, item("a", SQUARE, clouds=10, title="x"), tmp_path=tmp_path)


# JSON of servers -----------------------------------------------------------------------------------------------------


def served(body: bytes, **headers: str) -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


NESTED = b"[" * 100_000
LARGE = b'{"id": "' + b"x" * 4096 + b'"}'


@pytest.mark.parametrize("body", [NESTED, b"<html>", LARGE, b"7"], ids=["nested", "html", "large", "number"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_a_server_sends_in_place_of_an_item_is_a_source_error(monkeypatch, body, packed):
    monkeypatch.setattr(remote_json, "MAX_BODY", 1000 if body is LARGE else 2**20)
    headers = {"Content-Encoding": "gzip"} if packed else {}
    with running(served(gzip.compress(body) if packed else body, **headers)) as url:
        document = {"mosaicjson": "0.0.3", "tiles": {"0": [f"{url}/item"]}}
        with pytest.raises(SourceError, match="the scene"):
            scenes_of(document, (-170, 1, -1, 80))
        with pytest.raises(SourceError, match="STAC API"):
            create_mosaic({}, api=url, attempts=1)


def test_a_mosaic_whose_cells_are_not_lists_of_names_is_malformed():
    for names in ("item.json", [7], {"a": 1}, None):
        with pytest.raises(SourceError, match="malformed"):
            scenes_of({"mosaicjson": "0.0.3", "tiles": {"0": names}}, (-170, 1, -1, 80))


def test_create_ends_with_a_message_and_no_traceback(tmp_path):
    (tmp_path / "items.ndjson").write_text("nonsense")
    (tmp_path / "search.json").write_text("{}")
    _, stderr = run("create", tmp_path / "search.json", "--items", tmp_path / "items.ndjson", code=4)
    assert "line 1 of" in stderr
    assert "Traceback" not in stderr
