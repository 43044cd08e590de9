"""A process that imports a program once for several: it runs tasks that its parent sends in forks, and the last itself.

Until then it has one thread, and opens no dataset and no connection: so nothing in its forks is half done or shared. It
knows nothing of what the tasks do.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

Task = Callable[[Mapping[str, Any]], None]

_PATIENCE = 0.5
"""Seconds that a process waits at its end for its forks."""
_PAUSE = 0.01
_DONE = b"done\n"
_MAX_MESSAGE = 2**16


def can_fork() -> bool:
    """Return whether forks are safe here: libraries work in them (not on macOS), and a parent can hold on to them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def run_tasks(control: socket.socket, prepare: Callable[[str, Mapping[str, Any]], Task]) -> None:
    """Run tasks until the parent closes its end of the socket, or gives one that is not for a fork.

    A message is a line of JSON, `{"task": NAME, "given": {...}, "how": HOW}`, with the file that becomes standard input
    and output of the task. `wait` runs it in a fork, and waits for its end before the next message; `fork` does not
    wait; `become` runs it in this process. The answer is a line and, for a fork, the file that stands for the process.

    Args:
        control: connected to the parent.
        prepare: makes the task of a message, in this process: so what takes time is done once for all forks.
    """
    for message, file in _messages(control):
        task = prepare(message["task"], message["given"])
        if message["how"] == "become":
            signal.signal(signal.SIGCHLD, lambda *_: _reap())
            control.sendall(_DONE)
            control.close()
            _become(task, message["given"], file)
        gc.freeze()  # a collection in a fork would copy all pages
        pid = os.fork()
        if pid == 0:
            control.close()
            _become(task, message["given"], file)
        os.close(file)
        process = os.pidfd_open(pid)
        socket.send_fds(control, [_DONE], [process])
        os.close(process)
        if message["how"] == "wait":
            os.waitpid(pid, 0)


def _messages(control: socket.socket) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each message and its file."""
    while True:
        received, files, _, _ = socket.recv_fds(control, _MAX_MESSAGE, 1)
        if not received:
            return
        while not received.endswith(b"\n"):
            received += control.recv(_MAX_MESSAGE)
        yield json.loads(received), files[0]


def _reap() -> bool:
    """Take note of forks that ended, and return whether others have not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _outlive_forks() -> None:
    """Wait for forks that are about to end as well, so that the system counts their time with that of this process."""
    end = time.monotonic() + _PATIENCE
    while _reap() and time.monotonic() < end:
        time.sleep(_PAUSE)


def _become(task: Task, given: Mapping[str, Any], file: int) -> NoReturn:
    """Run a task with a file as standard input and output, and end this process."""
    code = 1
    try:
        os.dup2(file, 0)
        os.dup2(file, 1)
        os.close(file)
        task(given)
        code = 0
    finally:  # this process is the task: its error goes to the log and no further
        if code:
            traceback.print_exc()
        _outlive_forks()
        os._exit(code)
