"""Tiler processes: start them, watch them, and replace one that ends, hangs, or takes too much memory.

A process writes a line several times per second, its beat. The supervisor knows nothing of what the processes serve.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from mosaic_async.errors import SourceError
from mosaic_async.tiler.nursery import Child, Chore, Command

READY = "ready"
"""The first line of a process, when it accepts connections."""
OVERDUE = "overdue"
"""The beat of a process that works for a request long after its deadline; otherwise a beat is its memory in bytes."""

_LOGGER = logging.getLogger("mosaic_async.tiler")
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 5.0
_SILENCE = 20.0
"""Seconds without a beat after which a process counts as hung: only Python code that never ends keeps it silent."""
_LATE = 1.0
"""Seconds for beats that came while the supervisor itself was busy."""
_LARGE = 768 * 2**20
"""Bytes of memory from which a process is replaced when its successor is ready."""
_TOO_LARGE = 1000 * 2**20
"""Bytes of memory from which a process is killed at once."""
_MAX_PAUSE = 30.0
"""Seconds between two attempts to start a process, at most."""


@dataclass(frozen=True)
class Trouble:
    """Why a process has to be replaced."""

    reason: str
    is_urgent: bool
    """Whether it must end at once; otherwise it serves until its successor is ready."""


class Worker:
    """One process."""

    def __init__(self, child: Child) -> None:
        """Watch a process that `started` returned."""
        self._child = child

    @classmethod
    async def started(cls, command: Command | Chore) -> Worker:
        """Start a process.

        Raises:
            SourceError: it ends at once, or is not ready in time.
        """
        worker = cls(await command.child())
        try:
            await worker._until_ready(command)
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def _until_ready(self, command: Command | Chore) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                line = await self._child.line()
        except TimeoutError as error:
            raise SourceError(f"the embedded tiler is not ready after {_START_TIMEOUT:g} seconds") from error
        if line != READY:
            raise SourceError(f"the embedded tiler does not start: {await asyncio.to_thread(command.last_words)}")

    async def trouble(self) -> Trouble:
        """Wait until the process has to be replaced, and return why."""
        try:
            while True:
                line = await self._beat()
                if not line:
                    return Trouble("ended", is_urgent=True)
                if line == OVERDUE:
                    return Trouble("still works for a request whose deadline is over", is_urgent=False)
                if int(line) > _LARGE:
                    return Trouble(f"takes {int(line) / 2**20:.0f} MiB", is_urgent=int(line) > _TOO_LARGE)
        except TimeoutError:
            return Trouble("hangs", is_urgent=True)

    async def _beat(self) -> str:
        """Return the next beat.

        Raises:
            TimeoutError: the process is silent.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_SILENCE):
                return await self._child.line()
        async with asyncio.timeout(_LATE):  # if this loop was blocked, the beats are there and only have to be read
            return await self._child.line()

    async def stop(self) -> None:
        """Let the process finish its requests, for a few seconds."""
        self._child.end_input()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._child.end()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        await self._child.kill()


class Crew:
    """Processes that serve one address; each is replaced when it fails."""

    def __init__(self, command: Command | Chore, size: int) -> None:
        """Prepare processes.

        Args:
            command: how to start one.
            size: how many.
        """
        self._command = command
        self._size = size
        self._workers: set[Worker] = set()

    async def start(self) -> None:
        """Start all processes.

        Raises:
            SourceError: one does not start.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._size):
                    tasks.create_task(self._started())
        except* SourceError as group:
            failed = group.exceptions[0]
        else:
            return
        raise failed

    async def watch(self) -> None:
        """Replace processes that fail, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for worker in tuple(self._workers):
                tasks.create_task(self._keep(worker))

    async def stop(self) -> None:
        """Stop all processes."""
        async with asyncio.TaskGroup() as tasks:
            for worker in tuple(self._workers):
                tasks.create_task(worker.stop())

    async def _started(self) -> Worker:
        worker = await Worker.started(self._command)
        self._workers.add(worker)
        return worker

    async def _keep(self, worker: Worker) -> None:
        while True:
            trouble = await worker.trouble()
            _LOGGER.info("a tiler process is replaced: it %s", trouble.reason)
            if trouble.is_urgent:
                await worker.kill()
            successor = await self._successor()
            await worker.stop()
            self._workers.discard(worker)
            worker = successor

    async def _successor(self) -> Worker:
        """Start a process; if that fails, retry after pauses that grow."""
        pause = 1.0
        while True:
            try:
                return await self._started()
            except SourceError as error:
                _LOGGER.info("a tiler process does not start: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
