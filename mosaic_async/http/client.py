"""A polite GET: a session with keep-alive, a permit per attempt, retries, pauses, outages, and a cap on every body.

It knows nothing of tiles: the caller decides what a body means. It returns an `Answer`, and raises a `RequestError`,
or a `SourceError` where no further request can succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from mosaic_async.errors import RequestError, SourceError
from mosaic_async.http.emptiness import EmptyRules
from mosaic_async.http.limits import AdaptiveLimit, Load, RateLimit, Slots
from mosaic_async.http.outcome import REFUSALS, Outcome
from mosaic_async.http.pace import MONOTONIC, USUAL_PACE, Clock, Pace
from mosaic_async.http.pacing import MAX_RETRY_AFTER, Breaker, Pause, RetryBudget, jitter
from mosaic_async.http.request import MAX_BODY, Answer, AttemptError, Check, Requester
from mosaic_async.http.retries import Retries
from mosaic_async.http.user_agent import USER_AGENT
from mosaic_async.http.wire import OnProof, Wire

__all__ = ["MAX_BODY", "USER_AGENT", "Answer", "Check", "Client", "Clock", "Pace", "Trouble"]


@dataclass(frozen=True)
class Trouble:
    """A change in how the server is doing."""

    kind: Literal["pause", "outage", "back"]
    """A pause that the server requests, the start of an outage, or its end."""
    seconds: float
    """Length of the pause that starts, or of the outage so far."""
    reason: str = ""


class Answering:
    """The block in which an answer's permit is held; a generator would cost as much as the rest of `get`."""

    def __init__(self, answer: Coroutine[Any, Any, Answer], permits: Slots) -> None:
        self._answer = answer
        self._permits = permits

    async def __aenter__(self) -> Answer:
        return await self._answer

    async def __aexit__(self, *_: object) -> None:
        self._permits.release()


