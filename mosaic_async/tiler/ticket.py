"""The ticket of one request: how long its work may take, and whether anyone still waits for the result.

Threads cannot be stopped from outside, so the work checks its ticket between steps and stops itself. It knows nothing
of HTTP and pixels.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_STEP = 0.25
"""Seconds between two checks while a thread waits for a semaphore."""


class AbandonedError(Exception):
    """The work of a request stops: its deadline is over, or its client has gone."""


class Ticket:
    """The time that one request has."""

    def __init__(self, deadline: float) -> None:
        """Start the clock.

        Args:
            deadline: seconds from now.
        """
        self.restart(deadline)
        self._is_abandoned = False

    def restart(self, deadline: float) -> None:
        """Start the clock again.

        Args:
            deadline: seconds from now.
        """
        self._end = time.monotonic() + deadline

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._end - time.monotonic()

    def abandon(self) -> None:
        """Let the work stop at its next check."""
        self._is_abandoned = True

    def check(self) -> None:
        """Continue only if someone waits for the result.

        Raises:
            AbandonedError: nobody does.
        """
        if self._is_abandoned or self.remaining <= 0:
            raise AbandonedError("the request was abandoned")


TICKET: ContextVar[Ticket | None] = ContextVar("TICKET", default=None)
"""The ticket of the request that this code works for; None outside of a request."""


def check_ticket() -> None:
    """Continue only if someone waits for the result of this work.

    Raises:
        AbandonedError: nobody does.
    """
    if (ticket := TICKET.get()) is not None:
        ticket.check()


@contextmanager
def held(semaphore: threading.Semaphore) -> Iterator[None]:
    """Hold a semaphore for the block, and check the ticket while waiting for it.

    Raises:
        AbandonedError: nobody waits for the result any more.
    """
    while not semaphore.acquire(timeout=_STEP):
        check_ticket()
    try:
        yield
    finally:
        semaphore.release()
