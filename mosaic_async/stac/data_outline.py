"""Where a raster has valid pixels, as few polygons in degrees that are never smaller than the data.

Pixels are gathered into squares, so the cost does not depend on how ragged the data is. It does not know items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.warp import transform
from rasterio.windows import Window
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from mosaic_async.sources.outlines import within_the_world

_SQUARES = 64
"""Maximum squares per side of a raster."""
_FEW_POINTS = 40
_MAX_POINTS = 200
"""Of an outline; where it has more, it is drawn more coarsely."""
_SAFETY = 1.05
"""How much farther an outline is moved outwards than simplifying it can move it inwards."""
_MAX_POWER = 12
_POLE = 90.0


@dataclass(frozen=True)
class DataOutline:
    """Where a raster has data."""

    geometry: BaseGeometry
    """Polygons in degrees, cut at ±180."""
    bbox: tuple[float, float, float, float] | None
    """West, south, east, north in degrees; west exceeds east across the antimeridian; None without data."""
    valid_percent: float
    """Of all pixels."""


def data_outline(dataset: DatasetReader) -> DataOutline:
    """Return where a raster has valid pixels; it reads the mask of every pixel."""
    squares, side, valid = _squares(dataset)
    if not valid:
        return DataOutline(shapely.Polygon(), None, 0.0)
    raw = _in_degrees(dataset, squares, side)
    frame = _in_degrees(dataset, np.ones_like(squares), side)
    west, south, east, north = frame.bounds
    step = max((east - west) / squares.shape[1], (north - south) / squares.shape[0])
    outline = _simple(raw, frame, step)
    percent = 100 * valid / (dataset.width * dataset.height)
    return DataOutline(within_the_world(outline), _wrapped(outline.bounds), percent)


def _squares(dataset: DatasetReader) -> tuple[NDArray[np.uint8], int, int]:
    """Return which squares of pixels have data, their side in pixels, and the number of valid pixels."""
    side = 1
    while max(dataset.width, dataset.height) > side * _SQUARES:
        side *= 2
    rows, cols = -(-dataset.height // side), -(-dataset.width // side)
    if all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums):
        return np.ones((rows, cols), np.uint8), side, dataset.width * dataset.height
    found = np.zeros((rows, cols), np.uint8)
    count = 0
    height = max(side, dataset.block_shapes[0][0])
    for row_off in range(0, dataset.height, height):
        window = Window(0, row_off, dataset.width, min(height, dataset.height - row_off))
        valid = dataset.dataset_mask(window=window) > 0
        count += int(np.count_nonzero(valid))
        by_row = np.logical_or.reduceat(valid, np.arange(0, valid.shape[0], side), axis=0)
        some = np.logical_or.reduceat(by_row, np.arange(0, valid.shape[1], side), axis=1)
        found[row_off // side : row_off // side + len(some)] = some
    return found, side, count


def _in_degrees(dataset: DatasetReader, squares: NDArray[np.uint8], side: int) -> BaseGeometry:
    """Return the outlines of squares with data, without holes, with longitudes that may run past ±180."""
    middle, _ = _degrees(dataset, np.array([[dataset.width / 2, dataset.height / 2]]))[0]
    rings = []
    for region in shapely.get_parts(_regions(squares)):
        ring = shapely.segmentize(region.exterior, 1)
        corners = np.minimum(side * shapely.get_coordinates(ring), (dataset.width, dataset.height))
        rings.append(_polygon(_degrees(dataset, corners), middle))
    return shapely.union_all(rings)


def _regions(squares: NDArray[np.uint8]) -> BaseGeometry:
    """Return the squares with data as polygons, in columns and rows of squares: the union of what each row has."""
    edges = np.diff(np.pad(squares.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, lefts = np.nonzero(edges > 0)
    _, rights = np.nonzero(edges < 0)
    return shapely.union_all(shapely.box(lefts, rows, rights, rows + 1))


def _degrees(dataset: DatasetReader, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = dataset.transform @ (corners[:, 0], corners[:, 1])
    return np.column_stack(transform(dataset.crs, "OGC:CRS84", x, y))


def _polygon(points: NDArray[np.float64], middle: float) -> BaseGeometry:
    """Return a ring as a polygon whose longitudes do not jump; around a pole, as all that lies beyond it."""
    longitudes, latitudes = np.unwrap(points[:, 0], period=360), points[:, 1]
    if abs(longitudes[-1] - longitudes[0]) > 1:
        edge = _POLE if latitudes.mean() > 0 else -_POLE
        return shapely.box(-180, min(edge, latitudes.min()), 180, max(edge, latitudes.max()))
    polygon = shapely.make_valid(shapely.Polygon(np.column_stack([longitudes, latitudes])))
    return translate(polygon, 360 * round((middle - (longitudes.min() + longitudes.max()) / 2) / 360))


def _simple(raw: BaseGeometry, frame: BaseGeometry, step: float) -> BaseGeometry:
    """Return polygons of few points that hold all of `raw`, and little outside of the frame."""
    for power in range(_MAX_POWER):
        factor = 2**power
        larger = shapely.buffer(raw, _SAFETY * factor * step, join_style="mitre")
        without_holes = shapely.union_all([shapely.Polygon(part.exterior) for part in shapely.get_parts(larger)])
        coarse = shapely.simplify(without_holes, factor * step)
        outline = shapely.simplify(shapely.intersection(coarse, frame), 0)
        if shapely.get_num_coordinates(outline) > _FEW_POINTS:  # a curved frame has one per square
            hair = step / 16
            outline = shapely.simplify(shapely.buffer(outline, _SAFETY * hair, join_style="mitre"), hair)
        if shapely.get_num_coordinates(outline) <= _MAX_POINTS:
            return outline
        if coarse.covers(frame):
            return coarse
    raise AssertionError("a large enough step leaves a box")


def _wrapped(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Return bounds whose longitudes may run past ±180 as a bbox of GeoJSON."""
    west, south, east, north = bounds
    if east - west >= 360:
        return -180.0, south, 180.0, north
    if west >= -180 and east <= 180:
        return bounds
    return (west + 180) % 360 - 180, south, (east + 180) % 360 - 180, north
