"""What a folder's index keeps between runs: it counts while its files are unchanged, and never otherwise."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from mosaic_async.tiler import open_mosaic
from mosaic_async.tiler.scenes import facts, kept_facts, kept_survey, mosaic, survey
from mosaic_async.tiler.scenes.kept_facts import KeptFacts
from mosaic_async.tiler.scenes.scene import open_scene
from tests.conftest import PARANA

ITEM = next(path for path in sorted(PARANA.rglob("*.json")) if path.name != "collection.json")


@pytest.fixture(autouse=True)
def reads(monkeypatch) -> list[str]:
    """The scenes whose facts are worked out; few files are worth it here, and a second old is old."""
    monkeypatch.setattr(kept_facts, "WORTH", 1)
    monkeypatch.setattr(kept_facts, "_FRESH", 0)
    found: list[str] = []
    for name in ("facts_of_item", "facts_of_raster"):
        real = getattr(facts, name)
        monkeypatch.setattr(mosaic, name, lambda place, *more, real=real: found.append(place) or real(place, *more))
    return found


def item(path: Path, number: int, *, shift: float = 0, states_grid: bool = True, href: str | None = None) -> Path:
    document = json.loads(ITEM.read_text())
    for asset in document["assets"].values():
        asset["href"] = href or str(ITEM.parent / asset["href"])
        if not states_grid:
            for name in [name for name in asset if name.startswith("proj:")]:
                del asset[name]
    properties = document["properties"]
    if not states_grid:
        document["properties"] = {key: value for key, value in properties.items() if not key.startswith("proj:")}
    document["id"] = f"scene-{number}"
    document["bbox"] = [value + shift for value in document["bbox"]]
    ring = document["geometry"]["coordinates"][0]
    document["geometry"] = {"type": "Polygon", "coordinates": [[[x + shift, y + shift] for x, y in ring]]}
    path.write_text(json.dumps(document))
    return path


def raster(path: Path, left: float = 700_000) -> Path:
    grid = {"crs": "EPSG:32621", "transform": from_origin(left, 7_170_000, 60, 60), "width": 64, "height": 64}
    with rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint8", **grid) as file:
        file.write(np.ones((1, 64, 64), "uint8"))
    return path


def test_an_unchanged_folder_is_not_read_again_and_a_changed_file_alone_is(tmp_path, reads):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    paths = [item(folder / f"{number}.json", number, shift=number / 10) for number in range(4)]
    before = sorted(folder.rglob("*"))
    first = open_mosaic(folder, cache=cache)
    assert reads == [str(path) for path in paths]
    reads.clear()
    assert open_mosaic(folder, cache=cache) == first == open_mosaic(folder, cache=str(cache))
    assert reads == []
    item(paths[2], 2, shift=1.0)
    paths.append(item(folder / "9.json", 9, shift=2.0))
    changed = open_mosaic(folder, cache=cache)
    assert reads == [str(paths[2]), str(paths[4])]
    assert changed == open_mosaic(folder)
    paths[0].unlink()
    assert open_mosaic(folder, cache=cache) == open_mosaic(folder)
    assert sorted(folder.rglob("*")) == [*before[1:], folder / "9.json"]  # nothing is written beside the scenes


def test_a_change_that_keeps_size_and_time_is_seen(tmp_path, reads):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    path = item(folder / "1.json", 1)
    open_mosaic(folder, cache=cache)
    old, text = path.stat(), path.read_text()
    time.sleep(0.02)
    path.write_text(text.replace("-54.", "-53."))
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size
    reads.clear()
    assert open_mosaic(folder, cache=cache) == open_mosaic(folder)
    assert reads[0] == str(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"maxzoom": ', '"maxzoom": 1', 1),
        lambda text: "",
        lambda text: "\x00" * 100,
        lambda text: text.partition("\n")[0] + "\n" + "[" * 10**5,
        lambda text: text.partition("\n")[2],
    ],
    ids=["cut", "one number", "empty", "zeros", "nested", "no digest"],
)
def test_a_damaged_cache_is_read_anew_and_mended(tmp_path, reads, damage):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    item(folder / "1.json", 1)
    first = open_mosaic(folder, cache=cache)
    (kept,) = (path for path in cache.rglob("*") if path.is_file())
    text = kept.read_text()
    kept.write_text(damage(text))
    assert open_mosaic(folder, cache=cache) == first
    assert len(reads) == 2
    assert kept.read_text() == text


def test_another_version_or_library_reads_anew(tmp_path, reads, monkeypatch):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    item(folder / "1.json", 1)
    open_mosaic(folder, cache=cache)
    monkeypatch.setattr(kept_facts, "_FORMAT", 2)
    open_mosaic(folder, cache=cache)
    assert len(reads) == 2


def test_facts_that_come_from_a_raster_change_with_it_and_those_of_a_server_are_not_kept(tmp_path, reads):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    behind = raster(tmp_path / "behind.tif")
    path = item(folder / "1.json", 1, states_grid=False, href=str(behind))
    open_mosaic(folder, cache=cache)
    open_mosaic(folder, cache=cache)
    assert reads == [str(path)]
    raster(behind, left=650_000)
    assert open_mosaic(folder, cache=cache) == open_mosaic(folder)
    assert len(reads) == 3
    kept = KeptFacts.of(folder, cache)
    assert kept.get(path) is not None
    behind.unlink()
    assert kept.get(path) is None


def test_rasters_without_items_are_kept_too_and_an_unwritable_cache_is_no_error(tmp_path, reads):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    raster(folder / "a.tif")
    for _ in range(2):
        open_mosaic(folder, cache=cache)
    assert len(reads) == 1
    (tmp_path / "file").write_text("")
    assert open_mosaic(folder, cache=tmp_path / "file") == open_mosaic(folder)


def test_what_changed_just_now_and_small_folders_are_not_kept(tmp_path, monkeypatch):
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    item(folder / "1.json", 1)
    for name, value in (("WORTH", 2), ("_FRESH", 10**12)):
        with monkeypatch.context() as patch:
            patch.setattr(kept_facts, name, value)
            open_mosaic(folder, cache=cache)
        assert not cache.exists()


def test_a_survey_is_kept_until_an_item_or_a_file_that_it_opened_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_survey, "WORTH", 1)
    made = []
    real = survey.survey
    monkeypatch.setattr(kept_survey, "survey", lambda *given, **options: made.append(given) or real(*given, **options))
    folder, cache = tmp_path / "scenes", tmp_path / "cache"
    folder.mkdir()
    file = raster(folder / "one.tif")
    names = [str(item(folder / f"{number}.json", number, href=str(file))) for number in range(3)]

    def surveyed(wanted):
        open_scene.cache_clear()
        return kept_survey.kept_survey(names, wanted, is_stac=True, cache=cache)

    first = surveyed(["B4"])
    assert surveyed(["B4"]) == first == real(names, ["B4"], is_stac=True)
    assert first.of("B4").dtype
    assert len(made) == 1
    surveyed(["B4", "B3"])
    assert len(made) == 2
    document = json.loads(Path(names[2]).read_text())
    document["assets"]["B4"]["raster:bands"] = [{"data_type": "float32", "scale": 0.5, "offset": 1}]
    Path(names[2]).write_text(json.dumps(document))
    assert surveyed(["B4"]) == real(names, ["B4"], is_stac=True) != first
    assert len(made) == 3
    if first.files:
        raster(file, left=700_060)
        surveyed(["B4"])
        assert len(made) == 4
    (next((cache / "surveys").iterdir())).write_text("damaged")
    assert surveyed(["B4"]) == real(names, ["B4"], is_stac=True)
