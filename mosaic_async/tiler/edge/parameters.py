"""Parameters of a request: their names, their number, and the range of each, checked before anything works with them.

A value that is malformed is left to FastAPI, which names it. It knows nothing of mosaics.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping

from starlette.datastructures import QueryParams

from mosaic_async.errors import UsageError
from mosaic_async.tiler.edge.formulas import check_colormap, check_colours, check_expression

_MAX_PARAMETERS = 1_024
_MAX_REPEATS = 512
_MAX_LENGTH = 256
_MAX_ZOOM = 30
_MAX_MARGIN = 256
_CRS = re.compile(r"[A-Za-z0-9_]{1,16}:[A-Za-z0-9_.]{1,32}|https?://www\.opengis\.net/def/crs/[\w./-]{1,64}")


def check_names(query: QueryParams, known: Collection[str]) -> None:
    """Check that all parameters of a query are known.

    Raises:
        UsageError: one is not.
    """
    if unknown := sorted({name for name in query if name not in known}):
        shown = ", ".join(name[:32] for name in unknown[:5])
        raise UsageError(f"unknown parameter: {shown}", hint=f"this route has {', '.join(sorted(known)) or 'none'}")


def check_values(query: QueryParams) -> None:
    """Check the number, the length and the range of values.

    Raises:
        UsageError: one is out of range.
    """
    pairs = query.multi_items()
    if len(pairs) > _MAX_PARAMETERS:
        raise UsageError(f"{len(pairs):,} parameters are too many: the limit is {_MAX_PARAMETERS:,}")
    for name in query:
        if (number := len(query.getlist(name))) > _MAX_REPEATS:
            raise UsageError(f"{number:,} values of {name} are too many: the limit is {_MAX_REPEATS:,}")
    for name, value in pairs:
        _CHECKS.get(name, _check_length)(name, value)


def check_path(path: Mapping[str, object]) -> None:
    """Check zoom, column, row and coordinates in a path.

    Raises:
        UsageError: one is out of range.
    """
    if "z" in path:
        _check_zoom("z", str(path["z"]))
    for name in ("x", "y"):
        if (number := _number(path.get(name))) is not None and not 0 <= number < 2**_MAX_ZOOM:
            raise UsageError(f"{name}={path[name]} is out of range: it must be 0 to {2**_MAX_ZOOM:,}")
    for name in ("lon", "lat"):
        if (number := _number(path.get(name))) is not None and not math.isfinite(number):
            raise UsageError(f"{name} must be a finite number")


def _check_length(name: str, value: str) -> None:
    if len(value) > _MAX_LENGTH:
        raise UsageError(f"{name} is too long: the limit is {_MAX_LENGTH} characters")


def _check_zoom(name: str, value: str) -> None:
    if (number := _number(value)) is not None and not 0 <= number <= _MAX_ZOOM:
        raise UsageError(f"{name}={value[:32]} is out of range: a zoom is 0 to {_MAX_ZOOM}")


def _check_margin(name: str, value: str) -> None:
    if (number := _number(value)) is not None and not 0 <= number <= _MAX_MARGIN:
        raise UsageError(f"{name}={value[:32]} is out of range: the limit is {_MAX_MARGIN} pixels")


def _check_crs(name: str, value: str) -> None:
    """Libraries read a CRS from a file or a URL too, if its text names one."""
    if not _CRS.fullmatch(value):
        raise UsageError(f"{name} is not a code of a coordinate reference system", hint="write it as EPSG:3857")


_CHECKS: Mapping[str, Callable[[str, str], object]] = {
    "expression": lambda _, value: check_expression(value),
    "expr": lambda _, value: check_expression(value, separator=","),
    "color_formula": lambda _, value: check_colours(value),
    "color_ops": lambda _, value: check_colours(value),
    "colormap": lambda _, value: check_colormap(value),
    "minzoom": _check_zoom,
    "maxzoom": _check_zoom,
    "buffer": _check_margin,
    "padding": _check_margin,
    "crs": _check_crs,
    "coord_crs": _check_crs,
}


def _number(value: object) -> float | None:
    """Return the number that a text is; None for a text that is not a number. NaN is out of every range."""
    try:
        return None if value is None else float(str(value)[:64])
    except ValueError:
        return None


def number_of(query: QueryParams, name: str, default: float) -> float:
    """Return a number of a query, or the default if it is missing or malformed."""
    found = _number(query.get(name))
    return default if found is None or not math.isfinite(found) else found
