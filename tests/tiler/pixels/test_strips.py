"""Tiles composed in strips are the tiles composed at once: pixels, validity, and the scenes that are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from mosaic_async.tiler.pixels.composer import Composer, Room
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.strips import joined, strips_of
from mosaic_async.tiler.pixels.view import View
from tests.conftest import COLORADO, PARANA
from tests.tiler.pixels.test_reading import frame_of

SELECTIONS = ("median", "mean", "count", "stdev", "percentile:25", "medoid", "geomedian")
COLORADO_TILE = mercantile.tile(-106.914, 40.288, 14)
PARANA_TILE = mercantile.tile(-55.0, -25.0, 9)  # most of it without a scene


def items_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.json")) if path.name != "collection.json"]


@pytest.mark.parametrize(
    ("folder", "assets", "tile", "scenes"),
    [
        (COLORADO, ("b5", "b4"), COLORADO_TILE, 3),
        pytest.param(COLORADO, ("b5", "b4"), COLORADO_TILE, 9, marks=pytest.mark.slow),
        (PARANA, ("B4", "B3"), PARANA_TILE, 9),
    ],
)
@pytest.mark.parametrize("group_by", [pytest.param("none", marks=pytest.mark.slow), "day"])
def test_a_tile_in_strips_is_the_tile_at_once(folder, assets, tile, scenes, group_by):
    names, frame = items_of(folder)[:scenes], frame_of(tile, 200)
    view, degrees = View(assets=tuple((asset, ()) for asset in assets)), tuple(mercantile.bounds(tile))
    at_once, in_strips = (
        Composer(is_stac=True, is_local=is_local, room=room)
        for is_local, room in ((True, Room()), (group_by == "none", Room(at_once=150_000)))
    )
    for selection in (Selection.parse(name, group_by=group_by) for name in SELECTIONS):
        whole = at_once.compose(names, frame, degrees, view, selection)
        for _ in range(2):  # the second time, the size of a pixel is known
            parts = in_strips.compose(names, frame, degrees, view, selection)
            assert (parts.read, parts.rules, parts.skipped) == (whole.read, whole.rules, whole.skipped)
            np.testing.assert_array_equal(parts.pixels.valid, whole.pixels.valid, err_msg=selection.name)
            there = whole.pixels.valid
            assert parts.pixels.data.dtype == whole.pixels.data.dtype
            np.testing.assert_array_equal(parts.pixels.data[there], whole.pixels.data[there], err_msg=selection.name)


def test_a_scene_that_cannot_be_read_is_named_once(tmp_path):
    folder = tmp_path / "scenes"
    shutil.copytree(PARANA, folder)
    broken = min(folder.rglob("*_B4.tif"))
    broken.write_bytes(broken.read_bytes()[:20_000])
    tile = mercantile.tile(-54.6, -25.3, 11)
    composer = Composer(is_stac=True, is_local=True, room=Room(at_once=10_000))
    view, selection = View(assets=(("B4", ()),)), Selection.parse("median")
    made = composer.compose(items_of(folder), frame_of(tile, 128), tuple(mercantile.bounds(tile)), view, selection)
    assert list(made.skipped) == [str(next(broken.parent.glob("*.json")))]
    assert len(made.used) == len(set(made.used)) == 1


def test_strips_cover_a_tile_once_and_keep_within_the_limit():
    for height, row_bytes, limit in ((100, 10, 10**9), (100, 10, 500), (512, 10**6, 40 * 10**6), (70, 10**9, 1)):
        frame = Frame(bounds=(0, 0, 1, 1), crs=rasterio.CRS.from_epsg(3857), width=30, height=height)
        strips = list(strips_of(frame, row_bytes, limit))
        assert [strip.row_off for strip in strips] == [sum(s.height for s in strips[:n]) for n in range(len(strips))]
        assert sum(strip.height for strip in strips) == height
        assert all(strip.height * row_bytes <= limit or strip.height <= 32 for strip in strips)


def test_strips_without_a_scene_are_holes_or_count_as_nought():
    top, bottom = Window(0, 0, 3, 2), Window(0, 2, 3, 1)
    pixels = Pixels(np.full((2, 1, 3), 7, "uint8"), np.ones((2, 1, 3), bool))
    for is_valid in (True, False):
        made = joined([(top, None), (bottom, pixels)], is_valid=is_valid)
        np.testing.assert_array_equal(made.data[:, :, 0], [[0, 0, 7]] * 2)
        np.testing.assert_array_equal(made.valid[:, :, 0], [[is_valid, is_valid, True]] * 2)
    assert joined([(top, None), (bottom, None)], is_valid=True) is None


def test_what_a_strip_holds_does_not_keep_the_tile_in_memory():
    names, tile = items_of(COLORADO)[:3], mercantile.tile(-106.914, 40.288, 14)
    held = []
    selection = Selection.parse("median", group_by="none")
    composer = Composer(is_stac=True, is_local=True, room=Room(at_once=1))
    read = View.read

    def reading(*args):
        pixels = read(*args)
        held.append(pixels.data.shape[1])
        return pixels

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(View, "read", reading)
        view = View(assets=(("b4", ()),))
        composer.compose(names, frame_of(tile, 128), tuple(mercantile.bounds(tile)), view, selection)
    assert max(held) == 32
    assert held.count(32) == 12
