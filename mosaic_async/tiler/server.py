"""The program of the tiler processes: `python -m mosaic_async.tiler.server SOCKET` imports it once for all.

A fork that serves prints a line when it is ready, and then its beats, see `supervisor`. It ends when its standard input
ends: so it ends with a parent that dies, even by `kill -9`.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from mosaic_async.sources.signing import Signing
from mosaic_async.tiler.address import shared_socket
from mosaic_async.tiler.app import Door, make_app
from mosaic_async.tiler.edge.connection import ImpatientProtocol
from mosaic_async.tiler.edge.gate import Traffic
from mosaic_async.tiler.edge.limits import Limits
from mosaic_async.tiler.forks import Task, run_tasks
from mosaic_async.tiler.opening import opened_scenes, surveyed
from mosaic_async.tiler.supervisor import OVERDUE, READY

_BACKLOG = 2048
_MAX_REQUESTS = 1024
"""Requests and connections of a process; further ones get a 503 at once."""
_MAX_HEAD = 65_536
"""Bytes of the request line and all headers together."""
_BEAT = 0.25
"""Seconds between two beats."""
_SPARE = 512 * 2**20
"""Bytes of memory from which free blocks are returned: glibc keeps what the threads of tiles have freed."""
_GRACE = 5.0
"""Seconds after its deadline in which the work of a request may find its next check and stop."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, traffic: Traffic | None) -> None:
        super().__init__(config)
        self._traffic = traffic

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(READY, flush=True)  # noqa: T201 - the parent waits for it
        if self._traffic is not None:
            threading.Thread(target=_beat, args=(self._traffic,), daemon=True).start()


def main(control: str) -> None:
    """Run tasks in forks until the parent closes the socket.

    Args:
        control: number of the socket that `forks.run_tasks` takes.
    """
    with socket.socket(fileno=int(control)) as connection:
        run_tasks(connection, _prepared)


def _prepared(task: str, given: Mapping[str, Any]) -> Task:
    return _open if task == "open" else _served(json.dumps(given))


def _open(given: Mapping[str, Any]) -> None:
    print(opened_scenes(given), flush=True)  # noqa: T201 - the run reads it


@cache
def _served(text: str) -> Task:
    """Make the application that all forks serve, and return the task that serves it."""
    given = json.loads(text)
    for name, value in given["environment"].items():
        os.putenv(name, value)  # for GDAL, which has read none of them yet
    path = Path(given["file"])
    mosaic, agreed, grid = surveyed(path)
    traffic = Traffic()
    app = make_app(
        mosaic,
        path.parent / "created",
        door=Door(**given["door"]),
        signing=Signing(**given["signing"]),
        limits=Limits(**given["limits"]),
        survey=agreed,
        grid=grid,
        traffic=traffic,
    )
    return lambda _: serve_app(app, given["host"], given["port"], traffic)


def serve_app(app: FastAPI, host: str, port: int, traffic: Traffic | None = None) -> None:
    """Serve an application until standard input ends.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on.
        traffic: its requests, for the beats of this process; None: it has no supervisor.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        http=ImpatientProtocol,
        ws="none",
        h11_max_incomplete_event_size=_MAX_HEAD,
        limit_concurrency=_MAX_REQUESTS,
    )
    server = _Server(config, traffic)
    threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    with shared_socket(host, port) as listener:
        listener.listen(_BACKLOG)
        server.run([listener])


def _beat(traffic: Traffic) -> None:
    """Report to the supervisor that this process lives, and how it is."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    while True:
        time.sleep(_BEAT)
        if trim is not None and resident_memory() > _SPARE:
            trim(0)
        is_overdue = traffic.overdue() > _GRACE
        print(OVERDUE if is_overdue else resident_memory(), flush=True)  # noqa: T201 - the supervisor reads it


def resident_memory() -> int:
    """Return the memory of this process in bytes; 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _end_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1])
