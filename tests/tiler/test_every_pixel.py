"""Index and reader against PROJ, pixel by pixel: a scene is in every tile that it has pixels in, wherever it lies."""

from __future__ import annotations

import json
from functools import partial

import mercantile
import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from mosaic_async.stac import create_mosaic
from mosaic_async.tiler import open_mosaic
from mosaic_async.tiler.backend import definition
from mosaic_async.tiler.pixels.composer import Composer
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.view import View
from tests.effort import examples
from tests.sources.test_raster_grid import SYSTEMS

pytestmark = [
    pytest.mark.filterwarnings("ignore:Adjusting dataset latitudes"),  # rio-tiler
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),  # of control points
]
SIZE = 256
"""Width of the tiles."""
SIDE = 96
"""Width of the rasters."""
BLOCK = 8
"""Pixels of one value."""


def write(path, crs: str, affine: Affine | None, *, nodata=None, **options) -> None:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] // BLOCK
    values = (1 + (rows * 17 + columns) % 250).astype("uint8")
    options = {"crs": CRS.from_user_input(crs), **options} | ({"transform": affine} if affine else {})
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="uint8", nodata=nodata, **options
    ) as file:
        file.write(values, 1)


def source_places(crs: str, around: float, affine: Affine, tile, size=SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the raster at the pixels of a tile, by pyproj; of all worlds, in the one of the raster."""
    left, bottom, right, top = mercantile.xy_bounds(*tile)
    centres = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(left + (right - left) * centres, top - (top - bottom) * centres)
    x, y = pyproj.Transformer.from_crs("EPSG:3857", crs, always_xy=True).transform(x, y)
    x, y = (np.where(np.isfinite(axis), axis, 1e30) for axis in (x, y))
    columns, rows = ~affine * (x, y)
    if around != 1:
        columns = (columns - SIDE / 2) % (around / affine.a)
        columns = np.where(columns > around / affine.a / 2, columns - around / affine.a, columns) + SIDE / 2
    return columns, rows


def within(places, edge: float) -> np.ndarray:
    columns, rows = places
    return (columns > edge) & (columns < SIDE - edge) & (rows > edge) & (rows < SIDE - edge)


def touched(places, edge: float) -> np.ndarray:
    """Return which pixels of a tile hold a part of the raster: GDAL fills them where nothing is reprojected."""
    found = True
    for axis in places:
        half = sum(abs(np.gradient(axis, axis=number)) for number in (0, 1)) / 2
        half = np.maximum(np.where(half < 4, half, 0), edge)  # a larger step is a seam or the rim of the globe
        found &= (axis > -half) & (axis < SIDE + half)
    return found


def read(composer, index, tile, asset) -> tuple[np.ndarray, np.ndarray]:
    names = index.scenes(*tile)
    frame = Frame(bounds=tuple(mercantile.xy_bounds(*tile)), crs=CRS.from_epsg(3857), width=SIZE, height=SIZE)
    degrees = tuple(mercantile.bounds(*tile))
    composed = composer.compose(names, frame, degrees, View(assets=((asset, ()),)), Selection.parse("first"))
    assert not composed.skipped
    if composed.pixels is None:
        return np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE), bool)
    return composed.pixels.data[0], composed.pixels.valid[0]


def assert_every_pixel_is_there(path, crs, around, affine, asset="") -> None:
    """Read all tiles at the data's own zoom that have pixels, and those around them."""
    mosaic = open_mosaic(path)
    _, index = definition(mosaic.document)
    composer = Composer(is_stac=bool(asset), is_local=True)
    zoom = mosaic.document["maxzoom"]
    world = within(source_places(crs, around, affine, (0, 0, 0), size=8 * 2**zoom), -1)
    touched = world.reshape(2**zoom, 8, 2**zoom, 8).any(axis=(1, 3))
    for y, x in np.argwhere(touched | np.roll(touched, 1, axis=1) | np.roll(touched, -1, axis=1)).tolist():
        tile = mercantile.Tile(x, y, zoom)
        assert_the_tile_is_whole(partial(read, composer, index, tile, asset), source_places(crs, around, affine, tile))
    composer.pool.close()


def assert_the_tile_is_whole(read_tile, places, edge=0.6) -> None:
    """Compare with the raster's own values, but within a share of a pixel where rounding decides."""
    sure, maybe = within(places, edge), touched(places, edge)
    data, valid = read_tile()
    assert (valid >= sure).all(), f"{(sure & ~valid).sum()} pixels are missing"
    assert (valid <= maybe).all(), f"{(valid & ~maybe).sum()} pixels of nothing"
    columns, rows = places
    inner = sure & (abs(columns % BLOCK - BLOCK / 2) < BLOCK / 2 - edge)
    inner &= abs(rows % BLOCK - BLOCK / 2) < BLOCK / 2 - edge
    expected = 1 + (rows[inner] // BLOCK * 17 + columns[inner] // BLOCK) % 250
    np.testing.assert_array_equal(data[inner], expected)


def assert_a_random_part_is_there(folder, name, data) -> None:
    crs, (left, bottom, right, top), around = SYSTEMS[name]
    x0, y0 = data.draw(st.floats(0, 0.7)), data.draw(st.floats(0, 0.7))
    width, height = data.draw(st.floats(0.05, 0.3)), data.draw(st.floats(0.05, 0.3))
    a, e = (right - left) * width / SIDE, (top - bottom) * height / SIDE
    affine = Affine(a, 0, left + (right - left) * x0, 0, -e, bottom + (top - bottom) * (y0 + height))
    write(folder / "scene.tif", crs, affine, nodata=data.draw(st.sampled_from([None, 0])))
    assume(within(source_places(crs, around, affine, (0, 0, 0)), 0).any())
    assert_every_pixel_is_there(folder, crs, around, affine)


@given(name=st.sampled_from(sorted(SYSTEMS)), data=st.data())
@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_pixel_of_a_raster_is_in_its_tiles(tmp_path, name, data):
    assert_a_random_part_is_there(tmp_path, name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
@given(data=st.data())
@settings(max_examples=examples(5), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_pixel_of_a_raster_in_any_system_is_in_its_tiles(tmp_path, name, data):
    assert_a_random_part_is_there(tmp_path, name, data)


def placed(left, bottom, right, top) -> Affine:
    return Affine((right - left) / SIDE, 0, left, 0, (bottom - top) / SIDE, top)


CASES = {
    "the United States in Albers": ("EPSG:5070", placed(-2.4e6, 2.5e5, 2.3e6, 3.2e6), 1),
    "a Sentinel-2 tile of MGRS": ("EPSG:32633", placed(399960, 4990200, 509760, 5100000), 1),
    "a bbox to -180.67": ("EPSG:4326", placed(-180.67, -17.2, -179.1, -15.9), 360),
    "UTM 60 across 180": ("EPSG:32660", placed(6e5, 6e6, 9e5, 6.3e6), 1),
    "UTM 1 across -180": ("EPSG:32701", placed(1e5, 8e6, 4e5, 8.3e6), 1),
    "the world from 0 to 360": ("EPSG:4326", placed(0, -85, 360, 85), 360),
    "longitudes 178 to 182": ("EPSG:4326", placed(178, -18, 182, -15), 360),
    "longitudes 530 to 550": ("EPSG:4326", placed(530, 40, 550, 50), 360),
    "a turned raster": ("EPSG:32633", Affine(866, 500, 4e5, 500, -866, 5e6), 1),
    "south up": ("EPSG:32633", Affine(1000, 0, 4e5, 0, 1000, 5e6), 1),
    "the north pole": ("EPSG:3413", placed(-3e6, -3e6, 3e6, 3e6), 1),
    "beside the south pole": ("EPSG:3031", placed(1e5, 1e5, 2.5e6, 2.5e6), 1),
    "pixels 3.7 times as high as wide": ("EPSG:3857", placed(1.5e7, -9e6, 1.620312e7, -4.5e6), 40075016.6856),
    "pixels 3.7 times as wide as high": ("EPSG:3857", placed(1.3e7, -9e6, 1.75e7, -7.79e6), 40075016.6856),
    "a tile of MODIS": ("+proj=sinu +R=6371007.181", placed(-8.896e6, 5.56e6, -7.784e6, 6.672e6), 1),
}  # fmt: skip


@pytest.mark.quick(5)
@pytest.mark.parametrize("name", CASES)
def test_every_pixel_of_a_scene_is_in_its_tiles(tmp_path, name):
    crs, affine, around = CASES[name]
    write(tmp_path / "scene.tif", crs, affine, nodata=0)
    assert_every_pixel_is_there(tmp_path, crs, around, affine)


def test_every_pixel_of_a_grid_that_only_control_points_tie_to_the_map_is_in_its_tiles(tmp_path):
    affine = placed(4e5, 5e6, 5e5, 5.1e6)
    corners = [(row, column) for row in (0, SIDE) for column in (0, SIDE)]
    points = [GroundControlPoint(row, column, *(affine @ (column, row))) for row, column in corners]
    write(tmp_path / "scene.tif", "EPSG:32633", None, gcps=points)
    assert_every_pixel_is_there(tmp_path, "EPSG:32633", 1, affine)


FULL = {"proj:shape": [SIDE, SIDE], "proj:transform": "affine"}
STATED = {
    "nothing but four corners": {},
    "its code": {"proj:code": "code", **FULL},
    "its number": {"proj:epsg": "number", **FULL},
    "its bounds": {"proj:epsg": "number", "proj:bbox": "bounds"},
    "a code that does not exist": {"proj:code": "EPSG:999999", **FULL},
    "a transform that is flat": {"proj:epsg": "number", **FULL, "proj:transform": [0, 0, 0, 0, 0, 0]},
}


def item_of(crs: str, affine: Affine, stated: dict) -> dict:
    """Return an item whose footprint and bbox are those of the four corners."""
    x, y = affine @ (np.array([0, SIDE, SIDE, 0]), np.array([0, 0, SIDE, SIDE]))
    ring = np.column_stack(pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)).tolist()
    (west, south), (east, north) = np.min(ring, axis=0).tolist(), np.max(ring, axis=0).tolist()
    known = {"affine": list(affine), "code": crs, "number": int(crs.partition(":")[2])}
    known["bounds"] = [x.min(), y.min(), x.max(), y.max()]
    fields = {name: known.get(value, value) if isinstance(value, str) else value for name, value in stated.items()}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "links": [],
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {"data": {"href": "scene.tif", "type": "image/tiff", **fields}},
    }


@pytest.mark.quick(4)
@pytest.mark.parametrize("stated", STATED)
@pytest.mark.parametrize(("name", "zoom"), [("the United States in Albers", 3), ("a Sentinel-2 tile of MGRS", 7)])
def test_every_pixel_of_an_item_of_four_corners_is_in_its_tiles(tmp_path, name, zoom, stated):
    crs, affine, around = CASES[name]
    write(tmp_path / "scene.tif", crs, affine, nodata=0)
    (tmp_path / "scene.json").write_text(json.dumps(item_of(crs, affine, STATED[stated])))
    created = tmp_path / "mosaic.json"
    created.write_text(json.dumps(create_mosaic({}, items=tmp_path, maxzoom=zoom).document))
    assert_every_pixel_is_there(created, crs, around, affine, asset="data")
    created.unlink()
    assert_every_pixel_is_there(tmp_path, crs, around, affine, asset="data")
