"""The parent's side of `forks`: starts the process that waits for tasks, sends them, and holds on to each.

It knows nothing of what the tasks do.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaic_async.errors import SourceError
from mosaic_async.tiler.forks import can_fork

_START_TIMEOUT = 60.0
"""Seconds until the process that forks has imported its program, and prepared a task."""
_STOP_TIMEOUT = 5.0
_MAX_ANSWER = 100
_CHUNK = 2**16


@dataclass(frozen=True)
class Command:
    """How to start a process."""

    arguments: tuple[str, ...]
    """After the interpreter's name."""
    log: Path
    """File that takes its standard error."""
    environment: Mapping[str, str] = field(repr=False)

    async def start(self, *more: str, **options: Any) -> asyncio.subprocess.Process:
        """Start a process; its parent handles an interrupt, and ends it after the run.

        Args:
            more: further arguments.
            options: of `asyncio.create_subprocess_exec`.
        """
        with self.log.open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, *self.arguments, *more),
                stderr=errors,
                env=dict(self.environment),
                start_new_session=True,
                **options,
            )

    async def child(self) -> Child:
        """Start the process with pipes."""
        process = await self.start(stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        return Child(process.stdout, process.stdin, process)

    def last_words(self) -> str:
        """Return the last line of the log; it blocks."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no reason given"


class Child:
    """A process that reads its standard input and writes beats and results."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, process: int | asyncio.subprocess.Process
    ) -> None:
        """Take over a process.

        Args:
            reader: its standard output.
            writer: its standard input.
            process: itself: the file that stands for a fork, or what asyncio started.
        """
        self._output = reader
        self._input = writer
        self._process = process

    async def line(self) -> str:
        """Return the next line that it writes; empty at the end."""
        with suppress(OSError):
            return (await self._output.readline()).decode().strip()
        return ""

    async def everything(self) -> bytes:
        """Return all that it writes until its end."""
        written = b""
        with suppress(OSError):
            written = await self._output.read()
        await self.end()
        return written

    def end_input(self) -> None:
        """Let the process read the end of its standard input."""
        with suppress(OSError):
            self._input.write_eof()

    async def end(self) -> None:
        """Wait until the process has ended, which closes its standard output."""
        with suppress(OSError):
            while await self._output.read(_CHUNK):
                pass
        self._input.close()
        if not isinstance(self._process, int):
            await self._process.wait()

    async def kill(self) -> None:
        """End the process at once."""
        with suppress(ProcessLookupError):
            if isinstance(self._process, int):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            else:
                self._process.kill()
        await self.end()

    def __del__(self) -> None:
        if isinstance(self._process, int):
            os.close(self._process)


class _Mother:
    """A process that has the program imported, and waits for tasks."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def started(cls, command: Command) -> _Mother:
        nothing = asyncio.subprocess.DEVNULL
        with ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            ours.setblocking(False)
            with theirs:
                number = theirs.fileno()
                process = await command.start(str(number), stdin=nothing, stdout=nothing, pass_fds=(number,))
            stack.pop_all()
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def run(self, message: bytes) -> Child | None:
        """Return the process that runs a task; None if this process has ended.

        Raises:
            TimeoutError: it does not answer.
        """
        with ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            try:
                with theirs:
                    socket.send_fds(self._control, [message], [theirs.fileno()])
                async with asyncio.timeout(_START_TIMEOUT):
                    await _readable(self._control)
                answer, files, _, _ = socket.recv_fds(self._control, _MAX_ANSWER, 1)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not answer:
                return None
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            stack.pop_all()
        return Child(reader, writer, files[0] if files else self._process)

    async def close(self) -> None:
        """End the process if it still waits for tasks."""
        self._control.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _readable(file: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(file, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(file)


class Nursery:
    """Starts processes that share one import of their program; those that replace them import it anew."""

    def __init__(self, command: Command) -> None:
        """Prepare; nothing is started before it is used.

        Args:
            command: starts a process that calls `forks.run_tasks` with the socket whose number is its last argument.
        """
        self._command = command
        self._mothers: list[_Mother] = []
        self._free: _Mother | None = None
        """Takes the next task."""
        self._turn = asyncio.Lock()
        self.forks = 0
        """Processes that still have to come from the one that waits for tasks, before that runs one itself."""

    async def warm(self) -> None:
        """Start the process that waits for tasks: it imports its program meanwhile."""
        async with self._turn:
            await self._mother()

    async def run(self, task: str, given: Mapping[str, Any], *, is_short: bool = False) -> Child:
        """Start a task.

        Args:
            task: its name.
            given: what it needs, as JSON types.
            is_short: whether the caller waits for its end before it starts the next.

        Raises:
            SourceError: its process does not start.
        """
        async with self._turn:
            mother = await self._mother()
            how = "become"
            if can_fork() and (is_short or self.forks > 0):
                how = "wait" if is_short else "fork"
                self.forks -= not is_short
            message = json.dumps({"task": task, "given": given, "how": how}).encode() + b"\n"
            self._free = None  # after an error or a cancellation its next answer may be the one to this message
            try:
                child = await mother.run(message)
            except TimeoutError as error:
                raise SourceError(f"the embedded tiler is not ready after {_START_TIMEOUT:g} seconds") from error
            if child is not None and how != "become":
                self._free = mother
        if child is None:
            words = await asyncio.to_thread(self.last_words)
            raise SourceError(f"the embedded tiler does not start: {words}")
        return child

    def last_words(self) -> str:
        """Return the last line of the log; it blocks."""
        return self._command.last_words()

    async def close(self) -> None:
        """End the processes, those that tasks became included."""
        async with asyncio.TaskGroup() as tasks:
            for mother in self._mothers:
                tasks.create_task(mother.close())
        self._mothers.clear()

    async def _mother(self) -> _Mother:
        """Return the process that takes the next task."""
        if self._free is None or not self._free.is_alive:
            self._free = await _Mother.started(self._command)
            self._mothers.append(self._free)
        return self._free


@dataclass(frozen=True)
class Chore:
    """A task of a nursery, to be started like a `Command`."""

    nursery: Nursery
    task: str
    given: Mapping[str, Any]

    async def child(self) -> Child:
        """Start the task.

        Raises:
            SourceError: the process that forks does not start.
        """
        return await self.nursery.run(self.task, self.given)

    def last_words(self) -> str:
        """Return the last line of the log; it blocks."""
        return self.nursery.last_words()
