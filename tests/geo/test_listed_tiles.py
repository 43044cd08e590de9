"""The area of a list of tiles has exactly these tiles, wherever they lie."""

from __future__ import annotations

import mercantile
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_async.geo import listed_tiles
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.listed_tiles import area_of_tiles


def held(tiles):
    return set(Cover.of(Area.parse(area_of_tiles(tiles)), tiles[0].z).outward())


@given(
    st.integers(0, 24),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60),
)
@settings(max_examples=60)
def test_any_tiles_are_exactly_the_tiles_of_their_area(zoom, x, y, places):
    last = 2**zoom - 1
    tiles = {
        mercantile.Tile(min(int(x * last) + column, last), min(int(y * last) + row, last), zoom)
        for column, row in places
    }
    assert held(sorted(tiles)) == tiles


@pytest.mark.parametrize("cells", [0, 2**24])
def test_tiles_on_both_sides_of_the_antimeridian_are_kept(monkeypatch, cells):
    monkeypatch.setattr(listed_tiles, "_MAX_CELLS", cells)
    tiles = [mercantile.Tile(x, y, 9) for x in (0, 1, 510, 511) for y in (200, 203)]
    assert held(tiles) == set(tiles)


def test_neighbours_become_one_polygon_as_shapely_s_union_does():
    tiles = [mercantile.Tile(x, y, 8) for x in range(100, 110) for y in range(80, 90) if (x, y) != (105, 85)]
    (feature,) = area_of_tiles(tiles)["features"]
    union = shapely.union_all([shapely.box(*mercantile.bounds(tile)) for tile in tiles])
    assert shapely.geometry.shape(feature["geometry"]).symmetric_difference(union).area < 1e-9
