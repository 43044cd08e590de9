"""The gate, around applications that hang, sleep and never read: deadlines, lanes, clients that go."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from mosaic_async.tiler.edge.doorman import Doorman
from mosaic_async.tiler.edge.gate import Gate, Traffic, enter_lane
from mosaic_async.tiler.ticket import AbandonedError, check_ticket, held


class Client:
    """An ASGI client that may go before the response."""

    def __init__(self, app, path="/", method="GET", headers=(), body=b"", query=b""):
        self.app = app
        self.scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers], "http_version": "1.1",
            "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        self.body = body
        self.gone = asyncio.Event()
        self.messages: list[dict] = []

    async def receive(self):
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.messages.append(message)

    async def run(self):
        await self.app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.messages[0]["status"] if self.messages else None

    @property
    def detail(self):
        return json.loads(b"".join(message.get("body", b"") for message in self.messages[1:]))["detail"]


class Work:
    """An application whose work runs in a thread, in steps, as tiles do."""

    def __init__(self, *, steps=10_000, is_plain=True):
        self.steps = steps
        self.is_plain = is_plain
        self.ended = asyncio.Event()
        self.done = 0

    def work(self):
        for _ in range(self.steps):
            check_ticket()
            time.sleep(0.01)
            self.done += 1

    async def __call__(self, scope, receive, send):
        await enter_lane(is_plain=self.is_plain)
        try:
            await run_in_threadpool(self.work)
        finally:
            self.ended.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"whole"})


async def test_a_request_ends_at_its_deadline_and_its_work_with_it():
    work = Work()
    client = await Client(Gate(work, traffic=Traffic(), deadline=0.2)).run()
    assert client.status == 504
    assert "deadline of 0.2 seconds" in client.detail
    assert work.ended.is_set()
    assert work.done < work.steps


async def test_work_that_notices_the_deadline_first_has_the_same_answer():
    async def first(scope, receive, send):
        await enter_lane(is_plain=True)
        raise AbandonedError

    assert (await Client(Gate(first, traffic=Traffic(), deadline=60)).run()).status == 504


async def test_work_stops_when_the_client_has_gone():
    work = Work()
    client = Client(Gate(work, traffic=Traffic(), deadline=60))
    running = asyncio.ensure_future(client.run())
    while work.done < 3:
        await asyncio.sleep(0.01)
    client.gone.set()
    await asyncio.wait_for(running, 10)
    assert work.ended.is_set()
    assert client.status is None


async def test_plain_requests_do_not_wait_for_dear_ones():
    traffic = Traffic()
    dear, plain = Work(is_plain=False), Work(steps=2)
    clients = [Client(Gate(dear, traffic=traffic, deadline=60)) for _ in range(20)]
    running = [asyncio.ensure_future(client.run()) for client in clients]
    while not dear.done:
        await asyncio.sleep(0.01)
    assert (await asyncio.wait_for(Client(Gate(plain, traffic=traffic, deadline=60)).run(), 10)).status == 200
    for client in clients:
        client.gone.set()
    await asyncio.wait_for(asyncio.gather(*running), 20)


async def test_a_request_that_never_gets_a_place_is_told_to_retry():
    traffic = Traffic()
    work = Work(is_plain=False)
    first = Client(Gate(work, traffic=traffic, deadline=60))
    running = asyncio.ensure_future(first.run())
    while not work.done:
        await asyncio.sleep(0.01)
    second = await Client(Gate(work, traffic=traffic, deadline=0.2)).run()
    assert second.status == 503
    assert (b"retry-after", b"5") in second.messages[0]["headers"]
    first.gone.set()
    await running
    third = await Client(Gate(Work(steps=1, is_plain=False), traffic=traffic, deadline=60)).run()
    assert third.status == 200  # the place is free again


async def test_waiting_for_a_place_costs_nothing_of_the_deadline():
    traffic = Traffic()
    long, short = Work(steps=150, is_plain=False), Work(steps=1, is_plain=False)
    first = asyncio.ensure_future(Client(Gate(long, traffic=traffic, deadline=60)).run())
    while not long.done:
        await asyncio.sleep(0.01)
    second = await Client(Gate(short, traffic=traffic, deadline=1, patience=60)).run()
    assert (await first).status == second.status == 200
    third = await Client(Gate(Work(), traffic=traffic, deadline=0.2, patience=60)).run()
    assert third.status == 504


async def test_work_that_never_checks_is_overdue_and_the_client_has_its_answer():
    traffic, release = Traffic(), threading.Event()

    async def stuck(scope, receive, send):
        await enter_lane(is_plain=True)
        await run_in_threadpool(release.wait)

    client = Client(Gate(stuck, traffic=traffic, deadline=0.1))
    running = asyncio.ensure_future(client.run())
    while traffic.overdue() < 0.2:
        await asyncio.sleep(0.02)
    assert client.status == 504
    release.set()
    await running
    assert traffic.overdue() == 0


async def test_a_client_that_never_reads_is_cut_off_and_holds_no_place():
    traffic = Traffic()

    async def whole(scope, receive, send):
        await enter_lane(is_plain=False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"much"})

    slow = Client(Gate(whole, traffic=traffic, deadline=0.3))
    answered = asyncio.Event()

    async def never(message):
        answered.set()
        await asyncio.Event().wait()

    slow.send = never
    running = asyncio.ensure_future(slow.run())
    await answered.wait()
    assert (await Client(Gate(Work(steps=1, is_plain=False), traffic=traffic, deadline=60)).run()).status == 200
    await asyncio.wait_for(running, 10)


async def test_a_body_that_never_ends_or_is_too_large_is_refused():
    app = Gate(Work(steps=1), traffic=Traffic(), deadline=0.2)
    slow = Client(app, method="POST")
    slow.body = None
    assert (await slow.run()).status == 408
    assert (await Client(app, method="POST", body=b"x" * 2**23).run()).status == 413
    gone = Client(app, method="POST")
    gone.body = None
    gone.gone.set()
    assert (await gone.run()).status is None


async def test_an_error_of_the_application_leaves_the_gate_as_it_is():
    async def broken(scope, receive, send):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        await Client(Gate(broken, traffic=Traffic(), deadline=60)).run()


async def test_waiting_for_a_semaphore_ends_with_the_ticket():
    semaphore = threading.BoundedSemaphore(1)

    async def waiting(scope, receive, send):
        await enter_lane(is_plain=True)

        def work():
            with held(semaphore):
                pytest.fail("it is held by the test")

        with pytest.raises(AbandonedError):
            await run_in_threadpool(work)

    with semaphore:
        assert (await Client(Gate(waiting, traffic=Traffic(), deadline=0.2)).run()).status == 504


@asynccontextmanager
async def answering():
    app = FastAPI()

    @app.get("/")
    def root():
        return {}

    yield app


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:8000"}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "LOCALHOST:80"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "192.168.7.7:8000"}, 200),
        ({"Host": "tiles.example"}, 200),
        ({"Host": "rebound.example"}, 400),
        ({"Host": "127.0.0.1.rebound.example"}, 400),
        ({"Host": "localhost.rebound.example"}, 400),
        ({"Host": "a@rebound.example"}, 400),
        ({"Host": "[::1"}, 400),
        ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, 200),
        ({"Host": "127.0.0.1:8000", "Origin": "https://map.example"}, 200),
        ({"Host": "127.0.0.1:8000", "Origin": "https://other.example"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:9000"}, 403),
        ({"Host": "127.0.0.1:8000", "Origin": "null"}, 403),
    ],
)
async def test_hosts_and_origins_are_closed_but_for_those_that_are_named(headers, status):
    async with answering() as app:
        door = Doorman(app, hosts=["tiles.example"], origins=["https://map.example"], secret=None)
        assert (await Client(door, headers=headers.items()).run()).status == status


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (b"access_token=word", 200),
        (b"", 403),
        (b"access_token=", 403),
        (b"access_token=wor", 403),
        (b"access_token=word&access_token=x", 403),
    ],
)
async def test_a_secret_is_required_where_there_is_one(query, status):
    async with answering() as app:
        door = Doorman(app, hosts=[], origins=[], secret="word")
        assert (await Client(door, query=query).run()).status == status
