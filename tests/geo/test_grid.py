"""Tiles, windows and parts: complete, without overlap, in a good order, and never an absurd number."""

from __future__ import annotations

import time
from itertools import pairwise

import mercantile
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid, default_zoom
from tests.effort import examples
from tests.geo.test_area import FIJI_SPLIT


def cover_of(area, zoom, **options) -> Cover:
    return Cover.of(Area.parse(area), zoom, **options)


def all_tiles(grid: Grid):
    return [tile for part in grid.parts() for tile in grid.tiles(part)]


@st.composite
def tiles(draw, max_zoom=24):
    zoom = draw(st.integers(0, max_zoom))
    return mercantile.Tile(draw(st.integers(0, 2**zoom - 1)), draw(st.integers(0, 2**zoom - 1)), zoom)


def degrees(low: float, high: float):
    return st.floats(low, high).map(lambda value: round(value, 7))


boxes = st.tuples(degrees(-180, 179), degrees(-85, 84), degrees(0.0001, 60), degrees(0.0001, 60)).map(
    lambda box: (box[0], box[1], min(180.0, box[0] + box[2]), min(85.0, box[1] + box[3]))
)


@given(tiles())
@settings(max_examples=examples(500))
def test_tile_bounds_given_back_as_an_area_give_exactly_that_tile(tile):
    cover = cover_of(mercantile.bounds(tile), tile.z)
    assert cover.count == 1
    assert cover.tile(0, 0) == tile


@given(tiles(max_zoom=18))
def test_a_tile_given_back_as_a_polygon_gives_exactly_that_tile(tile):
    cover = cover_of(mercantile.feature(tile), tile.z)
    assert cover.count == 1
    assert cover.tile(0, 0) == tile


@given(boxes, st.integers(0, 9))
def test_the_tiles_of_a_box_are_those_of_mercantile(box, zoom):
    cover = cover_of(box, zoom)
    grid = Grid(cover=cover, tile_size=256, part_blocks=4)
    assert set(all_tiles(grid)) == set(mercantile.tiles(*box, zooms=[zoom]))


@pytest.mark.parametrize("zoom", [0, 3, 6])
def test_the_whole_world_has_all_tiles_of_a_zoom(zoom):
    assert cover_of((-180, -90, 180, 90), zoom).count == 4**zoom


@pytest.mark.parametrize("area", [(177, -19, -178, -16), FIJI_SPLIT])
def test_an_area_across_the_antimeridian_is_one_narrow_grid(area):
    cover = cover_of(area, 8)
    assert cover.columns == 5
    assert {tile.x for tile in all_tiles(Grid(cover=cover, tile_size=256))} == {253, 254, 255, 0, 1}
    west, _, east, _ = Grid(cover=cover, tile_size=256).bounds
    assert 175 < west < 177
    assert -178 < east < -176


def test_a_polygon_leaves_out_the_tiles_that_it_does_not_touch():
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [40, 0], [0, 40], [0, 0]]]}
    cover = cover_of(triangle, 6)
    assert 0 < cover.count < cover.columns * cover.rows
    assert set(all_tiles(Grid(cover=cover, tile_size=512))) == set(cover.outward())


def test_a_polygon_of_the_whole_world_to_the_poles_is_covered_in_no_time():
    started = time.monotonic()
    world = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    assert cover_of({"type": "Polygon", "coordinates": [world]}, 6).count == 4096
    assert time.monotonic() - started < 20  # supermercado alone does not come back from the poles


def test_far_islands_do_not_turn_the_grid_around():
    france_and_reunion = {
        "type": "MultiPolygon",
        "coordinates": [
            [[[0, 45], [5, 45], [5, 48], [0, 45]]],
            [[[55, -21], [56, -21], [56, -20], [55, -21]]],
        ],
    }
    cover = cover_of(france_and_reunion, 7)
    assert cover.left == mercantile.tile(0, 45, 7).x
    assert cover.count < 20


@pytest.mark.parametrize(
    "area", [(-180, -85, 180, 85), {"type": "Polygon", "coordinates": [[[0, 0], [90, 0], [0, 80]]]}]
)
def test_an_absurd_number_of_tiles_is_refused_with_the_number_before_any_is_listed(area):
    started = time.monotonic()
    with pytest.raises(RefusedError, match=r"\d{3},\d{3} tiles at zoom 22"):
        cover_of(area, 22)
    assert time.monotonic() - started < 5


