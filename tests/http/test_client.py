"""One GET: what is retried, what is not, who waits for whom, and what never leaves the client."""

from __future__ import annotations

import asyncio
import gzip
import socket
from dataclasses import fields

import pytest
from aiohttp import web

from mosaic_async.errors import RequestError, SourceError, TileError, UsageError
from mosaic_async.http.client import USER_AGENT, Client, Clock, Pace
from mosaic_async.safety.redaction import scrub
from tests.moods import Cut

TILE = (3, 4, 2)
OTHER_TILE = (3, 5, 2)


PACE = {field.name for field in fields(Pace)}


class Waits:
    """Stands for sleeping and for the clock: time passes when somebody sleeps, and only then."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.now = 1000.0

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)

    def clock(self) -> float:
        return self.now

    def client(self, **options) -> Client:
        pace = Pace(**{name: options.pop(name) for name in PACE & options.keys()})
        return Client(pace, clock=Clock(now=self.clock, sleep=self), **options)


def answering(*answers):
    """Return a mood that answers for one tile in turn, then as usual."""

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
    async with waits.client() as client:
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
    async with Waits().client(attempts=4) as client:
        with pytest.raises(RequestError, match="HTTP 503") as failure:
            await get(client, url_of(tiler))
    assert (failure.value.attempts, tiler.requests) == (4, 4)


async def test_retry_after_is_waited_for(serve):
    tiler = serve(mood=answering(status(429, {"Retry-After": "30"}), status(503, {"Retry-After": "soon"})))
    waits = Waits()
    async with waits.client() as client:
        await get(client, url_of(tiler))
    assert 30 <= waits.seconds[0] <= 31
    assert waits.seconds[1] <= 20


async def test_tiles_that_fail_at_once_do_not_share_their_attempts(serve):
    async def twice(tile, hit):
        return web.Response(status=500) if hit <= 2 else None

    tiler = serve(mood=twice)
    async with Waits().client(concurrency=20) as client:
        await asyncio.gather(*(get(client, url_of(tiler, (8, x, 7))) for x in range(50)))
    assert set(tiler.hits.values()) == {3}


async def test_a_tile_that_backs_off_holds_no_permit(serve):
    tiler = serve(mood=answering(status(503)))
    asleep, awake = asyncio.Event(), asyncio.Event()

    async def sleep(seconds):
        asleep.set()
        await awake.wait()

    async with Client(Pace(concurrency=1), clock=Clock(sleep=sleep)) as client:
        first = asyncio.ensure_future(get(client, url_of(tiler)))
        await asleep.wait()
        assert (await get(client, url_of(tiler, OTHER_TILE))).body
        awake.set()
        assert (await first).body


async def test_a_permit_is_held_until_the_body_is_handed_on(serve):
    tiler = serve()
    async with Client(Pace(concurrency=1)) as client:
        async with client.get(url_of(tiler)):
            second = asyncio.ensure_future(get(client, url_of(tiler, OTHER_TILE)))
            await asyncio.sleep(0.1)
            assert tiler.requests == 1
        await second
    assert tiler.requests == 2


async def test_a_failed_request_gives_its_permit_back(serve):
    tiler = serve(mood=answering(status(400)))
    async with Client(Pace(concurrency=1)) as client:
        with pytest.raises(RequestError):
            await get(client, url_of(tiler))
        async with asyncio.timeout(5):
            await get(client, url_of(tiler, OTHER_TILE))


async def test_a_cancelled_request_gives_its_permit_back(serve):
    tiler = serve(latency=5.0)
    async with Client(Pace(concurrency=1)) as client:
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
    async with Waits().client(timeout=0.3) as client:
        assert (await get(client, url_of(tiler))).body
    assert tiler.requests == 2


async def test_a_header_that_lists_hundreds_of_scenes_is_read(serve):
    tiler = serve(mood=answering(status(200, {"X-Assets": "s3://bucket/scene.tif," * 2000}, b"body")))
    async with Client() as client:
        assert (await get(client, url_of(tiler))).body == b"body"


async def test_a_refused_connection_is_retried_and_then_named_without_the_url(unused_tcp_port):
    waits = Waits()
    async with waits.client(attempts=3) as client:
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


async def test_a_cookie_goes_back_to_the_origin_that_set_it_and_to_no_other(serve):
    cookie = {"Set-Cookie": "session=abcdefghij; Path=/; HttpOnly"}
    tiler, other = serve(mood=answering(status(200, cookie, b"body"))), serve()
    async with Client(headers={"Cookie": "mine=1"}) as client:
        await get(client, url_of(tiler))
        await get(client, url_of(tiler))
        await get(client, url_of(other))
    assert [seen["Cookie"] for seen in tiler.headers_seen] == ["mine=1", "mine=1; session=abcdefghij"]
    assert [seen["Cookie"] for seen in other.headers_seen] == ["mine=1"]
    assert "abcdefghij" not in scrub("the server repeats abcdefghij")
    async with Client() as client:  # the next run begins anew
        await get(client, url_of(tiler))
    assert "Cookie" not in tiler.headers_seen[-1]


@pytest.mark.parametrize(
    ("cookie", "returned"),
    [("a=1; Path=/elsewhere", None), ("a=1; Max-Age=0", None), ("a=1; Secure", None), ("a=1; Path=/3", "a=1")],
)
async def test_a_cookie_is_kept_as_long_and_as_wide_as_it_states(serve, cookie, returned):
    tiler = serve(mood=answering(status(302, {"Set-Cookie": cookie, "Location": "/3/5/2.tif"})))
    async with Client() as client:
        await get(client, url_of(tiler))
    assert tiler.headers_seen[-1].get("Cookie") == returned


async def test_headers_without_end_are_malformed_and_named_without_the_url(serve):
    tiler = serve(mood=answering(*[status(200, {"X-Long": "x" * 300_000}, b"body")] * 9))
    async with Waits().client(attempts=2) as client:
        with pytest.raises(RequestError, match="malformed HTTP") as failure:
            await get(client, url_of(tiler) + "?token=hunter2")
    assert "hunter2" not in str(failure.value)


async def test_a_body_that_is_said_to_be_too_large_is_not_waited_for(serve):
    async def boast(tile, hit):
        return Cut(b"x", {"Content-Length": "1000000000000"}, hang=True)

    tiler = serve(mood=boast)
    async with Client(Pace(timeout=5)) as client:
        with pytest.raises(RequestError, match="larger than"):
            await get(client, url_of(tiler))


async def test_the_server_s_words_are_read_only_so_far_and_said_in_short(serve):
    async def chunks():
        yield b'{"detail": "' + b"word " * 600 + b'"}'
        while True:
            await asyncio.sleep(0)
            yield b" " * 65536

    async def talk(tile, hit):
        body = chunks() if tile == TILE else b'{"detail": "' + b"word " * 600 + b'"}'
        return web.Response(status=400, body=body, content_type="application/json")

    tiler = serve(mood=talk)
    async with Client(Pace(timeout=5)) as client:
        with pytest.raises(RequestError, match="HTTP 400 Bad Request"):
            await get(client, url_of(tiler))
        with pytest.raises(RequestError, match="word word") as failure:
            await get(client, url_of(tiler, OTHER_TILE))
    assert len(failure.value.message) < 300


async def test_a_name_that_is_not_found_for_a_while_is_asked_for_again(serve, monkeypatch):
    tiler = serve()
    url = url_of(tiler).replace("127.0.0.1", "tiler.test")
    looked, found = [], socket.getaddrinfo

    def look_up(host, *args, **options):
        looked.append(host)
        if len(looked) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with Waits().client() as client:
        assert (await get(client, url)).body
    assert looked == ["tiler.test"] * 3
    assert client.retries == 2


async def test_a_time_to_wait_until_is_one_of_the_server_s_clock_and_not_of_ours(serve):
    dates = {"Date": "Sun, 22 Nov 2020 12:00:00 GMT", "Retry-After": "Sun, 22 Nov 2020 12:00:30 GMT"}
    tiler = serve(mood=answering(status(503, dates)))
    waits, troubles = Waits(), []
    async with waits.client(on_trouble=troubles.append) as client:
        await get(client, url_of(tiler))
    assert [(trouble.kind, trouble.seconds) for trouble in troubles] == [("pause", 30)]


async def test_what_is_no_url_is_our_error():
    async with Client() as client:
        with pytest.raises(SourceError):
            await get(client, "http://[::1/3/4/5")


async def test_requests_in_flight_stay_below_the_limit(serve):
    tiler = serve(latency=0.02)
    async with Client(Pace(concurrency=7)) as client:
        await asyncio.gather(*(get(client, url_of(tiler, (8, x, 7))) for x in range(60)))
    assert tiler.peak_in_flight == 7


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"attempts": 0}, {"timeout": 0}, {"rate": 0}])
def test_numbers_that_cannot_be_are_usage_errors(options):
    with pytest.raises(UsageError):
        Client(Pace(**options))


@pytest.mark.parametrize(
    "body", [b'{"detail": ' + b"[" * 3000, b"\xff\xfe{", b"[1, 2]", b'{"detail": {"a": [1]}}', b"null"]
)
async def test_a_hostile_error_body_is_no_more_than_no_reason(serve, body):
    tiler = serve(mood=answering(status(400, {"Content-Type": "application/json"}, body)))
    async with Client() as client:
        with pytest.raises(RequestError, match="HTTP 400 Bad Request") as failure:
            await get(client, url_of(tiler))
    assert len(failure.value.message) < 300


async def test_an_empty_body_with_200_is_a_doubt_that_another_request_has_to_settle(serve):
    tiler = serve(mood=answering(status(200), status(200)))
    async with Waits().client() as client:
        found = await get(client, url_of(tiler))
    assert (found.body, found.empty, found.is_doubted, tiler.requests) == (b"", "no body", True, 1)


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
    assert scrub(url) == shown


async def test_a_pause_that_one_answer_asks_for_is_kept_by_all(serve):
    tiler = serve(mood=answering(status(503, {"Retry-After": "50"})))
    waits, troubles = Waits(), []
    async with waits.client(concurrency=1, on_trouble=troubles.append) as client:
        start = waits.now
        first = asyncio.ensure_future(get(client, url_of(tiler)))
        while not troubles:
            await asyncio.sleep(0.01)
        assert (await get(client, url_of(tiler, OTHER_TILE))).body
        assert waits.now >= start + 50
        await first
    assert [(trouble.kind, trouble.seconds) for trouble in troubles] == [("pause", 50)]


async def test_a_pause_of_a_year_is_cut_to_two_minutes_and_said(serve):
    tiler = serve(mood=answering(status(429, {"Retry-After": "31536000"})))
    waits, troubles = Waits(), []
    async with waits.client(on_trouble=troubles.append) as client:
        start = waits.now
        await get(client, url_of(tiler))
    assert 120 <= waits.now - start <= 122
    assert "31,536,000 s, which is too long" in troubles[0].reason


async def test_a_500_is_tried_three_times_at_most(serve):
    tiler = serve(mood=answering(*[status(500)] * 9))
    async with Waits().client(attempts=8) as client:
        with pytest.raises(RequestError) as failure:
            await get(client, url_of(tiler))
    assert tiler.requests == failure.value.attempts == 3
    assert failure.value.is_passing


async def test_two_refusals_in_a_row_end_the_run_and_one_does_not(serve):
    async def private(tile, hit):
        return web.Response(status=403) if tile in (TILE, OTHER_TILE) else None

    tiler = serve(mood=private)
    async with Client() as client:
        with pytest.raises(RequestError, match="403"):
            await get(client, url_of(tiler))
        await get(client, url_of(tiler, (3, 1, 1)))
        with pytest.raises(RequestError, match="403"):
            await get(client, url_of(tiler))
        with pytest.raises(SourceError, match="the server refuses: HTTP 403"):
            await get(client, url_of(tiler, OTHER_TILE))


async def test_a_body_that_fails_its_check_is_asked_for_once_more(serve):
    tiler = serve()
    seen = []

    def check(answer):
        seen.append(answer)
        raise TileError("not like the others")

    async with Waits().client() as client:
        with pytest.raises(RequestError, match="not like the others") as failure:
            async with client.get(url_of(tiler), check=check):
                pass
    assert tiler.requests == len(seen) == failure.value.attempts == 2
    assert not failure.value.is_passing


async def test_a_server_that_is_away_is_looked_for_by_one_request_at_a_time_until_it_is_back(serve):
    away = True

    async def restart(tile, hit):
        return web.Response(status=502) if away else None

    tiler = serve(mood=restart)
    waits, troubles = Waits(), []
    async with waits.client(concurrency=30, on_trouble=troubles.append) as client:
        tasks = [asyncio.ensure_future(get(client, url_of(tiler, (8, x, 7)))) for x in range(60)]
        while waits.now < 1300:
            await asyncio.sleep(0.001)
        asked = tiler.requests
        away = False
        answers = await asyncio.gather(*tasks)
    assert all(answer.body for answer in answers)
    assert asked < 60 + 20  # those under way when it went, and a look now and then
    assert [trouble.kind for trouble in troubles] == ["outage", "back"]


async def test_a_server_that_stays_away_ends_the_run(serve, unused_tcp_port):
    waits = Waits()
    async with waits.client(max_outage=100) as client:
        urls = [f"http://127.0.0.1:{unused_tcp_port}/8/{x}/7.tif" for x in range(30)]
        results = await asyncio.gather(*(get(client, url) for url in urls), return_exceptions=True)
    assert all(isinstance(error, SourceError) for error in results)
    assert "has been unavailable for" in str(results[0])
    assert waits.now >= 1000 + 100


async def test_retries_stop_when_most_answers_fail(serve):
    """A third of the server's load must not become retries: what is over is left for later."""

    async def flaky(tile, hit):
        return None if (tile[1] + hit) % 4 == 0 else web.Response(status=500)

    tiler = serve(mood=flaky)
    async with Waits().client(concurrency=8) as client:
        results = await asyncio.gather(
            *(get(client, url_of(tiler, (10, x, 7))) for x in range(400)), return_exceptions=True
        )
    given_up = [result for result in results if isinstance(result, RequestError)]
    assert any("too many recent retries" in result.message for result in given_up)
    assert all(result.is_passing for result in given_up)
    assert client.retries <= 100 + 400 / 5 + 100


