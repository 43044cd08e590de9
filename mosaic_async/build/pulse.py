"""What happens in a run, reported once a second, and at once when the run is stopped.

It knows nothing of who listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from mosaic_async.events import OnEvent, Pulse, Stopping

_STEP = 1.0
"""Seconds."""
_BETWEEN_SAVES = 10.0
"""Seconds."""


@asynccontextmanager
async def pulsing(
    look: Callable[[], Pulse],
    on_event: OnEvent,
    stop: asyncio.Event | None,
    keep: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[None]:
    """Report while the block runs.

    Args:
        look: returns what happens at the moment.
        on_event: called with each `Pulse`, and once with `Stopping`.
        stop: set when the run is stopped; None: it never is.
        keep: awaited every ten seconds.
    """
    beats = [asyncio.create_task(_beat(look, on_event, stop or asyncio.Event()))]
    if keep is not None:
        beats.append(asyncio.create_task(_keep(keep)))
    try:
        yield
    finally:
        for beat in beats:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat


async def _keep(keep: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(_BETWEEN_SAVES)
        await keep()


async def _beat(look: Callable[[], Pulse], on_event: OnEvent, stop: asyncio.Event) -> None:
    while not await _is_set_soon(stop):
        on_event(look())
    on_event(Stopping(look().in_flight))
    while True:
        await asyncio.sleep(_STEP)
        on_event(look())


async def _is_set_soon(stop: asyncio.Event) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(_STEP):
            return await stop.wait()
    return False
