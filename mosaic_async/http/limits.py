"""How many requests per second, and how many at once.

It knows nothing of HTTP: it hands out waiting times, in seconds, and slots.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from mosaic_async.errors import UsageError

AUTO_CAP = 256
"""Maximum requests in flight where the limit is found automatically."""
_START = 8
_LEAST_WINDOW = 16
_WORTH = 0.3
"""Of the growth of the limit: a smaller gain in goodput does not pay for the longer queue."""
_HOLD = 4
"""Windows between attempts to climb."""
_SHRINK = 0.7

Concurrency = int | Literal["auto"]
"""Maximum requests in flight; "auto" finds what the server can do."""
Load = Literal["ok", "throttle", "fail"]
"""How a request ended, as a sign of the server's load."""


class RateLimit:
    """Spaces requests evenly: no two start less than `1 / per_second` seconds apart.

    Args:
        per_second: requests per second; None does not limit.
        clock: seconds that never decrease; replaced in tests.

    Raises:
        UsageError: `per_second` is not above 0.
    """

    def __init__(self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if per_second is not None and not per_second > 0:
            raise UsageError(f"rate must be above 0 requests per second, got {per_second}")
        self._interval = 0.0 if per_second is None else 1.0 / per_second
        self._clock = clock
        self._next_start = 0.0

    def reserve(self) -> float:
        """Reserve the next free start and return the seconds until then (0.0: now)."""
        now = self._clock()
        start = max(now, self._next_start)
        self._next_start = start + self._interval
        return start - now

    async def wait(self) -> None:
        """Sleep until this call's reserved start."""
        if self._interval and (delay := self.reserve()) > 0:
            await asyncio.sleep(delay)


class AdaptiveLimit:
    """Finds how many requests at once a server can do: the limit grows while more answers arrive per second.

    It measures goodput and not latency, because a tile's latency depends on its content: limits by latency (Vegas,
    gradients) end at half of what the server can do. It climbs a staircase: the limit doubles while goodput grows
    with it, then falls back to the last step that paid, and tries a quarter more from time to time. An answer "too
    many requests" shrinks the limit, once for all requests in flight, and from there it grows by one per round.

    Args:
        cap: the highest limit.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._level = float(min(_START, cap))
        self._growth = 2.0
        self._skip = 0
        self._count = 0
        self._started: float | None = None
        self._paid: tuple[float, float] | None = None
        self._hold = 0
        self._shrunk = -math.inf
        self._is_throttled = False
        self._restart()

    @property
    def level(self) -> int:
        """Requests at once, from 1 to the cap."""
        return max(1, min(self._cap, int(self._level)))

    def on_done(self, now: float, latency: float, load: Load) -> None:
        """Note the end of a request.

        Args:
            now: seconds that never decrease.
            latency: seconds that the request took.
            load: how it ended.
        """
        if load == "throttle":
            self._shrink(now, now - latency)
            return
        if load == "fail":
            return
        if self._is_throttled:
            self._level = min(self._cap, self._level + 1 / self._level)
        elif self._skip:
            self._skip -= 1
        elif self._started is None:
            self._started = now
        else:
            self._count += 1
            if self._count >= max(2 * self.level, _LEAST_WINDOW):
                self._step(self._count / max(now - self._started, 1e-9))

    def _shrink(self, now: float, sent: float) -> None:
        if sent <= self._shrunk:
            return  # the same overload: this request was in flight when the limit shrank
        self._shrunk = now
        self._is_throttled = True
        self._level = max(1.0, self._level * _SHRINK)

    def _step(self, goodput: float) -> None:
        """Decide after a window: climb, fall back, or stay."""
        if self._hold:
            self._hold -= 1
            if not self._hold:
                self._climb(goodput)
        elif self._paid is None:
            self._climb(goodput)
        else:
            before, level = self._paid
            gain, grown = goodput / before - 1, self._level / level - 1
            if grown > 0 and gain < _WORTH * grown:
                self._level = math.sqrt(level * self._level) if gain > 0.05 else level
                self._growth = 1.25
                self._hold = _HOLD
                self._paid = None
            else:
                self._climb(goodput)
        self._restart()

    def _climb(self, goodput: float) -> None:
        self._paid = goodput, self._level
        self._level = min(self._cap, self._level * self._growth)
        if self.level == self._cap:
            self._hold = _HOLD

    def _restart(self) -> None:
        """Start a new measurement; requests in flight were sent at another level."""
        self._skip, self._count, self._started = self.level, 0, None


class Slots:
    """A semaphore whose size may change while it is in use; first come, first served.

    anyio's `CapacityLimiter` does the same, for three times the time per request and another dependency.

    Args:
        limit: slots.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        """Slots in use."""
        self._waiters: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a slot if one is free and nobody waits for it, and return whether it did."""
        is_free = self.taken < self.limit and not self._waiters
        self.taken += is_free
        return is_free

    async def acquire(self) -> None:
        """Take a slot, after all earlier callers."""
        if self.take():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter  # `_wake` has taken the slot for it
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                with suppress(ValueError):  # `_wake` may have removed it already
                    self._waiters.remove(waiter)
            raise

    def release(self) -> None:
        """Return a slot."""
        self.taken -= 1
        self._wake()

    def resize(self, limit: int) -> None:
        """Change the number of slots; taken slots stay taken."""
        self.limit = limit
        self._wake()

    def _wake(self) -> None:
        while self._waiters and self.taken < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)
