"""What users give as an area becomes one that makes sense, or a clear error."""

from __future__ import annotations

import math

import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_async.errors import MosaicError, RefusedError, UsageError
from mosaic_async.geo.area import MAX_LATITUDE, Area

SQUARE = [[0.0, 0.0], [10.0, 0.0], [10.0, 5.0], [0.0, 5.0], [0.0, 0.0]]
FIJI_SPLIT = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[177, -19], [180, -19], [180, -16], [177, -16], [177, -19]]],
        [[[-180, -19], [-178, -19], [-178, -16], [-180, -16], [-180, -19]]],
    ],
}


def spans(area: Area) -> list[tuple[float, float]]:
    return sorted((min(x for x, _ in ring), max(x for x, _ in ring)) for ring, *_ in area.pieces())


def test_bounds_are_kept_as_given():
    assert Area.parse((-5.2, 47.2, -0.9, 48.95)).bounds == (-5.2, 47.2, -0.9, 48.95)


def test_west_above_east_runs_across_the_antimeridian():
    assert Area.parse((177, -19, -178, -16)).bounds == (177, -19, 182, -16)


def test_latitudes_are_cut_at_the_web_mercator_square():
    assert Area.parse((-180, -90, 180, 90)).bounds == (-180, -MAX_LATITUDE, 180, MAX_LATITUDE)


@pytest.mark.parametrize(
    "geojson",
    [
        {"type": "Polygon", "coordinates": [SQUARE]},
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [SQUARE]}},
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [SQUARE]}]},
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}],
        },
        {"type": "Polygon", "coordinates": [[[*corner, 1234.5] for corner in SQUARE]]},
    ],
)
def test_polygons_are_found_in_every_kind_of_geojson(geojson):
    area = Area.parse(geojson)
    assert area.bounds == (0, 0, 10, 5)
    assert len(area.polygons) == 1


def named(code):
    return {"crs": {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda square: {**square, **named(25832)},
        lambda square: {"type": "Feature", "properties": {}, "geometry": {**square, **named(25832)}},
        lambda square: {"type": "Feature", **named(25832), "properties": {}, "geometry": {**square, "crs": None}},
        lambda square: {
            "type": "FeatureCollection", **named(4326),
            "features": [{"type": "Feature", "geometry": {**square, **named(25832)}}],
        },
        lambda square: {"type": "GeometryCollection", "geometries": [square], **named(25832)},
        lambda square: {"type": "GeometryCollection", **named(3857), "geometries": [{**square, **named(25832)}]},
    ],
)  # fmt: skip
def test_a_coordinate_system_holds_for_what_names_it_and_for_what_is_inside(wrap):
    corners = [(500000, 5200000), (600000, 5200000), (600000, 5300000), (500000, 5300000), (500000, 5200000)]
    area = Area.parse(wrap({"type": "Polygon", "coordinates": [corners]}))
    x, y = pyproj.Transformer.from_crs(25832, 4326, always_xy=True).transform(*zip(*corners, strict=True))
    found = {(round(x, 6), round(y, 6)) for x, y in area.polygons[0][0]}
    assert found >= {(round(x, 6), round(y, 6)) for x, y in zip(x, y, strict=True)}
    assert (area.west, area.south) == pytest.approx((9.0, 46.946), abs=1e-2)


def test_a_polygon_beyond_180_degrees_is_cut_into_two_pieces():
    area = Area.parse({"type": "Polygon", "coordinates": [[[170, 0], [190, 0], [190, 5], [170, 5], [170, 0]]]})
    assert spans(area) == [(-180, -170), (170, 180)]


def test_a_polygon_that_touches_the_antimeridian_stays_one_piece():
    area = Area.parse({"type": "Polygon", "coordinates": [[[170, 0], [180, 0], [180, 5], [170, 5], [170, 0]]]})
    assert spans(area) == [(170, 180)]


def test_a_polygon_with_a_corner_at_the_pole_is_cut_and_keeps_its_slope():
    area = Area.parse({"type": "Polygon", "coordinates": [[[0, 80], [10, 80], [10, 90], [0, 80]]]})
    (piece,) = area.pieces()
    assert max(y for _, y in piece[0]) == MAX_LATITUDE
    share = (MAX_LATITUDE - 80) / 10
    assert any(x == pytest.approx(10 * share) and y == MAX_LATITUDE for x, y in piece[0])


@pytest.mark.parametrize(
    ("area", "error"),
    [
        ((1, 2, 3), UsageError),
        (("a", 2, 3, 4), UsageError),
        (5, UsageError),
        ((0, 10, 5, 10), RefusedError),
        ((0, 11, 5, 10), RefusedError),
        ((5, 0, 5, 1), RefusedError),
        ((0, 86, 5, 89), RefusedError),
        ((math.nan, 0, 5, 1), RefusedError),
        ((-math.inf, -math.inf, math.inf, math.inf), RefusedError),
        ((200_000, 5_000_000, 300_000, 6_000_000), RefusedError),
        ({"type": "Point", "coordinates": [0, 0]}, UsageError),
        ({"type": "Polygon", "coordinates": []}, UsageError),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, UsageError),
        ({"type": "Polygon"}, UsageError),
        ({"type": "FeatureCollection", "features": []}, UsageError),
        ({"type": "Feature", "geometry": None}, UsageError),
        ({"type": "FeatureCollection", "features": [3]}, UsageError),
        ({"type": "Polygon", "coordinates": [[[0, math.nan], [1, 1], [2, 0]]]}, RefusedError),
        ({}, UsageError),
    ],
)
def test_what_is_no_area_is_refused(area, error):
    with pytest.raises(error):
        Area.parse(area)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "geometry", "features", "coordinates", "geometries"]), inner)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["type", "geometry", "features", "coordinates"]), json_values)
    | st.builds(lambda c: {"type": "Polygon", "coordinates": c}, json_values)
    | st.builds(lambda c: {"type": "FeatureCollection", "features": c}, json_values)
)
def test_hostile_geojson_gives_an_area_or_our_error_and_nothing_else(geojson):
    try:
        area = Area.parse(geojson)
    except MosaicError:
        return
    assert area.south < area.north
