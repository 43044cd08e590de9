"""Tilers without the second that their imports take: a process imports the program once and forks for each nursery.

What runs is what a nursery runs: processes with their own environment, log and end. Tests of how they start and end use
real ones.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import sys
from multiprocessing import get_context
from typing import Any

PROGRAM = "mosaic_async.tiler.server"
_forks = get_context("forkserver")
_forks.set_forkserver_preload([PROGRAM])


class Forked:
    """A process of multiprocessing in the words of `asyncio.subprocess.Process`."""

    def __init__(self, process: Any) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        while self.returncode is None:
            await asyncio.to_thread(self._process.join, 1)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()


async def started(cls: Any, command: Any) -> Any:
    """Start a process that waits for tasks; stands in for the method of the mother of a nursery."""
    assert command.arguments == ("-m", PROGRAM)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    args = (theirs, str(command.log), dict(command.environment))
    process = _forks.Process(target=_wait_for_tasks, args=args, daemon=True)
    with theirs:
        await asyncio.to_thread(process.start)
    return cls(Forked(process), ours)


def _wait_for_tasks(control: socket.socket, log: str, environment: dict[str, str]) -> None:
    from mosaic_async.tiler.server import main

    os.setsid()
    nothing, errors = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for file, number in ((nothing, 0), (nothing, 1), (errors, 2)):
        os.dup2(file, number)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))  # multiprocessing has put another file in its place
    os.environ.clear()
    os.environ.update(environment)
    main(str(control.detach()))
