"""Events on their way from workers to the run: pickled, as all that Dask sends, in batches, twice a second.

It knows nothing of what they mean, but for pulses: the run shows the sum over all workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from distributed.protocol import pickle

from mosaic_async.events import Event, OnEvent, Pulse, RunStarted, Stopping, TileRetried

_BETWEEN = 0.5
"""Seconds between two batches."""
_RETRIES = 20
"""Retries that a batch tells of; a server in trouble causes thousands, and the report counts them all."""


class Outbox:
    """Collects the events of the parts that a worker builds.

    Args:
        send: sends one batch; it must not wait.
    """

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send
        self._events: list[Event] = []
        self._retries = 0
        self._pulses: dict[str, Pulse] = {}
        """Of the parts under way."""
        self._ended = Pulse(0, 0, 0)
        """Of all others."""

    def of(self, part: str) -> OnEvent:
        """Return what takes the events of one part."""

        def note(event: Event) -> None:
            match event:
                case Pulse():
                    self._pulses[part] = event
                case RunStarted() | Stopping():
                    pass  # the run tells them of the whole
                case TileRetried():
                    self._retries += 1
                    if self._retries <= _RETRIES:
                        self._events.append(event)
                case _:
                    self._events.append(event)

        return note

    def close(self, part: str, requests: int, nbytes: int) -> None:
        """Note that a part has ended, and what it took."""
        self._pulses.pop(part, None)
        self._ended = Pulse(0, self._ended.requests + requests, self._ended.bytes_received + nbytes)

    def flush(self) -> None:
        """Send what is new."""
        events, self._events, self._retries = self._events, [], 0
        self._send(pickle.dumps((_sum([self._ended, *self._pulses.values()]), events)))

    async def keep_flushing(self) -> None:
        """Send until cancelled."""
        while True:
            await asyncio.sleep(_BETWEEN)
            self.flush()


class Inbox:
    """Passes on what workers send.

    Args:
        on_event: takes the events.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._pulses: dict[str, Pulse] = {}

    def take(self, message: tuple[float, Any]) -> None:
        """Pass a batch on, as Dask delivers it: with the time when it was sent."""
        worker, batch = message[1]
        pulse, events = pickle.loads(batch)
        self._pulses[worker] = pulse
        for event in events:
            self._on_event(event)

    def pulse(self, alive: Callable[[str], bool]) -> Pulse:
        """Return what happens at this moment on all workers that are alive; what others have received stays counted."""
        for worker, pulse in self._pulses.items():
            if not alive(worker):
                self._pulses[worker] = replace(pulse, in_flight=0)
        return _sum(self._pulses.values())


def _sum(pulses: Collection[Pulse]) -> Pulse:
    return Pulse(
        sum(pulse.in_flight for pulse in pulses),
        sum(pulse.requests for pulse in pulses),
        sum(pulse.bytes_received for pulse in pulses),
    )
