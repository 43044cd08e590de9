"""A coroutine from start to end in the main thread: on uvloop where the platform has it, ended by signals."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mosaic_async.cli.signals import interruptible

_Result = TypeVar("_Result")


def run(
    coroutine: Coroutine[Any, Any, _Result], stop_softly: Callable[[signal.Signals], bool] | None = None
) -> _Result:
    """Run a coroutine and return its result; signals end it as `signals.interruptible` describes."""
    gc.freeze()  # imported modules stay: to collect them again and again, also at the end, costs 0.1 s
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(interruptible(coroutine, stop_softly))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
