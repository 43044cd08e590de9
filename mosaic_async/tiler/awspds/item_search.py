"""Search the served items as SAT-API did: place, time, properties, order, season.

`stac_query` and `seasons` define what a search means; this module combines them. Geometries are compared as they are
written; other spellings of the antimeridian would need another extra. It knows nothing of mosaics.
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
        seasons: the seasons to keep, by month and hemisphere.
        one_per_scene: keep only the first of each path and row.

    Raises:
        UsageError: the search is malformed.
    """
    kept = read_seasons(seasons)
    is_any = kept == frozenset(SEASONS)
    order = search.get("sort") or search.get("sortby") or _NEWEST_FIRST
    parsed = Search.parse({**search, "sort": order}, of_files=True)
    if parsed.filter:
        raise UsageError(
            "this search does not support `filter`", hint="use `query`, or make the mosaic with `mosaic-async create`"
        )
    try:
        place = _place(parsed)
        found = [item for item in items if parsed.accepts(item) and _lies_in(item, place)]
        found = [item for item in found if is_any or _season(item) in kept]
    except (KeyError, TypeError, ValueError, AttributeError, ShapelyError) as error:
        raise UsageError(f"the search is malformed: {error!r}") from error
    ordered = parsed.ordered(found)
    return one_per_place(ordered, lambda item: item) if one_per_scene else ordered


def _lies_in(item: Item, place: BaseGeometry | None) -> bool:
    return place is None or (item.get("geometry") is not None and place.intersects(shape(item["geometry"])))


def _place(search: Search) -> BaseGeometry | None:
    if area := search.intersects:
        return shape(area.get("geometry", area))
    if search.bbox is None:
        return None
    west, south, east, north = search.bbox
    return (
        box(west, south, east, north) if west <= east else box(west, south, 180, north) | box(-180, south, east, north)
    )


def _season(item: Item) -> str | None:
    """Return the season of an item's month in its hemisphere; None if the item has no date."""
    moment, bounds = moment_of(item), item["bbox"]
    return season_of(moment.month, (bounds[1] + bounds[len(bounds) // 2 + 1]) / 2) if moment else None
