"""What the client costs: CPU time per request, against a plain aiohttp session on the same server.

    python -m benchmarks.client_cost [REQUESTS]

The server is a process of its own and answers at once with a small body. The clients take turns; the figures are
medians, and the last one is the ratio within a turn.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import aiohttp
import uvloop

from mosaic_async.http.client import Client, Pace

TURNS = 7
_CONNECTIONS = 32
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 2048\r\n\r\n"
_SERVER = "from benchmarks.client_cost import serve; serve()"


class _Answer(asyncio.Protocol):
    """Answers each request with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write((_HEAD + bytes(2048)) * data.count(b"\r\n\r\n"))


def serve() -> None:
    """Serve until standard input ends, and print the port."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Answer, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await loop.run_in_executor(None, sys.stdin.read)

    uvloop.run(run())


async def plain(urls: Iterator[str]) -> None:
    """Fetch all URLs with aiohttp."""
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:

        async def work() -> None:
            for url in urls:
                async with session.get(url) as response:
                    await response.read()

        await _share(work)


async def ours(urls: Iterator[str]) -> None:
    """Fetch all URLs with the project's client."""
    async with Client(Pace(concurrency=_CONNECTIONS)) as client:

        async def work() -> None:
            for url in urls:
                async with client.get(url, check=lambda _: True, label=url):
                    pass

        await _share(work)


async def _share(work: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for _ in range(_CONNECTIONS):
            tasks.create_task(work())


def cost(fetch: Callable[[Iterator[str]], Awaitable[None]], port: int, requests: int) -> float:
    """Return the microseconds of CPU time per request."""

    async def run() -> float:
        started = time.process_time()
        await fetch(f"http://127.0.0.1:{port}/12/{number}/7.png" for number in range(requests))
        return time.process_time() - started

    return uvloop.run(run()) / requests * 1e6


def main(requests: int = 4000) -> float:
    """Print the figures, and return the ratio."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        port = int(process.stdout.readline())
        costs: dict[str, list[float]] = {"plain aiohttp": [], "mosaic_async": []}
        for _ in range(TURNS):
            costs["plain aiohttp"].append(cost(plain, port, requests))
            costs["mosaic_async"].append(cost(ours, port, requests))
        process.stdin.close()
    medians = {name: statistics.median(values) for name, values in costs.items()}
    for name, median in medians.items():
        print(f"{name:14} {median:6.0f} µs of CPU per request, at least {min(costs[name]):.0f}")
    ratio = statistics.median(ours / plain for plain, ours in zip(*costs.values(), strict=True))
    print(f"ratio          {ratio:6.2f}")
    return ratio


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
