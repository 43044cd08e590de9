"""Polygons against shapely: their edges are straight in degrees, as RFC 7946 says, and each tile and pixel follows.

The oracle works in degrees, where edges need no further corners and tiles are boxes: it has none of our code.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import mercantile
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyogrio.raw import read
from rasterio.windows import Window

from mosaic_async.geo.area import MAX_LATITUDE, Area
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid
from tests.effort import examples

COUNTRIES = Path(pyogrio.__file__).parent / "tests" / "fixtures" / "naturalearth_lowres" / "naturalearth_lowres.shp"
"""Natural Earth at 1:110 million, which pyogrio ships for its own tests."""
HALF = 2**31 * math.pi / 2**31 * 6378137.0
SIZE = 256


@lru_cache
def country(name: str) -> shapely.Geometry:
    _, _, geometries, (names,) = read(COUNTRIES, columns=["name"])
    return shapely.from_wkb(geometries[list(names).index(name)])


def area_of(geometry: shapely.Geometry) -> Area:
    return Area.parse(geometry.__geo_interface__)


def within_the_world(geometry: shapely.Geometry) -> shapely.Geometry:
    """Bring what lies past 180 degrees back, and cut it at Web Mercator's latitudes."""
    world = shapely.box(-180, -MAX_LATITUDE, 180, MAX_LATITUDE)
    parts = shapely.get_parts(geometry)
    moved = [shapely.transform(parts, lambda xy, by=by: xy + np.array((by, 0))) for by in (-360, 0, 360)]
    pieces = shapely.get_parts(shapely.intersection(np.concatenate(moved), world))
    return shapely.union_all(pieces[shapely.get_dimensions(pieces) == 2])


def assert_tiles(geometry: shapely.Geometry, zoom: int) -> None:
    """All tiles that share an area with a geometry are found, and none that is further away than a hair."""
    found = set(Cover.of(area_of(geometry), zoom).outward())
    world = within_the_world(geometry)
    shapely.prepare(world)
    tiles = [mercantile.Tile(x, y, zoom) for x in range(2**zoom) for y in range(2**zoom)]
    boxes = shapely.box(*np.array([mercantile.bounds(tile) for tile in tiles]).T)
    hair = 1e-4 * 360 / 2**zoom
    near = np.flatnonzero(
        shapely.intersects(world, shapely.buffer(boxes, hair, cap_style="square", join_style="mitre"))
    )
    shared = shapely.area(shapely.intersection(world, boxes[near])) > 1e-6 * shapely.area(boxes[near])
    assert {tiles[index] for index in near[shared]} <= found <= {tiles[index] for index in near}


def centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude of each pixel's centre."""
    transform = grid.transform()
    x = transform.c + (np.arange(grid.width) + 0.5) * transform.a
    y = transform.f + (np.arange(grid.height) + 0.5) * transform.e
    longitude = (np.degrees(x / 6378137.0) + 180) % 360 - 180
    latitude = np.degrees(2 * np.arctan(np.exp(y / 6378137.0)) - np.pi / 2)
    return np.meshgrid(longitude, latitude)


def kept_pixels(grid: Grid) -> np.ndarray:
    kept = np.zeros((grid.height, grid.width), dtype=bool)
    for part in grid.parts():
        rows, columns = slice(part.row_off, part.row_off + part.height), slice(part.col_off, part.col_off + part.width)
        kept[rows, columns] = grid.inside(part, Window(0, 0, part.width, part.height))
    return kept


def assert_pixels(geometry: shapely.Geometry, zoom: int, tile_size: int = SIZE) -> None:
    """Each pixel whose centre is inside is kept; nearer than a tenth of a pixel to an edge, either is right."""
    area = area_of(geometry)
    grid = Grid(cover=Cover.of(area, zoom), tile_size=tile_size, part_blocks=8, clip=area)
    longitude, latitude = centres(grid)
    world = within_the_world(geometry)
    expected = shapely.contains_xy(world, longitude, latitude)
    wrong = kept_pixels(grid) != expected
    points = shapely.points(longitude[wrong], latitude[wrong])
    pixel = 360 / (tile_size * 2**zoom)
    assert (shapely.distance(shapely.boundary(world), points) < 0.1 * pixel).all()
    assert wrong.sum() < 1e-3 * wrong.size + 4


