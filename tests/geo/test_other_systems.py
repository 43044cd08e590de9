"""Polygons on grids of other coordinate systems, against pyproj and shapely on pixel centres."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_async.errors import RefusedError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid
from mosaic_async.geo.matrix import TileMatrix
from tests.effort import examples
from tests.geo.test_polygons import area_of, country, kept_pixels

SIZE = 128


def grid_over(area: Area, matrix: TileMatrix, *, clip: bool = True) -> Grid:
    return Grid(cover=Cover.of(area, matrix), tile_size=SIZE, block_size=128, clip=area if clip else None)


def matrix_of(crs: str, west: float, north: float, tile: float, columns: int, rows: int) -> TileMatrix:
    return TileMatrix(zoom=0, crs=crs, left=west, top=north, width=tile, height=tile, columns=columns, rows=rows)


def degrees_of_centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    transform = grid.transform()
    x, y = transform @ np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    back = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True)
    longitude, latitude = back.transform(x, y)
    return np.asarray(longitude), np.asarray(latitude)


def assert_pixels(geometry: shapely.Geometry, grid: Grid) -> None:
    longitude, latitude = degrees_of_centres(grid)
    expected = shapely.contains_xy(geometry, longitude, latitude)
    wrong = kept_pixels(grid) != expected
    assert expected.any()
    assert wrong.sum() <= 2 + 2e-4 * wrong.size
    # each wrong pixel is within a tenth of a pixel of an edge: a neighbour in degrees is on the other side
    for row, column in np.argwhere(wrong)[:20]:
        x, y = longitude[row, column], latitude[row, column]
        other = [(row, column + 1), (row, column - 1), (row + 1, column), (row - 1, column)]
        near = [(longitude[r, c], latitude[r, c]) for r, c in other if 0 <= r < grid.height and 0 <= c < grid.width]
        pixel = max(np.hypot((a - x + 180) % 360 - 180, b - y) for a, b in near)
        assert shapely.distance(shapely.boundary(geometry), shapely.Point(x, y)) < 0.1 * pixel + 1e-9


GRIDS = {
    "France": matrix_of("EPSG:3035", 2_000_000, 5_000_000, 500_000, 12, 10),
    "Norway": matrix_of("EPSG:3413", -4_000_000, 3_000_000, 400_000, 20, 20),
    "Fiji": matrix_of("EPSG:3832", 2_000_000, -1_000_000, 200_000, 20, 20),
    "Russia": matrix_of("EPSG:3576", -5_000_000, 5_000_000, 600_000, 18, 18),
    "Antarctica": matrix_of("EPSG:3031", -4_000_000, 4_000_000, 500_000, 16, 16),
    "Chile": matrix_of("EPSG:32719", -1_000_000, 9_000_000, 400_000, 8, 18),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", GRIDS)
def test_a_country_has_its_pixels_on_a_grid_of_its_own(name):
    """EPSG:3832 has its middle at 150 degrees east, so that Fiji is whole; Antarctica is around the pole."""
    geometry = country(name)
    if name == "France":  # without Guiana
        geometry = shapely.intersection(geometry, shapely.box(-10, 40, 15, 60))
    if name == "Chile":
        geometry = shapely.intersection(geometry, shapely.box(-80, -50, -60, -10))
    assert_pixels(geometry, grid_over(area_of(geometry), GRIDS[name]))


@pytest.mark.parametrize("name", ["France", "Norway", "Antarctica"])
def test_the_tiles_of_a_country_are_those_that_hold_its_pixels(name):
    geometry, matrix = country(name), GRIDS[name]
    if name == "France":
        geometry = shapely.intersection(geometry, shapely.box(-10, 40, 15, 60))
    cover = Cover.of(area_of(geometry), matrix)
    into = pyproj.Transformer.from_crs(4326, matrix.crs, always_xy=True)
    fine = shapely.segmentize(geometry, 0.02)
    there = shapely.transform(fine, lambda xy: np.column_stack(into.transform(*xy.T)))
    there = shapely.make_valid(there)
    shapely.prepare(there)
    expected = set()
    for row in range(matrix.rows):
        for column in range(matrix.columns):
            west, north = matrix.left + column * matrix.width, matrix.top - row * matrix.height
            box = shapely.box(west, north - matrix.height, west + matrix.width, north)
            if shapely.intersection(there, box).area > 1e-6 * box.area:
                expected.add((column, row, 0))
    assert {tuple(tile) for tile in cover.outward()} == expected


@given(
    st.floats(6.5, 11.5), st.floats(-60, 72), st.floats(0.2, 3), st.floats(0.2, 3), st.integers(0, 359), st.booleans()
)  # fmt: skip
@settings(max_examples=examples(25))
def test_boxes_and_diamonds_on_utm_have_their_pixels(longitude, latitude, width, height, angle, is_box):
    zone = "EPSG:32632" if latitude >= 0 else "EPSG:32732"
    matrix = matrix_of(zone, -500_013, 10_000_007, 200_000, 12, 120)
    if is_box:
        bounds = (longitude - width, latitude - height, longitude + width, latitude + height)
        area, geometry = Area.parse(bounds, latitudes=90), shapely.box(*bounds)
    else:
        turn = np.radians(angle + np.array([0, 80, 190, 260]))
        geometry = shapely.Polygon(
            np.column_stack((longitude + width * np.cos(turn), latitude + height * np.sin(turn)))
        )
        area = area_of(geometry)
    assert_pixels(geometry, grid_over(area, matrix))


def test_what_lies_outside_of_a_set_is_refused_and_what_reaches_out_is_cut():
    matrix = GRIDS["France"]
    with pytest.raises(RefusedError, match="outside of the tile matrix set"):
        Cover.of(Area.parse((-70, -40, -60, -30)), matrix)
    cover = Cover.of(Area.parse((-40, 30, 60, 75)), matrix)
    assert (cover.left, cover.top, cover.columns) == (0, 0, matrix.columns)
    half = matrix_of("EPSG:4326", -180, 90, 36, 5, 5)  # the western hemisphere alone
    cover = Cover.of(Area.parse((170, 0, -100, 80), latitudes=90), half)
    assert {(tile.x, tile.y) for tile in cover.outward()} == {(x, y) for x in range(3) for y in range(3)}


GREENWICH = matrix_of("EPSG:4326", 0, 90, 10, 36, 18)
"""Longitudes from 0 to 360, so that its edge runs through Europe and Africa."""


@pytest.mark.parametrize(
    ("geometry", "columns"),
    [
        (shapely.Polygon([(-23, -30), (18, -12), (4, 41)]), {33, 34, 35, 0, 1}),
        (shapely.MultiPolygon([shapely.box(-12, 5, -3, 9), shapely.box(2, 5, 14, 9)]), {34, 35, 0, 1}),
        (shapely.Polygon([(165.013, -30.029), (204.1, -12.7), (180.3, 41.01)]), {16, 17, 18, 19, 20}),
        (shapely.Polygon([(-60, 10), (-20, 10), (-40, 50)]), {30, 31, 32, 33}),
    ],
)
def test_a_world_that_begins_elsewhere_closes_at_its_own_edge(geometry, columns):
    area = area_of(geometry)
    grid = grid_over(area, GREENWICH)
    assert {tile.x for tile in grid.cover.outward()} == columns
    transform = grid.transform()
    x, y = transform @ np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    found = [shapely.contains_xy(geometry, x + turn, y) for turn in (-720, -360, 0, 360)]
    assert (kept_pixels(grid) != np.any(found, axis=0)).sum() <= 2
    west, _, east, _ = grid.bounds
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    box = Cover.of(Area.parse((-23, -30, 18, 41)), GREENWICH)
    assert {tile.x for tile in box.outward()} == {33, 34, 35, 0, 1}
