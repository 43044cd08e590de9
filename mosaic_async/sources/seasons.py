"""Seasons of the year by month, for both hemispheres. It knows nothing of scenes."""

from __future__ import annotations

from collections.abc import Iterable

from mosaic_async.errors import UsageError

SEASONS = ("winter", "spring", "summer", "autumn")
"""In the order of the northern hemisphere from December on, three whole months each."""
_ALIASES = {"fall": "autumn"}


def season_of(month: int, latitude: float) -> str:
    """Return the season of a month, 1 to 12, at a latitude in degrees; the equator counts as north."""
    index = month % 12 // 3
    return SEASONS[index if latitude >= 0 else (index + 2) % 4]


def read_seasons(names: Iterable[str]) -> frozenset[str]:
    """Read names of seasons; `fall` is autumn.

    Raises:
        UsageError: a name is not known; it would match nothing in silence.
    """
    found = frozenset(_ALIASES.get(name.strip().lower(), name.strip().lower()) for name in names)
    if unknown := sorted(found - set(SEASONS)):
        raise UsageError(f"season {', '.join(unknown)} is not known", hint=f"use {', '.join(SEASONS)}")
    return found