@pytest.mark.parametrize("name", ["France", "Fiji", "Russia", "Norway", "Antarctica", "Chile"])
def test_a_country_has_its_tiles_and_its_pixels(name):
    """Fiji, Russia and Antarctica lie on both sides of 180 degrees, and Antarctica contains a pole."""
    geometry = country(name)
    for zoom in (3, 6):
        assert_tiles(geometry, zoom)
    assert_pixels(geometry, 2)


TRIANGLE = shapely.Polygon([(-120, 0), (120, 5), (10, 82)])
"""Its long sides are up to hundreds of pixels away from straight lines in Web Mercator."""
SHAPES = {
    "a triangle with long sides": TRIANGLE,
    "a hole": TRIANGLE.difference(shapely.Polygon([(-20, 20), (60, 25), (10, 60)])),
    "a sliver": shapely.Polygon([(-170, -60), (170, 70), (170, 70.4)]),
    "past the antimeridian": shapely.Polygon([(150, -40), (230, 10), (200, 75)]),
    "beyond the pole's square": shapely.Polygon([(-100, 50), (100, 60), (0, 89)]),
    "across the equator alike on both sides": shapely.Polygon([(-80, -80), (80, 80), (-80, 80)]),
    "two that overlap": shapely.MultiPolygon([TRIANGLE, shapely.box(-10.3, -10.7, 50.1, 30.2)]),
}


@pytest.mark.parametrize("geometry", SHAPES.values(), ids=SHAPES)
def test_edges_are_straight_in_degrees_and_not_in_mercator(geometry):
    assert_tiles(geometry, 5)
    assert_pixels(geometry, 2)


def corners(low: int, high: int):
    return st.lists(
        st.tuples(st.integers(0, 359).map(math.radians), st.floats(0.05, 1)),
        min_size=low,
        max_size=high,
        unique_by=lambda corner: corner[0],
    )


@given(
    corners(3, 8), corners(3, 5), st.floats(-180, 180), st.floats(-70, 70), st.floats(0.5, 80), st.floats(0.5, 30)
)  # fmt: skip
@settings(max_examples=examples(40))
def test_any_polygon_has_its_tiles_and_its_pixels(outer, inner, longitude, latitude, width, height):
    def ring(points, scale):
        return [
            (
                longitude + scale * width * r * math.cos(a),
                latitude + scale * min(height, 89 - abs(latitude)) * r * math.sin(a),
            )
            for a, r in sorted(points)
        ]

    whole, hole = shapely.Polygon(ring(outer, 1)), shapely.Polygon(ring(inner, 0.4))
    assume(whole.is_valid and hole.is_valid)
    geometry = whole.difference(hole)
    assume(geometry.is_valid and geometry.geom_type == "Polygon" and geometry.area > 1)
    assert_tiles(geometry, 4)
    assert_pixels(geometry, 1)


def test_all_touched_keeps_each_pixel_that_shares_an_area():
    """A line that is thinner than a pixel would be lost otherwise."""
    thin = shapely.Polygon([(0, 0), (20, 30), (20, 30.01), (0, 0.01)])
    area = area_of(thin)
    grid = Grid(cover=Cover.of(area, 3), tile_size=SIZE, clip=area, all_touched=True)
    pixels = kept_pixels(grid)
    left, top = round((grid.transform().c / HALF + 1) * 1024), round((1 - grid.transform().f / HALF) * 1024)
    expected = {(t.y - top, t.x - left) for t in mercantile.tiles(*thin.bounds, zooms=[11])}
    shared = {
        (row, column)
        for row, column in expected
        if shapely.intersection(shapely.box(*mercantile.bounds(column + left, row + top, 11)), thin).area > 1e-9
    }
    assert {(int(row), int(column)) for row, column in np.argwhere(pixels)} == shared


def test_an_area_of_a_million_tiles_costs_bytes_and_not_objects():
    """Sets of tuples took 1.1 GB and 12 seconds of a processor for it."""
    import tracemalloc

    russia = area_of(country("Russia"))
    tracemalloc.start()
    cover = Cover.of(russia, 13, max_tiles=5_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cover.count > 1_000_000
    assert peak < 12 * cover.rows * cover.columns
