"""The command in a process of its own, without the second that its imports take: a server imports it once and forks.

What runs is what `python -m mosaic_async` runs: its own process with its own streams, signals, environment and exit
code. The server ends with the process that started it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

FLAGS = ("-W", "error", "-W", "ignore::PendingDeprecationWarning")
ROOT = Path(__file__).parents[1]
DIGEST_ROUNDS = 100
"""Of the digests of identities in tests: two digests of a real run take a fifth of the CPU of a small one."""


class Running:
    """A run under way, in the words of `subprocess.Popen`; its streams are in files, so no pipe can fill up."""

    def __init__(self, connection: socket.socket, streams: tuple[Path, Path]) -> None:
        self._connection = connection
        self._streams = streams
        self._lines = connection.makefile("rb")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("mosaic-async", timeout or 0)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        stdout, stderr = (path.read_text() for path in self._streams)
        return stdout, stderr

    def said(self) -> str:
        """What stderr has so far."""
        return self._streams[1].read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts runs of the command."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="forks-"))
        self._started = 0
        self._process = subprocess.Popen(
            [sys.executable, *FLAGS, "-m", "tests.forks", str(self._folder / "socket")],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        atexit.register(self.close)

    def close(self) -> None:
        with self._process:
            self._process.kill()
        shutil.rmtree(self._folder)

    def start(
        self,
        args: Sequence[object],
        *,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        limits: Mapping[int, int] | None = None,
        before: Sequence[Sequence[str]] = (),
    ) -> Running:
        """Start the command.

        Args:
            args: its arguments.
            stdin: the text that it reads there.
            env: its environment; None: this process's.
            limits: of `resource.setrlimit`.
            before: calls in the process before the command: `module:function`, and its arguments.
        """
        request = {
            "args": [str(arg) for arg in args],
            "env": dict(os.environ if env is None else env),
            "cwd": str(Path.cwd()),
            "limits": list((limits or {}).items()),
            "before": before,
        }
        self._started += 1
        given, stdout, stderr = (self._folder / f"{self._started}-{name}" for name in ("stdin", "stdout", "stderr"))
        given.write_text(stdin)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(self._folder / "socket"))
        with given.open("rb") as first, stdout.open("wb") as second, stderr.open("wb") as third:
            socket.send_fds(connection, [b"."], [stream.fileno() for stream in (first, second, third)])
        connection.sendall(json.dumps(request).encode() + b"\n")
        return Running(connection, (stdout, stderr))


@cache
def server() -> ForkServer:
    """Return the server of this test process, started at its first use."""
    return ForkServer()


def _connection(path: str) -> socket.socket:
    """Fork for each connection, endlessly; returns in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what waits for a run
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, b"ready\n")
        while True:
            ready = select.select([listener, 0], [], [])[0]
            if 0 in ready:  # the end of the process that started this one
                os._exit(0)
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return connection
            connection.close()


def _request(connection: socket.socket) -> dict[str, Any]:
    """Fork once more, for a run that another process can wait for; returns in the run."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as lines:
        request: dict[str, Any] = json.loads(lines.readline())
    pid = os.fork()
    if pid:
        connection.sendall(b"%d\n" % pid)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    return request


def _become(request: Mapping[str, Any]) -> None:
    """Make this process the one that was requested."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for number, limit in request["limits"]:
        resource.setrlimit(number, (limit, limit))
    for name, *arguments in request["before"]:
        module, _, function = name.partition(":")
        getattr(importlib.import_module(module), function)(*arguments)


def log_everything() -> None:
    """Have every logger of this process write to stderr; called in the process of a run."""
    logging.basicConfig(level=logging.NOTSET)


def _warm() -> None:
    """Import what a run imports when it gets to it, extras too, and have GDAL register its drivers."""
    for name in ("uvloop", "mosaic_async.stac", "mosaic_async.tiler"):
        importlib.import_module(name)
    rasterio = importlib.import_module("rasterio")
    with rasterio.Env():
        pass
    importlib.import_module("mosaic_async.build.identity")._ROUNDS = DIGEST_ROUNDS


if __name__ == "__main__":
    from mosaic_async.cli.main import main

    _warm()
    request = _request(_connection(sys.argv[1]))
    _become(request)
    main(args=request["args"], prog_name="mosaic-async")
