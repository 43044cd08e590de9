"""What a TileJSON (2.x or 3.0) says: its first template, zooms, bounds, tile size and encoding.

It is strict about what decides pixels, and lenient about the rest. It knows nothing of where the document comes from.
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
_DEFAULT_MAXZOOM = 30
"""What TileJSON assumes; a document that writes it does not state a limit."""
_SCHEMES = {None: False, "": False, "xyz": False, "tms": True}
_VECTORS = ("pbf", "mvt")


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
    """Pixels per side; few documents have it. Where it stands, the zooms count tiles of this size."""
    is_south_up: bool
    """Whether rows are counted from the south (`scheme` is `tms`)."""
    grid: str | None
    """Its matrix set or coordinate system, as it names it; None for Web Mercator."""
    encoding: str | None
    """How values are packed into colours, such as `mapbox` or `terrarium`, in lower case."""
    notes: tuple[str, ...] = ()
    """Fields that are left out because they cannot be read."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> TileJson:
        """Read a document.

        Raises:
            ValueError: a field that decides pixels is missing or malformed, or the tiles are vectors.
        """
        _check_raster(document)
        try:
            size = _optional_int(document, "tileSize", _MAX_TILE_SIZE)
            bounds, note = _lenient(_bounds, document.get("bounds"), "bounds")
            minzoom, other = _lenient(_zoom, document.get("minzoom"), "minzoom")
            return cls(
                template=_template(document.get("tiles")),
                minzoom=minzoom,
                maxzoom=_zoom(document.get("maxzoom")),
                bounds=bounds,
                tile_size=size if size is not None else _optional_int(document, "tilesize", _MAX_TILE_SIZE),
                is_south_up=_is_south_up(document.get("scheme")),
                encoding=_optional_word(document.get("encoding")),
                notes=(*note, *other),
                grid=grid_in_tilejson(document),
            )
        except (TypeError, OverflowError, AttributeError) as error:
            raise ValueError(str(error)) from error


def _check_raster(document: Mapping[str, Any]) -> None:
    """Refuse vector tiles, which have no pixels."""
    if document.get("vector_layers") or str(document.get("format", "")).lower() in _VECTORS:
        raise ValueError("its tiles are vectors, which have no pixels")


def _template(tiles: Any) -> str:
    """Return the first template; some documents write one text instead of a list."""
    listed = [tiles] if isinstance(tiles, str) else tiles
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], str):
        raise ValueError("`tiles` is not a list of URL templates")
    return listed[0].strip()


def _is_south_up(scheme: Any) -> bool:
    known = scheme.strip().lower() if isinstance(scheme, str) else scheme
    if known not in _SCHEMES:
        raise ValueError(f"`scheme` is {scheme!r}, neither xyz nor tms")
    return _SCHEMES[known]


def _optional_int(document: Mapping[str, Any], name: str, largest: int) -> int | None:
    """Read a zoom or a size; an absurd one is an error here and not an endless loop later."""
    value = document.get(name)
    if value is None or value == "":
        return None
    number = int(float(value)) if isinstance(value, str) else int(value)
    if not 0 <= number <= largest:
        raise ValueError(f"`{name}` is {number}")
    return number


def _zoom(value: Any) -> int | None:
    """Read a zoom; one that no server has, such as TileJSON's default, states nothing."""
    zoom = _optional_int({"maxzoom": value}, "maxzoom", _DEFAULT_MAXZOOM)
    return None if zoom is None or zoom > MAX_ZOOM else zoom


def _optional_word(value: Any) -> str | None:
    return value.strip().lower() or None if isinstance(value, str) else None


def _lenient(read: Any, value: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """Return what a field says, or None and a note where it cannot be read."""
    try:
        return read(value), ()
    except (TypeError, ValueError, OverflowError):
        return None, (f"`{name}` of the TileJSON cannot be read and is left out",)


def _bounds(value: Any) -> Bounds | None:
    """Read four numbers in degrees, also from a text such as that of MBTiles."""
    numbers = value.split(",") if isinstance(value, str) else value
    if not numbers:
        return None
    west, south, east, north = (float(number) for number in numbers)
    is_in_degrees = max(abs(west), abs(east)) <= 360 and max(abs(south), abs(north)) <= 90.01
    if not all(map(math.isfinite, (west, south, east, north))) or not is_in_degrees or south >= north:
        raise ValueError(f"`bounds` are {value}")
    return (west, south, east, north)
