"""Whether memory stays flat over a million tiles. See `python -m benchmarks.million --help`.

The server runs in the same process and loop, one tile in ten has a body (128 pixels, one band), all others are empty:
so the run exercises the grid, the iterator, the work folder and the report, not the codecs. Memory is read every
second; the result is its growth between the first and the last tenth of the run.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from argparse import ArgumentParser
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import cast

import mercantile
import psutil
import uvloop

from benchmarks.bodies import small_body
from mosaic_async import Event, MosaicReport, TileEmpty, TilePlaced, build_mosaic

ZOOM = 12
TILE_SIZE = 128
_ONE_IN = 10
_INTERVAL = 1.0
"""Seconds between two looks at memory."""
_SETTLED = 0.02
"""Share of the run before which memory is still being filled for the first time."""


class Answers(asyncio.Protocol):
    """Answers every request at once."""

    def __init__(self, body: bytes) -> None:
        self._full = b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, self._received = self._received.split(b"\r\n\r\n", 1)
            x, y = (int(number) for number in request.split(b" ")[1].rpartition(b".")[0].split(b"/")[2:])
            has_body = (x * 7 + y * 3) % _ONE_IN == 0
            self._transport.write(self._full if has_body else b"HTTP/1.1 204 No Content\r\n\r\n")


class Watch:
    """Counts tiles and notes memory."""

    def __init__(self, total: int) -> None:
        self._process = psutil.Process()
        self._total = total
        self._done = 0
        self._next = 0.0
        self.seen: list[tuple[float, int]] = []
        """(share of the tiles that are done, bytes)."""

    def __call__(self, event: Event) -> None:
        """Listen to the run."""
        if isinstance(event, TilePlaced | TileEmpty):
            self._done += 1
            if time.monotonic() >= self._next:
                self.seen.append((self._done / self._total, self._process.memory_info().rss))
                self._next = time.monotonic() + _INTERVAL

    @property
    def growth(self) -> float | None:
        """Return the bytes from the mean of the settled first tenth to the last; None if the run is too short."""
        first = [rss for share, rss in self.seen if _SETTLED < share <= 0.1]
        last = [rss for share, rss in self.seen if share > 0.9]
        return mean(last) - mean(first) if first and last else None


async def measure(tiles: int) -> tuple[MosaicReport, Watch]:
    """Build a square of this many tiles."""
    side = math.isqrt(tiles)
    left = top = 2 ** (ZOOM - 1) - side // 2
    west, north = mercantile.ul(left, top, ZOOM)
    east, south = mercantile.ul(left + side, top + side, ZOOM)
    body, watch = small_body(TILE_SIZE), Watch(side * side)
    server = await asyncio.get_running_loop().create_server(lambda: Answers(body), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with TemporaryDirectory(prefix="benchmarks-") as folder:
            report = await build_mosaic(
                f"http://127.0.0.1:{port}/{{z}}/{{x}}/{{y}}.tif",
                (west, south, east, north),
                Path(folder) / "mosaic.tif",
                zoom=ZOOM,
                profile="zstd",
                max_tiles=side * side,
                on_event=watch,
            )
    return report, watch


def main() -> None:
    """Measure, and print the result."""
    parser = ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--tiles", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    report, watch = uvloop.run(measure(options.tiles))
    found = {
        "tiles": report.tiles_total,
        "placed": report.tiles_placed,
        "requests": report.requests,
        "seconds": round(report.seconds, 1),
        "stages": report.seconds_by_stage,
        "parts": report.parts_total,
        "output_bytes": report.bytes_written,
        "peak_rss": report.peak_rss,
        "growth": watch.growth,
        "rss": watch.seen,
    }
    if options.output:
        options.output.write_text(json.dumps(found))
    print(json.dumps({name: value for name, value in found.items() if name != "rss"}, indent=1))


if __name__ == "__main__":
    main()
