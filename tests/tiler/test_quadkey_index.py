"""The scenes of a box in degrees: all that its cells list, in the order of the mosaic."""

from __future__ import annotations

import mercantile
from hypothesis import given
from hypothesis import strategies as st

from mosaic_async.tiler.scenes.quadkey_index import QuadkeyIndex

ZOOM = 5
TILES = [mercantile.Tile(x, y, ZOOM) for x in range(2**ZOOM) for y in range(2**ZOOM)]
NAMES = [f"scene {number}" for number in range(40)]


def listed(tile: mercantile.Tile) -> list[str]:
    return [name for index, name in enumerate(NAMES) if (tile.x * 7 + tile.y * 3 + index) % 11 == 0]


LISTED = {mercantile.quadkey(tile): listed(tile) for tile in TILES}
INDEX = QuadkeyIndex({key: names for key, names in LISTED.items() if names}, ZOOM)


@given(st.floats(-180, 180), st.floats(-85, 84), st.floats(0.001, 100), st.floats(0.001, 30))
def test_a_box_has_the_scenes_of_all_cells_that_it_touches_in_their_order(west, south, width, height):
    east, north = (west + width + 180) % 360 - 180, min(south + height, 85)
    boxes = [(west, south, east, north)] if west <= east else [(west, south, 180, north), (-180, south, east, north)]
    touched = {mercantile.quadkey(tile) for box in boxes for tile in mercantile.tiles(*box, zooms=[ZOOM])}
    expected = {name for key in touched for name in LISTED[key]}
    found = INDEX.within((west, south, east, north))
    assert expected <= set(found)
    assert all([name for name in found if name in LISTED[key]] == LISTED[key] for key in touched)
    wider = [(max(w - 1e-6, -180), s - 1e-6, min(e + 1e-6, 180), n + 1e-6) for w, s, e, n in boxes]
    near = {mercantile.quadkey(tile) for box in wider for tile in mercantile.tiles(*box, zooms=[ZOOM])}
    assert set(found) <= {name for key in near for name in LISTED[key]}


def test_a_scene_that_only_one_cell_lists_keeps_its_place():
    """The cell in the west lists the second scene alone: first must still be the first of both."""
    index = QuadkeyIndex({"120": ["b", "c"], "121": ["a", "b"]}, 3)
    assert index.within((0, 0, 80, 60)) == ["a", "b", "c"]
    disagreeing = QuadkeyIndex({"120": ["b", "a"], "121": ["a", "b"]}, 3)
    assert disagreeing.within((0, 0, 80, 60)) == ["b", "a"]
