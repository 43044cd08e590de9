"""Datasets moved by whole worlds: GDAL looks for a pixel at one longitude only, and rasters can begin at any.

It knows nothing of scenes and tiles.
"""

from __future__ import annotations

import re

import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.warp import transform_bounds

from mosaic_async.geo.projection import period
from mosaic_async.sources.outlines import boxes_of, metres_of
from mosaic_async.sources.raster_grid import RasterGrid

Bounds = tuple[float, float, float, float]
_MERCATOR = CRS.from_epsg(3857)
_EVERYWHERE = (-float("inf"), -float("inf"), float("inf"), float("inf"))


def moved(dataset: DatasetReader, turn: int) -> DatasetReader:
    """Return a dataset that lies a number of worlds further west: a VRT over it, with its masks and overviews."""
    west = turn * (period(dataset.crs) or 0)
    with MemoryFile(ext=".vrt") as file:
        rasterio.shutil.copy(dataset, file.name, driver="VRT")
        text = file.read().decode()
    left, *rest = dataset.transform.to_gdal()
    place = ", ".join(repr(float(number)) for number in (left - west, *rest))
    return rasterio.open(
        re.sub(r"<GeoTransform>[^<]*</GeoTransform>", f"<GeoTransform>{place}</GeoTransform>", text, count=1),
        driver="VRT",
    )


def reach_in(grid: RasterGrid, crs: CRS) -> tuple[Bounds, ...]:
    """Return boxes in a reference system outside of which a raster has no pixels; everything if that is not known."""
    if crs == _MERCATOR:
        return tuple(metres_of(box) for box in boxes_of(grid.reach()))
    try:
        left, bottom, right, top = transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=21)
    except (CPLE_BaseError, RasterioError):  # of one point
        return (_EVERYWHERE,)
    across, up = 0.01 * (right - left), 0.01 * (top - bottom)
    return ((left - across, bottom - up, right + across, top + up),)
