"""Edges that are straight in one coordinate system get the corners that keep them so in another.

It knows no polygons, only rings of corners, and no coordinate systems but as functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Projection = Callable[[Floats, Floats], tuple[Floats, Floats]]
"""From x and y in one system to x and y in another."""

_MAX_PIECES = 4096
"""Pieces that an edge is cut into at once; more where these are still not straight."""
_MAX_ROUNDS = 16
"""An edge through a pole is never straight in degrees, however short it is."""


def straightened(
    x: Floats, y: Floats, ring: Integers, project: Projection, tolerance: float, *, period: float = math.inf
) -> tuple[Floats, Floats, Integers]:
    """Return the corners of rings in another system, with more where edges would leave their straight line.

    Args:
        x: of the corners, (n,).
        y: of the corners, (n,).
        ring: index of each corner's ring, ascending; the last corner of a ring does not repeat the first.
        project: from the system of `x` and `y` to the other one.
        tolerance: maximum distance from an edge to what is straight in the first system, in units of the other.
        period: of the first coordinate of the other system, such as 360 degrees; only its differences matter then.
    """
    is_open = np.ones(len(ring), dtype=np.bool_)
    for _ in range(_MAX_ROUNDS):
        if not is_open.any():
            break
        after = successors(ring)
        dx, dy = x[after] - x, y[after] - y
        pieces = np.ones(len(ring), dtype=np.int64)
        far = _distance(x[is_open], y[is_open], dx[is_open], dy[is_open], project, period=period)
        pieces[is_open] = np.clip(np.ceil(np.sqrt(far / tolerance)), 1, _MAX_PIECES).astype(np.int64)
        corner = np.repeat(np.arange(len(ring)), pieces)
        share = (np.arange(len(corner)) - (np.cumsum(pieces) - pieces)[corner]) / pieces[corner]
        x, y = x[corner] + share * dx[corner], y[corner] + share * dy[corner]
        ring, is_open = ring[corner], (pieces > 1)[corner]
    return *project(x, y), ring


def successors(ring: Integers) -> Integers:
    """Return the index of the corner that follows each corner of closed rings."""
    after = np.arange(1, len(ring) + 1)
    is_last = np.append(ring[1:] != ring[:-1], True)[: len(ring)]
    is_first = np.append(True, ring[1:] != ring[:-1])[: len(ring)]
    after[is_last] = np.flatnonzero(is_first)
    return after


def _distance(x: Floats, y: Floats, dx: Floats, dy: Floats, project: Projection, *, period: float) -> Floats:
    """Return how far edges that are straight in one system are from those that are straight in the other.

    Three points are compared, because a curve that is the same on both sides of its middle crosses its chord there.
    """
    left, top = project(x, y)
    right, lower = project(x + dx, y + dy)
    width, height = _shortest(right - left, period), lower - top
    length = np.hypot(width, height)
    far = np.zeros(len(x))
    for share in (0.25, 0.5, 0.75):
        along, down = project(x + share * dx, y + share * dy)
        along, down = _shortest(along - left, period), down - top
        with np.errstate(divide="ignore", invalid="ignore"):
            across = np.where(length > 0, np.abs(width * down - height * along) / length, np.hypot(along, down))
        far = np.maximum(far, across)
    return far


def _shortest(difference: Floats, period: float) -> Floats:
    """Return differences by the shorter way around."""
    return difference if period == math.inf else (difference + period / 2) % period - period / 2
