"""The replay server: a process that sends prepared bodies by a law, and counts.

    python -m benchmarks.server ZOOM LAW

It prints its port, and speaks HTTP by hand on asyncio's protocols, because a framework would cost more than the
tile, and every contestant would pay for it. `/stats` returns the counts as JSON and resets them;
`/law/NAME` changes the law.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any, cast

import uvloop

from benchmarks.bodies import Body, index_of, make_bodies
from benchmarks.laws import LAWS, Law, luck_of

_REQUEST = re.compile(rb"GET /(\d+)/(\d+)/(\d+)\.(tif|png)[ ?]")
_TYPES = {"tif": b"image/tiff", "png": b"image/png"}
_PHRASES = {200: b"OK", 404: b"Not Found", 429: b"Too Many Requests", 503: b"Service Unavailable"}


class Replay:
    """What all connections share."""

    def __init__(self, bodies: list[Body], law: Law) -> None:
        self.bodies = bodies
        self.law = law
        self.begin()

    def begin(self) -> None:
        """Forget the counts."""
        self.requests = self.connections = self.in_flight = self.peak_in_flight = 0
        self.statuses: dict[int, int] = {}
        self.bytes_sent = 0
        self.seen: set[tuple[int, int, int]] = set()
        self.allowance = self.law.rate
        self.refilled = time.monotonic()

    def stats(self) -> dict[str, Any]:
        """Return the counts."""
        names = ("requests", "connections", "peak_in_flight", "statuses", "bytes_sent")
        return {**{name: getattr(self, name) for name in names}, "tiles": len(self.seen)}

    def status_of(self, tile: tuple[int, int, int]) -> int:
        """Decide the answer for a tile."""
        again = tile in self.seen
        self.seen.add(tile)
        if not again and luck_of(*tile) < self.law.failing:
            return 503
        now = time.monotonic()
        self.allowance = min(self.law.rate, self.allowance + (now - self.refilled) * self.law.rate)
        self.refilled = now
        if self.allowance < 1:
            return 429
        self.allowance -= 1
        return 200


class Connection(asyncio.Protocol):
    """One client's connection: a request at a time."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._received = b""
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, self._received = self._received.split(b"\r\n\r\n", 1)
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        match = _REQUEST.match(request)
        if match is None:
            self._control(request.split(b" ")[1].decode())
            return
        replay = self._replay
        replay.connections += not self._counted
        self._counted = True
        z, x, y = tile = int(match[1]), int(match[2]), int(match[3])
        replay.requests += 1
        replay.in_flight += 1
        replay.peak_in_flight = max(replay.peak_in_flight, replay.in_flight)
        status = replay.status_of(tile)
        delay = replay.law.delay(luck_of(z, x, y)) if status == 200 else 0.0
        kind = match[4].decode()
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._send_tile, tile, kind, status)
        else:
            self._send_tile(tile, kind, status)

    def _send_tile(self, tile: tuple[int, int, int], kind: str, status: int) -> None:
        replay = self._replay
        replay.in_flight -= 1
        replay.statuses[status] = replay.statuses.get(status, 0) + 1
        if self._transport.is_closing():
            return
        if status != 200:
            self._send(status, b"text/plain", [], b"Retry-After: 1\r\n" if status == 429 else b"")
            return
        body = replay.bodies[index_of(tile[1], tile[2])]
        pieces = list(body.at(*tile)) if kind == "tif" else [body.png]
        replay.bytes_sent += sum(map(len, pieces))
        self._send(status, _TYPES[kind], pieces)

    def _send(self, status: int, kind: bytes, pieces: list[bytes], extra: bytes = b"") -> None:
        length = sum(map(len, pieces))
        head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (
            *(status, _PHRASES[status], kind, length, extra),
        )
        self._transport.writelines([head, *pieces])

    def _control(self, path: str) -> None:
        if path == "/stats":
            answer = json.dumps(self._replay.stats()).encode()
            self._replay.begin()
            self._send(200, b"application/json", [answer])
        elif path.startswith("/law/") and path[5:] in LAWS:
            self._replay.law = LAWS[path[5:]]
            self._replay.begin()
            self._send(200, b"application/json", [b"{}"])
        else:
            self._send(404, b"text/plain", [])


async def serve(zoom: int, law: str) -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    replay = Replay(make_bodies(zoom), LAWS[law])
    server = await loop.create_server(lambda: Connection(replay), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
