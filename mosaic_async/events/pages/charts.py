"""Curves over time as the points of SVG lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960, 120


@dataclass(frozen=True)
class Curve:
    """A curve and its highest value."""

    title: str
    points: str
    """As the `points` of a polyline, in a box of `WIDTH` x `HEIGHT`."""
    most: float

    @classmethod
    def of(cls, title: str, values: Sequence[float]) -> Curve:
        """Make a curve of values that are evenly spaced."""
        most = max(values, default=0)
        step = WIDTH / max(1, len(values))
        heights = [HEIGHT * (1 - value / (most or 1)) for value in values]
        places = [f"{x:.1f},{height:.1f}" for at, height in enumerate(heights) for x in (at * step, (at + 1) * step)]
        return cls(title, " ".join([f"0,{HEIGHT}", *places, f"{WIDTH},{HEIGHT}"]), most)
