"""Ends attempts that take too long. It knows nothing of what they do."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadlines:
    """Deadlines of attempts that all have the same time: the oldest is due first, so one timer serves all.

    A timer per attempt, as in `asyncio.timeout`, costs a tenth of a request on a fast server.

    Args:
        seconds: per attempt.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._open: dict[_Attempt, float] = {}
        """When each is due, by the loop's clock; the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def attempt(self) -> _Attempt:
        """Return a block that ends with a `TimeoutError` when it takes too long."""
        return _Attempt(self)

    def begin(self, attempt: _Attempt) -> None:
        """Start the time of an attempt."""
        loop = asyncio.get_running_loop()
        self._open[attempt] = due = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._end_overdue)

    def end(self, attempt: _Attempt) -> None:
        """Forget an attempt that is over."""
        self._open.pop(attempt, None)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._open:
            attempt, due = next(iter(self._open.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._end_overdue)
                return
            del self._open[attempt]
            attempt.cancel()


class _Attempt:
    """One block with a deadline."""

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_overdue = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._deadlines.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.end(self)
        if not self._is_overdue:
            return
        assert self._task is not None
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def cancel(self) -> None:
        """End the block, as its time is over."""
        assert self._task is not None
        self._is_overdue = True
        self._task.cancel()
