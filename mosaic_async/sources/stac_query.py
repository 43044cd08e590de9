"""Searches for scenes, of STAC API 1.0 or of SAT-API, and whether an item matches one.

It knows nothing of where items come from.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from mosaic_async.errors import SourceError, UsageError

Item = Mapping[str, Any]
"""A STAC item as JSON."""
Moment = datetime | None
"""None: open."""
_Thing = TypeVar("_Thing")

_KNOWN = {
    "collections", "ids", "bbox", "intersects", "datetime", "query", "filter", "filter-lang", "filter-crs", "sortby",
    "limit", "fields", "conf", "token",
}  # fmt: skip
_SAT_API = {"time", "sort", "page"}
_SAT_NAMES = {
    "eo:platform": "platform",
    "eo:sun_elevation": "view:sun_elevation",
    "eo:sun_azimuth": "view:sun_azimuth",
    "eo:off_nadir": "view:off_nadir",
    "eo:gsd": "gsd",
    "eo:column": "landsat:wrs_path",
    "eo:row": "landsat:wrs_row",
    "landsat:tier": "landsat:collection_category",
}
"""Names of SAT-API, and those of today's Landsat collections; files may still have the older names."""
_OLDER = {name: older for older, name in _SAT_NAMES.items()}
_SAT_COLLECTIONS = {"landsat-8-l1": ("landsat-c2-l2", "landsat-8"), "sentinel-2-l1c": ("sentinel-2-l2a", None)}
"""By SAT-API's collection: today's, and the platform to narrow it to."""
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda value, wanted: bool(value == wanted),
    "neq": lambda value, wanted: bool(value != wanted),
    "lt": lambda value, wanted: bool(value < wanted),
    "lte": lambda value, wanted: bool(value <= wanted),
    "gt": lambda value, wanted: bool(value > wanted),
    "gte": lambda value, wanted: bool(value >= wanted),
    "in": lambda value, wanted: value in wanted,
    "startsWith": lambda value, wanted: str(value).startswith(wanted),
    "endsWith": lambda value, wanted: str(value).endswith(wanted),
    "contains": lambda value, wanted: wanted in str(value),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """A STAC API 1.0 search."""

    collections: tuple[str, ...] = ()
    """Collections of which an item is in one; empty: all."""
    ids: tuple[str, ...] = ()
    bbox: tuple[float, ...] | None = None
    """West, south, east, north in degrees; west above east across the antimeridian."""
    intersects: Mapping[str, Any] | None = None
    """GeoJSON geometry."""
    datetime: tuple[Moment, Moment] | None = None
    """First and last moment, both included; None at one end: open."""
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Property, operator, value."""
    filter: Mapping[str, Any] | str | None = None
    """CQL2, as JSON or as text."""
    sortby: tuple[tuple[str, bool], ...] = ()
    """Property, and whether the largest comes first; items equal in all of them are ordered by id."""
    limit: int | None = None
    """Items per page; None leaves it to the server."""

    @classmethod
    def parse(cls, document: Mapping[str, Any], *, of_files: bool = False) -> Search:
        """Read a search as it is sent to a STAC API, or to SAT-API (`time`, `sort`, `eo:platform`, ...).

        Args:
            document: the body.
            of_files: whether files are searched, whose items may be in any collection: one of SAT-API that held
                one platform then selects that platform alone.

        Raises:
            UsageError: a parameter or an operator is not known, or a value is malformed.
        """
        try:
            is_old = bool(_SAT_API & document.keys()) or "collection" in (document.get("query") or {})
            given = _from_sat_api(document, of_files=of_files) if is_old else dict(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"the search is malformed: {error!r}") from error
        if unknown := sorted(given.keys() - _KNOWN):
            raise UsageError(
                f"the search has unknown parameters: {', '.join(unknown)}",
                hint=f"a STAC API supports {', '.join(sorted(_KNOWN - {'conf', 'token', 'fields'}))}",
            )
        if "bbox" in given and "intersects" in given:
            raise UsageError("the search has both bbox and intersects", hint="use one of them")
        try:
            return cls(
                collections=_texts(given.get("collections")),
                ids=_texts(given.get("ids")),
                bbox=_bbox(given.get("bbox")),
                intersects=given.get("intersects"),
                datetime=_interval(given.get("datetime")),
                query=_query(given.get("query") or {}),
                filter=given.get("filter"),
                sortby=_sortby(given.get("sortby") or ()),
                limit=int(given["limit"]) if given.get("limit") else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"the search is malformed: {error!r}") from error

    def within(self, collections: Sequence[str]) -> Search:
        """Return the search in other collections; without any, in its own."""
        return replace(self, collections=tuple(collections)) if collections else self

    def body(self) -> dict[str, Any]:
        """Return the body of `POST /search`; equal searches have equal bodies."""
        start, end = self.datetime or (None, None)
        language = "cql2-text" if isinstance(self.filter, str) else "cql2-json"
        body = {
            "collections": list(self.collections),
            "ids": list(self.ids),
            "bbox": list(self.bbox or ()),
            "intersects": self.intersects,
            "datetime": f"{_rfc3339(start)}/{_rfc3339(end)}" if start or end else None,
            "query": dict(self.query),
            "filter": self.filter,
            "filter-lang": language if self.filter else None,
            "sortby": [
                {"field": _prefixed(name), "direction": "desc" if descending else "asc"}
                for name, descending in self.sortby
            ],
            "limit": self.limit,
        }
        return {name: value for name, value in body.items() if value}

    def accepts(self, item: Item) -> bool:
        """Return whether an item matches collections, ids, time and query; place and CQL2 are not checked."""
        if self.collections and item.get("collection") not in self.collections:
            return False
        if self.ids and item.get("id") not in self.ids:
            return False
        return _in_time(item, self.datetime) and all(
            _holds(value_of(item, name), tests) for name, tests in self.query.items()
        )

    def ordered(self, items: Iterable[Item]) -> list[Item]:
        """Return items in the order of `sortby`, if any: equal ones by id, those without a value last."""
        found = list(items)
        if self.sortby:
            found.sort(key=lambda item: str(item.get("id")))
        for name, descending in reversed(self.sortby):
            values = {id(item): value_of(item, name) for item in found}
            known = [item for item in found if values[id(item)] is not None]
            unknown = [item for item in found if values[id(item)] is None]
            # A stable sort keeps the order of equal items, also in descending order.
            known.sort(key=lambda item: _sort_key(values[id(item)]), reverse=descending)
            found = known + unknown
        return found


def value_of(item: Item, name: str) -> Any:
    """Return a property of an item by its current name or SAT-API's, or its id or collection; None without one."""
    short = name.removeprefix("properties.")
    if short in ("id", "collection"):
        return item.get(short)
    properties = item.get("properties") or {}
    return properties.get(short, properties.get(_OLDER.get(short, short)))


