"""The area that is exactly a list of tiles.

It does not know the files that list them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from supermercado.uniontiles import union

from mosaic_async.geo.matrix import Tile, TileMatrix, web_mercator

_INSET = 0.05
"""Of a tile."""
_MAX_CELLS = 2**24
"""supermercado holds some bytes per cell of the box around the tiles, which may be far apart."""


def area_of_tiles(tiles: Sequence[Tile]) -> dict[str, Any]:
    """Return the area that is exactly these tiles of Web Mercator, as GeoJSON: neighbours become one polygon.

    Args:
        tiles: of one zoom, at least one.
    """
    polygons = _union(tiles) if _cells_around(tiles) <= _MAX_CELLS else _boxes(tiles)
    return {"type": "FeatureCollection", "features": list(polygons)}


def area_in_matrix(tiles: Iterable[Tile], matrix: TileMatrix) -> dict[str, Any]:
    """Return the area that is exactly these tiles of a matrix, as GeoJSON in its coordinate system.

    Neighbours in a row become one box, which lies a little inside: its edges would otherwise touch other tiles.
    """
    features = []
    inset_x, inset_y = _INSET * matrix.width, _INSET * matrix.height
    for row, first, last in _runs(sorted(matrix.place(tile)[::-1] for tile in tiles)):
        west, east = matrix.left + first * matrix.width + inset_x, matrix.left + (last + 1) * matrix.width - inset_x
        north = matrix.top - row * matrix.height - inset_y
        south = north - matrix.height + 2 * inset_y
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        features.append({"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}})
    return {"type": "FeatureCollection", "features": features, "crs": {"properties": {"name": matrix.crs}}}


def _runs(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the row, the first and the last column of neighbours, from sorted rows and columns."""
    found: tuple[int, int, int] | None = None
    for row, column in places:
        if found is not None and found[0] == row and column <= found[2] + 1:
            found = row, found[1], column
            continue
        if found is not None:
            yield found
        found = row, column, column
    if found is not None:
        yield found


def _union(tiles: Iterable[Tile]) -> Iterable[dict[str, Any]]:
    with warnings.catch_warnings():
        # supermercado requests the corner behind the last tile, which mercantile answers and warns of.
        warnings.simplefilter("ignore", FutureWarning)
        polygons: list[dict[str, Any]] = union(
            [json.dumps([tile.x, tile.y, tile.z]) for tile in tiles], parsenames=False
        )
    return polygons


def _cells_around(tiles: Sequence[Tile]) -> int:
    columns, rows = {tile.x for tile in tiles}, {tile.y for tile in tiles}
    return (max(columns) - min(columns) + 1) * (max(rows) - min(rows) + 1)


def _boxes(tiles: Iterable[Tile]) -> Iterable[dict[str, Any]]:
    for tile in tiles:
        geometry = {"type": "Polygon", "coordinates": [web_mercator(tile.z).ring_of(tile)]}
        yield {"type": "Feature", "properties": {}, "geometry": geometry}
