"""Areas in files of any format and coordinate system become the same polygons as in degrees."""

from __future__ import annotations

import json

import numpy as np
import pyproj
import pytest
import shapely
from pyogrio.raw import write

from mosaic_async.cli.area_file import area_in
from mosaic_async.errors import UsageError
from mosaic_async.geo.area import Area
from tests.cli.test_main import BOUNDS, run
from tests.geo.test_polygons import country

FORMATS = {"gpkg": "GPKG", "shp": "ESRI Shapefile", "fgb": "FlatGeobuf", "gml": "GML"}


def written(path, shapes, crs, layer="areas", **options):
    """Write shapes in degrees in another system, with a name and a feature without geometry."""
    into = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    moved = [shapely.transform(shape, lambda xy: np.column_stack(into.transform(*xy.T))) for shape in shapes]
    names = np.array([f"feature {index}" for index in range(len(shapes))], dtype=object)
    write(
        path, shapely.to_wkb(np.array(moved)), [names], ["name"], driver=FORMATS[path.suffix[1:]], layer=layer,
        geometry_type="Unknown" if path.suffix != ".shp" else "Polygon", crs=f"EPSG:{crs}", **options,
    )  # fmt: skip
    return path


def shape_of(area: Area) -> shapely.Geometry:
    return shapely.union_all([shapely.Polygon(outer, holes) for outer, *holes in area.polygons])


@pytest.mark.quick(6)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("crs", [4326, 3857, 3035, 2154])
def test_several_features_in_any_format_and_system_are_one_area(suffix, crs, tmp_path):
    shapes = [shapely.box(2, 46, 3, 47).difference(shapely.box(2.3, 46.2, 2.6, 46.8)), shapely.box(5, 44, 5.5, 45)]
    shapes = [shapely.segmentize(shape, 0.001) for shape in shapes]  # so that edges are the same in every system
    area = Area.parse(area_in(str(written(tmp_path / f"a.{suffix}", shapes, crs))))
    different = shapely.symmetric_difference(shape_of(area), shapely.union_all(shapes))
    assert different.area < 1e-6


def assert_near(found, truth):
    """Their outlines are nowhere further apart than a thousandth of a degree, at 300 places of each."""
    lines = [shapely.boundary(shape) for shape in (found, truth)]
    for one, other in (lines, lines[::-1]):
        shapely.prepare(other)
        points = shapely.line_interpolate_point(one, np.linspace(0, 1, 300), normalized=True)
        assert shapely.distance(points, other).max() < 1e-3


def test_edges_are_straight_in_the_file_s_own_system(tmp_path):
    """A square of 2,000 km in LAEA: in degrees its upper edge is a curve that rises by a degree."""
    square = shapely.box(3_321_000, 2_210_000, 5_321_000, 4_210_000)
    into = pyproj.Transformer.from_crs(3035, 4326, always_xy=True)
    fine = shapely.transform(shapely.segmentize(square, 500), lambda xy: np.column_stack(into.transform(*xy.T)))
    path = tmp_path / "a.gpkg"
    write(path, shapely.to_wkb(np.array([square])), [], [], driver="GPKG", geometry_type="Polygon", crs="EPSG:3035")
    assert_near(shape_of(Area.parse(area_in(str(path)))), fine)
    in_json = {"type": "Polygon", "coordinates": [list(square.exterior.coords)]}
    in_json["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3035"}}
    assert_near(shape_of(Area.parse(in_json)), fine)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("crs", "name", "share"), [(3031, "Antarctica", 1e-4), (3832, "Fiji", 1e-4), (3408, "Norway", 1e-4)]
)
def test_areas_over_a_pole_and_the_antimeridian_keep_their_shape(crs, name, share):
    """EPSG:3031 is polar: Antarctica is a ring around the pole there. EPSG:3832 is Mercator around 150 degrees east."""
    truth = country(name)
    from_there = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    fine = shapely.segmentize(truth, 0.05)
    if name == "Antarctica":  # without the seam to the pole
        fine = shapely.intersection(fine, shapely.box(-180, -89.99, 180, -60))
    there = shapely.transform(fine, lambda xy: np.column_stack(from_there.transform(*xy.T)))
    there = shapely.union_all(shapely.get_parts(there), grid_size=0.001)
    json_there = {**there.__geo_interface__, "crs": {"properties": {"name": f"EPSG:{crs}"}}}
    pieces = [
        shapely.Polygon(outer, holes) for outer, *holes in Area.parse(json.loads(json.dumps(json_there))).pieces()
    ]
    world = shapely.box(-180, -85, 180, 85)
    different = shapely.symmetric_difference(shapely.union_all(pieces), truth).intersection(world)
    assert different.area < share * truth.area


def test_files_that_hold_no_area_say_why(tmp_path):
    two = written(tmp_path / "two.gpkg", [shapely.box(0, 0, 1, 1)], 4326, layer="a")
    written(two, [shapely.box(5, 5, 6, 6)], 4326, layer="b", append=False)
    with pytest.raises(UsageError, match="layers a, b"):
        area_in(str(two))
    assert Area.parse(area_in(f"{two}:b")).bounds == (5, 5, 6, 6)
    points = tmp_path / "points.fgb"
    point = shapely.to_wkb(np.array([shapely.Point(0, 0)]))
    write(points, point, [], [], driver="FlatGeobuf", geometry_type="Point", crs="EPSG:4326")
    with pytest.raises(UsageError, match="Point"):
        Area.parse(area_in(str(points)))
    nowhere = tmp_path / "nowhere.shp"
    with pytest.warns(UserWarning, match="crs"):
        write(nowhere, shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)])), [], [], geometry_type="Polygon")
    with pytest.raises(UsageError, match="no coordinate system"):
        area_in(str(nowhere))
    (tmp_path / "not.gpkg").write_text("a text")
    for bad, words in ((tmp_path / "not.gpkg", "cannot be read"), (tmp_path / "gone.shp", "not found")):
        with pytest.raises(UsageError, match=words):
            area_in(str(bad))
    unknown = {"type": "Polygon", "coordinates": [], "crs": {"properties": {"name": "https://host/crs"}}}
    with pytest.raises(UsageError, match="not a coordinate system"):
        Area.parse(unknown)


def test_the_command_takes_a_geopackage(serve, tmp_path):
    tiler = serve()
    west, south, east, north = map(float, BOUNDS)
    file = written(tmp_path / "area.gpkg", [shapely.box(west, south, east, north)], 3857)
    run("build", tiler.template, tmp_path / "a.tif", "--area", file, "-z", 7, "--clip", "--all-touched")
    assert tiler.requests == 16
