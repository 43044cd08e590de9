"""How many requests a second.

It knows nothing of HTTP: it hands out waiting times, in seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mosaic_async.errors import UsageError


class RateLimit:
    """Spaces requests evenly: no two start less than `1 / per_second` seconds apart.

    Args:
        per_second: requests a second; None does not limit.
        clock: seconds that never go back; replaced in tests.

    Raises:
        UsageError: `per_second` is not above 0.
    """

    def __init__(self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if per_second is not None and not per_second > 0:
            raise UsageError(f"rate must be above 0 requests a second, got {per_second}")
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._clock = clock
        self._next_start = 0.0

    def reserve(self) -> float:
        """Take the next free start and return the seconds until then (0.0: at once)."""
        now = self._clock()
        start = max(now, self._next_start)
        self._next_start = start + self._interval
        return start - now

    async def wait(self) -> None:
        """Sleep until the start that is reserved for this call."""
        if self._interval and (delay := self.reserve()) > 0:
            await asyncio.sleep(delay)
