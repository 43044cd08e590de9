"""One tiler process: `python -m mosaic_async.tiler.server MOSAIC.json HOST PORT`.

It prints a line when it is ready. It ends when its standard input ends: so its tilers end with a parent that dies, even
by `kill -9`.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from mosaic_async.sources.signing import Signing
from mosaic_async.tiler.app import make_app
from mosaic_async.tiler.scenes.mosaic import Mosaic

READY = "ready"
_BACKLOG = 2048


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(READY, flush=True)  # noqa: T201 - the parent waits for it


def main(path: str, host: str, port: str) -> None:
    """Serve a mosaic that the launcher wrote, on an address that all processes share."""
    given = json.loads(Path(path).read_text())
    mosaic = Mosaic(given["document"], tuple(given["assets"]))
    signing = Signing(**given["signing"])
    serve_app(make_app(mosaic, Path(path).parent / "created", secret=given["secret"], signing=signing), host, int(port))


def serve_app(app: FastAPI, host: str, port: int) -> None:
    """Serve an application until standard input ends."""
    server = _Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
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


def _end_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main(*sys.argv[1:4])
