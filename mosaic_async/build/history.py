"""What happened in all runs of a work folder: totals, a course over time, and of each tile how it came.

Memory does not grow with time, and with tiles by a byte each. A `kill -9` loses the last seconds. It knows nothing of
what became of tiles: that is the ledger's.
"""

from __future__ import annotations

import base64
import binascii
import math
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mosaic_async.events import (
    Event,
    Pulse,
    ServerTrouble,
    TileEmpty,
    TileFailed,
    TileFetched,
    TileNotFound,
    TilePlaced,
    TileRetried,
)
from mosaic_async.geo.cover import Cover, Tile

_BUCKETS = 1000
_INCIDENTS = 200
_RUNS = 100
_REASONS = 100
RETRIED = 128
"""The bit of a tile's mark that says that it took several attempts; the others are its latency."""
_PER_DOUBLING = 7
"""Steps of latency, from a millisecond up to four minutes."""


def latency_mark(seconds: float) -> int:
    """Return the mark of a latency, from 1 to 127."""
    return min(127, 1 + max(0, round(_PER_DOUBLING * math.log2(max(seconds, 1e-3) / 1e-3))))


def latency_of(mark: int) -> float:
    """Return the seconds that a mark stands for."""
    return float(1e-3 * 2 ** ((mark - 1) / _PER_DOUBLING))


@dataclass
class RunTotals:
    """What one run did; seconds are those of its download."""

    started: str
    """Date and time."""
    seconds: float = 0.0
    requests: int = 0
    retries: int = 0
    bytes_received: int = 0
    tiles: int = 0
    """Tiles that were placed or found empty; those of an open part that an earlier run left are placed again."""


@dataclass
class Course:
    """Counts over time, in at most 1,000 buckets; when they are full, each holds twice as many seconds."""

    step: int = 1
    """Seconds per bucket."""
    tiles: list[int] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)
    """The most."""
    pulses: int = 0
    """Seconds so far."""

    def add(self, *, tiles: int, retries: int, in_flight: int) -> None:
        """Count a second."""
        if self.pulses % self.step == 0:
            if len(self.tiles) == _BUCKETS:
                self._halve()
            for bucket in (self.tiles, self.retries, self.in_flight):
                bucket.append(0)
        self.pulses += 1
        self.tiles[-1] += tiles
        self.retries[-1] += retries
        self.in_flight[-1] = max(self.in_flight[-1], in_flight)

    def _halve(self) -> None:
        self.step *= 2
        self.tiles = [sum(self.tiles[at : at + 2]) for at in range(0, _BUCKETS, 2)]
        self.retries = [sum(self.retries[at : at + 2]) for at in range(0, _BUCKETS, 2)]
        self.in_flight = [max(self.in_flight[at : at + 2]) for at in range(0, _BUCKETS, 2)]


class History:
    """The runs of a work folder, the last of which is under way.

    Args:
        cover: the tiles.
    """

    def __init__(self, cover: Cover) -> None:
        self._cover = cover
        self.marks: NDArray[np.uint8] = np.zeros((cover.rows, cover.columns), np.uint8)
        """Of each tile how it came; 0 if that is not known."""
        self.course = Course()
        self.incidents: list[dict[str, Any]] = []
        self.reasons: Counter[str] = Counter()
        """How often each reason led to a retry."""
        self.runs = [RunTotals(datetime.now(UTC).isoformat(timespec="seconds"))]
        self._began = time.monotonic()
        self._tiles = self._retries = 0

    @classmethod
    def of(cls, cover: Cover, known: Mapping[str, Any]) -> Self:
        """Continue what `as_dict` of an earlier run made; begin anew where that is of other tiles."""
        history = cls(cover)
        try:
            marks = np.frombuffer(zlib.decompress(base64.b64decode(known["marks"])), np.uint8)
            history.marks = marks.reshape(cover.rows, cover.columns).copy()
            history.course = Course(**known["course"])
            history.incidents = list(known["incidents"])
            history.reasons = Counter(known["reasons"])
            history.runs = [*(RunTotals(**run) for run in known["runs"]), *history.runs][-_RUNS:]
        except (KeyError, TypeError, ValueError, zlib.error, binascii.Error):
            return cls(cover)
        return history

    def hear(self, event: Event) -> None:
        """Count an event."""
        match event:
            case TileFetched():
                self._mark(event.tile, latency_mark(event.seconds) | (RETRIED if event.attempts > 1 else 0))
            case TilePlaced() | TileEmpty() | TileNotFound():
                self._tiles += 1
                self.runs[-1].tiles += 1
            case TileFailed():
                self._mark(event.tile, RETRIED if event.attempts > 1 else 0)
            case TileRetried():
                self._retries += 1
                self.reasons[event.reason if self._has_room(event.reason) else "others"] += 1
            case ServerTrouble():
                self._note_trouble(event)
            case Pulse():
                self._note_pulse(event)
            case _:
                pass

    def settle(self, *, requests: int, retries: int, bytes_received: int) -> None:
        """Note the totals of the run that is under way."""
        run = self.runs[-1]
        run.requests, run.retries, run.bytes_received = requests, retries, bytes_received
        run.seconds = round(time.monotonic() - self._began, 3)

    def as_dict(self) -> dict[str, Any]:
        """Return what `of` continues, as JSON types."""
        return {**self.facts(), "marks": base64.b64encode(zlib.compress(self.marks.tobytes(), 1)).decode()}

    def facts(self) -> dict[str, Any]:
        """Return all but what is known of each tile, as JSON types."""
        return {
            "course": asdict(self.course),
            "incidents": self.incidents,
            "reasons": dict(self.reasons.most_common()),
            "runs": [asdict(run) for run in self.runs],
        }

    def _has_room(self, reason: str) -> bool:
        return reason in self.reasons or len(self.reasons) < _REASONS

    def _mark(self, tile: Tile, mark: int) -> None:
        column, row = self._cover.place(tile)
        self.marks[row, column] = mark

    def _note_trouble(self, event: ServerTrouble) -> None:
        if len(self.incidents) < _INCIDENTS:
            self.incidents.append({"at": self.course.pulses, **asdict(event)})

    def _note_pulse(self, event: Pulse) -> None:
        self.course.add(tiles=self._tiles, retries=self._retries, in_flight=event.in_flight)
        self._tiles = self._retries = 0
        self.settle(requests=event.requests, retries=event.retries, bytes_received=event.bytes_received)
