"""Requests are spaced evenly, and as many at once as the server can do."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from mosaic_async.errors import UsageError
from mosaic_async.http.deadlines import Deadlines
from mosaic_async.http.limits import AdaptiveLimit, RateLimit, Slots
from tests.http.limiter_simulator import CAP, Server, simulate


def test_starts_are_spaced_by_one_over_the_rate():
    now = [100.0]
    limit = RateLimit(4, clock=lambda: now[0])
    assert [limit.reserve() for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    now[0] += 10
    assert [limit.reserve() for _ in range(2)] == [0, 0.25]


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_not_above_zero_is_a_usage_error(rate):
    with pytest.raises(UsageError):
        RateLimit(rate)


async def test_no_rate_never_waits():
    limit = RateLimit(None)
    for _ in range(1000):
        await limit.wait()
    assert limit.reserve() == 0


def even(mean):
    return lambda chance: chance.uniform(0.8, 1.2) * mean


def heavy(mean):
    """Return lognormal times: a few take ten times as long."""
    return lambda chance: chance.lognormvariate(math.log(mean) - 0.5, 1.0)


def mixed(chance):
    return 30.0 if chance.random() < 0.1 else chance.uniform(0.3, 0.7)


SCENARIOS = {
    "a queue": Server(32, even(0.5)),
    "a queue, a heavy tail": Server(32, heavy(0.6)),
    "a server that thrashes": Server(32, even(0.5), thrashes=True),
    "429 above 40, a heavy tail": Server(40, heavy(0.6), rejects=True),
    "tiles of half a minute": Server(64, even(30)),
    "one in ten takes half a minute": Server(64, mixed),
    "429 above 64, tiles of half a minute": Server(64, even(30), rejects=True),
    "no limit": Server(10_000, even(0.5)),
}


@pytest.mark.quick(8)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_limit_that_is_found_uses_the_server_well_and_does_not_flood_it(name, seed):
    server = SCENARIOS[name]
    found = simulate(server, 20_000, seed)
    assert found.goodput >= 0.6 * server.ideal(), found
    assert found.rejects <= 0.1, found
    assert found.most <= CAP
    if name in ("a queue", "a server that thrashes", "tiles of half a minute"):  # times without a tail: no long queue
        assert found.level <= 2 * server.slots, found


def test_the_limit_is_never_above_its_cap_nor_below_one():
    limit = AdaptiveLimit(20)
    now = 0.0
    chance = random.Random(3)
    for _ in range(20_000):
        now += chance.expovariate(100)
        limit.on_done(now, 0.1, chance.choice(("ok", "ok", "ok", "throttle", "fail")))
        assert 1 <= limit.level <= 20


def test_a_limit_that_shrank_comes_back():
    limit, now = AdaptiveLimit(100), 0.0
    for _ in range(50):
        now += 1
        limit.on_done(now, 0.1, "throttle")
    assert limit.level == 1
    for _ in range(2000):
        now += 0.01
        limit.on_done(now, 0.1, "ok")
    assert limit.level > 30


def test_those_that_were_under_way_do_not_shrink_the_limit_again():
    limit = AdaptiveLimit(100)
    limit.on_done(1.0, 0.5, "ok")
    before = limit.level
    for i in range(20):
        limit.on_done(1.1 + i / 100, 0.5, "throttle")
    assert limit.level == int(before * 0.7)


async def test_slots_are_given_in_turn_and_none_is_lost_when_a_waiter_is_cancelled():
    slots, order = Slots(1), []

    async def take(name):
        await slots.acquire()
        order.append(name)

    await slots.acquire()
    first, second, third = (asyncio.ensure_future(take(name)) for name in "abc")
    await asyncio.sleep(0)
    slots.release()  # wakes the first ...
    first.cancel()  # ... which is gone before it runs
    await asyncio.gather(first, return_exceptions=True)
    await second
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    slots.release()
    await asyncio.wait_for(slots.acquire(), 1)
    assert order == ["b"]


async def test_more_slots_wake_those_that_wait_and_fewer_take_none_away():
    slots = Slots(1)
    await slots.acquire()
    waiting = [asyncio.ensure_future(slots.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    slots.resize(3)
    await asyncio.wait(waiting[:2], timeout=1)
    assert [task.done() for task in waiting] == [True, True, False]
    slots.resize(1)
    slots.release()
    slots.release()
    await asyncio.sleep(0)
    assert not waiting[2].done()
    slots.release()
    await asyncio.wait_for(waiting[2], 1)


async def test_attempts_end_when_their_time_is_over_and_others_go_on():
    deadlines = Deadlines(0.05)

    async def attempt(seconds: float) -> str:
        try:
            with deadlines.attempt():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "over"
        return "in time"

    assert await asyncio.gather(attempt(5), attempt(0), attempt(0.01), attempt(9)) == [
        "over",
        "in time",
        "in time",
        "over",
    ]
    assert await attempt(5) == "over"
    deadlines.close()


async def test_a_cancelled_attempt_is_cancelled_and_no_timeout():
    deadlines = Deadlines(5)

    async def attempt() -> None:
        with deadlines.attempt():
            await asyncio.sleep(9)

    task = asyncio.ensure_future(attempt())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadlines.close()


async def test_an_error_in_an_attempt_stays_what_it_is():
    deadlines = Deadlines(5)
    with pytest.raises(ZeroDivisionError), deadlines.attempt():
        raise ZeroDivisionError
    deadlines.close()
