"""Which scenes tiles are made of, and which could not be read, as far as their tiler says: counted tile by tile.

TiTiler names them in `X-Assets`; the embedded tiler adds their days and the scenes that it left out. It knows nothing
of requests, and of scenes only what the headers say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from mosaic_async.events import SceneCount, SceneReport
from mosaic_async.safety.redaction import one_line

SHOWN = 500
"""Scenes of each kind that a report lists; a country has tens of thousands."""
_KEPT = 20_000
"""Scenes of each kind that are counted one by one, about 300 bytes each; later scenes only count their tiles."""
_LONGEST = 300
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass
class _Count:
    day: str | None
    tiles: int = 0
    note: str | None = None
    """The rules for its counts, or why it is left out."""


class SceneTally:
    """Counts tiles by scene."""

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        """Begin, or continue from what `as_dict` returned."""
        known = known or {}
        self._used = _counts(known.get("used"))
        self._skipped = _counts(known.get("skipped"))
        self._tiles = int(known.get("tiles", 0))
        self._lacking = int(known.get("lacking", 0))
        self._included: SceneTally | None = None

    def __bool__(self) -> bool:
        """Return whether any tile names its scenes."""
        return bool(self._used or self._skipped or self._included)

    def note(self, headers: Mapping[str, str]) -> list[str]:
        """Count the scenes that a tile's headers name; return those that could not be read for the first time.

        Args:
            headers: of its answer, with names in any case.
        """
        used, days = _listed(headers.get("X-Assets")), _listed(headers.get("X-Assets-Dates"))
        skipped = _listed(headers.get("X-Skipped-Assets"))
        if used:
            self._tiles += 1
            rules = _listed(headers.get("X-Assets-Rules"))
            _add(
                self._used, dict(zip(used, zip(_as_many(days, used), _as_many(rules, used), strict=True), strict=True))
            )
        if not skipped:
            return []
        self._lacking += 1
        reasons = _as_many(_listed(headers.get("X-Skipped-Reasons")), skipped)
        return _add(self._skipped, {name: ("", reason) for name, reason in zip(skipped, reasons, strict=True)})

    def include(self, other: SceneTally) -> None:
        """Add to the report what another process has counted; `as_dict` leaves it out, because it is kept there."""
        if other:
            self._included = self._included or SceneTally()
            self._included.add(other)

    def add(self, other: SceneTally) -> None:
        """Count what another tally has counted."""
        self._tiles += other._tiles
        self._lacking += other._lacking
        for counts, more in ((self._used, other._used), (self._skipped, other._skipped)):
            for name, found in more.items():
                if name in counts or len(counts) < _KEPT:
                    count = counts.setdefault(name, _Count(found.day))
                    count.tiles += found.tiles
                    count.note = count.note or found.note

    def report(self) -> SceneReport:
        """Return what was counted, the scenes of most tiles first."""
        if self._included is not None:
            total = SceneTally(self.as_dict())
            total.add(self._included)
            return total.report()
        days = sorted(count.day for count in self._used.values() if count.day)
        return SceneReport(
            total=len(self._used),
            tiles=self._tiles,
            first=days[0] if days else None,
            last=days[-1] if days else None,
            used=tuple(SceneCount(name, one.day, one.tiles, rule=one.note) for name, one in _most(self._used)),
            lacking=self._lacking,
            skipped_total=len(self._skipped),
            skipped=tuple(SceneCount(name, None, one.tiles, reason=one.note) for name, one in _most(self._skipped)),
        )

    @property
    def tags(self) -> dict[str, str]:
        """GDAL metadata of the output: the days on which its scenes were taken, as far as they are known."""
        report = self.report()
        days = {"MOSAIC_SCENES_FIRST": report.first, "MOSAIC_SCENES_LAST": report.last}
        return {name: day for name, day in days.items() if day}

    def as_dict(self) -> dict[str, Any]:
        """Return what a later run continues from, as JSON types; nothing if no tile names its scenes."""
        if not self:
            return {}
        used, skipped = (
            {name: [count.day, count.tiles, count.note] for name, count in counts.items()}
            for counts in (self._used, self._skipped)
        )
        return {"used": used, "skipped": skipped, "tiles": self._tiles, "lacking": self._lacking}


def _counts(known: Mapping[str, Any] | None) -> dict[str, _Count]:
    return {name: _Count(day, int(tiles), *note) for name, (day, tiles, *note) in (known or {}).items()}


def _listed(header: str | None) -> list[str]:
    return header.split(",") if header else []


def _as_many(values: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Return one value per name; none where a header does not have as many."""
    return values if len(values) == len(names) else [""] * len(names)


def _add(counts: dict[str, _Count], named: Mapping[str, tuple[str, str]]) -> list[str]:
    """Count a tile's scenes, with their days and notes, and return those that are new."""
    new = []
    for text, (day, note) in named.items():
        name = _shown(text)
        count = counts.get(name)
        if count is None:
            if len(counts) >= _KEPT:
                continue
            count = counts[name] = _Count(day if _DAY.fullmatch(day) else None)
            new.append(name)
        count.tiles += 1
        count.note = count.note or _shown(unquote(note)) or None
    return new


@lru_cache(maxsize=4096)
def _shown(text: str) -> str:
    """Return a text of the server without secrets and without characters that control a terminal."""
    return one_line(text, _LONGEST)


def _most(counts: Mapping[str, _Count]) -> list[tuple[str, _Count]]:
    return sorted(counts.items(), key=lambda one: (-one[1].tiles, one[0]))[:SHOWN]
