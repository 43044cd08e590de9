"""SIGINT, SIGTERM and SIGHUP: the first one ends the run in order, the second one ends the process at once.

Only the command line uses it: a library does not handle the signals of its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mosaic_async.events.wording import DRAIN

_Result = TypeVar("_Result")
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended the run."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.exit_code = 128 + number


async def interruptible(
    coroutine: Coroutine[Any, Any, _Result], stop_softly: Callable[[signal.Signals], bool] | None = None
) -> _Result:
    """Await a coroutine in the main thread and return its result; a signal ends it.

    Args:
        coroutine: cancelled by the first signal, unless it stops softly within ten seconds.
        stop_softly: called at the first signal; asks the coroutine to end by itself and returns whether it will.
            None cancels it at once.

    Raises:
        Interrupted: a signal ended the coroutine.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def handle(number: signal.Signals) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        if stop_softly is not None and stop_softly(number):
            loop.call_later(DRAIN, task.cancel)
        else:
            task.cancel()

    # A signal that is ignored stays ignored: `nohup` relies on it.
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