async def test_auto_finds_out_what_the_server_can_do(serve):
    """Eight at a time are served, others wait: far more than that would only make the queue longer."""
    gate = {}

    async def eight_at_a_time(tile, hit):
        semaphore = gate.setdefault("semaphore", asyncio.Semaphore(8))
        async with semaphore:
            await asyncio.sleep(0.01)
        return web.Response(body=b"body")

    tiler = serve(mood=eight_at_a_time)
    async with Client(Pace(concurrency="auto")) as client:
        await asyncio.gather(*(get(client, url_of(tiler, (12, x, 7))) for x in range(600)))
        assert 8 <= client.level <= 32
    assert tiler.peak_in_flight <= 64


async def test_auto_goes_down_when_the_server_says_too_many(serve):
    async def strict(tile, hit):
        return web.Response(status=429) if tiler.in_flight > 4 else web.Response(body=b"body")

    tiler = serve(mood=strict, latency=0.005)
    async with Client(Pace(concurrency="auto", attempts=9), clock=Clock(sleep=lambda _: asyncio.sleep(0.01))) as client:
        results = await asyncio.gather(
            *(get(client, url_of(tiler, (12, x, 7))) for x in range(400)), return_exceptions=True
        )
        assert client.level <= 8
    assert sum(isinstance(result, RequestError) for result in results) < 20


