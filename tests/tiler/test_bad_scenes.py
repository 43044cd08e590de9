"""A broken scene is one scene: it is left out and listed, the others make the mosaic, and a limit ends that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mosaic_async import SourceError, UsageError
from mosaic_async.sources.bad_scenes import BadScenes
from mosaic_async.stac import create_mosaic
from mosaic_async.tiler import open_mosaic
from mosaic_async.tiler.pixels.composer import _what_helps
from tests.conftest import PARANA


def changed(path: Path, **changes) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in {**document, **changes}.items() if value != "absent"}))


BREAKS = {
    "null geometry": lambda path: changed(path, geometry=None),
    "a geometry without coordinates": lambda path: changed(path, geometry={"type": "Polygon"}),
    "no raster": lambda path: changed(path, assets={"thumbnail": {"href": "a.png", "type": "image/png"}}),
    "assets that are a list": lambda path: changed(path, assets=[]),
    "no properties": lambda path: changed(path, properties="absent"),
    "bad JSON": lambda path: path.write_text('{"type": "Feature"'),
    "not text": lambda path: path.write_bytes(b'{"id": "\xe9"}'),
    "an asset without an href": lambda path: changed(path, assets={"B4": {"type": "image/tiff"}}),
}


@pytest.fixture
def scenes(tmp_path) -> list[Path]:
    shutil.copytree(PARANA, tmp_path / "scenes")
    return sorted(path for path in (tmp_path / "scenes").rglob("*.json") if path.name != "collection.json")


def listed(mosaic) -> set[str]:
    return {name for names in mosaic.document["tiles"].values() for name in names}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_item_is_left_out_of_a_folder_a_catalogue_and_is_told(scenes, name):
    BREAKS[name](scenes[0])
    folder = scenes[0].parents[1]
    for source in (folder, folder / "collection.json"):
        mosaic = open_mosaic(source)
        assert listed(mosaic) == {str(scenes[1])}
        assert len(mosaic.notes) == 1
        assert str(scenes[0]) in mosaic.notes[0]
        with pytest.raises(SourceError):
            open_mosaic(source, max_bad_scenes=0)


@pytest.mark.parametrize("cut", [b"", b"II*\0", b"no raster"])
def test_a_cut_raster_is_left_out_of_a_folder_of_rasters(tmp_path, cut):
    good = next(PARANA.rglob("*_B4.tif"))
    shutil.copy(good, tmp_path / "good.tif")
    (tmp_path / "bad.tif").write_bytes(cut)
    mosaic = open_mosaic(tmp_path)
    assert listed(mosaic) == {str(tmp_path / "good.tif")}
    assert "bad.tif" in mosaic.notes[0]


def test_an_item_that_is_gone_is_left_out_of_a_catalogue(scenes):
    scenes[0].unlink()
    mosaic = open_mosaic(scenes[0].parents[1] / "collection.json")
    assert listed(mosaic) == {str(scenes[1])}
    assert "not found" in mosaic.notes[0]


def test_a_link_to_a_server_is_told_and_not_passed_over(scenes):
    catalogue = scenes[0].parents[1] / "collection.json"
    links = [*json.loads(catalogue.read_text())["links"], {"rel": "item", "href": "https://far.example/a.json"}]
    changed(catalogue, links=links)
    mosaic = open_mosaic(catalogue)
    assert listed(mosaic) == set(map(str, scenes))
    assert "https://far.example/a.json" in mosaic.notes[0]


@pytest.mark.parametrize("bad", [{"id": "x"}, 7, {"id": "x", "type": "Feature", "geometry": None, "assets": {}}])
def test_a_broken_item_of_a_collection_is_left_out_of_a_search(tmp_path, scenes, bad):
    items = [json.loads(path.read_text()) for path in scenes]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [bad, *items]}))
    created = create_mosaic({}, items=tmp_path / "items.json", keep_items=tmp_path / "kept", max_bad_scenes=1)
    assert {one["id"] for one in created.scenes["features"]} == {item["id"] for item in items}
    assert len(created.bad) == 1
    with pytest.raises(SourceError):
        create_mosaic({}, items=tmp_path / "items.json", keep_items=tmp_path / "kept", max_bad_scenes=0)


def test_the_first_scene_of_a_mosaicjson_may_be_gone(tmp_path, scenes):
    created = create_mosaic({}, items=scenes[0].parents[1])
    (tmp_path / "mosaic.json").write_text(json.dumps(created.document))
    scenes[0].unlink()
    assert open_mosaic(tmp_path / "mosaic.json").assets == ("B2", "B3", "B4")
    scenes[1].unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        open_mosaic(tmp_path / "mosaic.json")


def test_limits_are_numbers_or_shares():
    error = SourceError("gone")
    share = BadScenes("20%")
    for name in "ab":
        share.add(name, error)
    share.check(used=8)
    with pytest.raises(SourceError, match="2 of 9 scenes cannot be used"):
        share.check(used=7)
    number = BadScenes(1)
    number.add("a", error)
    number.add("a", error)
    with pytest.raises(SourceError, match="more than 1 scenes"):
        number.add("b", error)
    for wrong in ("many", "-1", "5 %%", ""):
        with pytest.raises(UsageError, match="limit of bad scenes"):
            BadScenes(wrong)


def test_when_no_scene_is_left_the_first_reason_is_the_error(scenes):
    for path in scenes:
        changed(path, geometry=None)
    with pytest.raises(SourceError, match="has no geometry"):
        open_mosaic(scenes[0].parents[1])


@pytest.mark.parametrize(
    ("text", "helps"),
    [
        ("'/vsis3/bucket/a.tif' not recognized: HTTP response code: 403", "AWS_REQUEST_PAYER"),
        ("Access Denied: s3://bucket/a.tif", "AWS_REQUEST_PAYER"),
        ("InvalidCredentials: No valid AWS credentials found", "AWS_NO_SIGN_REQUEST"),
        ("HTTP response code: 401 - https://host/a.tif", "GDAL_HTTP_HEADERS"),
        ("HTTP response code: 404", "check the hrefs"),
        ("a4030.tif: No such file or directory", "check the hrefs"),
    ],
)
def test_the_hint_of_a_file_that_is_refused_names_what_helps(text, helps):
    assert helps in _what_helps(text)