def test_the_limit_on_tiles_can_be_raised_and_lowered():
    assert cover_of((0, 0, 10, 10), 8, max_tiles=100).count == 64
    with pytest.raises(RefusedError, match="64 tiles at zoom 8, more than 63"):
        cover_of((0, 0, 10, 10), 8, max_tiles=63)


@pytest.mark.parametrize("zoom", [-1, 25])
def test_a_zoom_that_cannot_be_is_a_usage_error(zoom):
    with pytest.raises(UsageError, match="zoom"):
        cover_of((0, 0, 1, 1), zoom)


@given(boxes, st.integers(0, 7))
def test_going_outward_gives_every_tile_once_and_starts_in_the_centre(box, zoom):
    cover = cover_of(box, zoom)
    found = list(cover.outward())
    assert sorted(found) == sorted(
        cover.tile(column, row) for column in range(cover.columns) for row in range(cover.rows)
    )
    assert cover.place(found[0]) == ((cover.columns - 1) // 2, (cover.rows - 1) // 2)


def test_tiles_of_a_part_come_in_quadkey_order():
    grid = Grid(cover=cover_of((-5.2, 41.3, 9.6, 51.2), 9), tile_size=512, part_blocks=8)
    for part in grid.parts():
        keys = [mercantile.quadkey(tile) for tile in grid.tiles(part)]
        assert keys == sorted(keys)


@given(
    boxes,
    st.integers(0, 8),
    st.sampled_from([128, 256, 512, 1024]),
    st.sampled_from([2, 4, 16]),
    st.booleans(),
)
def test_windows_of_all_tiles_fill_every_part_exactly_once(box, zoom, tile_size, part_blocks, clip):
    area = Area.parse(box)
    cover = Cover.of(area, zoom)
    assume(cover.count <= 40)
    grid = Grid(cover=cover, tile_size=tile_size, part_blocks=part_blocks, clip=area if clip else None)
    filled = np.zeros((-(-grid.height // 128), -(-grid.width // 128)), dtype=int)  # sampled: whole canvases are large
    touching = {}
    for part in grid.parts():
        total = 0
        for tile in grid.tiles(part):
            of_tile, of_part = grid.overlap(tile, part)
            assert (of_tile.width, of_tile.height) == (of_part.width, of_part.height)
            assert 0 <= of_tile.col_off <= of_tile.col_off + of_tile.width <= tile_size
            assert 0 <= of_part.row_off <= of_part.row_off + of_part.height <= part.height
            total += of_part.width * of_part.height
            touching.setdefault(tile, []).append((part.row, part.col))
        assert total == part.width * part.height
        filled[
            part.row_off // 128 : -(-(part.row_off + part.height) // 128),
            part.col_off // 128 : -(-(part.col_off + part.width) // 128),
        ] += 1
    assert (filled == 1).all()
    assert all(grid.touches(tile) == parts for tile, parts in touching.items())


def test_a_clipped_grid_is_the_area_to_the_pixel():
    area = Area.parse((-5.2, 47.2, -0.9, 48.95))
    grid = Grid(cover=Cover.of(area, 11), tile_size=512, clip=area)
    west, south, east, north = grid.bounds
    pixel = 360 / (512 * 2**11)
    assert -5.2 - pixel < west <= -5.2
    assert -0.9 <= east < -0.9 + pixel
    assert 47.2 - pixel < south <= 47.2
    assert 48.95 <= north < 48.95 + pixel


@given(tiles(max_zoom=20), st.sampled_from([128, 256, 512, 1024]))
def test_the_transform_puts_the_corner_where_mercantile_does(tile, tile_size):
    grid = Grid(cover=cover_of(mercantile.bounds(tile), tile.z), tile_size=tile_size)
    bounds = mercantile.xy_bounds(tile)
    transform = grid.transform()
    assert transform.c == pytest.approx(bounds.left, abs=1e-6)
    assert transform.f == pytest.approx(bounds.top, abs=1e-6)
    assert transform.a * tile_size == pytest.approx(bounds.right - bounds.left)
    assert transform.e == -transform.a


@pytest.mark.parametrize(("tiles_wide", "levels"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (94, 7)])
def test_overviews_end_with_the_first_level_that_fits_one_block(tiles_wide, levels):
    west = -180.0
    grid = Grid(cover=cover_of((west, 0, west + 360 / 2**11 * tiles_wide, 0.1), 11), tile_size=512)
    assert grid.width == 512 * tiles_wide
    assert grid.levels == levels


@pytest.mark.parametrize(
    ("maxzoom", "tile_size", "zoom"), [(12, 256, 12), (12, 512, 11), (12, 1024, 10), (12, 128, 13), (0, 512, 0)]
)
def test_the_default_zoom_keeps_the_resolution_whatever_the_tile_size(maxzoom, tile_size, zoom):
    assert default_zoom(maxzoom, tile_size) == zoom


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": 100},
        {"tile_size": 64},
        {"block_size": 500},
        {"part_blocks": 3},
        {"tile_size": 1024, "part_blocks": 1},
    ],
)
def test_sizes_that_do_not_fit_together_are_usage_errors(options):
    with pytest.raises(UsageError):
        Grid(cover=cover_of((0, 0, 1, 1), 5), **{"tile_size": 256, **options})


def test_parts_without_tiles_are_left_out():
    two_corners = {
        "type": "MultiPolygon",
        "coordinates": [[[[0, 0], [1, 0], [0, 1]]], [[[40, 40], [41, 40], [40, 41]]]],
    }
    grid = Grid(cover=cover_of(two_corners, 8), tile_size=256, part_blocks=1)
    parts = list(grid.parts())
    assert 0 < len(parts) < 10
    assert all(grid.tiles(part) for part in parts)


def test_a_million_tiles_are_listed_part_by_part_without_being_held():
    grid = Grid(cover=cover_of((-180, -85, 180, 85), 10, max_tiles=2_000_000), tile_size=256)
    parts = grid.parts()
    first, second = next(parts), next(parts)
    assert len(grid.tiles(first)) == 32 * 32
    assert all(one != other for one, other in pairwise([first, second]))


@given(tiles(max_zoom=18), st.integers(1, 4), st.integers(1, 4))
def test_a_polygon_whose_corners_lie_on_tile_corners_has_exactly_the_tiles_inside(tile, columns, rows):
    x, y, zoom = tile
    right, lower = min(x + columns, 2**zoom), min(y + rows, 2**zoom)
    west, _, _, north = mercantile.bounds(x, y, zoom)
    _, south, east, _ = mercantile.bounds(right - 1, lower - 1, zoom)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    cover = cover_of({"type": "Polygon", "coordinates": [ring]}, zoom)
    assert set(cover.outward()) == {mercantile.Tile(i, j, zoom) for i in range(x, right) for j in range(y, lower)}


def test_a_staircase_along_tile_edges_has_exactly_its_tiles():
    """An L of three tiles: the fourth of the square only touches it."""
    corners = [(8, 8), (10, 8), (10, 9), (9, 9), (9, 10), (8, 10), (8, 8)]
    ring = [list(mercantile.ul(x, y, 5)) for x, y in corners]
    cover = cover_of({"type": "Polygon", "coordinates": [ring]}, 5)
    assert {(tile.x, tile.y) for tile in cover.outward()} == {(8, 8), (9, 8), (8, 9)}


@pytest.mark.parametrize("side", [1e-3, 1e-6, 1e-9])
def test_a_tiny_polygon_has_the_tile_that_it_lies_in(side):
    ring = [[2.3, 48.8], [2.3 + side, 48.8], [2.3, 48.8 + side], [2.3, 48.8]]
    cover = cover_of({"type": "Polygon", "coordinates": [ring]}, 9)
    assert list(cover.outward()) == [mercantile.tile(2.3, 48.8, 9)]


@pytest.mark.parametrize(("columns", "widths"), [(6, [1024, 512]), (5, [1280]), (7, [1024, 768]), (8, [1024, 1024])])
def test_parts_that_stay_cover_the_output_once_and_none_is_one_block_wide(columns, widths):
    """In blocks of 256 pixels and parts of 1024, a last column of 256 pixels would be one block wide."""
    bounds = mercantile.bounds(10, 20, 7)
    far = mercantile.bounds(10 + columns - 1, 20 + 8, 7)
    cover = Cover.of(Area.parse((bounds.west + 1e-6, far.south + 1e-6, far.east - 1e-6, bounds.north - 1e-6)), 7)
    grid = Grid(cover=cover, tile_size=256, block_size=256, part_blocks=4, in_parts=True)
    parts = list(grid.parts())
    assert [part.width for part in parts if part.row == 0] == widths
    assert sum(part.width * part.height for part in parts) == grid.width * grid.height
    assert grid.widest_part == max(widths)
    for part in parts:
        for tile in grid.tiles(part):
            assert (part.row, part.col) in grid.touches(tile)
    counted = np.zeros((cover.rows, cover.columns), int)
    for part in parts:
        counted[grid.counted_in(part.row, part.col)] += 1
    assert (counted == 1).all()
