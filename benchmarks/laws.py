"""How long the replay server takes for a tile, and what it answers; the same for a tile in every run.

A law is a function of the tile, so every contestant meets the same luck.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

Delay = Callable[[float], float]
"""Seconds, by a number from 0 to 1 that belongs to the tile."""
_SIGMA = 0.5
"""Of the lognormal law: half of all tiles take between 0.7 and 1.4 times the median."""


@dataclass(frozen=True)
class Law:
    """What a server is like."""

    name: str
    delay: Delay
    failing: float = 0.0
    """Share of tiles that answer 503 at their first request."""
    rate: float = math.inf
    """Requests per second above which it answers 429."""


def _lognormal(median: float) -> Delay:
    return lambda luck: median * math.exp(_SIGMA * NormalDist().inv_cdf(min(max(luck, 1e-6), 1 - 1e-6)))


def _slow(median: float) -> Delay:
    """Return ten times the time for 5 % of the tiles."""
    return lambda luck: median * (10 if luck < 0.05 else 1)


LAWS = {
    law.name: law
    for law in (
        Law("none", lambda luck: 0.0),
        Law("fixed", lambda luck: 0.2),
        Law("lognormal", _lognormal(0.2)),
        Law("slow", _slow(0.2)),
        Law("failing", _lognormal(0.2), failing=0.01),
        Law("limited", _lognormal(0.2), rate=100.0),
    )
}


def luck_of(z: int, x: int, y: int) -> float:
    """Return the number of a tile, from 0 to 1."""
    digest = hashlib.blake2b(f"{z}/{x}/{y}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