def one_per_place(things: Iterable[_Thing], item_of: Callable[[_Thing], Item]) -> list[_Thing]:
    """Return the first scene per WRS path and row, or per cell of another grid.

    Args:
        things: scenes.
        item_of: returns the item of a scene.

    Raises:
        UsageError: an item names neither path and row nor a cell.
    """
    found: dict[tuple[Any, Any], _Thing] = {}
    for thing in things:
        item = item_of(thing)
        path, row = value_of(item, "landsat:wrs_path"), value_of(item, "landsat:wrs_row")
        grid = value_of(item, "grid:code") or value_of(item, "s2:mgrs_tile")
        if path is not None and row is not None:
            place = str(path).lstrip("0"), str(row).lstrip("0")
        elif grid:
            place = grid, ""
        else:
            raise UsageError(
                f"{item.get('id')} has neither landsat:wrs_path and landsat:wrs_row nor grid:code",
                hint="omit ``optimized_selection``",
            )
        found.setdefault(place, thing)
    return list(found.values())


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Order numbers before texts, because a property may be a number in one item and a text in another."""
    return (False, value) if isinstance(value, int | float) else (True, str(value))


def moment_of(item: Item) -> datetime | None:
    """Return when an item was taken: its datetime, or the start of its interval; None when it does not say.

    Raises:
        SourceError: the item's date is malformed.
    """
    return _span_of(item)[0]


def _from_sat_api(document: Mapping[str, Any], *, of_files: bool) -> dict[str, Any]:
    given = {name: value for name, value in document.items() if name != "page"}
    given["datetime"] = given.pop("time", None) or given.get("datetime")
    # SAT-API returns the newest first by default.
    given["sortby"] = given.pop("sort", None) or given.get("sortby") or [{"field": "datetime", "direction": "desc"}]
    given["sortby"] = [{**sort, "field": _renamed(str(sort["field"]))} for sort in given["sortby"]]
    query = {_renamed(name): tests for name, tests in (given.get("query") or {}).items()}
    named = query.pop("collection", {})
    wanted = [named["eq"]] if "eq" in named else list(named.get("in") or ())
    collections = [*(given.get("collections") or ()), *wanted]
    for name in collections:
        _, platform = _SAT_COLLECTIONS.get(name, (name, None))
        if platform and "platform" not in query:
            query["platform"] = {"eq": platform}
    if of_files:
        collections = [name for name in collections if _SAT_COLLECTIONS.get(name, (name, None))[1] is None]
    given["collections"] = [_SAT_COLLECTIONS.get(name, (name, None))[0] for name in collections]
    given["query"] = query
    return {name: value for name, value in given.items() if value is not None}


def _renamed(name: str) -> str:
    short = name.removeprefix("properties.")
    return _SAT_NAMES.get(short, short)


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(name) for name in value or ())


def _bbox(value: Any) -> tuple[float, ...] | None:
    """Read four numbers, or six with heights."""
    if not value:
        return None
    numbers = tuple(float(number) for number in (value.split(",") if isinstance(value, str) else value))
    if len(numbers) == 6:
        numbers = (*numbers[0:2], *numbers[3:5])
    if len(numbers) != 4 or numbers[1] > numbers[3]:
        raise UsageError(f"the search's bbox is {value}", hint="it is west, south, east, north in degrees")
    return numbers


def _query(value: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    for name, tests in value.items():
        if unknown := sorted(set(tests) - set(_COMPARE)):
            raise UsageError(
                f"the query of {name} has unknown operators: {', '.join(unknown)}",
                hint=f"use {', '.join(_COMPARE)}",
            )
    return {name.removeprefix("properties."): dict(tests) for name, tests in value.items()}


def _sortby(value: Any) -> tuple[tuple[str, bool], ...]:
    """Read `[{"field": …, "direction": …}]`, or the GET form `-properties.datetime,+id`."""
    if isinstance(value, str):
        value = value.split(",")
    fields = []
    for sort in value:
        if isinstance(sort, str):
            fields.append((sort.lstrip("+-").removeprefix("properties."), sort.startswith("-")))
        else:
            fields.append((sort["field"].removeprefix("properties."), sort.get("direction", "asc") == "desc"))
    return tuple(fields)


def _prefixed(name: str) -> str:
    """Return a property's name as stac-server requires it."""
    return name if name in ("id", "collection") else f"properties.{name}"


