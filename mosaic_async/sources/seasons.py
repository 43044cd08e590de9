"""Seasons of the year by month, the right way round on both hemispheres. It knows nothing of scenes."""

from __future__ import annotations

from collections.abc import Iterable

from mosaic_async.errors import UsageError

SEASONS = ("winter", "spring", "summer", "autumn")
"""Of the northern hemisphere from December on, three whole months each."""
_ALIASES = {"fall": "autumn"}


def season_of(month: int, latitude: float) -> str:
    """Name the season of a month, 1 to 12, at a latitude in degrees; the equator counts as north."""
    index = month % 12 // 3
    return SEASONS[index if latitude >= 0 else (index + 2) % 4]


def read_seasons(names: Iterable[str]) -> frozenset[str]:
    """Read names of seasons; `fall` is autumn.

    Raises:
        UsageError: a name that is none; it would match nothing, in silence.
    """
    found = frozenset(_ALIASES.get(name.strip().lower(), name.strip().lower()) for name in names)
    if unknown := sorted(found - set(SEASONS)):
        raise UsageError(f"no season is called {', '.join(unknown)}", hint=f"there are {', '.join(SEASONS)}")
    return found
