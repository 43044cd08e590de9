"""A tiler whose pixels are a function of their global position, in a thread of its own, with moods.

So what a mosaic must hold can be computed without any of the package's code: `Pattern.expected` is the oracle.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import rasterio
from aiohttp import web
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rasterio.transform import from_bounds

CONTENT_TYPES = {
    "tif": "image/tiff",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "npy": "application/x-binary",
    "jp2": "image/jp2",
}
DRIVERS = {"tif": "GTiff", "png": "PNG", "jpg": "JPEG", "webp": "WEBP", "jp2": "JP2OpenJPEG"}
HALF_WORLD = 20037508.342789244

Tile = tuple[int, int, int]
"""z, x, y."""
Mood = Callable[[Tile, int], Awaitable[web.StreamResponse | None]]
"""Called with the tile and how often it has been requested (from 1); None answers as usual."""


@dataclass(frozen=True)
class Pattern:
    """Pixels by global position at a zoom."""

    count: int = 3
    dtype: str = "uint8"
    masked: bool = True
    smooth: bool = False
    """Gentle gradients that survive JPEG and WebP."""

    def pixels(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return (bands, *shape) for global pixel columns `x` and rows `y`."""
        kind = np.dtype(self.dtype)
        planes = []
        for band in range(self.count):
            if self.smooth:
                value = 100 + 60 * np.sin(x / 90 + band) + 60 * np.cos(y / 70 - band)
            else:
                value = (x * 7 + y * 13 + band * 29 + (x // 5) * (y // 3)) % 251
            if kind.kind == "f":
                value = value / 7 - 10
            elif kind.kind == "i":
                value = value * 30 - 3000
            elif kind.itemsize > 1:
                value = value * 200
            planes.append(value.astype(kind))
        return np.stack(planes)

    def mask(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return True where the pixel is valid."""
        if not self.masked:
            return np.ones(x.shape, dtype=bool)
        return ((x // 37 + y // 23) % 4 != 0) & ((x + y) % 11 != 0)

    def expected(self, x0: int, y0: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels and the validity of a window of the world."""
        y, x = np.mgrid[y0 : y0 + height, x0 : x0 + width]
        return self.pixels(x, y), self.mask(x, y)


def encode(pixels: np.ndarray, mask: np.ndarray | None, ext: str, bounds: tuple[float, float, float, float]) -> bytes:
    """Encode a tile as TiTiler does: the mask is an extra last band of the data's dtype, its minimum where invalid."""
    if mask is not None and ext != "jpg":
        kind = pixels.dtype
        low, high = (
            (np.finfo(kind).min, np.finfo(kind).max) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
        )
        pixels = np.concatenate([pixels, np.where(mask, high, low).astype(kind)[None]])
    if ext == "npy":
        stream = io.BytesIO()
        np.save(stream, pixels)
        return stream.getvalue()
    count, height, width = pixels.shape
    profile = {"driver": DRIVERS[ext], "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    if ext == "tif":
        profile |= {"crs": "EPSG:3857", "transform": from_bounds(*bounds, width, height), "photometric": "MINISBLACK"}
    if ext == "jp2":
        profile |= {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"}
    if ext == "webp":
        profile |= {"lossless": True}
    with MemoryFile() as file:
        with rasterio.Env(), file.open(**profile) as dataset:
            if mask is not None and ext == "tif":
                dataset.colorinterp = [*dataset.colorinterp[: count - 1], ColorInterp.alpha]
            dataset.write(pixels)
        return bytes(file.getbuffer())


@lru_cache(maxsize=500)
def _body(pattern: Pattern, size: int, ext: str, tile: Tile) -> bytes:
    """Encode a tile once for all tests of a process: most of them look at the same area."""
    z, x, y = tile
    pixels, mask = pattern.expected(x * size, y * size, size, size)
    side = 2 * HALF_WORLD / 2**z
    west, north = -HALF_WORLD + x * side, HALF_WORLD - y * side
    return encode(pixels, mask if pattern.masked else None, ext, (west, north - side, west + side, north))


@dataclass
class FakeTiler:
    """Answers `/{z}/{x}/{y}.{ext}` and counts."""

    pattern: Pattern = field(default_factory=Pattern)
    tile_size: int = 256
    ext: str = "tif"
    mood: Mood | None = None
    latency: float = 0.0
    """Seconds."""
    documents: dict[str, object] = field(default_factory=dict)
    """JSON documents by path."""

    hits: Counter[Tile] = field(default_factory=Counter)
    in_flight: int = 0
    peak_in_flight: int = 0
    headers_seen: list[dict[str, str]] = field(default_factory=list)
    queries_seen: list[str] = field(default_factory=list)
    paths_seen: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def template(self) -> str:
        return f"{self.url}/{{z}}/{{x}}/{{y}}.{self.ext}"

    @property
    def requests(self) -> int:
        return sum(self.hits.values())

    def body(self, tile: Tile) -> bytes:
        """Return the bytes of a tile."""
        return _body(self.pattern, self.tile_size, self.ext, tile)

    @contextmanager
    def running(self) -> Iterator[FakeTiler]:
        """Serve from a thread until the block is left."""
        loop = asyncio.new_event_loop()
        ready = threading.Event()
        thread = threading.Thread(target=self._serve, args=(loop, ready), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            assert not thread.is_alive()

    def _serve(self, loop: asyncio.AbstractEventLoop, ready: threading.Event) -> None:
        asyncio.set_event_loop(loop)
        app = web.Application()
        app.router.add_get("/{token:[^/]+}/{z:\\d+}/{x:-?\\d+}/{y:-?\\d+}.{ext}", self._tile)
        app.router.add_get("/{z:\\d+}/{x:-?\\d+}/{y:-?\\d+}.{ext}", self._tile)
        app.router.add_get("/{path:.*}", self._document)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    async def _tile(self, request: web.Request) -> web.StreamResponse:
        tile = (int(request.match_info["z"]), int(request.match_info["x"]), int(request.match_info["y"]))
        self.hits[tile] += 1
        self.headers_seen.append(dict(request.headers))
        self.queries_seen.append(request.rel_url.raw_query_string)
        self.paths_seen.append(request.path)
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            if self.mood is not None and (answer := await self.mood(tile, self.hits[tile])) is not None:
                return answer
            return web.Response(body=self.body(tile), content_type=CONTENT_TYPES[self.ext])
        finally:
            self.in_flight -= 1

    async def _document(self, request: web.Request) -> web.Response:
        if request.path in self.documents:
            return web.json_response(self.documents[request.path])
        return web.Response(status=404)
