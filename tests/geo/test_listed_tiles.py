"""The area of a list of tiles has exactly these tiles, wherever they lie."""

from __future__ import annotations

import mercantile
import numpy as np
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_async.geo import listed_tiles
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.listed_tiles import area_in_matrix, area_of_tiles
from mosaic_async.geo.matrix import Tile, TileMatrix
from tests.effort import examples


def held(tiles):
    return set(Cover.of(Area.parse(area_of_tiles(tiles)), tiles[0].z).outward())


@given(
    st.integers(0, 24),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sets(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60),
)
@settings(max_examples=examples(60))
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


MATRICES = {
    "degrees": TileMatrix(
        zoom=4, crs="EPSG:4326", left=-180, top=90, width=11.25, height=11.25, columns=32, rows=16, is_south_up=True
    ),
    "LAEA": TileMatrix(
        zoom=1, crs="EPSG:3035", left=2_500_123.5, top=5_000_077, width=90e3, height=70e3, columns=40, rows=50
    ),
    "polar": TileMatrix(
        zoom=0, crs="EPSG:3413", left=-2_000_000, top=2_000_000, width=250e3, height=250e3, columns=16, rows=16
    ),
    "UTM": TileMatrix(
        zoom=9, crs="EPSG:32633", left=300_000, top=5_500_000, width=2560, height=2560, columns=99, rows=99
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_tiles_of_any_grid_are_exactly_the_tiles_of_their_area(name):
    matrix, rng = MATRICES[name], np.random.default_rng(5)
    for count in (1,) if name == "polar" else (1, 4, 40):  # boxes all around a pole are wider than the world
        places = rng.integers(0, (matrix.columns, matrix.rows), (count, 2)) // (1 if count == 4 else 2)
        tiles = {Tile(int(x), int(y), matrix.zoom) for x, y in places}
        area = area_in_matrix(sorted(tiles), matrix)
        assert set(Cover.of(Area.parse(area, latitudes=90), matrix).outward()) == tiles


def test_neighbours_become_one_polygon_as_shapely_s_union_does():
    tiles = [mercantile.Tile(x, y, 8) for x in range(100, 110) for y in range(80, 90) if (x, y) != (105, 85)]
    (feature,) = area_of_tiles(tiles)["features"]
    union = shapely.union_all([shapely.box(*mercantile.bounds(tile)) for tile in tiles])
    assert shapely.geometry.shape(feature["geometry"]).symmetric_difference(union).area < 1e-9
