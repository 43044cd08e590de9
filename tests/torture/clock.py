"""A clock for runs that wait: an event loop whose seconds are hundredths."""

from __future__ import annotations

import asyncio
import selectors
import sys

HURRY = 100


class _HastySelector(selectors.DefaultSelector):
    """Waits a hundredth of what it is told to."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout / HURRY if timeout and timeout > 0 else timeout)


class _HastyLoop(asyncio.SelectorEventLoop):
    """Counts a hundred seconds in one."""

    def __init__(self) -> None:
        super().__init__(_HastySelector())

    def time(self) -> float:
        return super().time() * HURRY


class _HastyPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _HastyLoop()


def hurry() -> None:
    """Have this process's event loops hurry; called in the process of a run."""
    sys.modules["uvloop"] = None  # whose clock is C
    asyncio.set_event_loop_policy(_HastyPolicy())
