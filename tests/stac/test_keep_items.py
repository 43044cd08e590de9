"""`create --keep-items`: items beside the mosaic, with hrefs that can be opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rasterio
from shapely.geometry import box, mapping

from mosaic_async import UsageError
from mosaic_async.stac import create_mosaic
from tests.cli.test_main import run
from tests.conftest import PARANA
from tests.stac.test_mosaicjson import item, items_of

SQUARE = mapping(box(10, 50, 11, 51))


def create(tmp_path: Path, items: Path, *args: str, code: int = 0) -> tuple[list[Path], str]:
    """Run the command; return the paths that the mosaic lists."""
    (tmp_path / "search.json").write_text("{}")
    output = tmp_path / "mosaic.json"
    _, stderr = run("create", tmp_path / "search.json", "-o", output, "--items", items, *args, code=code)
    names = {name for cell in json.loads(output.read_text())["tiles"].values() for name in cell} if not code else set()
    return sorted(map(Path, names)), stderr


def test_the_mosaic_lists_the_kept_items_and_their_files_open_from_anywhere(tmp_path, monkeypatch):
    kept, _ = create(tmp_path, PARANA, "--keep-items", str(tmp_path / "kept"))
    monkeypatch.chdir("/")
    assert {path.parent for path in kept} == {tmp_path / "kept"}
    assert {path.stem for path in kept} == {one["id"] for one in items_of(PARANA)}
    for path in kept:
        for asset in json.loads(path.read_text())["assets"].values():
            with rasterio.open(asset["href"]) as dataset:
                assert dataset.count == 1


def test_a_url_that_wants_a_login_becomes_the_bucket_s(tmp_path):
    one = item("LC08", SQUARE)
    one["assets"] = {
        "red": {
            "href": "https://landsatlook.usgs.gov/data/red.TIF",
            "alternate": {"s3": {"href": "s3://usgs-landsat/red.TIF", "storage:requester_pays": True}},
        }
    }
    (tmp_path / "items.ndjson").write_text(json.dumps(one))
    kept, stderr = create(tmp_path, tmp_path / "items.ndjson", "--keep-items", str(tmp_path / "kept"))
    assert json.loads(kept[0].read_text())["assets"]["red"]["href"] == "s3://usgs-landsat/red.TIF"
    assert "AWS_REQUEST_PAYER" in stderr


def test_items_of_two_collections_with_one_id_are_kept_apart(tmp_path):
    items = [{**item("same", SQUARE, gsd=gsd), "collection": name} for name, gsd in (("l1", 10), ("l2", 20))]
    items.append({**item("other", SQUARE), "collection": "l1"})
    (tmp_path / "items.ndjson").write_text("\n".join(map(json.dumps, items)))
    kept, _ = create(tmp_path, tmp_path / "items.ndjson", "--keep-items", str(tmp_path / "kept"))
    found = {(json.loads(path.read_text())["collection"], json.loads(path.read_text())["id"]) for path in kept}
    assert found == {("l1", "same"), ("l2", "same"), ("l1", "other")}


def test_an_id_with_slashes_stays_inside_of_the_folder(tmp_path):
    (tmp_path / "items.ndjson").write_text(json.dumps(item("../../a/b", SQUARE)))
    kept, _ = create(tmp_path, tmp_path / "items.ndjson", "--keep-items", str(tmp_path / "kept"))
    assert [path.parent for path in kept] == [tmp_path / "kept"]


def test_items_and_the_files_of_an_asset_cannot_both_be_listed(tmp_path):
    with pytest.raises(UsageError, match="items or the files"):
        create_mosaic({}, items=PARANA, asset="B4", keep_items=tmp_path / "kept")
    _, stderr = create(tmp_path, PARANA, "--asset", "B4", "--keep-items", str(tmp_path / "kept"), code=2)
    assert "omit --asset or --keep-items" in stderr
    assert not (tmp_path / "kept").exists()
