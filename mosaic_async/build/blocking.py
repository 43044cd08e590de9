"""The blocking twin of a coroutine function, for code that does not await. It knows nothing of what it runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


def blocking(function: Callable[_Params, Coroutine[Any, Any, _Result]]) -> Callable[_Params, _Result]:
    """Return a function that waits for the coroutine, even inside a running loop, as in Jupyter."""

    @wraps(function)
    def call(*args: _Params.args, **kwargs: _Params.kwargs) -> _Result:
        run = _run_in_thread if _loop_is_running() else asyncio.run
        return run(function(*args, **kwargs))

    return call


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine on a new loop in a thread; an interrupt cancels it."""
    started: Future[Callable[[], object]] = Future()
    done: Future[_Result] = Future()

    async def tracked() -> _Result:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await coroutine

    def work() -> None:
        try:
            done.set_result(asyncio.run(tracked()))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            done.set_exception(error)

    thread = threading.Thread(target=work, name="mosaic-async")
    thread.start()
    try:
        return done.result()
    except KeyboardInterrupt:
        started.result()()
        raise
    finally:
        thread.join()