class Client:
    """A polite HTTP client: `async with Client(...) as client`, then `async with client.get(url) as answer`.

    Args:
        pace: how hard to try.
        headers: sent with every request, but only to the origin of the requested URL.
        max_body: maximum bytes of a body, after decompression; a larger one fails the request.
        allow_hosts: hosts that redirects may lead to; no headers go there.
        on_retry: called before a wait with the URL, the failed attempt (from 1), the reason, and the seconds to wait.
        on_trouble: called when the server requests a pause, becomes unavailable, or returns.
        on_proof: called with the number of a connection, and that of the last answer that it has proved.
        clock: for waits and pauses.
    """

    def __init__(
        self,
        pace: Pace = USUAL_PACE,
        *,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
        allow_hosts: Collection[str] = (),
        on_retry: Callable[[str, int, str, float], None] | None = None,
        on_trouble: Callable[[Trouble], None] | None = None,
        on_proof: OnProof | None = None,
        clock: Clock = MONOTONIC,
    ) -> None:
        cap = pace.in_flight
        self._requester = Requester(
            connections=cap,
            timeout=pace.timeout,
            headers=headers or {},
            max_body=max_body,
            allow_hosts=allow_hosts,
            on_proof=on_proof,
        )
        self._permits = Slots(cap)
        self._limit = AdaptiveLimit(cap) if pace.concurrency == "auto" else None
        self._slots = Slots(self._limit.level if self._limit else cap)
        self._rate = RateLimit(pace.rate)
        self._attempts = pace.attempts
        self._on_retry = on_retry
        self._on_trouble = on_trouble
        self._clock = clock
        self._pause = Pause(clock.now)
        self._budget = RetryBudget()
        self._breaker = Breaker(pace.max_outage, clock.now)
        self.requests = 0
        """Attempts so far, retries included."""
        self.retries = 0

    async def __aenter__(self) -> Self:
        await self._requester.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._requester.__aexit__(kind, error, trace)

    @property
    def bytes_received(self) -> int:
        """Bytes of complete bodies, after decompression."""
        return self._requester.bytes_received

    def limit_body(self, nbytes: int) -> None:
        """Set the cap on bodies, once their size is known."""
        self._requester.max_body = nbytes

    def call_empty(self, rules: EmptyRules) -> None:
        """Set which answers have no data, beside those that always have none."""
        self._requester.rules = rules

    @property
    def level(self) -> int:
        """Maximum requests in flight at this moment."""
        return self._slots.limit

    @property
    def in_flight(self) -> int:
        """Requests in flight at this moment."""
        return self._slots.taken

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold one of the `concurrency` permits without a request."""
        await self._permits.acquire()
        try:
            yield
        finally:
            self._permits.release()

    def get(
        self, url: str, *, check: Check | None = None, attempts: int | None = None, label: Hashable = None
    ) -> Answering:
        """Request `url` until there is an answer; the permit of the last attempt is held until the block ends.

        A caller that hands the body on inside the block so keeps at most `concurrency` bodies outside of queues. A URL
        that backs off holds no permit.

        Args:
            url: what to request.
            check: examines an answer with a body; if it raises a `TileError`, the URL is requested once more.
            attempts: replaces the client's.
            label: what `take_doubtful` returns if the answer may belong to another request.

        Raises:
            RequestError: the server refused, or the last attempt failed.
            SourceError: the server refuses everything, stays unavailable, or cannot be trusted.
        """
        attempt = partial(self._attempt, url, check, label)
        return Answering(self._answer(attempt, url, attempts or self._attempts), self._permits)

    async def _answer(self, attempt: Callable[[], Awaitable[Answer]], url: str, attempts: int) -> Answer:
        """Attempt until there is an answer, and return with a permit held."""
        try:
            answer = await attempt()
        except AttemptError as failure:
            return await self._retry(attempt, url, attempts, failure)
        self._budget.earn(0.0)
        return answer

    async def _retry(
        self, attempt: Callable[[], Awaitable[Answer]], url: str, attempts: int, first: AttemptError
    ) -> Answer:
        """Retry after a failed first attempt; each URL has its own counts."""
        retries = Retries(attempts, self._budget)

        def on_retry(number: int, reason: str, wait: float) -> None:
            self.retries += 1
            if self._on_retry is not None:
                self._on_retry(url, number, reason, wait)

        try:
            answer = await retries.run(first, attempt, sleep=self._clock.sleep, on_retry=on_retry)
        except AttemptError as failure:
            raise _failed(failure, retries) from failure.__cause__
        self._budget.earn(retries.paid)
        return replace(answer, attempts=retries.failed + 1)

    async def _attempt(self, url: str, check: Check | None, label: Hashable) -> Answer:
        """Make one attempt; a probe that finds the server still unavailable does not count."""
        for wire in self._requester.wires.take_full():
            await self._farewell(wire)
        while True:
            is_probe = False if self._enter_at_once() else await self._enter()
            try:
                return await self._under_permit(url, check, label, is_probe=is_probe)
            except AttemptError as error:
                if not (is_probe and error.is_outage and not error.is_timeout):
                    raise

    def _enter_at_once(self) -> bool:
        """Take a permit if nothing stands in the way, and return whether it did."""
        if self._pause.left() or self._breaker.is_open or not self._slots.take():
            return False
        if self._permits.take():
            return True
        self._slots.release()
        return False

    async def _enter(self) -> bool:
        """Wait out pauses and outages, take a permit, and return whether this request probes for the server."""
        while True:
            if left := self._pause.left():
                await self._clock.sleep(left + jitter(min(1, left)))
            elif self._breaker.is_hopeless:
                raise SourceError(
                    f"the server has been unavailable for {self._breaker.lasted:,.0f} seconds",
                    hint="all tiles so far are kept; re-run when the server returns, or raise ``max_outage``",
                )
            elif self._breaker.is_open and not self._breaker.take_probe():
                await self._clock.sleep(self._breaker.wait())
            else:
                is_probe = self._breaker.is_open
                try:
                    await self._take_permit()
                except BaseException:
                    self._breaker.drop_probe()
                    raise
                if is_probe or not (self._pause.left() or self._breaker.is_open):
                    return is_probe
                self._give_permit()

    async def prove(self) -> None:
        """Have every answer so far either proved to belong to its request, or returned by `take_doubtful`.

        This makes one request per connection that has several answers, if they are not proved, and waits up to a second
        for connections that have one. Call it while no other request is open.
        """
        async with asyncio.TaskGroup() as tasks:
            for wire in self._requester.wires.unproved():
                tasks.create_task(self._farewell(wire))
        await self._requester.wires.hear_out()

    def take_doubtful(self) -> set[Hashable]:
        """Return the labels of the answers that became doubtful since the last call; request these URLs again."""
        return self._requester.wires.take_doubtful()

    def take_doubted(self) -> set[int]:
        """Return the connections of these answers, by the numbers that `Answer.arrival` has."""
        return self._requester.wires.take_doubted()

    async def _farewell(self, wire: Wire) -> None:
        is_probe = await self._enter()
        try:
            await self._rate.wait()
            self.requests += 1
            await self._requester.farewell(wire)
        finally:
            if is_probe:
                self._breaker.drop_probe()
            self._give_permit()

    async def _take_permit(self) -> None:
        await self._slots.acquire()
        try:
            await self._permits.acquire()
        except BaseException:
            self._slots.release()
            raise

    def _give_permit(self) -> None:
        self._permits.release()
        self._slots.release()

    async def _under_permit(self, url: str, check: Check | None, label: Hashable, *, is_probe: bool) -> Answer:
        """Make one request under a permit; keep the permit only if there is an answer."""
        started = self._clock.now()
        try:
            await self._rate.wait()
            self.requests += 1
            sent = self._clock.now()
            answer = await self._requester.fetch(url, check, label)
        except AttemptError as failure:
            self._permits.release()
            self._note_end(failure, started, is_probe=is_probe)
            if failure.outcome is Outcome.END:
                raise _ended(failure) from failure.__cause__
            raise
        except BaseException:
            self._permits.release()
            if is_probe:
                self._breaker.drop_probe()
            raise
        else:
            self._note_end(None, started, is_probe=is_probe)
            return replace(answer, seconds=self._clock.now() - sent)
        finally:
            self._slots.release()

    def _note_end(self, failure: AttemptError | None, started: float, *, is_probe: bool) -> None:
        """Report to the breaker, the pause, and the limit how an attempt ended."""
        self._note_breaker(failure, is_probe=is_probe)
        if failure is not None and failure.is_retried and failure.retry_after is not None:
            self._note_pause(failure, failure.retry_after)
        if self._limit is not None:
            now = self._clock.now()
            self._limit.on_done(now, now - started, _load(failure))
            self._slots.resize(self._limit.level)

    def _note_pause(self, failure: AttemptError, seconds: float) -> None:
        """Apply the pause that one answer requests to all requests."""
        pause = min(seconds, MAX_RETRY_AFTER)
        if self._pause.extend(pause):
            too_long = ", which is too long" if pause < seconds else ""
            self._tell(Trouble("pause", pause, f"HTTP {failure.status}, Retry-After: {seconds:,.0f} s{too_long}"))

    def _note_breaker(self, failure: AttemptError | None, *, is_probe: bool) -> None:
        if failure is not None and failure.is_outage:
            if self._breaker.note_failure(is_probe=is_probe):
                self._tell(Trouble("outage", self._breaker.lasted, failure.reason))
            return
        if self._breaker.is_open:
            self._tell(Trouble("back", self._breaker.lasted))
        self._breaker.note_success()

    def _tell(self, trouble: Trouble) -> None:
        if self._on_trouble is not None:
            self._on_trouble(trouble)


def _failed(failure: AttemptError, retries: Retries) -> RequestError:
    """Return the error of a URL that gets no further attempt."""
    reason = failure.reason + (
        "; too many recent retries, so it is not retried now" if retries.is_out_of_budget else ""
    )
    return RequestError(
        reason,
        status=failure.status,
        attempts=retries.failed,
        is_passing=failure.is_passing,
        hint=failure.hint,
    )


def _ended(failure: AttemptError) -> SourceError:
    """Return the error that ends the run, where every other request would fail too."""
    if failure.status in REFUSALS:
        return SourceError(f"the server refuses: {failure.reason}", hint="check the token or the headers")
    return SourceError(f"the source cannot be reached: {failure.reason}", hint=failure.hint or "check the URL")


def _load(failure: AttemptError | None) -> Load:
    """Return what an attempt reveals of the server's load; a timeout is a sign of overload."""
    if failure is None:
        return "ok"
    return "throttle" if failure.outcome is Outcome.THROTTLE or failure.is_timeout else "fail"
