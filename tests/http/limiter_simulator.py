"""A server and its clients as events on a clock of their own: what a limit makes of the server, in no time."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mosaic_async.http.limits import AdaptiveLimit

CAP = 256


@dataclass(frozen=True)
class Server:
    """Slots, a queue or none, and a time of service."""

    slots: int
    service: Callable[[random.Random], float]
    """Seconds."""
    rejects: bool = False
    """Answers 429 instead of queueing."""
    thrashes: bool = False
    """Everything takes longer, the more of it is under way."""

    def ideal(self) -> float:
        """Return the tiles per second of as many requests as there are slots."""
        chance = random.Random(0)
        mean = sum(self.service(chance) for _ in range(20_000)) / 20_000
        return min(self.slots, CAP) / mean


@dataclass(frozen=True)
class Outcome:
    goodput: float
    """Tiles per second, the start included."""
    rejects: float
    """A tile."""
    most: int
    """Requests at once."""
    level: int
    """Of the limit in the end."""
    latency: float
    """Seconds, in the mean of the second half."""


def simulate(server: Server, tiles: int, seed: int, cap: int = CAP) -> Outcome:
    """Request this many tiles under an `AdaptiveLimit`; a rejected one is requested again after a backoff."""
    chance, limit = random.Random(seed), AdaptiveLimit(cap)
    events: list[tuple[float, int, str, float]] = []
    queue: deque[float] = deque()
    now, number, busy, flying, done, rejected, most = 0.0, 0, 0, 0, 0, 0, 0
    waiting, backing_off = tiles, 0
    latencies: list[float] = []

    def serve(started: float) -> None:
        nonlocal busy, number
        busy += 1
        factor = 1 + 0.5 * max(0, flying / server.slots - 1) if server.thrashes else 1
        number += 1
        heapq.heappush(events, (now + server.service(chance) * factor, number, "done", started))

    while done < tiles:
        while waiting and flying < limit.level:
            waiting -= 1
            flying += 1
            most = max(most, flying)
            if busy < server.slots:
                serve(now)
            elif server.rejects:
                number += 1
                heapq.heappush(events, (now + 0.02, number, "reject", now))
            else:
                queue.append(now)
        now, _, kind, started = heapq.heappop(events)
        if kind == "retry":
            waiting += 1
            backing_off -= 1
            continue
        flying -= 1
        if kind == "reject":
            rejected += 1
            limit.on_done(now, now - started, "throttle")
            backing_off += 1
            number += 1
            heapq.heappush(events, (now + chance.uniform(0, 2), number, "retry", 0))
            continue
        busy -= 1
        done += 1
        latencies.append(now - started)
        limit.on_done(now, now - started, "ok")
        if queue:
            serve(queue.popleft())
    late = latencies[len(latencies) // 2 :]
    return Outcome(tiles / now, rejected / tiles, most, limit.level, sum(late) / len(late))
