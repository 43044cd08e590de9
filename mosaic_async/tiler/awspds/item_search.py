"""Searching the items that are served, as SAT-API was searched: place, time, properties, order, season.

What a search means, and whether an item is one, `query` and `seasons` know; here it is only put together. Places are
compared as they are drawn, without the antimeridian's many spellings, which would need another extra. It knows nothing
of mosaics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import UsageError
from mosaic_async.sources.seasons import SEASONS, read_seasons, season_of
from mosaic_async.sources.stac_query import Item, Search, moment_of, one_per_place

_NEWEST_FIRST = [{"field": "datetime", "direction": "desc"}]


def find_items(
    items: Sequence[Item], search: Mapping[str, Any], *, seasons: Sequence[str] = SEASONS, one_per_scene: bool = False
) -> list[Item]:
    """Search items.

    Args:
        items: STAC items.
        search: SAT-API's body: `bbox` or `intersects`, `time` (or STAC's `datetime`), `query`, `ids`, `collections`,
            and `sort` (or `sortby`), by default newest first.
        seasons: of the year that are wanted, by month and hemisphere.
        one_per_scene: keep only the first of each path and row.

    Raises:
        UsageError: the search makes no sense.
    """
    kept = read_seasons(seasons)
    is_any = kept == frozenset(SEASONS)
    order = search.get("sort") or search.get("sortby") or _NEWEST_FIRST
    wanted = Search.parse({**search, "sort": order}, of_files=True)
    if wanted.filter:
        raise UsageError("the tiler's own search knows no filter", hint="use query, or make the mosaic by `create`")
    try:
        place = _place(wanted)
        found = [item for item in items if wanted.accepts(item) and _lies_in(item, place)]
        found = [item for item in found if is_any or _season(item) in kept]
    except (KeyError, TypeError, ValueError, AttributeError, ShapelyError) as error:
        raise UsageError(f"the search is malformed: {error!r}") from error
    ordered = wanted.ordered(found)
    return one_per_place(ordered, lambda item: item) if one_per_scene else ordered


def _lies_in(item: Item, place: BaseGeometry | None) -> bool:
    return place is None or (item.get("geometry") is not None and place.intersects(shape(item["geometry"])))


def _place(wanted: Search) -> BaseGeometry | None:
    if area := wanted.intersects:
        return shape(area.get("geometry", area))
    if wanted.bbox is None:
        return None
    west, south, east, north = wanted.bbox
    return (
        box(west, south, east, north) if west <= east else box(west, south, 180, north) | box(-180, south, east, north)
    )


def _season(item: Item) -> str | None:
    """Name the season of an item's month where it lies; None when it does not know its date."""
    moment, bounds = moment_of(item), item["bbox"]
    return season_of(moment.month, (bounds[1] + bounds[len(bounds) // 2 + 1]) / 2) if moment else None