def _holds(value: Any, tests: Mapping[str, Any]) -> bool:
    """Test a value; one that is missing or not comparable passes no test, as in a database."""
    try:
        return value is not None and all(_COMPARE[name](value, wanted) for name, wanted in tests.items())
    except TypeError:
        return False


def _in_time(item: Item, wanted: tuple[Moment, Moment] | None) -> bool:
    if wanted is None:
        return True
    first, last = _span_of(item)
    if first is None or last is None:
        return False
    start, end = wanted
    return (end is None or first <= end) and (start is None or last >= start)


def _span_of(item: Item) -> tuple[Moment, Moment]:
    """Return the first and last moment of an item; None for an item without a date."""
    properties = item.get("properties") or {}
    first = properties.get("datetime") or properties.get("start_datetime")
    last = properties.get("datetime") or properties.get("end_datetime") or first
    try:
        return (_moment(first) if first else None, _moment(last) if last else None)
    except (TypeError, ValueError) as error:
        raise SourceError(f"the item {item.get('id')} has a malformed date: {error}") from error


def _interval(text: str | None) -> tuple[Moment, Moment] | None:
    """Read a moment, a day, month or year, or two of them separated by `/`; `..` is an open end."""
    if not text:
        return None
    start, mark, end = text.partition("/")
    first = None if start in ("", "..") else _moment(start)
    last = None if mark and end in ("", "..") else _last_moment(end if mark else start)
    if first is None and last is None:
        return None
    if first and last and first > last:
        raise UsageError(f"the search's datetime {text} ends before it begins", hint="swap the two moments")
    return first, last


def _moment(text: str) -> datetime:
    """Read RFC 3339, or the start of a day, month or year."""
    whole = text + ("-01-01" if re.fullmatch(r"\d{4}", text) else "-01" if re.fullmatch(r"\d{4}-\d\d", text) else "")
    moment = datetime.fromisoformat(whole)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _last_moment(text: str) -> datetime:
    """Read RFC 3339, or the end of a day, month or year."""
    moment = _moment(text)
    if "T" in text.upper() or " " in text:
        return moment
    if len(text) == 4:
        moment = moment.replace(month=12, day=31)
    elif len(text) == 7:
        moment = moment.replace(day=calendar.monthrange(moment.year, moment.month)[1])
    return moment + timedelta(days=1) - timedelta(seconds=1)


def _rfc3339(moment: Moment) -> str:
    return ".." if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
