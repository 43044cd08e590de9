"""A server that speaks HTTP by hand, and now and then sends what nobody requested.

Requests of one connection are answered in order; `Desync.stray` answers those whose turn it is.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.fake_tiler import CONTENT_TYPES, FakeTiler, Tile

_PATH = re.compile(rb"GET /(\d+)/(\d+)/(\d+)\.")

Stray = Callable[["Desync", Tile, bytes, asyncio.StreamWriter], Awaitable[None]]
"""Sends the proper answer of a tile, and more."""


def answer(body: bytes, kind: str = "image/png", *, status: str = "200 OK", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def after(seconds: float, stray: bytes | None = None, proper: bytes | None = None) -> Stray:
    """Send something after the answer, beside what comes next; the same answer once more by default."""

    async def send(server: Desync, tile: Tile, body: bytes, writer: asyncio.StreamWriter) -> None:
        first = body if proper is None else proper
        writer.write(first if seconds else first + (stray or body))
        if seconds:
            asyncio.get_running_loop().call_later(seconds, writer.write, stray or body)

    return send


def ahead(stray: bytes, seconds: float = 0.005) -> Stray:
    """Send something in place of the answer, and the answer later, when the client has sent its next request."""

    async def send(server: Desync, tile: Tile, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(stray)
        await asyncio.sleep(seconds)
        writer.write(body)

    return send


@dataclass
class Desync:
    """Answers as its tiler does, and adds a stray to the requests in `turns`."""

    tiler: FakeTiler
    stray: Stray | None = None
    turns: range = range(3, 10**9, 7)
    """Numbers of the requests, from 1, that a stray follows."""
    empty: frozenset[Tile] = frozenset()
    latency: float = 0.002
    most: int = 10**9
    """Answers per connection; then the server closes it."""
    announces: bool = True
    """Whether the last of them says so."""
    linger: float = 0.0
    """Seconds until then."""
    is_old: bool = False
    """Whether the answers are HTTP/1.0, which keeps a connection only where it says so."""
    hits: Counter[Tile] = field(default_factory=Counter)
    connections: int = 0
    strays: int = 0
    port: int = 0

    @property
    def template(self) -> str:
        return f"http://127.0.0.1:{self.port}/{{z}}/{{x}}/{{y}}.{self.tiler.ext}"

    @contextmanager
    def running(self) -> Iterator[Desync]:
        """Serve from a thread until the block is left."""
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

        async def run() -> None:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            loop.set_exception_handler(lambda *_: None)  # connections that the client closed
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set_result((loop, stop))
            await stop.wait()
            server.close()

        thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
        thread.start()
        loop, stop = started.result(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for number in itertools.count(1):
                head = await reader.readuntil(b"\r\n\r\n")
                is_last = number == self.most
                await self._answer(head, writer, b"close" if is_last and self.announces else b"keep-alive")
                if is_last or b"connection: close" in head.lower():
                    break
            await asyncio.sleep(self.linger)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter, connection: bytes) -> None:
        found = _PATH.match(head)
        assert found is not None
        tile = (int(found[1]), int(found[2]), int(found[3]))
        self.hits[tile] += 1
        turn = self.hits.total()
        await asyncio.sleep(self.latency)
        if tile in self.empty:
            proper = b"HTTP/1.1 204 No Content\r\n\r\n"
        else:
            proper = answer(self.tiler.body(tile), CONTENT_TYPES[self.tiler.ext])
        proper = proper.replace(b"\r\n\r\n", b"\r\nConnection: " + connection + b"\r\n\r\n", 1)
        if self.is_old:
            proper = proper.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        if self.stray is None or turn not in self.turns:
            writer.write(proper)
            return
        self.strays += 1
        await self.stray(self, tile, proper, writer)
