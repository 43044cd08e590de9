"""The page of a report: one HTML file that needs no network, no script and nothing beside it.

Texts of servers are untrusted: the templates escape everything, and the page's policy allows pictures in it and its own
style, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np

from mosaic_async.events.pages import charts
from mosaic_async.events.pages.cells import MEANINGS, TileMap, seconds_of
from mosaic_async.events.pages.charts import Curve
from mosaic_async.events.pages.pictures import png

_TEMPLATES = files("mosaic_async.events.pages") / "templates"
_COLOURS = {
    "-": (255, 255, 255),
    "e": (196, 219, 240),
    "t": (168, 200, 230),
    "r": (140, 180, 218),
    "n": (201, 189, 224),
    "b": (178, 163, 209),
    "o": (214, 214, 232),
    "d": (156, 138, 196),
    "p": (46, 125, 90),
    "R": (230, 170, 40),
    ".": (205, 205, 205),
    "f": (200, 40, 40),
}
_UNKNOWN = (225, 225, 225)
_STEPS = 64
_GROUPS = 100
_SHOWN_TILES = 12


@dataclass(frozen=True)
class _Group:
    """Failed tiles with one reason."""

    reason: str
    count: int
    tiles: Sequence[str]
    url: str


def render(document: Mapping[str, Any], picture: str | None) -> str:
    """Return the page of a report.

    Args:
        document: as `document` made it.
        picture: the output as a data URL; None: the page has no picture.
    """
    css = (_TEMPLATES / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": "{:,}".format, "size": _size, "seconds": _seconds, "colour": _colour}
    template = environment.from_string((_TEMPLATES / "page.html").read_text("utf-8"))
    found = document.get("map")
    return template.render(
        css=css,
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        report=document,
        picture=picture,
        map=_shown_map(TileMap.from_dict(found)) if found else None,
        course=_shown_course(document.get("history")),
        groups=_groups(document["failed"]),
    )


def _shown_map(found: TileMap) -> dict[str, Any]:
    steps = found.latency_steps()
    slowest = int(steps.max())
    return {
        "states": png(found.state_ranks(), [_COLOURS[letter] for letter in MEANINGS]),
        "latencies": png(np.minimum(steps, _STEPS - 1), [_UNKNOWN, *map(_heat, range(1, _STEPS))]),
        "columns": len(found.states[0]),
        "rows": len(found.states),
        "width": min(960, 16 * len(found.states[0])),
        "legend": [(letter, MEANINGS[letter], _COLOURS[letter], count) for letter, count in found.counts.items()],
        "fastest": seconds_of(int(steps[steps > 0].min())) if slowest else None,
        "slowest": seconds_of(slowest) if slowest else None,
        "tiles_per_cell": found.tiles_per_cell,
    }


def _heat(step: int) -> tuple[int, int, int]:
    """Return the colour of a latency, from blue for milliseconds over yellow to red for minutes."""
    share = step / (_STEPS - 1)
    return (
        round(255 * min(1, 2 * share)),
        round(200 * (1 - abs(2 * share - 1)) + 30),
        round(220 * max(0, 1 - 2 * share)),
    )


def _shown_course(history: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return curves over time, and incidents as boxes; None where nothing lasted a second."""
    if not history or not history["course"]["tiles"]:
        return None
    course = history["course"]
    step, seconds = course["step"], course["step"] * len(course["tiles"])
    return {
        "curves": [
            Curve.of("tiles per second", [count / step for count in course["tiles"]]),
            Curve.of("requests in flight", course["in_flight"]),
            Curve.of("retries", course["retries"]),
        ],
        "seconds": seconds,
        "boxes": [_box(incident, seconds) for incident in history["incidents"]],
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
    }


def _box(incident: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return where a pause or an outage lies in a chart: a pause lies ahead, an outage that has ended behind."""
    lasted = incident["seconds"]
    start = incident["at"] - (lasted if incident["kind"] == "back" else 0)
    return {
        "kind": incident["kind"],
        "x": round(charts.WIDTH * max(0.0, start) / seconds, 1),
        "width": max(2.0, round(charts.WIDTH * lasted / seconds, 1)),
    }


def _groups(failed: Sequence[Mapping[str, Any]]) -> list[_Group]:
    """Group failed tiles by reason, the most frequent first."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for failure in failed:
        groups[str(failure["reason"])].append(failure)
    ordered = sorted(groups.items(), key=lambda one: -len(one[1]))[:_GROUPS]
    return [
        _Group(reason, len(found), [one["tile"] for one in found[:_SHOWN_TILES]], found[0]["url"])
        for reason, found in ordered
    ]


def _size(nbytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.1f} TB"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {int(seconds) % 60:02} s"


def _colour(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
