"""What people see in a terminal: the bar from events, the plan and the report as text.

Only the command line uses it; the bar goes to stderr.
"""

from __future__ import annotations

import sys
from collections import Counter
from time import monotonic
from typing import NoReturn, Self

from tqdm import tqdm

from mosaic_async.build.plan import MosaicPlan
from mosaic_async.events import (
    Event,
    MosaicReport,
    RunStarted,
    SceneReport,
    SceneSkipped,
    ServerTrouble,
    Stitching,
    TileEmpty,
    TileFailed,
    TileFetched,
    TileParked,
    TilePlaced,
    TileRetried,
    zxy,
)

_LINES = 10
"""Of each kind."""


class Progress:
    """Draws the bar from events; silent when stderr is no terminal."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._quiet = quiet
        self._verbose = verbose
        self._bytes = 0
        self._failed = 0
        self._said: Counter[str] = Counter()
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case RunStarted():
                self._start(event)
            case TileFetched():
                self._bytes += event.nbytes
            case TilePlaced() | TileEmpty():
                self._advance()
            case TileFailed():
                self._failed += 1
                self._say_some("failed", f"{zxy(event.tile)}: {event.reason} ({event.attempts} attempts)")
                self._advance()
            case TileParked():
                self._say_some("for later", f"{zxy(event.tile)}: {event.reason}")
            case SceneSkipped():
                self._say_some("left out", f"{event.scene}, which the tiler cannot read, first in {zxy(event.tile)}")
            case ServerTrouble():
                self._say_some(event.kind, _trouble_text(event))
            case TileRetried() if self._verbose:
                self._say(f"retry {event.attempt} in {event.wait:.1f} s: {event.url}: {event.reason}")
            case Stitching() if self._bar is not None:
                self._stage = "finish"
                self._bar.set_description_str("stitching" if event.parts > 1 else "validating")
            case _:
                pass

    def is_downloading(self) -> bool:
        """Whether tiles are under way, which are worth waiting for when the run is to end."""
        return self._stage == "download"

    def _start(self, event: RunStarted) -> None:
        self._stage = "download"
        self._bar = tqdm(
            total=event.tiles_total,
            initial=event.tiles_resumed,
            unit="tile",
            dynamic_ncols=True,
            disable=True if self._quiet else None,  # None: off when stderr is no terminal
        )
        # Its own clock is the wall's: set back by an hour on the way it would stand still for so long.
        vars(self._bar).update(_time=monotonic, start_t=monotonic(), last_print_t=monotonic())

    def _advance(self) -> None:
        if self._bar is not None and not self._bar.disable:
            elapsed = self._bar.format_dict["elapsed"] or 1
            rate = f"{self._bytes / 1e6 / elapsed:.1f} MB/s"
            self._bar.set_postfix_str(f"{rate}, {self._failed} failed" if self._failed else rate, refresh=False)
            self._bar.update()

    def _say_some(self, kind: str, text: str) -> None:
        """Say the first lines of a kind only: an hour's worth of them would bury what matters."""
        self._said[kind] += 1
        if self._verbose or self._said[kind] <= _LINES:
            self._say(f"{kind}: {text}")
        elif self._said[kind] == _LINES + 1:
            self._say(f"{kind}: more of these are counted, not said; --verbose says all")

    def _say(self, line: str) -> None:
        if not self._quiet:
            tqdm.write(line, file=sys.stderr)


def _trouble_text(event: ServerTrouble) -> str:
    match event.kind:
        case "pause":
            return f"{event.seconds:.0f} s, as the server asks ({event.reason})"
        case "outage":
            return f"the server is away ({event.reason}); it is looked for now and then"
        case "back":
            return f"the server is here again after {event.seconds:.0f} s"


def report_text(report: MosaicReport) -> str:
    """Say what a run did."""
    west, south, east, north = report.bounds
    return (
        f"{report.output}: {report.width} x {report.height} pixels, {_size(report.bytes_written)}, "
        f"W {west:.5f} S {south:.5f} E {east:.5f} N {north:.5f}\n"
        f"{report.tiles_placed:,} tiles placed, {report.tiles_empty:,} empty, {report.tiles_failed:,} failed; "
        f"{report.requests:,} requests, {report.retries:,} retries, {_size(report.bytes_received)} received\n"
        f"{report.seconds:.1f} s, {report.parts_total} parts ({report.parts_resumed} resumed), "
        f"peak memory {_size(report.peak_rss)}" + _scenes_text(report.scenes)
    )


def _scenes_text(scenes: SceneReport) -> str:
    """Say of which scenes the tiles were made; nothing where the tiler did not tell."""
    lines = []
    if scenes.total:
        days = f", {scenes.first} to {scenes.last}" if scenes.first else ""
        lines.append(f"{scenes.total:,} scene{'s' if scenes.total > 1 else ''}{days}")
    if scenes.lacking:
        lines.append(
            f"warning: {scenes.lacking:,} tiles lack scenes that could not be read, {scenes.skipped_total:,} in all, "
            f"such as {scenes.skipped[0].name}"
        )
    return "".join(f"\n{line}" for line in lines)


def plan_text(found: MosaicPlan) -> str:
    """Say what a run would do."""
    west, south, east, north = found.bounds
    lines = [
        f"zoom        {found.zoom}, tiles of {found.tile_size} pixels, {found.resolution:.2f} m a pixel at the equator",
        f"tiles       {found.tiles:,}",
        f"output      {found.width:,} x {found.height:,} pixels, {found.count} x {found.dtype}, mask: {found.mask}",
        f"bounds      W {west:.5f} S {south:.5f} E {east:.5f} N {north:.5f}",
        f"parts       {found.parts:,} of {found.part_size:,} pixels",
        f"size        {_size(found.raw_bytes)} raw, about {_size(found.estimated_bytes)} as a file",
        f"memory      {_size(found.memory)} at most",
    ]
    if found.assumed:
        lines.append("guessed     the tile in the centre is empty, so bands and dtype are a guess")
    else:
        time = tqdm.format_interval(found.seconds or 0)
        lines.append(f"download    about {_size(found.download_bytes or 0)}")
        lines.append(f"time        about {time}, if every tile takes as long as the one that was tried")
    lines += [
        f"{'profiles' if index == 0 else '':11} {name}: about {_size(cost.nbytes)}, {cost.seconds:,.0f} s of one core"
        for index, (name, cost) in enumerate(found.profiles.items())
    ]
    return "\n".join(lines)


def _size(nbytes: float) -> str:
    return f"{tqdm.format_sizeof(nbytes)}B"
