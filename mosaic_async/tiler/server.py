"""One tiler process: `python -m mosaic_async.tiler.server MOSAIC.json HOST PORT`.

It prints a line when it is ready, and then its beats, see `supervisor`. It ends when its standard input ends: so it
ends with a parent that dies, even by `kill -9`.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from mosaic_async.sources.signing import Signing
from mosaic_async.tiler.app import Door, make_app
from mosaic_async.tiler.edge.connection import ImpatientProtocol
from mosaic_async.tiler.edge.gate import Traffic
from mosaic_async.tiler.edge.limits import Limits
from mosaic_async.tiler.scenes.mosaic import Mosaic
from mosaic_async.tiler.scenes.survey import Survey
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


def main(path: str, host: str, port: str) -> None:
    """Serve a mosaic that the launcher wrote, on an address that all processes share."""
    given = json.loads(Path(path).read_text())
    traffic = Traffic()
    app = make_app(
        Mosaic(given["document"], tuple(given["assets"])),
        Path(path).parent / "created",
        door=Door(**given["door"]),
        signing=Signing(**given["signing"]),
        limits=Limits(**given["limits"]),
        survey=Survey.from_dict(given["survey"]),
        traffic=traffic,
    )
    serve_app(app, host, int(port), traffic)


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


def shared_socket(host: str, port: int) -> socket.socket:
    """Bind an address that several processes listen on; the kernel distributes connections among them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family_of(host), socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        stack.pop_all()
    return listener


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family: IPv6 if the host has colons."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


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
    main(*sys.argv[1:4])
