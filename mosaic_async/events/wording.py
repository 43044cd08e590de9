"""Events in words: the lines of a log, the first of a kind one by one, and the progress every now and then.

It knows nothing of where the lines go.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any

from mosaic_async.events import (
    Event,
    OverviewsChosen,
    PieceDropped,
    SceneSkipped,
    ServerTrouble,
    Stopping,
    TileFailed,
    TileParked,
    TileRetried,
    TilesDiffer,
    zxy,
)
from mosaic_async.events.meter import Meter
from mosaic_async.safety.redaction import scrub

BETWEEN_LINES = 30.0
"""Seconds between two lines about the progress."""
DRAIN = 10.0
"""Seconds that answers have to arrive when a command is interrupted; a machine that is taken away gives 30."""
_LINES = 10
"""Lines of a kind that the tiles of a run repeat, before the rest is only for those who want all."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """What happened, in words."""

    kind: str
    """In one word, such as failed, outage or progress."""
    text: str
    """Without secrets."""
    level: int
    """As `logging` has them."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The facts as JSON types."""


class Narrator:
    """Turns the events of a run into lines.

    Args:
        every: seconds between two lines about the progress; None: no such lines.
        rest: where to find the lines of a kind beyond the first ten.
        clock: seconds that never decrease; replaced in tests.
    """

    def __init__(
        self, every: float | None = BETWEEN_LINES, *, rest: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = every
        self._rest = rest
        self._clock = clock
        self._meter = Meter(clock)
        self._last = clock()
        self._counts: Counter[str] = Counter()

    def lines(self, event: Event) -> Iterator[Line]:
        """Return what an event is worth: usually nothing."""
        self._meter.note(event)
        if (line := _worded(event)) is not None:
            yield from self._first(line)
        if self._every is not None and self._clock() - self._last >= self._every:
            self._last = self._clock()
            yield Line(kind="progress", text=f"progress: {self._meter}", level=logging.INFO, values=self._meter.values)

    def _first(self, line: Line) -> Iterator[Line]:
        """Return the first lines of a kind as they are and the rest as details: an hour of them would bury the log."""
        self._counts[line.kind] += 1
        if line.kind in _RARE or self._counts[line.kind] <= _LINES:
            yield line
            return
        if self._counts[line.kind] == _LINES + 1 and line.level > logging.DEBUG:
            hidden = f"{line.kind}: further lines are hidden; {self._rest}"
            yield Line(kind=line.kind, text=hidden, level=line.level)
        yield Line(kind=line.kind, text=line.text, level=logging.DEBUG, values=line.values)

    @property
    def kept(self) -> str:
        """How much of the output the run has."""
        return self._meter.kept


_RARE = ("note", "stopping")


def _worded(event: Event) -> Line | None:
    """Return an event in words; None for those that only count."""
    found = _WORDS.get(type(event))
    if found is None:
        return None
    kind, level, text = found
    name = event.kind if isinstance(event, ServerTrouble) else kind
    return Line(kind=name, text=scrub(text(event)), level=level, values=_values(event))


def _values(event: Event) -> dict[str, Any]:
    assert is_dataclass(event)
    values = {name: scrub(value) if isinstance(value, str) else value for name, value in asdict(event).items()}
    tile = getattr(event, "tile", None)
    return values if tile is None else {**values, "tile": zxy(tile)}


def _difference(event: TilesDiffer) -> str:
    bands = f"{event.count} band{'s' if event.count > 1 else ''} of {event.dtype}"
    return f"note: tile {zxy(event.tile)} is unlike the tiles before it: the output has {bands}, mask {event.mask}"


def _trouble(event: ServerTrouble) -> str:
    match event.kind:
        case "pause":
            return f"pause: {event.seconds:.0f} s, as the server requests ({event.reason})"
        case "outage":
            return f"outage: server unavailable, probing until it returns ({event.reason})"
        case "back":
            return f"back: server available again after {event.seconds:.0f} s"


def _failure(event: TileFailed) -> str:
    return f"failed: {zxy(event.tile)}: {event.reason} ({event.attempts} attempts)"


def _retry(event: TileRetried) -> str:
    return f"retry {event.attempt} in {event.wait:.1f} s: {event.url}: {event.reason}"


def _stopping(event: Stopping) -> str:
    tiles = f"{event.in_flight:,} tile{'' if event.in_flight == 1 else 's'}" if event.in_flight else "what is in flight"
    return f"stopping: waiting up to {DRAIN:.0f} s for {tiles}"


_WORDS: dict[type, tuple[str, int, Callable[[Any], str]]] = {
    OverviewsChosen: ("note", logging.INFO, lambda one: f"note: overviews take {one.resampling}: {one.reason}"),
    TilesDiffer: ("note", logging.INFO, _difference),
    PieceDropped: ("dropped", logging.WARNING, lambda one: f"dropped: {one.name}: {one.reason}, so it is made again"),
    TileParked: ("parked", logging.WARNING, lambda one: f"parked: {zxy(one.tile)}: {one.reason}"),
    TileFailed: ("failed", logging.WARNING, _failure),
    SceneSkipped: (
        "skipped",
        logging.WARNING,
        lambda one: f"skipped: {one.scene}: the tiler cannot read it, first in {zxy(one.tile)}",
    ),
    ServerTrouble: ("trouble", logging.WARNING, _trouble),
    TileRetried: ("retry", logging.DEBUG, _retry),
    Stopping: ("stopping", logging.INFO, _stopping),
}
"""Of each event that is worth a line: its kind, how much it matters, and its words."""
