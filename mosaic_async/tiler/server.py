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
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from mosaic_async.sources.access import use
from mosaic_async.sources.signing import Signing
from mosaic_async.tiler.address import shared_socket
from mosaic_async.tiler.app import Door, make_app
from mosaic_async.tiler.edge.connection import ImpatientProtocol
from mosaic_async.tiler.edge.gate import Traffic
from mosaic_async.tiler.edge.limits import Limits
from mosaic_async.tiler.forks import Task, run_tasks
from mosaic_async.tiler.opening import GDAL_CONFIG, opened_scenes, surveyed
from mosaic_async.tiler.share import Share
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
_GROWTH = 16 * 2**20
"""Bytes of growth since then after which it pays to look for more."""
_GRACE = 5.0
"""Seconds after its deadline in which the work of a request may find its next check and stop."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, traffic: Traffic | None, spare: int) -> None:
        super().__init__(config)
        self._spare = spare
        self._traffic = traffic

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _say(READY)
        if self._traffic is not None:
            threading.Thread(target=_beat, args=(self._traffic, self._spare), daemon=True).start()


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
    _say(opened_scenes(given))


@cache
def _served(text: str) -> Task:
    """Make the application that all forks serve, and return the task that serves it."""
    given = json.loads(text)
    for name, value in given["environment"].items():
        os.putenv(name, value)  # for GDAL, which has read none of them yet
    path = Path(given["file"])
    share = Share(**given["share"])
    os.putenv("GDAL_CACHEMAX", str(share.cache))
    mosaic, agreed, grid = surveyed(path)
    use(given["headers"], mosaic.origins, path.parent / GDAL_CONFIG)
    traffic = Traffic()
    app = make_app(
        mosaic,
        path.parent / "created",
        door=Door(**given["door"]),
        signing=Signing(**given["signing"]),
        limits=_within(Limits(**given["limits"]), share) if given["is_own"] else Limits(**given["limits"]),
        survey=agreed,
        grid=grid,
        traffic=traffic,
    )
    return lambda _: serve_app(app, given["host"], given["port"], traffic, share.spare)


def _within(limits: Limits, share: Share) -> Limits:
    return replace(limits, bytes_at_once=share.held, tiles_at_once=share.tiles, buffers_kept=share.buffers)


def serve_app(app: FastAPI, host: str, port: int, traffic: Traffic | None = None, spare: int = _SPARE) -> None:
    """Serve an application until standard input ends.

    Args:
        app: the application.
        host: address to listen on.
        port: port to listen on.
        traffic: its requests, for the beats of this process; None: it has no supervisor.
        spare: bytes of its own memory from which it returns what it has freed.
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
    server = _Server(config, traffic, spare)
    threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    with shared_socket(host, port) as listener:
        listener.listen(_BACKLOG)
        server.run([listener])


def _beat(traffic: Traffic, spare: int) -> None:
    """Report to the supervisor that this process lives, and how it is."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    after_trim = 0
    while True:
        time.sleep(_BEAT)
        resident, own = memory_in_use()
        if trim is not None and own > max(spare, after_trim + _GROWTH):
            trim(0)
            resident, after_trim = memory_in_use()
        elif own < after_trim:
            after_trim = own
        is_overdue = traffic.overdue() > _GRACE
        _say(OVERDUE if is_overdue else resident)


def _say(line: object) -> None:
    """Write a line that the run, or its supervisor, reads."""
    print(line, flush=True)  # noqa: T201 - of the protocol between processes


def memory_in_use() -> tuple[int, int]:
    """Return the bytes of this process, and those without mapped files; 0 where the system does not tell."""
    try:
        _, resident, mapped, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0, 0
    page = os.sysconf("SC_PAGE_SIZE")
    return int(resident) * page, (int(resident) - int(mapped)) * page


def _end_with_stdin(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1])
