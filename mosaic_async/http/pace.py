"""How hard a client tries, and by which clock: two values that a client is made with. It knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mosaic_async.errors import UsageError
from mosaic_async.http.limits import AUTO_CAP, Concurrency


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many requests are made, how often, and for how long.

    Raises:
        UsageError: a number is not above 0.
    """

    concurrency: Concurrency = 50
    """Maximum requests in flight; "auto" finds what the server can do, up to 256."""
    rate: float | None = None
    """Requests per second; None does not limit."""
    attempts: int = 5
    """Maximum attempts per URL, the first included; a 500 gets at most 3, a body that fails its check 2."""
    timeout: float = 120.0
    """Seconds per attempt, from connecting to the last byte."""
    max_outage: float = 900.0
    """Seconds that the server may be unavailable before the client raises a `SourceError`."""

    def __post_init__(self) -> None:
        for name in ("attempts", "timeout", "max_outage"):
            if not (value := getattr(self, name)) > 0:
                raise UsageError(f"{name} must be above 0, got {value}")
        if not self.in_flight > 0:
            raise UsageError(f"concurrency must be above 0, got {self.concurrency}")

    @property
    def in_flight(self) -> int:
        """Maximum requests in flight."""
        return AUTO_CAP if self.concurrency == "auto" else self.concurrency


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What waits and intervals are measured by; replaced in tests."""

    now: Callable[[], float] = time.monotonic
    """Returns seconds that never decrease."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


USUAL_PACE = Pace()
MONOTONIC = Clock()