async def test_headers_follow_no_redirect_to_a_host_that_is_allowed(serve):
    other = serve()
    target = url_of(other).replace("127.0.0.1", "localhost")
    tiler = serve(mood=answering(status(302, {"Location": target})))
    secrets = {"X-API-Key": "secret", "Authorization": "Bearer secret", "Cookie": "a=secret"}
    async with Client(headers=secrets, allow_hosts=["localhost"]) as client:
        assert (await get(client, url_of(tiler))).body
    assert tiler.headers_seen[0]["X-API-Key"] == "secret"
    assert "secret" not in str(other.headers_seen[0])
    assert other.headers_seen[0]["User-Agent"] == USER_AGENT


@pytest.mark.parametrize("location", ["file:///etc/passwd", "//127.0.0.1:99999/", "http://[", "/3/4/2.tif", ""])
async def test_a_redirect_to_nowhere_or_in_circles_is_refused(serve, location):
    tiler = serve(mood=answering(*[status(302, {"Location": location})] * 9))
    async with Client() as client:
        with pytest.raises(RequestError, match="redirect"):
            await get(client, url_of(tiler))
    assert tiler.requests <= 4


async def test_a_server_that_repeats_a_secret_does_not_get_it_into_the_error(serve):
    async def echo(tile, hit):
        return web.json_response({"detail": "the key hunter2hunter2 and Bearer abcdefgh are unknown"}, status=422)

    tiler = serve(mood=echo)
    async with Client(headers={"Authorization": "Bearer abcdefgh"}) as client:
        with pytest.raises(RequestError, match="are unknown") as failure:
            await get(client, url_of(tiler) + "?api_key=hunter2hunter2")
    assert "hunter2" not in failure.value.message
    assert "abcdefgh" not in failure.value.message


