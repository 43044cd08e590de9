"""The area that is exactly a list of tiles of Web Mercator.

It does not know the files that list them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from supermercado.uniontiles import union

from mosaic_async.geo.matrix import Tile, web_mercator

_MAX_CELLS = 2**24
"""supermercado holds some bytes per cell of the box around the tiles, which may be far apart."""


def area_of_tiles(tiles: Sequence[Tile]) -> dict[str, Any]:
    """Return the area that is exactly these tiles, as GeoJSON: neighbours become one polygon.

    Args:
        tiles: of one zoom, at least one.
    """
    polygons = _union(tiles) if _cells_around(tiles) <= _MAX_CELLS else _boxes(tiles)
    return {"type": "FeatureCollection", "features": list(polygons)}


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
