"""Where a raster can have pixels, against PROJ point by point: no pixel of any raster lies outside of its reach."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from mosaic_async import SourceError
from mosaic_async.sources.raster_grid import RasterGrid
from tests.effort import examples

SYSTEMS = {
    "UTM 33N": ("EPSG:32633", (1e5, 0, 9e5, 9.3e6), 1),
    "UTM 60S, across 180": ("EPSG:32760", (1e5, 1e6, 9e5, 9.9e6), 1),
    "Albers of the United States": ("EPSG:5070", (-2.5e6, 2e5, 2.4e6, 3.3e6), 1),
    "Albers of Alaska, across 180": ("EPSG:3338", (-2.3e6, 3e5, 1.6e6, 2.5e6), 1),
    "Lambert of Europe": ("EPSG:3034", (2.5e6, 1.6e6, 6.9e6, 4.7e6), 1),
    "equal-area of Europe": ("EPSG:3035", (2e6, 1e6, 7e6, 5.5e6), 1),
    "polar, around the north pole": ("EPSG:3413", (-4e6, -5.3e6, 3.7e6, 5.8e6), 1),
    "polar, around the south pole": ("EPSG:3031", (-4e6, -4e6, 4e6, 4e6), 1),
    "sinusoidal": ("+proj=sinu +R=6371007.181", (-2e7, -1e7, 2e7, 1e7), 1),
    "Mollweide": ("ESRI:54009", (-1.8e7, -9e6, 1.8e7, 9e6), 1),
    "geostationary": ("+proj=geos +h=35785831 +sweep=y +lon_0=140", (-5.5e6, -5.5e6, 5.5e6, 5.5e6), 1),
    "longitudes 0 to 360": ("EPSG:4326", (0, -90, 360, 90), 360),
    "longitudes below -180": ("EPSG:4326", (-200, -80, 100, 80), 360),
    "another datum, 0 to 360": ("EPSG:4269", (0, -90, 360, 90), 360),
    "a turned pole": ("+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180", (-30, -25, 30, 25), 360),
    "Mercator of the Pacific": ("EPSG:3832", (-5e6, -6e6, 7e6, 9e6), 40075016.6856),
    "Web Mercator beyond 180": ("EPSG:3857", (1.5e7, -9e6, 2.6e7, 9e6), 40075016.6856),
}
WORLD = np.stack(np.meshgrid(np.linspace(-179.99, 179.99, 120), np.linspace(-85, 85, 86)), axis=-1).reshape(-1, 2)


def inside(grid: RasterGrid, crs: str, around: float, points: np.ndarray) -> np.ndarray:
    """Whether a warp to these points in degrees takes a pixel of the raster."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(*points.T)
    x, y = (np.where(np.isfinite(axis), axis, 1e30) for axis in (x, y))
    found = np.zeros(len(points), bool)
    for turn in range(-2, 3) if around != 1 else (0,):
        columns, rows = ~grid.transform * (x + turn * around, y)
        found |= (columns >= 0) & (columns < grid.width) & (rows >= 0) & (rows < grid.height)
    return found


def assert_nothing_is_outside(grid: RasterGrid, crs: str, around: float) -> None:
    try:
        reach = grid.reach()
    except SourceError:  # it lies beside the globe
        assert not inside(grid, crs, around, WORLD).any()
        return
    shapely.prepare(reach)
    west, south, east, north = shapely.total_bounds(reach)
    near = np.stack(
        np.meshgrid(
            np.linspace(max(west - 5, -180), min(east + 5, 180), 60),
            np.linspace(max(south - 5, -85.05), min(north + 5, 85.05), 60),
        ),
        axis=-1,
    ).reshape(-1, 2)
    for points in (WORLD, near):
        shown = points[inside(grid, crs, around, points)]
        missed = ~shapely.intersects_xy(reach, shown[:, 0], shown[:, 1])
        assert not missed.any(), f"{missed.sum()} of {len(shown)}, such as {shown[missed][0]}"


def assert_a_random_part_is_inside(name, data) -> None:
    crs, (left, bottom, right, top), around = SYSTEMS[name]
    share = st.floats(0, 1)
    x0, x1 = sorted(left + (right - left) * data.draw(share) for _ in range(2))
    y0, y1 = sorted(bottom + (top - bottom) * data.draw(share) for _ in range(2))
    width, height = data.draw(st.integers(1, 4000)), data.draw(st.integers(1, 4000))
    assume(x1 - x0 > 0.01 * (right - left) and y1 - y0 > 0.01 * (top - bottom))
    affine = Affine((x1 - x0) / width, 0, x0, 0, (y0 - y1) / height, y1)
    assert_nothing_is_outside(RasterGrid(CRS.from_user_input(crs), affine, width, height), crs, around)


@given(name=st.sampled_from(sorted(SYSTEMS)), data=st.data())
@settings(max_examples=examples(30))
def test_no_pixel_of_a_random_raster_lies_outside_of_its_reach(name, data):
    assert_a_random_part_is_inside(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
@given(data=st.data())
@settings(max_examples=examples(50))
def test_no_pixel_of_any_raster_lies_outside_of_its_reach(name, data):
    assert_a_random_part_is_inside(name, data)


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_pixel_of_the_whole_of_a_system_lies_outside_of_its_reach(name):
    crs, (left, bottom, right, top), around = SYSTEMS[name]
    grid = RasterGrid(
        CRS.from_user_input(crs), Affine((right - left) / 500, 0, left, 0, (bottom - top) / 500, top), 500, 500
    )
    assert_nothing_is_outside(grid, crs, around)
