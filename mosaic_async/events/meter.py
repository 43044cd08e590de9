"""How far a run is, and how fast: counted from its events. It knows nothing of who is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mosaic_async.events import (
    Event,
    Pulse,
    RunStarted,
    Stitching,
    StitchProgress,
    TileEmpty,
    TileFailed,
    TileNotFound,
    TilePlaced,
)

_WINDOW = 60
"""Pulses, one per second, over which rates are averaged."""


class Meter:
    """Counts the events of a run.

    Args:
        clock: seconds that never decrease.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stage = "probe"
        self._total = self._done = self._failed = 0
        self._share = 0.0
        self._pulse = Pulse(0, 0, 0)
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)

    def note(self, event: Event) -> None:
        """Count an event."""
        match event:
            case TilePlaced() | TileEmpty() | TileNotFound():
                self._done += 1
            case TileFailed():
                self._done += 1
                self._failed += 1
            case Pulse():
                self._pulse = event
                self._mark()
            case RunStarted():
                self._stage, self._total, self._done = "download", event.tiles_total, event.tiles_resumed
                self._marks.clear()
                self._mark()
            case Stitching():
                self._stage = "stitch" if event.parts > 1 else "validate"
            case StitchProgress():
                self._share = event.done / (event.total or 1)
                self._stage = "stitch" if event.done < event.total else "validate"
            case _:
                pass

    def _mark(self) -> None:
        self._marks.append((self._clock(), self._done, self._pulse.bytes_received))

    @property
    def values(self) -> dict[str, Any]:
        """The numbers as JSON types; times in seconds, None where they are not known."""
        tiles, nbytes = self._rates()
        return {
            "stage": self._stage,
            "tiles_done": self._done,
            "tiles_total": self._total,
            "tiles_failed": self._failed,
            "tiles_per_second": tiles,
            "bytes_per_second": nbytes,
            "in_flight": self._pulse.in_flight,
            "seconds_left": (self._total - self._done) / tiles if tiles else None,
        }

    def _rates(self) -> tuple[float, float]:
        """Return tiles and bytes per second."""
        if not self._marks:
            return 0.0, 0.0
        since, tiles, nbytes = self._marks[0]
        seconds = max(self._clock() - since, 1e-9)
        return (self._done - tiles) / seconds, (self._pulse.bytes_received - nbytes) / seconds

    @property
    def kept(self) -> str:
        """How much of the output the run has, the tiles of earlier runs included; nothing before the download."""
        return f"{self._done - self._failed:,} of {self._total:,} tiles" if self._total else ""

    def __str__(self) -> str:
        match self._stage:
            case "probe":
                return f"waiting for the first tile, {self._pulse.in_flight:,} in flight"
            case "stitch":
                return f"stitching, {self._share:.0%}"
            case "validate":
                return "validating"
        tiles, nbytes = self._rates()
        left = _clock_face((self._total - self._done) / tiles) if tiles else "an unknown time"
        failed = f"{self._failed:,} failed, " if self._failed else ""
        share = self._done / (self._total or 1)
        return (
            f"{self._done:,} of {self._total:,} tiles ({share:.0%}), {failed}{tiles:.1f} tiles/s, "
            f"{nbytes / 1e6:.1f} MB/s, {self._pulse.in_flight:,} in flight, {left} left"
        )


def _clock_face(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
