"""Servers on this machine for tests: aiohttp applications in a thread, ASGI applications in a process."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from aiohttp import web

T = TypeVar("T")
SERVERS = ("titiler.core==0.11.7", "titiler.mosaic==0.11.7", "moto[s3,server]>=5,<6", "numpy<2", "uvicorn")
"""What tests talk to and what cannot live beside this project: a TiTiler of 2023, and an S3."""


@contextmanager
def running(app: web.Application, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve from a thread until the block is left; gives the URL, of localhost where there is a certificate."""
    loop = asyncio.new_event_loop()
    started: list[int] = []
    ready = threading.Event()

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start())
        started.append(runner.addresses[0][1])
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"https://localhost:{started[0]}" if tls else f"http://127.0.0.1:{started[0]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def held(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Hold an asynchronous block from a thread of its own, so that tests with loops of their own can share it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        value = asyncio.run_coroutine_threadsafe(manager.__aenter__(), loop).result(100)
        try:
            yield value
        finally:
            asyncio.run_coroutine_threadsafe(manager.__aexit__(None, None, None), loop).result(100)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(name: str, packages: Sequence[str], *, timeout: float = 110) -> Path:
    """Return the Python of a separate virtual environment, made the first time and kept beside the project's.

    Raises:
        SubprocessError: it cannot be made here.
    """
    folder = Path(__file__).parents[1] / name
    python = folder / "bin" / "python"
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes want the same one
        complete = folder / ".complete"
        if not complete.exists() or complete.read_text() != " ".join(packages):
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=60)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(pip, check=True, timeout=timeout, capture_output=True)
            complete.write_text(" ".join(packages))
    return python


@contextmanager
def uvicorn_of(
    python: Path, app: str, folder: Path, *, env: dict[str, str] | None = None, ready: str = "/openapi.json"
) -> Iterator[str]:
    """Serve `module:app` of a folder by another Python until the block is left; gives the URL."""
    port = free_port()
    log = folder / f"{app.replace(':', '-')}.log"
    command: Sequence[str] = (
        str(python), "-m", "uvicorn", app, "--port", str(port), "--app-dir", str(folder), "--log-level", "warning",
    )  # fmt: skip
    with log.open("w") as errors, subprocess.Popen(command, env=env, stdout=errors, stderr=errors) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}{ready}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # it waits for connections that are kept
                process.kill()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())
