"""The progress of a run on stderr: a bar if it is a terminal, and lines about what happens.

This module knows nothing of how a bar is drawn, nor of how events are worded.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Self

from mosaic_async.cli.bar import Bar
from mosaic_async.cli.stderr_lines import json_line
from mosaic_async.events import (
    Event,
    RunStarted,
    Stitching,
    StitchProgress,
    TileEmpty,
    TileFailed,
    TileFetched,
    TileNotFound,
    TilePlaced,
)
from mosaic_async.events.wording import BETWEEN_LINES, Line, Narrator


class Progress:
    """Shows events on stderr.

    Args:
        quiet: hide all but the answer to a signal.
        verbose: show every line.
        as_json: write lines as JSON, and no bar.
        every: seconds between two lines about the progress, where no bar is drawn.
    """

    def __init__(self, *, quiet: bool, verbose: bool, as_json: bool = False, every: float = BETWEEN_LINES) -> None:
        self._as_json = as_json
        self._bar = Bar(sys.stderr, is_shown=not (quiet or as_json))
        self._narrator = Narrator(None if self._bar.is_shown else every, rest="--verbose prints them all")
        self._quiet = quiet
        self._least = logging.DEBUG if verbose else logging.INFO
        self._bytes = 0
        self._failed = 0
        self._stitched: int | None = None
        self._again = ""
        self.is_downloading = False
        """Whether the run waits for tiles."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        for line in self._narrator.lines(event):
            self._show(line)
        match event:
            case RunStarted():
                self.is_downloading = True
                self._bar.start(event.tiles_total, initial=event.tiles_resumed, unit="tile")
            case TileFetched():
                self._bytes += event.nbytes
            case TilePlaced() | TileEmpty() | TileNotFound():
                self._advance()
            case TileFailed():
                self._failed += 1
                self._advance()
            case Stitching():
                self.is_downloading = False
                self._bar.rename("stitching" if event.parts > 1 else "validating")
            case StitchProgress():
                self._stitch(event)
            case _:
                pass

    @property
    def kept(self) -> str:
        """How much of the output there is."""
        return self._narrator.kept

    def answer(self, signal: str) -> None:
        """Answer a signal at once, or with `Stopping` where the run waits for tiles.

        Args:
            signal: what people do to send another one.
        """
        self._again = f"; {signal} again to quit now"
        if not self.is_downloading:
            self._write(Line(kind="stopping", text=f"stopping{self._again}", level=logging.INFO))

    def _show(self, line: Line) -> None:
        if line.kind == "stopping":
            self._write(replace(line, text=line.text + self._again))
        elif line.level >= self._least and not self._quiet:
            self._write(line)

    def _write(self, line: Line) -> None:
        self._bar.write(json_line(line.kind, line.text, line.level, line.values) if self._as_json else line.text)

    def _advance(self) -> None:
        rate = f"{self._bytes / 1e6 / (self._bar.elapsed or 1):.1f} MB/s"
        self._bar.advance(f"{rate}, {self._failed} failed" if self._failed else rate)

    def _stitch(self, event: StitchProgress) -> None:
        """Show the copied bytes in a bar of their own."""
        if self._stitched is None:
            self._bar.start(event.total, initial=event.done, unit="B", title="stitching")
        else:
            self._bar.advance(steps=event.done - self._stitched)
        self._stitched = event.done
        if event.done >= event.total:
            self._bar.rename("validating")
