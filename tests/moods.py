"""Ways in which a server can be in a bad mood, to be given to a `FakeTiler`: a mood answers some requests for it.

`choose` decides by tile and hit, so that a run with moods is the same each time.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Awaitable, Callable

from aiohttp import web

from tests.fake_tiler import FakeTiler, Mood, Pattern, Tile

Answering = Callable[[FakeTiler, Tile], Awaitable[web.StreamResponse]]


class Cut(web.StreamResponse):
    """Sends these bytes and then ends the connection, even if it has promised more."""

    def __init__(self, body: bytes, headers: dict[str, str], *, hang: bool = False, chunked: bool = False) -> None:
        super().__init__(headers=headers)
        self._sent = body
        self._hang = hang
        if chunked:
            self.enable_chunked_encoding()

    async def prepare(self, request):
        writer = await super().prepare(request)
        await self.write(self._sent)
        if self._hang:
            await asyncio.sleep(30)
        request.transport.abort()
        return writer


class Raw(web.StreamResponse):
    """Sends bytes as they are, headers included, and then ends the connection, in order or not."""

    def __init__(self, sent: bytes, *, abort: bool = False) -> None:
        super().__init__()
        self._raw = sent
        self._abort = abort

    async def prepare(self, request):
        transport = request.transport
        transport.write(self._raw)
        await asyncio.sleep(0.02)
        transport.abort() if self._abort else transport.close()
        return await super().prepare(request)


class Reset(web.StreamResponse):
    """Ends the connection before a single byte."""

    async def prepare(self, request):
        request.transport.abort()
        return await super().prepare(request)


def status(code: int, body: bytes = b"", **headers: str) -> Answering:
    async def answer(tiler, tile):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, body=body, headers=given)

    return answer


def says(body: bytes, kind: str = "image/tiff", **headers: str) -> Answering:
    return status(200, body, Content_Type=kind, **headers)


async def reset(tiler, tile):
    return Reset()


async def cut_body(tiler, tile):
    body = tiler.body(tile)
    return Cut(body[: len(body) // 2], {"Content-Length": str(len(body))})


async def cut_chunks(tiler, tile):
    return Cut(tiler.body(tile)[:5000], {}, chunked=True)


async def end_in_body(tiler, tile):
    body = tiler.body(tile)
    return Raw(b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:1000])


async def reset_after_headers(tiler, tile):
    return Raw(b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nContent-Length: 1000\r\n\r\n", abort=True)


async def length_too_short(tiler, tile):
    body = tiler.body(tile)
    half = len(body) // 2
    return Raw(b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nContent-Length: %d\r\n\r\n" % half + body)


async def truncated(tiler, tile):
    """Send a whole answer of half a tile."""
    body = tiler.body(tile)
    return web.Response(body=body[: len(body) // 2], content_type="image/tiff")


async def hang(tiler, tile):
    await asyncio.sleep(30)
    return web.Response()


async def hang_in_body(tiler, tile):
    body = tiler.body(tile)
    return Cut(body[:1000], {"Content-Length": str(len(body))}, hang=True)


async def another_place(tiler, tile):
    z, x, y = tile
    return web.Response(body=tiler.body((z, x + 1, y)), content_type="image/tiff")


async def bbox_of_another_place(tiler, tile):
    crs = "<http://www.opengis.net/def/crs/EPSG/0/3857>"
    return web.Response(body=tiler.body(tile), headers={"Content-Bbox": "0,0,1,1", "Content-Crs": crs})


async def another_size(tiler, tile):
    return web.Response(body=FakeTiler(pattern=tiler.pattern, tile_size=128).body(tile), content_type="image/tiff")


async def another_count(tiler, tile):
    return web.Response(body=FakeTiler(pattern=Pattern(count=2)).body(tile), content_type="image/tiff")


async def long_header(tiler, tile):
    return web.Response(headers={"X-Long": "x" * 300_000})


HTML = says(b"<html><title>Bad gateway</title></html>", "text/html")
JSON = says(json.dumps({"detail": "no such asset"}).encode(), "application/json")
PASSING: dict[str, Answering] = {
    "429": status(429),
    "503": status(503),
    "503 with Retry-After": status(503, Retry_After="1"),
    "503 with a date": status(503, Retry_After="Sun, 22 Nov 2020 12:00:30 GMT"),
    "429 with garbage": status(429, Retry_After="soon"),
    "429 with less than nothing": status(429, Retry_After="-5"),
    "429 until the end of time": status(429, Retry_After="1e9"),
    "500": status(500),
    "502 with a page": status(502, b"<html>", Content_Type="text/html"),
    "504": status(504),
    "408": status(408),
    "a reset": reset,
    "half a body": cut_body,
    "half the chunks": cut_chunks,
    "the end of the connection in the body": end_in_body,
    "a reset after the headers": reset_after_headers,
    "a length that is too short": length_too_short,
    "no answer": hang,
    "no end of the body": hang_in_body,
    "endless headers": long_header,
}
"""What may be gone at the next attempt."""
BAD_BODIES: dict[str, Answering] = {
    "a page": HTML,
    "JSON": JSON,
    "a page that says it is a tile": says(b"<html>"),
    "half a tile": truncated,
    "another place": another_place,
    "another place in the header": bbox_of_another_place,
    "another size": another_size,
    "another count": another_count,
    "another format": says(b"GIF89a" + bytes(100), "image/gif"),
    "an unknown encoding": says(gzip.compress(b"x"), Content_Encoding="rot13"),
}
"""Answers of 200 that are not the tile."""


def now_and_then(tiler: FakeTiler, shares: dict[Answering, float], seed: int = 0) -> Mood:
    """Answer badly with these probabilities, by tile and hit."""

    async def mood(tile, hit):
        chance = random.Random(f"{seed} {tile} {hit}").random()
        for answering, share in shares.items():
            if chance < share:
                return await answering(tiler, tile)
            chance -= share
        return None

    return mood


def at(tiler: FakeTiler, tile: Tile, answering: Answering, times: int = 1) -> Mood:
    """Answer badly the first `times` that a tile is requested."""

    async def mood(asked, hit):
        return await answering(tiler, tile) if asked == tile and hit <= times else None

    return mood
