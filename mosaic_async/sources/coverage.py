"""Whether a source covers what is requested of it, as far as it states so; checked before any work."""

from __future__ import annotations

import math

from mosaic_async.errors import RefusedError, UsageError
from mosaic_async.geo.area import MAX_LATITUDE, Area, Bounds
from mosaic_async.geo.cover import x_share, y_share
from mosaic_async.sources.source import TileSource


def check_coverage(source: TileSource, area: Area, zoom: int) -> None:
    """Check that a source has tiles of a zoom, and that an area touches one of them.

    Raises:
        UsageError: the source has no tiles of this zoom.
        RefusedError: the area lies outside of what the source covers.
    """
    check_zooms(source, zoom)
    if source.bounds is not None and not _touch(area.bounds, source.bounds, zoom):
        west, south, east, north = source.bounds
        raise RefusedError(
            f"the area lies outside of what the source covers: W {west:g} S {south:g} E {east:g} N {north:g}",
            hint=_way_out(area, source.bounds, zoom),
        )


def check_zooms(source: TileSource, zoom: int) -> None:
    """Check that a source has tiles of a zoom.

    Raises:
        UsageError: it has not.
    """
    lowest, highest = source.zooms or (zoom, zoom)
    if not lowest <= zoom <= highest:
        word, limit = ("above", f"highest, {highest}") if zoom > highest else ("below", f"lowest, {lowest}")
        raise UsageError(
            f"zoom {zoom} is {word} the source's {limit}",
            hint="leave ``zoom`` out for the data's own resolution, or use the source's tile URL if it has more zooms",
        )


def _way_out(area: Area, bounds: Bounds, zoom: int) -> str:
    swapped = (area.south, area.west, area.north, area.east)
    if max(abs(area.west), abs(area.east)) <= 90 and _touch(swapped, bounds, zoom):
        return "latitude and longitude seem to be swapped: longitude comes first, as in west south east north"
    return "check the area; if the source states wrong bounds, use its tile URL as the source"


def _touch(area: Bounds, other: Bounds, zoom: int) -> bool:
    """Return whether a tile touches both of two boxes, either of which may cross the antimeridian."""
    rows, other_rows = _rows(area, zoom), _rows(other, zoom)
    if not _overlap(rows, other_rows):
        return False
    columns, (first, last) = _columns(area, zoom), _columns(other, zoom)
    worlds = (shift * 2**zoom for shift in (-2, -1, 0, 1, 2))
    return any(_overlap(columns, (first + shift, last + shift)) for shift in worlds)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _rows(box: Bounds, zoom: int) -> tuple[int, int]:
    """Return the first and last row of tiles that a box touches."""
    north, south = (max(-MAX_LATITUDE, min(latitude, MAX_LATITUDE)) for latitude in (box[3], box[1]))
    return math.floor(y_share(north) * 2**zoom), math.floor(y_share(south) * 2**zoom)


def _columns(box: Bounds, zoom: int) -> tuple[int, int]:
    west, east = box[0], box[2] + 360 if box[2] < box[0] else box[2]
    return math.floor(x_share(west) * 2**zoom), math.floor(x_share(east) * 2**zoom)
