"""SIGINT, SIGTERM and SIGHUP: the first has the run end in order, the second ends the process at once.

Only the command line uses it: a library has no business with its process's signals.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_DRAIN = 10.0
"""Seconds for what is under way to arrive; machines that are taken away give 30."""
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The process was asked to end by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.exit_code = 128 + number


async def interruptible(
    coroutine: Coroutine[Any, Any, _Result], stop: asyncio.Event | None = None, is_draining: Callable[[], bool] = bool
) -> _Result:
    """Wait for a coroutine, in the main thread; a signal ends it.

    Args:
        coroutine: cancelled by the first signal, or when draining takes too long.
        stop: set by the first signal instead, where `is_draining` says that it is looked at.
        is_draining: as said.

    Raises:
        Interrupted: by a signal.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def handle(number: signal.Signals) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        if stop is not None and is_draining():
            stop.set()
            loop.call_later(_DRAIN, task.cancel)
        else:
            task.cancel()

    # What is ignored stays so: nohup means it.
    handled = [number for number in _HANDLED if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, handle, number)
    try:
        result = await coroutine
    except BaseException as error:
        if received:
            raise Interrupted(received[0]) from error
        raise
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
    return result
