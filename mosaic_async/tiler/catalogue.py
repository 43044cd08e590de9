"""Searching the items that are served, as sat-api was searched: place, time, properties, order, season.

It knows nothing of mosaics; `find_items` is all that others call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import UsageError

SEASONS = ("winter", "spring", "summer", "autumn")
_NAMES = {
    "eo:platform": "platform",
    "eo:sun_elevation": "view:sun_elevation",
    "eo:sun_azimuth": "view:sun_azimuth",
    "landsat:tier": "landsat:collection_category",
    "eo:column": "landsat:wrs_path",
    "eo:row": "landsat:wrs_row",
}
"""What sat-api called properties in 2020, and what STAC calls them now; items may have either."""
_COLLECTIONS = {"landsat-8-l1": "landsat-8"}
"""Collections of sat-api that are gone, and the platform that they were of."""
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "in": lambda value, wanted: value in wanted,
}

Item = Mapping[str, Any]


def find_items(
    items: Sequence[Item], search: Mapping[str, Any], *, seasons: Sequence[str] = SEASONS, one_per_scene: bool = False
) -> list[Item]:
    """Search items.

    Args:
        items: STAC items.
        search: sat-api's body: `bbox` or `intersects`, `time` (or STAC's `datetime`), `query`, `ids`, `collections`,
            and `sort` (or `sortby`), by default newest first.
        seasons: of the year that are wanted, by month and hemisphere.
        one_per_scene: keep only the first of each path and row.

    Raises:
        UsageError: the search makes no sense.
    """
    if unknown := [season for season in seasons if season not in SEASONS]:
        raise UsageError(f"there is no season {unknown[0]!r}", hint=f"use {', '.join(SEASONS)}")
    try:
        place, span = _place(search), _span(search.get("time") or search.get("datetime"))
        found = [item for item in items if _matches(item, search, place, span) and _season(item) in seasons]
        for rule in reversed(
            search.get("sort") or search.get("sortby") or [{"field": "datetime", "direction": "desc"}]
        ):
            found = _sorted(found, str(rule["field"]).removeprefix("properties."), rule.get("direction", "asc"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the search is malformed: {error}") from error
    return _first_of_each(found) if one_per_scene else found


def _matches(
    item: Item, search: Mapping[str, Any], place: BaseGeometry | None, span: tuple[datetime, datetime]
) -> bool:
    if place is not None and (item.get("geometry") is None or not place.intersects(shape(item["geometry"]))):
        return False
    if not span[0] <= _date(item) <= span[1]:
        return False
    if search.get("ids") and item.get("id") not in search["ids"]:
        return False
    if search.get("collections") and item.get("collection") not in search["collections"]:
        return False
    return all(_satisfies(item, name, rules) for name, rules in (search.get("query") or {}).items())


def _satisfies(item: Item, name: str, rules: Mapping[str, Any]) -> bool:
    """Tell whether a property is as wanted; an item without it never is, as in sat-api."""
    if name == "collection" and rules.get("eq") in _COLLECTIONS:
        name, rules = "platform", {"eq": _COLLECTIONS[rules["eq"]]}
    value = _property(item, name)
    if value is None:
        return False
    for rule, wanted in rules.items():
        if rule not in _OPERATORS:
            raise UsageError(f"{rule!r} is no operator of a query", hint=f"use {', '.join(_OPERATORS)}")
        if not _OPERATORS[rule](value, wanted):
            return False
    return True


def _property(item: Item, name: str) -> Any:
    if name in ("collection", "id"):
        return item.get(name)
    properties = item.get("properties") or {}
    return properties.get(name, properties.get(_NAMES.get(name, name)))


def _place(search: Mapping[str, Any]) -> BaseGeometry | None:
    if area := search.get("intersects"):
        return shape(area.get("geometry", area))
    if not (bounds := search.get("bbox")):
        return None
    west, south, east, north = (float(number) for number in bounds)
    return (
        box(west, south, east, north) if west <= east else box(west, south, 180, north) | box(-180, south, east, north)
    )


def _span(text: str | None) -> tuple[datetime, datetime]:
    first, _, last = (text or "../..").partition("/")
    last = last if "/" in (text or "/") else first
    return (
        datetime.min.replace(tzinfo=UTC) if first in ("", "..") else _parsed(first),
        datetime.max.replace(tzinfo=UTC) if last in ("", "..") else _parsed(last),
    )


def _parsed(text: str) -> datetime:
    date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _date(item: Item) -> datetime:
    properties = item["properties"]
    return _parsed(properties.get("datetime") or properties["start_datetime"])


def _season(item: Item) -> str:
    """Name the season of an item's month where it lies; awspds-mosaic had the southern ones wrong."""
    number = _date(item).month % 12 // 3
    is_southern = item["bbox"][1] + item["bbox"][len(item["bbox"]) // 2 + 1] < 0
    return SEASONS[(number + 2) % 4 if is_southern else number]


def _sorted(items: Sequence[Item], name: str, direction: str) -> list[Item]:
    """Sort by a property, those without it last."""
    known = [item for item in items if _property(item, name) is not None]
    rest = [item for item in items if _property(item, name) is None]
    return sorted(known, key=lambda item: _property(item, name), reverse=direction == "desc") + rest


def _first_of_each(items: Sequence[Item]) -> list[Item]:
    places: dict[Any, Item] = {}
    for item in items:
        place = (_property(item, "eo:column"), _property(item, "eo:row"))
        places.setdefault(place if None not in place else id(item), item)
    return list(places.values())
