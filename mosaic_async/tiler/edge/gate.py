"""The gate of a tiler process: every request passes it, waits for its lane, has a deadline, and stops with its client.

Plain requests run next to each other; dear ones run one at a time, so that plain ones never wait for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mosaic_async.tiler.ticket import TICKET, AbandonedError, Ticket

_PLAIN = 8
"""Plain requests at once in a process: more would need more memory, and would not be faster."""
_DEAR = 1
_MAX_BODY = 2**22
"""Bytes of a request; a search with a detailed geometry has some 100 KB."""


class Traffic:
    """The requests that a process serves: two lanes, and who is in them."""

    def __init__(self) -> None:
        """Create empty lanes."""
        self.plain = asyncio.Semaphore(_PLAIN)
        self.dear = asyncio.Semaphore(_DEAR)
        self._visits: set[Visit] = set()

    @contextmanager
    def listing(self, visit: Visit) -> Iterator[None]:
        """List a request while it is served."""
        self._visits.add(visit)
        try:
            yield
        finally:
            self._visits.discard(visit)

    def overdue(self) -> float:
        """Return by how many seconds the work of the slowest request exceeds its deadline; also from other threads."""
        return max((-visit.ticket.remaining for visit in tuple(self._visits) if visit.is_inside), default=0.0)


class Visit:
    """One request while it is served: its ticket, and its place in a lane."""

    def __init__(self, traffic: Traffic, *, deadline: float, patience: float) -> None:
        """Start the clock.

        Args:
            traffic: the lanes.
            deadline: seconds from a place in a lane to the end of the response.
            patience: seconds to wait for a place.
        """
        self.ticket = Ticket(patience)
        self.clock = asyncio.timeout(patience)
        """The clock of the task that waits for the end; it follows the ticket."""
        self._deadline = deadline
        self._traffic = traffic
        self._lane: asyncio.Semaphore | None = None
        self.has_entered = False
        """Whether the request has, or had, a place in a lane."""

    @property
    def is_inside(self) -> bool:
        """Whether the request has a place in a lane: its work may run."""
        return self._lane is not None

    async def enter(self, *, is_plain: bool) -> None:
        """Wait for a place in a lane.

        Raises:
            AbandonedError: nobody waits for the response any more.
        """
        lane = self._traffic.plain if is_plain else self._traffic.dear
        await lane.acquire()
        self._lane = lane
        self.has_entered = True
        if self.clock.expired():
            raise AbandonedError
        self.ticket.check()
        self.ticket.restart(self._deadline)
        self.clock.reschedule(asyncio.get_running_loop().time() + self._deadline)

    def leave(self) -> None:
        """Free the place for the next request; the response may still be on its way."""
        if self._lane is not None:
            self._lane.release()
            self._lane = None


VISIT: ContextVar[Visit | None] = ContextVar("VISIT", default=None)
"""The request that this code serves."""


async def enter_lane(*, is_plain: bool) -> None:
    """Wait for a place in a lane; without a gate, continue at once."""
    if (visit := VISIT.get()) is not None:
        await visit.enter(is_plain=is_plain)


class _Exit:
    """The way of a response to the client, which the gate can close."""

    def __init__(self, send: Send, visit: Visit) -> None:
        self._send = send
        self._visit = visit
        self._is_closed = False
        self.has_started = False

    async def send(self, message: Message) -> None:
        self._visit.leave()
        if not self._is_closed:
            self.has_started = True
            await self._send(message)

    async def refuse(self, scope: Scope, receive: Receive, status: int, reason: str) -> None:
        """Answer instead of the application, unless it has started to."""
        self._is_closed = True
        if not self.has_started:
            headers = {"Retry-After": "5"} if status == 503 else None
            response = JSONResponse({"detail": reason}, status_code=status, headers=headers)
            await response(scope, receive, self._send)


class Gate:
    """Serves requests within their deadline, and stops the work of those whose client has gone."""

    def __init__(self, app: ASGIApp, *, traffic: Traffic, deadline: float, patience: float | None = None) -> None:
        """Wrap an application.

        Args:
            app: the application.
            traffic: the lanes of this process.
            deadline: seconds that a request may take once it has a place in a lane, and its body before that.
            patience: seconds to wait for a place; None: as many.
        """
        self._app = app
        self._traffic = traffic
        self._deadline = deadline
        self._patience = deadline if patience is None else patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        visit = Visit(self._traffic, deadline=self._deadline, patience=self._patience)
        exit_ = _Exit(send, visit)
        try:
            async with asyncio.timeout(self._deadline):
                body = await _body(scope, receive)
        except TimeoutError:
            await exit_.refuse(scope, receive, 408, f"the request was not complete after {self._deadline:g} seconds")
        except _TooLargeError:
            await exit_.refuse(scope, receive, 413, f"the body is too large: the limit is {_MAX_BODY:,} bytes")
        else:
            if body is not None:
                with self._traffic.listing(visit):
                    await self._serve(scope, receive, visit, exit_, body)

    async def _serve(self, scope: Scope, receive: Receive, visit: Visit, exit_: _Exit, body: bytes) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(self._work(scope, visit, exit_, body))
                gone = tasks.create_task(_until_gone(receive))
                with suppress(TimeoutError):
                    async with visit.clock:
                        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
                visit.ticket.abandon()
                if not gone.done():
                    await self._end(scope, receive, visit, exit_, is_done=work.done())
                if not visit.is_inside:  # a thread that works stops at its next check; its place is taken until then
                    work.cancel()
                gone.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _end(self, scope: Scope, receive: Receive, visit: Visit, exit_: _Exit, *, is_done: bool) -> None:
        """Answer a request that has no response: its deadline is over, or its work noticed that first."""
        if is_done and exit_.has_started:
            return
        if visit.has_entered:
            reason = f"the request takes longer than the deadline of {self._deadline:g} seconds: request less at once"
            await exit_.refuse(scope, receive, 504, reason)
        else:
            await exit_.refuse(scope, receive, 503, f"all workers are busy for {self._patience:g} seconds: retry later")

    async def _work(self, scope: Scope, visit: Visit, exit_: _Exit, body: bytes) -> None:
        TICKET.set(visit.ticket)
        VISIT.set(visit)
        try:
            with suppress(AbandonedError):
                await self._app(scope, _replay(body), exit_.send)
        finally:
            visit.leave()


class _TooLargeError(Exception):
    """The body of a request is too large."""


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """Return the body; None if the client goes before its end. A GET has none: what comes is read and dropped later."""
    if scope["method"] in ("GET", "HEAD"):
        return b""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > _MAX_BODY:
            raise _TooLargeError
        if not message.get("more_body"):
            return body


def _replay(body: bytes) -> Receive:
    """Return a `receive` that yields a body that is read already, and then waits."""
    messages: Iterable[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    waiting = iter(messages)

    async def receive() -> Message:
        for message in waiting:
            return message
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


async def _until_gone(receive: Receive) -> None:
    with suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
