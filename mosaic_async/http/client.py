"""One GET well done: a session with keep-alive, a permit per attempt, backoff, pauses and a cap on every body.

It knows nothing of tiles: what an answer's body means is the caller's business. Exceptions of aiohttp end here; what
leaves is an `Answer`, a `RequestError`, or a `SourceError` where asking on is pointless.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from mosaic_async.errors import RequestError, SourceError, UsageError
from mosaic_async.http.limits import AUTO_CAP, AdaptiveLimit, Concurrency, Load, RateLimit, Slots
from mosaic_async.http.outcome import REFUSALS, Outcome, attempts_at
from mosaic_async.http.pacing import MAX_RETRY_AFTER, Breaker, Pause, RetryBudget
from mosaic_async.http.request import MAX_BODY, USER_AGENT, Answer, AttemptError, Check, Requester
from mosaic_async.redaction import redact

__all__ = ["MAX_BODY", "MAX_OUTAGE", "USER_AGENT", "Answer", "Check", "Client", "Trouble", "redact"]

MAX_OUTAGE = 900.0
"""Seconds that a server may be away."""
_MAX_BAD_BODIES = 2
"""Of one URL: what is wrong twice is wrong."""
_backoff = wait_random_exponential(multiplier=0.5, max=20)
_throttled_backoff = wait_random_exponential(multiplier=1, max=60)


@dataclass(frozen=True)
class Trouble:
    """What the server's state made the client do."""

    kind: Literal["pause", "outage", "back"]
    """A pause that it asks for, the begin of an outage, or its end."""
    seconds: float
    """How long the pause will be, or how long the outage has been."""
    reason: str = ""