async def test_a_server_that_repeats_a_token_or_a_password_alone_does_not_get_it_into_the_error(serve):
    async def echo(tile, hit):
        return web.json_response({"detail": "neither abcdefgh nor hunter2hunter2 is known"}, status=422)

    tiler = serve(mood=echo)
    async with Client(headers={"Authorization": "Bearer abcdefgh"}) as client:
        with pytest.raises(RequestError, match="is known") as failure:
            await get(client, url_of(tiler).replace("http://", "http://me:hunter2hunter2@"))
    assert "hunter2" not in failure.value.message
    assert "abcdefgh" not in failure.value.message


async def test_a_header_goes_before_the_url_s_user_and_a_netrc(serve, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    tiler = serve()
    async with Client(headers={"authorization": "Bearer abcdefgh"}) as client:
        await get(client, url_of(tiler))
        await get(client, url_of(tiler).replace("http://", "http://me:hunter2hunter2@"))
    assert [headers["Authorization"] for headers in tiler.headers_seen] == ["Bearer abcdefgh"] * 2
    async with Client(headers={"X-Token": "t"}) as client:
        await get(client, url_of(tiler))
    assert tiler.headers_seen[-1]["Authorization"].startswith("Basic ")


async def test_an_endless_body_is_left_at_the_cap(serve):
    async def stream(tile, hit):
        return web.Response(body=chunks())

    async def chunks():
        while True:
            yield bytes(65536)

    tiler = serve(mood=stream)
    async with Client(max_body=1_000_000) as client:
        with pytest.raises(RequestError, match="larger than 1,000,000 bytes"):
            await get(client, url_of(tiler))


async def test_a_body_that_says_it_is_too_large_is_not_read(serve):
    tiler = serve(mood=answering(status(200, {}, bytes(300_000))))
    async with Client(max_body=200_000) as client:
        with pytest.raises(RequestError, match="larger than 200,000 bytes"):
            await get(client, url_of(tiler))
        assert client.bytes_received == 0
