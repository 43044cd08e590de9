"""STAC documents on disk: hrefs, links and what is malformed, against pystac and paths written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pystac.utils
import pytest

from mosaic_async import SourceError
from mosaic_async.sources.stac_files import linked_documents, resolve_href
from mosaic_async.sources.stac_query import Search
from mosaic_async.stac import scenes_of, search_files
from mosaic_async.tiler import open_mosaic

ITEM = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": {}, "links": [], "properties": {}}


@pytest.mark.parametrize(
    ("href", "location"),
    [
        ("B4.tif", "https://host/items/a.json"),
        ("../B4.tif", "https://host/items/a.json?token=1"),
        ("/B4.tif", "https://host/items/a.json"),
        ("https://other/B4.tif", "https://host/items/a.json"),
        ("B4.tif", "s3://bucket/items/a.json"),
        ("./x/B4.tif", "s3://bucket/items/a.json"),
        ("../B4.tif", "gs://bucket/items/deep/a.json"),
        ("s3://bucket/B4.tif", "/data/items/a.json"),
        ("/data/B4.tif", "/elsewhere/items/a.json"),
        ("B4.tif", "/data/items/a.json"),
        ("B4.tif", None),
    ],
)
def test_hrefs_are_resolved_as_pystac_does(href, location):
    if href.startswith("/") and location and location.startswith("https"):
        expected = "https://host/B4.tif"  # pystac takes it for a path of this machine
    else:
        expected = href if location is None else pystac.utils.make_absolute_href(href, location)
    found = resolve_href(href, location)
    assert found.split("?")[0] == expected.split("?")[0]


def test_an_href_in_a_file_url_is_a_path():
    assert resolve_href("B4.tif", "file:///data/a.json") == "/data/B4.tif"


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def links(*hrefs: str, rel: str = "child") -> dict:
    return {"type": "Catalog", "links": [{"rel": rel, "href": href} for href in hrefs]}


def test_links_are_followed_in_their_order_and_each_file_once(tmp_path):
    root = write(tmp_path / "catalog.json", links("b/c.json", "a/c.json", "https://elsewhere/c.json"))
    write(tmp_path / "b" / "c.json", links("1.json", "2.json", "../catalog.json", rel="item"))
    write(tmp_path / "a" / "c.json", links("../b/1.json", "3.json", rel="item"))
    for folder, name in (("b", "1"), ("b", "2"), ("a", "3")):
        write(tmp_path / folder / f"{name}.json", {**ITEM, "id": name})
    assert [document["id"] for _, document in linked_documents(root)] == ["1", "2", "3"]


def test_a_catalogue_of_two_thousand_levels_is_followed_to_its_end(tmp_path):
    for level in range(2000):
        write(tmp_path / f"{level}.json", links(f"{level + 1}.json"))
    write(tmp_path / "2000.json", ITEM)
    assert [document["id"] for _, document in linked_documents(tmp_path / "0.json")] == ["a"]


@pytest.mark.parametrize(
    "broken",
    [
        [{"rel": "item"}],
        [{"rel": "child", "href": None}],
        [{"rel": "item", "href": "http://[::1"}],
        [{"rel": "item", "href": {"a": 1}}],
        ["item.json"],
        7,
        {"rel": "item"},
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "read", [lambda path: list(search_files(path, Search())), open_mosaic, lambda path: scenes_of(path, (0, 0, 1, 1))]
)
def test_a_catalogue_with_malformed_links_is_an_error_that_names_the_file(tmp_path, broken, read):
    path = write(tmp_path / "catalog.json", {"type": "Catalog", "links": broken})
    with pytest.raises(SourceError, match=r"catalog\.json has malformed links"):
        read(path)


def test_a_link_of_another_kind_may_lack_its_href(tmp_path):
    path = write(tmp_path / "c.json", {"links": [{"rel": "license"}, {"rel": "item", "href": "a.json"}]})
    write(tmp_path / "a.json", ITEM)
    assert [document["id"] for _, document in linked_documents(path)] == ["a"]


def test_a_link_to_a_missing_file_names_that_file(tmp_path):
    path = write(tmp_path / "c.json", links("gone.json"))
    with pytest.raises(SourceError, match=r"gone\.json not found"):
        list(linked_documents(path))
