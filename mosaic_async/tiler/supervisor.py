"""Tiler processes: start them, watch them, and replace one that ends, hangs, or takes too much memory.

A process writes a line several times per second, its beat. The supervisor knows nothing of what the processes serve.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mosaic_async.errors import SourceError

READY = "ready"
"""The first line of a process, when it accepts connections."""
OVERDUE = "overdue"
"""The beat of a process that works for a request long after its deadline; otherwise a beat is its memory in bytes."""

_LOGGER = logging.getLogger("mosaic_async.tiler")
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 5.0
_SILENCE = 20.0
"""Seconds without a beat after which a process counts as hung: only Python code that never ends keeps it silent."""
_LARGE = 768 * 2**20
"""Bytes of memory from which a process is replaced when its successor is ready."""
_TOO_LARGE = 1000 * 2**20
"""Bytes of memory from which a process is killed at once."""
_MAX_PAUSE = 30.0
"""Seconds between two attempts to start a process, at most."""


@dataclass(frozen=True)
class Command:
    """How to start a process."""

    arguments: tuple[str, ...]
    """After the interpreter's name."""
    log: Path
    """File that takes its standard error."""
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Trouble:
    """Why a process has to be replaced."""

    reason: str
    is_urgent: bool
    """Whether it must end at once; otherwise it serves until its successor is ready."""


class Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Watch a process that `started` returned."""
        self._process = process

    @classmethod
    async def started(cls, command: Command) -> Worker:
        """Start a process.

        Raises:
            SourceError: it ends at once, or is not ready in time.
        """
        with command.log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *command.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=dict(command.environment),
                start_new_session=True,  # the parent handles an interrupt and ends the tilers after the run
            )
        worker = cls(process)
        try:
            await worker._until_ready(command.log)
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def _until_ready(self, log: Path) -> None:
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise SourceError(f"the embedded tiler is not ready after {_START_TIMEOUT:g} seconds") from error
        if line.strip() != READY.encode():
            raise SourceError(f"the embedded tiler does not start: {await asyncio.to_thread(_tail, log)}")

    async def trouble(self) -> Trouble:
        """Wait until the process has to be replaced, and return why."""
        assert self._process.stdout is not None
        try:
            while True:
                async with asyncio.timeout(_SILENCE):
                    line = (await self._process.stdout.readline()).strip().decode()
                if not line:
                    return Trouble("ended", is_urgent=True)
                if line == OVERDUE:
                    return Trouble("still works for a request whose deadline is over", is_urgent=False)
                if int(line) > _LARGE:
                    return Trouble(f"takes {int(line) / 2**20:.0f} MiB", is_urgent=int(line) > _TOO_LARGE)
        except TimeoutError:
            return Trouble("hangs", is_urgent=True)

    async def stop(self) -> None:
        """Let the process finish its requests, for a few seconds."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Crew:
    """Processes that serve one address; each is replaced when it fails."""

    def __init__(self, command: Command, size: int) -> None:
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


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"
