"""Each answer belongs to its request, whatever else a server sends on a connection."""

from __future__ import annotations

import asyncio
import time

import pytest

from mosaic_async.errors import MisplacedTileError, RequestError
from mosaic_async.http.client import Client, Clock, Pace
from mosaic_async.http.framing import after_answer
from mosaic_async.http.request import AttemptError, Requester
from tests.desync import Desync, after, ahead, answer
from tests.fake_tiler import FakeTiler, Pattern

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

TILES = [(8, x, y) for x in range(6) for y in range(5)]
IDLE_404 = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
IDLE_408 = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


async def short_length(server, tile, proper, writer):
    writer.write(proper.replace(b"Content-Length: ", b"Content-Length: 1\r\nX-Length: "))


async def garbage_in_trailers(server, tile, proper, writer):
    body = server.tiler.body(tile)
    writer.write(CHUNKED + b"%x\r\n" % len(body) + body + b"\r\n0\r\ngarbage\r\n\r\nmore")


STRAYS = {
    "a second answer at once": after(0),
    "a second answer after 0.5 ms": after(0.0005),
    "a second answer after 5 ms": after(0.005),
    "a second answer after 50 ms": after(0.05),
    "the answer of another tile": after(0.003, answer(b"another tile")),
    "404 of an idle server": after(0.003, IDLE_404),
    "404 of an idle server at once": after(0, IDLE_404),
    "408 of an idle server": after(0.003, IDLE_408),
    "early hints": after(0.003, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "garbage": after(0.003, b"\0\1\2 garbage"),
    "an empty line": after(0.003, b"\r\n"),
    "half a head": after(0.003, b"HTTP/1.1 200 OK\r\nContent-"),
    "a body after 204": after(0.003, b"null", proper=b"HTTP/1.1 204 No Content\r\n\r\n"),
    "an answer after 304": after(0.002, proper=b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "a length that is too short": short_length,
    "trailers that are garbage": garbage_in_trailers,
    "the answer of another tile ahead": ahead(answer(b"another tile")),
    "a 404 ahead": ahead(IDLE_404),
    "a 408 ahead": ahead(IDLE_408),
    "a 404 that says close ahead": ahead(IDLE_404.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
    "a redirect ahead": ahead(b"HTTP/1.1 302 Found\r\nLocation: /9/1/1.png\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.fixture(scope="module")
def tiler():
    return FakeTiler(ext="png", pattern=Pattern(count=1, masked=False), tile_size=32)


async def fetched(server: Desync, connections: int, tiles=TILES) -> tuple[dict[tuple, bytes | str], Client]:
    """Fetch tiles as a run does, those that are doubtful in the end once more; a string is why a tile failed."""
    bodies: dict[tuple, bytes | str] = {}
    async with Client(Pace(concurrency=connections), clock=Clock(sleep=lambda _: asyncio.sleep(0))) as client:
        wanted = set(tiles)
        while wanted:
            left = iter(sorted(wanted))

            async def work(left=left) -> None:
                for z, x, y in left:
                    try:
                        async with client.get(server.template.format(z=z, x=x, y=y), label=(z, x, y)) as found:
                            bodies[z, x, y] = found.body
                    except RequestError as error:
                        bodies[z, x, y] = error.message

            async with asyncio.TaskGroup() as tasks:
                for _ in range(connections):
                    tasks.create_task(work())
            await client.prove()
            wanted = client.take_doubtful()
    return bodies, client


@pytest.mark.quick(14)
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("stray", STRAYS)
async def test_what_nobody_requested_shifts_no_answer(tiler, stray, connections):
    with Desync(tiler, STRAYS[stray]).running() as server:
        bodies, _ = await fetched(server, connections)
        assert server.strays
    wrong = {tile: bodies[tile] for tile in TILES if bodies[tile] != tiler.body(tile)}
    if "204" in stray:  # the server's answer for this tile
        wrong = {tile: body for tile, body in wrong.items() if body != b""}
    if "304" in stray:
        wrong = {tile: body for tile, body in wrong.items() if body != "HTTP 304 Not Modified"}
    assert wrong == {}


async def test_a_healthy_server_keeps_its_connections_and_is_asked_for_little_more(tiler):
    with Desync(tiler).running() as server:
        bodies, client = await fetched(server, 4)
    assert bodies == {tile: tiler.body(tile) for tile in TILES}
    assert server.connections == 4
    assert server.hits.total() == client.requests <= len(TILES) + 4


async def test_a_long_page_with_404_is_read_and_no_stray(tiler):
    """The rest of an answer that nobody reads would look like one."""
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 60000\r\n\r\n" + bytes(60000)

    async def not_found(server, tile, proper, writer):
        writer.write(page[:30000])
        await asyncio.sleep(0.01)
        writer.write(page[30000:])

    with Desync(tiler, not_found, turns=range(1, 10**9, 2)).running() as server:
        bodies, _ = await fetched(server, 1)
        assert server.connections == 1
    assert set(bodies.values()) == {b"", *(tiler.body(tile) for tile in TILES[1::2])}


@pytest.mark.parametrize("connections", [1, 8])
async def test_a_shift_that_no_idle_moment_shows_is_found_by_the_farewell(tiler, connections):
    """The client is busy all the time, so each answer comes just after the request before which it was due."""
    with Desync(tiler, ahead(answer(b"another tile"), 0.001), turns=range(9, 10)).running() as server:
        bodies, _ = await fetched(server, connections)
    assert bodies == {tile: tiler.body(tile) for tile in TILES}
    assert server.connections > connections


async def test_a_stray_ahead_of_the_only_answer_of_a_connection_is_found_in_silence(tiler):
    """No request follows that could count answers, but the proper one still comes."""
    stray = ahead(answer(b"another tile"), 0.3)
    with Desync(tiler, stray, turns=range(5, 7), latency=0.25).running() as server:
        bodies, _ = await fetched(server, len(TILES))
        assert server.strays == 2
    assert bodies == {tile: tiler.body(tile) for tile in TILES}


async def test_silence_proves_the_only_answers_of_connections_without_a_request(tiler):
    with Desync(tiler).running() as server:
        bodies, client = await fetched(server, len(TILES))
    assert bodies == {tile: tiler.body(tile) for tile in TILES}
    assert server.hits.total() == client.requests == server.connections == len(TILES)


async def test_a_connection_bears_only_so_many_unproved_answers(tiler):
    tiles = [(9, x, y) for x in range(30) for y in range(10)]
    with Desync(tiler, latency=0).running() as server:
        bodies, client = await fetched(server, 1, tiles)
    assert bodies == {tile: tiler.body(tile) for tile in tiles}
    assert server.connections == 4
    assert client.requests == len(tiles) + 4


@pytest.mark.parametrize("connections", [1, 8])
async def test_connections_that_http_1_0_keeps_are_kept(tiler, connections):
    with Desync(tiler, is_old=True).running() as server:
        bodies, client = await fetched(server, connections)
    assert bodies == {tile: tiler.body(tile) for tile in TILES}
    assert (server.connections, client.retries) == (connections, 0)
    assert server.hits.total() <= len(TILES) + connections


async def test_a_server_that_ends_connections_late_is_waited_for_once(tiler):
    """Not once per tile: that would take half a minute."""
    started = time.monotonic()
    with Desync(tiler, most=1, linger=3).running() as server:
        bodies, client = await fetched(server, 1)
    assert bodies == {tile: tiler.body(tile) for tile in TILES}
    assert client.requests == len(TILES)
    assert time.monotonic() - started < len(TILES) / 2


@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("most", [2, 5, 12])
async def test_a_shift_is_found_though_the_server_ends_the_connection_before_the_farewell(tiler, most, announces):
    """The answer that is one too many for the client is one too few when the connection ends."""
    shift = ahead(answer(b"another tile"), 0.001)
    with Desync(tiler, shift, turns=range(2, 10**9, 20), most=most, announces=announces).running() as server:
        bodies, _ = await fetched(server, 1)
        assert server.strays
    assert bodies == {tile: tiler.body(tile) for tile in TILES}


@pytest.mark.parametrize("announces", [True, False])
@pytest.mark.parametrize("most", [2, 3, 10])
async def test_a_server_that_ends_connections_early_gets_farewells_earlier(tiler, most, announces):
    tiles = [(9, x, y) for x in range(20) for y in range(10)]
    with Desync(tiler, most=most, announces=announces, latency=0).running() as server:
        bodies, client = await fetched(server, 1, tiles)
    assert bodies == {tile: tiler.body(tile) for tile in tiles}
    assert client.retries <= 5
    assert server.hits.total() <= len(tiles) * (1 + 1 / (most // 2)) + most + 5


async def test_a_server_that_ends_connections_at_a_hundred_gets_no_request_twice(tiler):
    tiles = [(9, x, y) for x in range(30) for y in range(10)]
    with Desync(tiler, most=100, latency=0).running() as server:
        bodies, client = await fetched(server, 1, tiles)
    assert bodies == {tile: tiler.body(tile) for tile in tiles}
    assert (client.retries, client.requests) == (0, len(tiles) + 4)


@pytest.mark.parametrize(("linger", "doubtful"), [(0, {1, 2, 3}), (1.5, set())])
async def test_a_connection_that_ends_after_a_silence_leaves_no_doubt(tiler, linger, doubtful):
    with Desync(tiler, most=3, announces=False, linger=linger).running() as server:
        async with Client(Pace(concurrency=1)) as client:
            for x in (1, 2, 3):
                async with client.get(server.template.format(z=8, x=x, y=0), label=x) as found:
                    assert found.body == tiler.body((8, x, 0))
            await asyncio.sleep(linger + 1)
            assert client.take_doubtful() == doubtful


async def test_two_answers_in_one_read_reach_no_task_that_waits_for_the_connection():
    tiler = FakeTiler(ext="png", pattern=Pattern(count=1, masked=False), tile_size=1024)
    with Desync(tiler, after(0), turns=range(1, 2)).running() as server:
        urls = [server.template.format(z=8, x=x, y=0) for x in range(2)]
        options = {"timeout": 10, "headers": {}, "max_body": 10**8, "allow_hosts": ()}
        async with Requester(connections=1, **options) as requester:
            results = await asyncio.gather(*(requester.fetch(url, None) for url in urls), return_exceptions=True)
    assert isinstance(results[0], AttemptError)
    assert results[1].body == tiler.body((8, 1, 0))


async def test_a_tile_of_another_place_ends_the_connection_and_is_fetched_on_another(tiler):
    """So a shift of georeferenced tiles costs one retry, and not all tiles after it."""

    def check(tile):
        def look(found):
            if found.body != tiler.body(tile):
                raise MisplacedTileError("another place")
            return True

        return look

    with Desync(tiler, ahead(answer(b"another tile")), turns=range(5, 6)).running() as server:
        async with Client(Pace(concurrency=1), clock=Clock(sleep=lambda _: asyncio.sleep(0))) as client:
            for tile in TILES:
                url = server.template.format(z=tile[0], x=tile[1], y=tile[2])
                async with client.get(url, check=check(tile), label=tile) as found:
                    assert found.body == tiler.body(tile)
            await client.prove()
            assert client.take_doubtful() <= {TILES[3]}
            assert client.retries == 1
            assert client.requests == server.hits.total() == len(TILES) + 1


async def test_a_request_that_a_reset_ends_is_sent_once_and_counted(tiler):
    """aiohttp repeats a request by itself after a reset of a kept connection, past the count and the rate."""

    async def reset(server, tile, proper, writer):
        writer.transport.abort()

    with Desync(tiler, reset, turns=range(2, 10**9, 2)).running() as server:
        async with Client(Pace(concurrency=1), clock=Clock(sleep=lambda _: asyncio.sleep(0))) as client:
            for tile in TILES[:6]:
                async with client.get(server.template.format(z=tile[0], x=tile[1], y=tile[2])) as found:
                    assert found.body == tiler.body(tile)
            assert client.requests == server.hits.total() == 6 + client.retries
            assert client.retries == 5


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length:3\r\n\r\nabc", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcd", b"d"),
        (b"HTTP/1.1 204 No Content\r\n\r\nnull", b"null"),
        (b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\n\r\nall until the end", None),
        (CHUNKED + b"3\r\nabc\r\n", None),
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", b""),
        (CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\nmore", b"more"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\nmore", b"more"),
        (CHUNKED + b"3\r\nab", None),
    ],
)
def test_the_end_of_an_answer_is_found_in_bytes(raw, rest):
    assert after_answer(raw) == rest


@pytest.mark.parametrize(
    "raw", [b"garbage\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n", CHUNKED + b"3\r\nabcde\r\n", CHUNKED + b"x\r\n"]
)
def test_bytes_that_are_not_http_are_an_error(raw):
    with pytest.raises(ValueError, match=r"."):
        after_answer(raw)
