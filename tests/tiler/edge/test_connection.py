"""Clients that never finish a request do not keep their connection; others keep it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from mosaic_async.tiler.edge import connection
from mosaic_async.tiler.edge.connection import ImpatientProtocol

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def app(scope, receive, send):
    await asyncio.sleep(1.0 if scope["path"] == "/slow" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(monkeypatch):
    monkeypatch.setattr(connection, "_PATIENCE", 0.3)
    config = uvicorn.Config(app, port=0, http=ImpatientProtocol, ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    running = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


@pytest.mark.parametrize("start", [b"", b"GET", b"GET / HTTP/1.1\r\nX: ", REQUEST, REQUEST + b"GET / HT"])
async def test_a_connection_without_a_whole_request_is_closed(start, monkeypatch):
    async with serving(monkeypatch) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        if start.startswith(REQUEST):
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionError):  # a reset is an end too
            assert await reader.read() == b""
        writer.close()


async def test_a_response_that_takes_longer_is_not_cut_and_the_connection_serves_on(monkeypatch):
    async with serving(monkeypatch) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in (b"/slow", b"/", b"/slow"):
            writer.write(REQUEST.replace(b"/ ", path + b" "))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert await reader.readexactly(2) == b"ok"
        writer.close()
