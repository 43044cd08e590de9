"""What a TileJSON (2.x or 3.0) says: its first template, zooms, bounds and tile size.

It knows nothing of where the document comes from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import MAX_ZOOM
from mosaic_async.sources.grid_signs import grid_in_tilejson

_MAX_TILE_SIZE = 4096


@dataclass(frozen=True, kw_only=True)
class TileJson:
    """The fields of a TileJSON that matter here, checked."""

    template: str
    """The first URL of `tiles`, as it stands in the document."""
    minzoom: int | None
    maxzoom: int | None
    bounds: Bounds | None
    """West, south, east, north in degrees."""
    tile_size: int | None
    """Pixels per side; few documents have it."""
    is_south_up: bool
    """Whether rows are counted from the south (`scheme` is `tms`)."""
    grid: str | None
    """Its matrix set or coordinate system, as it names it; None for Web Mercator."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> TileJson:
        """Read a document.

        Raises:
            ValueError: a field is missing or malformed.
        """
        try:
            return cls(
                template=_template(document.get("tiles")),
                minzoom=_optional_int(document, "minzoom", MAX_ZOOM),
                maxzoom=_optional_int(document, "maxzoom", MAX_ZOOM),
                bounds=_bounds(document.get("bounds")),
                tile_size=_optional_int(document, "tileSize", _MAX_TILE_SIZE),
                is_south_up=document.get("scheme") == "tms",
                grid=grid_in_tilejson(document),
            )
        except (TypeError, OverflowError, AttributeError) as error:
            raise ValueError(str(error)) from error


def _template(tiles: Any) -> str:
    if not isinstance(tiles, list) or not tiles or not isinstance(tiles[0], str):
        raise ValueError("`tiles` is not a list of URL templates")
    return tiles[0]


def _optional_int(document: Mapping[str, Any], name: str, largest: int) -> int | None:
    """Read a zoom or a size; an absurd one is an error here and not an endless loop later."""
    value = document.get(name)
    if value is None:
        return None
    number = int(value)
    if not 0 <= number <= largest:
        raise ValueError(f"`{name}` is {number}")
    return number


def _bounds(value: Any) -> Bounds | None:
    if value is None:
        return None
    west, south, east, north = (float(number) for number in value)
    if not all(map(math.isfinite, (west, south, east, north))) or south >= north:
        raise ValueError(f"`bounds` are {value}")
    return (west, south, east, north)
