"""One GET: what is retried, what is not, who waits for whom, and what never leaves the client."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime

import pytest
from aiohttp import web

from mosaic_async.errors import RequestError, SourceError, UsageError
from mosaic_async.http import USER_AGENT, Client, Outcome, outcome, redact, retry_after

TILE = (3, 4, 2)
OTHER_TILE = (3, 5, 2)


class Waits:
    """Stands for sleeping, and takes note."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def answering(*answers):
    """Give a mood that answers for one tile in turn, then as usual."""

    async def mood(tile, hit):
        if tile != TILE or hit > len(answers):
            return None
        code, headers, body = answers[hit - 1]
        return web.Response(status=code, headers=headers, body=body)

    return mood


def status(code, headers=None, body=b""):
    return (code, headers or {}, body)


def url_of(tiler, tile=TILE):
    z, x, y = tile
    return f"{tiler.url}/{z}/{x}/{y}.tif"


async def get(client, url):
    async with client.get(url) as answer:
        return answer


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (200, Outcome.OK),
        (204, Outcome.EMPTY),
        (404, Outcome.EMPTY),
        *((code, Outcome.RETRY) for code in (408, 425, 429, 500, 502, 503, 504, 520, 529)),
        *((code, Outcome.FAIL) for code in (201, 206, 304, 400, 401, 403, 405, 410, 413, 415, 422, 501)),
    ],
)
def test_every_status_has_one_outcome(code, expected):
    assert outcome(code) is expected


async def test_a_body_arrives_as_it_was_sent(serve):
    tiler = serve()
    async with Client() as client:
        answer = await get(client, url_of(tiler))
    assert answer.body == tiler.body(TILE)
    assert (client.requests, client.retries, client.bytes_received) == (1, 0, len(answer.body))
    assert tiler.headers_seen[0]["User-Agent"] == USER_AGENT


@pytest.mark.parametrize("code", [204, 404])
async def test_204_and_404_are_empty_and_not_asked_again(serve, code):
    tiler = serve(mood=answering(status(code)))
    async with Client() as client:
        answer = await get(client, url_of(tiler))
    assert answer.body == b""
    assert tiler.requests == 1


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
async def test_a_passing_status_is_retried(serve, code):
    tiler = serve(mood=answering(status(code), status(code)))
    waits = Waits()
    async with Client(sleep=waits) as client:
        answer = await get(client, url_of(tiler))
    assert answer.body
    assert (tiler.requests, client.requests, client.retries) == (3, 3, 2)
    assert all(0 <= seconds <= 20 for seconds in waits.seconds)


@pytest.mark.parametrize("code", [400, 401, 403, 410, 422, 501])
async def test_a_refusal_is_not_retried_and_says_what_the_server_said(serve, code):
    mood = answering(status(code, {"Content-Type": "application/json"}, b'{"detail": "no such\\n  band"}'))
    tiler = serve(mood=mood)
    async with Client() as client:
        with pytest.raises(RequestError, match="no such band") as failure:
            await get(client, url_of(tiler))
    assert (failure.value.status, failure.value.attempts) == (code, 1)
    assert tiler.requests == 1


async def test_attempts_come_to_an_end(serve):
    tiler = serve(mood=answering(*[status(503)] * 9))
    async with Client(attempts=4, sleep=Waits()) as client:
        with pytest.raises(RequestError, match="HTTP 503") as failure:
            await get(client, url_of(tiler))
    assert (failure.value.attempts, tiler.requests) == (4, 4)


async def test_retry_after_is_waited_for(serve):
    tiler = serve(mood=answering(status(429, {"Retry-After": "30"}), status(503, {"Retry-After": "soon"})))
    waits = Waits()
    async with Client(sleep=waits) as client:
        await get(client, url_of(tiler))
    assert 30 <= waits.seconds[0] <= 31
    assert waits.seconds[1] <= 20


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("1e9", 120),
        ("-3", None),
        ("0", None),
        ("nan", None),
        ("inf", None),
        ("garbage", None),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 11:00:00 GMT", None),
        ("Sun, 22 Nov 2026 12:00:30", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date_and_capped(value, seconds):
    assert retry_after(value, now=datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)) == seconds


async def test_tiles_that_fail_at_once_do_not_share_their_attempts(serve):
    async def twice(tile, hit):
        return web.Response(status=503) if hit <= 2 else None

    tiler = serve(mood=twice)
    async with Client(sleep=Waits(), concurrency=20) as client:
        await asyncio.gather(*(get(client, url_of(tiler, (8, x, 7))) for x in range(200)))
    assert set(tiler.hits.values()) == {3}


async def test_a_tile_that_backs_off_holds_no_permit(serve):
    tiler = serve(mood=answering(status(503)))
    asleep, awake = asyncio.Event(), asyncio.Event()

    async def sleep(seconds):
        asleep.set()
        await awake.wait()

    async with Client(concurrency=1, sleep=sleep) as client:
        first = asyncio.ensure_future(get(client, url_of(tiler)))
        await asleep.wait()
        assert (await get(client, url_of(tiler, OTHER_TILE))).body
        awake.set()
        assert (await first).body


async def test_a_permit_is_held_until_the_body_is_handed_on(serve):
    tiler = serve()
    async with Client(concurrency=1) as client:
        async with client.get(url_of(tiler)):
            second = asyncio.ensure_future(get(client, url_of(tiler, OTHER_TILE)))
            await asyncio.sleep(0.1)
            assert tiler.requests == 1
        await second
    assert tiler.requests == 2


async def test_a_failed_request_gives_its_permit_back(serve):
    tiler = serve(mood=answering(status(400)))
    async with Client(concurrency=1) as client:
        with pytest.raises(RequestError):
            await get(client, url_of(tiler))
        async with asyncio.timeout(5):
            await get(client, url_of(tiler, OTHER_TILE))


