"""The tile matrix sets of a WMTS that are not Web Mercator's quadtree.

It knows nothing of layers and URLs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from rasterio.crs import CRS

from mosaic_async.errors import UsageError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.grid_names import crs_named
from mosaic_async.geo.matrix import MatrixSet, TileMatrix
from mosaic_async.geo.systems import is_degrees, system
from mosaic_async.sources.mercator_levels import PIXEL

_DEGREE = math.tau * 6378137 / 360
"""Metres, by which OGC counts scale denominators of systems in degrees."""
_FIRST_AXIS = re.compile(r'AXIS\["[^"]*",\s*(\w+)')
_DIGITS = 7
_ROUNDED = 5e-9
"""Share of a width: servers round the scale denominators of widths that are round numbers."""


def matrix_set_of(name: str, crs: str, matrices: Sequence[Any], bounds: Bounds | None) -> MatrixSet | None:
    """Return a set as it is described, with the servers' names in its matrices; None where it cannot be used.

    Args:
        name: of the set.
        crs: as the WMTS writes it.
        matrices: of OWSLib.
        bounds: of the layer in degrees, which tell the order of axes where a server does not keep to its CRS.
    """
    code = crs_named(crs)
    sizes = {size for one in matrices for size in (one.tilewidth, one.tileheight)}
    if code is None or len(sizes) != 1:
        return None
    try:
        known = system(code)
    except UsageError:
        return None
    (tile_size,) = sizes
    ordered = sorted(matrices, key=lambda one: -one.scaledenominator)
    zooms = zooms_named([one.identifier for one in ordered])
    sets = [
        MatrixSet(
            name=name,
            matrices=tuple(
                _matrix(one, zoom, code, known, is_inverted=is_inverted)
                for zoom, one in zip(zooms, ordered, strict=True)
            ),
            tile_size=tile_size,
        )
        for is_inverted in _orders(known)
    ]
    return next((one for one in sets if bounds is None or _reaches(one, bounds)), sets[0])


def _matrix(matrix: Any, zoom: int, code: str, known: CRS, *, is_inverted: bool) -> TileMatrix:
    left, top = matrix.topleftcorner[::-1] if is_inverted else matrix.topleftcorner
    unit = _DEGREE if is_degrees(known) else known.linear_units_factor[1]
    side = _width(matrix.scaledenominator * PIXEL / unit) * matrix.tilewidth
    return TileMatrix(
        zoom=zoom,
        crs=code,
        left=left,
        top=top,
        width=side,
        height=side,
        columns=matrix.matrixwidth,
        rows=matrix.matrixheight,
        name=matrix.identifier,
    )


def _width(exact: float) -> float:
    """Return the width of a pixel, without the digits that a rounded scale denominator has lost."""
    short = float(f"{exact:.{_DIGITS}g}")
    return short if math.isclose(short, exact, rel_tol=_ROUNDED) else exact


def zooms_named(names: Sequence[str]) -> list[int]:
    """Return the numbers at the end of the names, or places in the list where these are not such numbers."""
    found = [int(match[1]) for name in names if (match := re.search(r"(?<!\d)(\d{1,3})$", name))]
    return found if len(found) == len(names) and found == sorted(set(found)) else list(range(len(names)))


def _orders(known: CRS) -> tuple[bool, bool]:
    """Return whether the first number of a corner is the one to the north: as the CRS says, then the other way."""
    axis = _FIRST_AXIS.search(known.to_wkt(version="WKT2_2019"))
    is_north_first = axis is not None and axis[1].lower() in ("north", "south")
    return is_north_first, not is_north_first


def _reaches(tiles: MatrixSet, bounds: Bounds) -> bool:
    """Return whether the lowest matrix reaches a box in degrees."""
    first = tiles.matrices[0]
    west, south, east, north = first.degrees(first.extent)
    return all(map(math.isfinite, (west, south, east, north))) and (
        south < bounds[3] and bounds[1] < north and (west >= east or (west < bounds[2] and bounds[0] < east))
    )
