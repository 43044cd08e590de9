"""A progress bar at the bottom of a terminal, with lines of text above it.

tqdm formats the bar but does not draw it: its own clock is the wall's, so a bar would freeze for an hour when that
clock is set back by one. This module knows nothing of tiles.
"""

from __future__ import annotations

import os
from collections import deque
from time import monotonic
from typing import TextIO

from tqdm import tqdm

_BETWEEN_DRAWS = 0.1
_WINDOW = 30.0
"""Seconds over which the rate, and so the remaining time, is averaged."""
_ERASE = "\r\x1b[K"


class Bar:
    """The bar of one stage after another; it draws nothing where the stream is not a terminal."""

    def __init__(self, stream: TextIO, *, is_shown: bool = True) -> None:
        self._stream = stream
        self.is_shown = is_shown and stream.isatty()
        """Whether a bar is drawn."""
        self._is_ascii = not (stream.encoding or "").lower().startswith("utf")
        self._title = ""
        self._unit = ""
        self._note = ""
        self._total = self._count = self._initial = 0
        self._started = self._drawn = monotonic()
        self._marks: deque[tuple[float, int]] = deque()

    @property
    def elapsed(self) -> float:
        """Seconds since the stage started."""
        return monotonic() - self._started

    def start(self, total: int, *, initial: int = 0, unit: str, title: str = "") -> None:
        """Start a stage below the one before it.

        Args:
            total: steps of the stage.
            initial: steps that an earlier run did.
            unit: what a step is; bytes, `B`, are written with prefixes.
            title: stands before the bar.
        """
        self.close()
        self._title, self._unit, self._note = title, unit, ""
        self._total, self._count, self._initial = total, initial, initial
        self._started = monotonic()
        self._marks.clear()
        self._draw()

    def advance(self, note: str = "", steps: int = 1) -> None:
        """Count steps; the note stands behind the rate."""
        self._count += steps
        self._note = note
        if monotonic() - self._drawn >= _BETWEEN_DRAWS:
            self._draw()

    def rename(self, title: str) -> None:
        """Show another title; the count stays."""
        self._title = title
        self._draw()

    def write(self, line: str) -> None:
        """Write a line above the bar."""
        is_drawn = self.is_shown and self._total > 0
        self._stream.write(f"{_ERASE if is_drawn else ''}{line}\n")
        if is_drawn:
            self._draw()
        self._stream.flush()

    def close(self) -> None:
        """Draw the last state and leave it behind."""
        if self.is_shown and self._total:
            self._draw()
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self) -> None:
        if not self.is_shown:
            return
        self._drawn = monotonic()
        line = tqdm.format_meter(
            self._count,
            self._total,
            self.elapsed,
            ncols=self._width(),
            prefix=self._title,
            ascii=self._is_ascii,
            unit=self._unit,
            unit_scale=self._unit == "B",
            rate=self._rate(),
            postfix=self._note,
            initial=self._initial,
        )
        self._stream.write(_ERASE + line)
        self._stream.flush()

    def _rate(self) -> float | None:
        """Return steps per second in the window; None where nothing was measured yet."""
        now = monotonic()
        self._marks.append((now, self._count))
        while now - self._marks[0][0] > _WINDOW and len(self._marks) > 1:
            self._marks.popleft()
        since, count = self._marks[0]
        return (self._count - count) / (now - since) if now > since else None

    def _width(self) -> int | None:
        """Return the columns of the terminal; None where they are unknown, so that only numbers are shown."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or None
        except (OSError, ValueError):
            return None