async def test_a_cancelled_request_gives_its_permit_back(serve):
    tiler = serve(latency=5.0)
    async with Client(concurrency=1) as client:
        task = asyncio.ensure_future(get(client, url_of(tiler)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        tiler.latency = 0
        async with asyncio.timeout(5):
            await get(client, url_of(tiler))


async def test_an_answer_that_does_not_come_is_a_timeout_and_retried(serve):
    async def hang_once(tile, hit):
        if hit == 1:
            await asyncio.sleep(30)

    tiler = serve(mood=hang_once)
    async with Client(timeout=0.3, sleep=Waits()) as client:
        assert (await get(client, url_of(tiler))).body
    assert tiler.requests == 2


async def test_a_header_that_lists_hundreds_of_scenes_is_read(serve):
    tiler = serve(mood=answering(status(200, {"X-Assets": "s3://bucket/scene.tif," * 2000}, b"body")))
    async with Client() as client:
        assert (await get(client, url_of(tiler))).body == b"body"


async def test_a_refused_connection_is_retried_and_then_named_without_the_url(unused_tcp_port):
    waits = Waits()
    async with Client(attempts=3, sleep=waits) as client:
        with pytest.raises(RequestError, match="cannot connect") as failure:
            await get(client, f"http://127.0.0.1:{unused_tcp_port}/1/1/1.tif?token=hunter2")
    assert len(waits.seconds) == 2
    assert failure.value.status is None
    assert "hunter2" not in str(failure.value)


async def test_a_body_larger_than_the_cap_is_refused_while_it_streams(serve):
    bomb = gzip.compress(bytes(50_000_000))
    mood = answering(status(200, {"Content-Encoding": "gzip", "Content-Type": "image/tiff"}, bomb))
    tiler = serve(mood=mood)
    async with Client(max_body=1_000_000) as client:
        with pytest.raises(RequestError, match="larger than 1,000,000 bytes"):
            await get(client, url_of(tiler))


async def test_a_redirect_is_followed_within_its_origin(serve):
    tiler = serve(mood=answering(status(302, {"Location": "/3/5/2.tif"})))
    async with Client() as client:
        answer = await get(client, url_of(tiler))
    assert answer.body == tiler.body(OTHER_TILE)


async def test_a_redirect_to_another_host_is_refused_and_takes_no_headers_along(serve):
    other = serve()
    tiler = serve(mood=answering(status(302, {"Location": url_of(other)})))
    async with Client(headers={"X-API-Key": "secret"}) as client:
        with pytest.raises(RequestError, match="another host"):
            await get(client, url_of(tiler))
    assert other.requests == 0


async def test_an_already_quoted_url_is_sent_as_it_is(serve):
    tiler = serve()
    async with Client() as client:
        await get(client, url_of(tiler) + '?url=a%2Fb&c=%2C,&j={"a b"}')
    assert tiler.queries_seen == ["url=a%2Fb&c=%2C,&j=%7B%22a%20b%22%7D"]


async def test_what_is_no_url_is_our_error():
    async with Client() as client:
        with pytest.raises(SourceError):
            await get(client, "http://[::1/3/4/5")


async def test_requests_in_flight_stay_below_the_limit(serve):
    tiler = serve(latency=0.02)
    async with Client(concurrency=7) as client:
        await asyncio.gather(*(get(client, url_of(tiler, (8, x, 7))) for x in range(60)))
    assert tiler.peak_in_flight == 7


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"attempts": 0}, {"timeout": 0}, {"rate": 0}])
def test_numbers_that_cannot_be_are_usage_errors(options):
    with pytest.raises(UsageError):
        Client(**options)


@pytest.mark.parametrize(
    "body", [b'{"detail": ' + b"[" * 3000, b"\xff\xfe{", b"[1, 2]", b'{"detail": {"a": [1]}}', b"null"]
)
async def test_a_hostile_error_body_is_no_more_than_no_reason(serve, body):
    tiler = serve(mood=answering(status(400, {"Content-Type": "application/json"}, body)))
    async with Client() as client:
        with pytest.raises(RequestError, match="HTTP 400 Bad Request") as failure:
            await get(client, url_of(tiler))
    assert len(failure.value.message) < 300


async def test_an_empty_body_with_200_is_a_failure_and_no_tile_without_data(serve):
    tiler = serve(mood=answering(status(200)))
    async with Client() as client:
        with pytest.raises(RequestError, match="empty"):
            await get(client, url_of(tiler))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://h/1?url=https://me:pw@s3/x.tif?token=abc&b=1",
            "https://h/1?url=https://s3/x.tif?token=***&b=1",
        ),
        (
            "https://h/1?url=https%3A%2F%2Fs3%2Fx%3Fsig%3Dabc%26c%3D1",
            "https://h/1?url=https%3A%2F%2Fs3%2Fx%3Fsig%3D***%26c%3D1",
        ),
        (
            "https://h/1?client_secret=abc&password=def&keyword=ghi",
            "https://h/1?client_secret=***&password=***&keyword=ghi",
        ),
        ("https://h/1/2/3.tif?bands=4,3,2", "https://h/1/2/3.tif?bands=4,3,2"),
        ("https://me:secret@h/1", "https://h/1"),
        ("https://h/1?a=b&access_token=xyz&c=d", "https://h/1?a=b&access_token=***&c=d"),
        (
            "https://h/1?X-Amz-Signature=abc&sig=def&subscription-key=ghi",
            "https://h/1?X-Amz-Signature=***&sig=***&subscription-key=***",
        ),
    ],
)
def test_secrets_are_cut_out_of_urls(url, shown):
    assert redact(url) == shown