class Client:
    """A polite HTTP client: `async with Client(...) as client`, then `async with client.get(url) as answer`.

    Args:
        concurrency: requests in flight at most; "auto" looks for what the server can do, up to 256.
        rate: requests a second; None does not limit.
        attempts: tries a URL, the first included; a 500 gets 3 at most, a body that fails its check 2.
        timeout: seconds an attempt may take, from connecting to the last byte.
        headers: sent with every request, but only to the origin of the URL that is asked for.
        max_body: bytes of a body, after decompression; more fails the request.
        max_outage: seconds that the server may be away before that is a `SourceError`.
        allow_hosts: hosts that redirects may lead to; no headers go there.
        on_retry: called before a wait with the URL, the attempt that failed (from 1), the reason, the seconds to wait.
        on_trouble: called when the server asks for a pause, goes away or comes back.
        sleep: replaced in tests.
        clock: seconds that never go back; replaced in tests.

    Raises:
        UsageError: a number that cannot be.
    """

    def __init__(
        self,
        *,
        concurrency: Concurrency = 50,
        rate: float | None = None,
        attempts: int = 5,
        timeout: float = 120.0,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
        max_outage: float = MAX_OUTAGE,
        allow_hosts: Collection[str] = (),
        on_retry: Callable[[str, int, str, float], None] | None = None,
        on_trouble: Callable[[Trouble], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        cap = AUTO_CAP if concurrency == "auto" else concurrency
        numbers = (("concurrency", cap), ("attempts", attempts), ("timeout", timeout), ("max_outage", max_outage))
        for name, value in numbers:
            if not value > 0:
                raise UsageError(f"{name} must be above 0, got {value}")
        self._requester = Requester(
            connections=cap, timeout=timeout, headers=headers or {}, max_body=max_body, allow_hosts=allow_hosts
        )
        self._permits = asyncio.Semaphore(cap)
        self._limit = AdaptiveLimit(cap) if concurrency == "auto" else None
        self._slots = Slots(self._limit.level if self._limit else cap)
        self._rate = RateLimit(rate)
        self._attempts = attempts
        self._on_retry = on_retry
        self._on_trouble = on_trouble
        self._sleep = sleep
        self._clock = clock
        self._pause = Pause(clock)
        self._budget = RetryBudget()
        self._breaker = Breaker(max_outage, clock)
        self.requests = 0
        """Attempts made, retries included."""
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
        """Bytes of whole bodies, after decompression."""
        return self._requester.bytes_received

    def limit_body(self, nbytes: int) -> None:
        """Lower the cap on bodies, as soon as it is known what is to come."""
        self._requester.max_body = nbytes

    @property
    def level(self) -> int:
        """Requests in flight that are let through now."""
        return self._slots.limit

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold one of the `concurrency` permits without asking for anything."""
        async with self._permits:
            yield

    @asynccontextmanager
    async def get(self, url: str, *, check: Check | None = None, attempts: int | None = None) -> AsyncIterator[Answer]:
        """Ask for `url` until there is an answer; the permit of the last attempt is held until the block is left.

        So whoever hands the body on inside the block keeps at most `concurrency` bodies outside of queues. A URL that
        backs off holds no permit.

        Args:
            url: what to ask for.
            check: looks at an answer with a body; what it raises a `TileError` for is asked for once more.
            attempts: instead of the client's.

        Raises:
            RequestError: refused, or still failing after the last attempt.
            SourceError: the server refuses everything, is away for too long, or cannot be trusted.
        """
        answer = await self._answer(url, check, attempts or self._attempts)
        try:
            yield answer
        finally:
            self._permits.release()

    async def _answer(self, url: str, check: Check | None, attempts: int) -> Answer:
        """Try until there is an answer, and return holding a permit."""
        tally = _Tally(attempts)
        # A fresh object a URL: one AsyncRetrying shared by tasks mixes their attempts up (tenacity issue 93).
        retrying = AsyncRetrying(
            stop=lambda state: self._is_enough(tally, state),
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, AttemptError) and error.is_retried),
            before_sleep=lambda state: self._note_retry(url, state),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            answer: Answer = await retrying(self._attempt, url, check)
        except AttemptError as failure:
            made = int(retrying.statistics.get("attempt_number", 1))
            passing = failure.is_retried and not failure.is_bad_body
            raise RequestError(
                failure.reason, status=failure.status, attempts=made, is_passing=passing
            ) from failure.__cause__
        self._budget.earn(tally.spent)
        return replace(answer, attempts=int(retrying.statistics.get("attempt_number", 1)))

    def _is_enough(self, tally: _Tally, state: RetryCallState) -> bool:
        """Tell whether a URL has had its attempts, or its server all the retries that it can bear."""
        error = _error_of(state)
        tally.bad_bodies += error.is_bad_body
        if state.attempt_number >= attempts_at(error.status, tally.attempts) or tally.bad_bodies >= _MAX_BAD_BODIES:
            return True
        cost = self._budget.take(timed_out=error.is_timeout)
        if cost is None:
            error.reason += "; too many retries of late for another"
            return True
        tally.spent = cost
        return False

    async def _attempt(self, url: str, check: Check | None) -> Answer:
        """Make one attempt; those that only show that the server is still away do not count."""
        while True:
            is_probe = await self._enter()
            try:
                return await self._under_permit(url, check, is_probe=is_probe)
            except AttemptError as error:
                if not (is_probe and error.is_outage and not error.is_timeout):
                    raise

    async def _enter(self) -> bool:
        """Wait out pauses and outages, take a permit, and tell whether this request is the look for the server."""
        while True:
            if left := self._pause.left():
                await self._sleep(left + random.uniform(0, min(1, left)))  # noqa: S311 - jitter
            elif self._breaker.is_hopeless:
                raise SourceError(
                    f"the server has been away for {self._breaker.lasted:,.0f} seconds",
                    hint="all that arrived is kept; run the same again when it is back, or give more ``max_outage``",
                )
            elif self._breaker.is_open and not self._breaker.take_probe():
                await self._sleep(self._breaker.wait())
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

    async def _under_permit(self, url: str, check: Check | None, *, is_probe: bool) -> Answer:
        """Make one request under a permit, which is kept only if there is an answer."""
        started = self._clock()
        try:
            await self._rate.wait()
            self.requests += 1
            answer = await self._requester.ask(url, check)
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
            return answer
        finally:
            self._slots.release()

    def _note_end(self, failure: AttemptError | None, started: float, *, is_probe: bool) -> None:
        """Let all that keeps the pace know how an attempt ended."""
        self._note_breaker(failure, is_probe=is_probe)
        if failure is not None and failure.is_retried and failure.asked is not None:
            self._note_pause(failure, failure.asked)
        if self._limit is not None:
            now = self._clock()
            self._limit.on_done(now, now - started, _load(failure))
            self._slots.resize(self._limit.level)

    def _note_pause(self, failure: AttemptError, asked: float) -> None:
        """Have all requests keep the pause that one answer asks for."""
        pause = min(asked, MAX_RETRY_AFTER)
        if self._pause.extend(pause):
            too_long = ", which is too long" if pause < asked else ""
            self._tell(Trouble("pause", pause, f"HTTP {failure.status}, Retry-After: {asked:,.0f} s{too_long}"))

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

    def _note_retry(self, url: str, state: RetryCallState) -> None:
        self.retries += 1
        if self._on_retry is not None and state.next_action is not None:
            self._on_retry(url, state.attempt_number, _error_of(state).reason, state.next_action.sleep)


@dataclass
class _Tally:
    """What one URL has had."""

    attempts: int
    """That it may have."""
    bad_bodies: int = 0
    spent: float = 0.0
    """Of the budget, for the last retry; it comes back if that succeeds."""


def _error_of(state: RetryCallState) -> AttemptError:
    """Give what the attempt ended with; tenacity asks only after one that failed."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, AttemptError)
    return error


def _ended(failure: AttemptError) -> SourceError:
    """Give the error that ends the run, where no tile will fare better."""
    if failure.status in REFUSALS:
        return SourceError(f"the server refuses: {failure.reason}", hint="check the token or the headers")
    return SourceError(f"the source cannot be reached: {failure.reason}", hint="check the URL and its certificate")


def _load(failure: AttemptError | None) -> Load:
    """Say what an attempt tells of the server's load; a timeout is the sign of one that has too much to do."""
    if failure is None:
        return "ok"
    return "throttle" if failure.outcome is Outcome.THROTTLE or failure.is_timeout else "fail"


def _wait(state: RetryCallState) -> float:
    """Wait as long as the server asks, a little jitter added, and never less than the backoff (full jitter, AWS)."""
    error = _error_of(state)
    own = (_throttled_backoff if error.outcome is Outcome.THROTTLE else _backoff)(state)
    return own if error.asked is None else max(own, min(error.asked, MAX_RETRY_AFTER) + random.uniform(0, 1))  # noqa: S311 - jitter
