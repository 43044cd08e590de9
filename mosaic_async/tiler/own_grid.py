"""A grid of the user's own for scenes: a coordinate system and a resolution, on the scenes' own pixels where they fit.

It knows nothing of servers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import pyproj
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.grid_names import crs_named
from mosaic_async.geo.matrix import MatrixSet, TileMatrix
from mosaic_async.geo.systems import system
from mosaic_async.tiler.scenes.mosaic import Mosaic
from mosaic_async.tiler.scenes.raster_file import open_raster
from mosaic_async.tiler.scenes.scene import open_scene
from mosaic_async.tiler.scenes.survey import names_in

NAME = "OwnGrid"
"""Of the tile matrix set that the tiler serves."""
_MARGIN = 16
"""Tiles of the last zoom around the scenes, for areas that are larger."""
_MAX_SCENES = 8
"""Scenes in whose files pixels of the wanted size are searched."""


@dataclass(frozen=True)
class Lattice:
    """Square pixels without an end."""

    crs: CRS
    resolution: float
    """Width of a pixel, in units of the CRS."""
    x: float = 0.0
    """An edge of a pixel."""
    y: float = 0.0

    @classmethod
    def of(cls, dataset: DatasetReader) -> Self:
        """Return the pixels of a file.

        Raises:
            UsageError: it is not on the map, its pixels are not square, or its rows do not go from north to south.
        """
        transform = dataset.transform
        is_north_up = not transform.b and not transform.d and transform.a > 0 > transform.e
        if dataset.crs is None or not is_north_up or not math.isclose(transform.a, -transform.e, rel_tol=1e-9):
            raise UsageError(f"{dataset.name} has no square pixels with north up in a coordinate system")
        return cls(dataset.crs, float(transform.a), float(transform.c), float(transform.f))

    def is_like(self, other: Lattice) -> bool:
        """Return whether the pixels have the same size in the same system, wherever they begin."""
        return self.crs == other.crs and math.isclose(self.resolution, other.resolution, rel_tol=1e-9)


def matrix_set_for(
    mosaic: Mosaic, *, crs: str | None, resolution: float | None, like: str | None, tile_size: int
) -> MatrixSet | None:
    """Return a set whose tiles cover the scenes; None: Web Mercator is wanted.

    Its last zoom has the pixels of the wanted size. Each zoom before it has pixels twice as wide, down to zoom 0, where
    one or two tiles hold all scenes. All begin at a corner of the file whose pixels they are.

    Args:
        mosaic: the scenes; where they have such pixels, the first one's are used.
        crs: AUTHORITY:CODE or WKT.
        resolution: width of a pixel, in units of the CRS.
        like: a raster file with such pixels, instead of both.
        tile_size: pixels per side.

    Raises:
        UsageError: one of them is missing, or cannot be used.
        RefusedError: the scenes lie outside of the coordinate system.
    """
    lattice = _lattice_for(mosaic, crs, resolution, like)
    return None if lattice is None else _matrix_set_of(lattice, mosaic, tile_size)


def _lattice_for(mosaic: Mosaic, crs: str | None, resolution: float | None, like: str | None) -> Lattice | None:
    if like is not None:
        if crs is not None or resolution is not None:
            raise UsageError(f"{like} states the whole grid", hint="omit ``crs`` and ``resolution`` beside ``like``")
        try:
            with open_raster(like) as dataset:
                return Lattice.of(dataset)
        except (RasterioError, OSError) as error:
            raise UsageError(f"{like} cannot be read: {error}") from error
    if crs is None and resolution is None:
        return None
    if crs is None or resolution is None:
        raise UsageError("a grid has both a coordinate system and a resolution", hint="set ``crs`` and ``resolution``")
    if not (math.isfinite(resolution) and resolution > 0):
        raise UsageError(f"the resolution {resolution} is not a width")
    wanted = Lattice(system(crs), resolution)
    return next((found for found in _lattices(mosaic) if found.is_like(wanted)), wanted)


def _matrix_set_of(lattice: Lattice, mosaic: Mosaic, tile_size: int) -> MatrixSet:
    west, south, east, north = transform_bounds("EPSG:4326", lattice.crs, *mosaic.bounds, densify_pts=101)
    if not all(map(math.isfinite, (west, south, east, north))):
        raise RefusedError("the scenes reach beyond the coordinate system", hint="set a ``crs`` that fits them")
    finest = tile_size * lattice.resolution
    deepest = max(0, math.ceil(math.log2(max(east - west, north - south) / finest)))
    widest, margin = finest * 2**deepest, math.ceil(_MARGIN / 2**deepest)
    first, last = _tiles_between(west - lattice.x, east - lattice.x, widest)
    lower, upper = _tiles_between(south - lattice.y, north - lattice.y, widest)
    matrices = tuple(
        TileMatrix(
            zoom=zoom,
            crs=_name(lattice.crs),
            left=lattice.x + (first - margin) * widest,
            top=lattice.y + (upper + margin) * widest,
            width=widest / 2**zoom,
            height=widest / 2**zoom,
            columns=(last - first + 2 * margin) * 2**zoom,
            rows=(upper - lower + 2 * margin) * 2**zoom,
        )
        for zoom in range(deepest + 1)
    )
    return MatrixSet(name=NAME, matrices=matrices, tile_size=tile_size)


def _tiles_between(low: float, high: float, width: float) -> tuple[int, int]:
    """Return the first tile that touches an interval, and the one behind the last."""
    return math.floor(low / width), math.ceil(high / width)


def document_of(grid: MatrixSet) -> dict[str, Any]:
    """Return a set as the document that morecantile reads."""
    crs = pyproj.CRS.from_user_input(grid.matrices[0].crs)
    matrices = [
        {
            "id": str(matrix.zoom),
            "cellSize": matrix.width / grid.tile_size,
            "scaleDenominator": matrix.width / grid.tile_size / 0.00028,
            "pointOfOrigin": [matrix.left, matrix.top],
            "tileWidth": grid.tile_size,
            "tileHeight": grid.tile_size,
            "matrixWidth": matrix.columns,
            "matrixHeight": matrix.rows,
        }
        for matrix in grid.matrices
    ]
    return {"id": grid.name, "crs": {"wkt": crs.to_json_dict()}, "orderedAxes": ["E", "N"], "tileMatrices": matrices}


def _name(crs: CRS) -> str:
    """Return the code of a system if it has one that means exactly the same, and its WKT otherwise."""
    name = crs_named(":".join(crs.to_authority(confidence_threshold=100) or ()))
    return name if name and system(name) == crs else str(crs.to_wkt())


def _lattices(mosaic: Mosaic) -> Iterator[Lattice]:
    """Yield the pixels of the files of the first scenes; files that cannot be read are reported with their tiles."""
    for name in islice(names_in(mosaic.document), _MAX_SCENES):
        files: list[str] = []
        with suppress(Exception):  # of the disk, the HTTP client, the parser
            scene = open_scene(name, is_item=mosaic.is_stac)
            files = [file.href for file in scene.files.values() if file.is_raster]
        for file in files:
            with suppress(RasterioError, OSError, UsageError), open_raster(file) as dataset:
                yield Lattice.of(dataset)
