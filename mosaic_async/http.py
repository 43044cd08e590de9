"""One GET well done: a session with keep-alive, a permit per attempt, backoff, Retry-After and a cap on every body.

It knows nothing of tiles: what an answer's body means is the caller's business. Exceptions of aiohttp end here; what
leaves is an `Answer` or a `RequestError`.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from importlib.metadata import version
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential
from yarl import URL

from mosaic_async.errors import RequestError, SourceError, UsageError
from mosaic_async.limits import RateLimit

USER_AGENT = f"mosaic-async/{version('mosaic-async')}"
MAX_BODY = 256 * 2**20
"""Bytes; more than any sensible tile or document."""
_CONNECT_TIMEOUT = 10.0
_MAX_RETRY_AFTER = 120.0
"""Seconds; a server that asks for more is asked again after this."""
_MAX_REDIRECTS = 3
_READ_BUFFER = 2**20
"""Bytes; aiohttp's 64 KiB makes it stop and start the socket sixteen times for a tile of a megabyte."""
_MAX_DETAIL = 4096
_DETAIL_KEYS = ("detail", "message", "errorMessage", "description")
_SECRET = re.compile(
    r"((?:[?&]|%(?:25)*(?:3F|26))"
    r"(?:[\w-]*(?:token|secret|passw(?:or)?d|signature|credentials?)|(?:[\w-]*[-_])?(?:api|access|subscription)?[-_]?key|sig|auth(?:orization)?)"
    r"(?:=|%(?:25)*3D))(?:(?!%(?:25)*26)[^&#])*",
    re.IGNORECASE,
)
"""A parameter that holds a secret, also inside a URL that is itself a parameter, encoded once or more often."""
_USER = re.compile(r"((?:/|%(?:25)*2F){2})[^/?#&%]*(?:(?::|%(?:25)*3A)[^/?#&]*?)?(?:@|%(?:25)*40)", re.IGNORECASE)
_MAX_HEADER = 2**18
"""Bytes; TiTiler's X-Assets names every scene of a tile, and a hundred of them do not fit into aiohttp's 8 KiB."""
_backoff = wait_random_exponential(multiplier=0.5, max=20)


class Outcome(Enum):
    """What is to be done with an answer."""

    OK = auto()
    EMPTY = auto()
    RETRY = auto()
    FAIL = auto()


def outcome(status: int) -> Outcome:
    """Classify an HTTP status.

    204 and 404 are how tilers of all generations say that a tile has no data.
    """
    if status == 200:
        return Outcome.OK
    if status in (204, 404):
        return Outcome.EMPTY
    if status in (408, 425, 429) or (status >= 500 and status != 501):
        return Outcome.RETRY
    return Outcome.FAIL


@dataclass(frozen=True)
class Answer:
    """A whole answer: its outcome is OK or EMPTY."""

    status: int
    body: bytes
    """Empty where, and only where, the outcome is EMPTY."""


class _AttemptError(Exception):
    """One attempt failed."""

    def __init__(
        self, reason: str, *, status: int | None = None, retry: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.retry = retry
        self.retry_after = retry_after


class Client:
    """A polite HTTP client: `async with Client(...) as client`, then `async with client.get(url) as answer`.

    Args:
        concurrency: requests in flight at most.
        rate: requests a second; None does not limit.
        attempts: tries a URL, the first included.
        timeout: seconds an attempt may take, from connecting to the last byte.
        headers: sent with every request.
        max_body: bytes of a body, after decompression; more fails the request.
        on_retry: called before a wait with the URL, the attempt that failed (from 1), the reason, the seconds to wait.
        sleep: replaced in tests.

    Raises:
        UsageError: a number that cannot be.
    """

    def __init__(
        self,
        *,
        concurrency: int = 50,
        rate: float | None = None,
        attempts: int = 5,
        timeout: float = 120.0,
        headers: Mapping[str, str] | None = None,
        max_body: int = MAX_BODY,
        on_retry: Callable[[str, int, str, float], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        for name, value in (("concurrency", concurrency), ("attempts", attempts), ("timeout", timeout)):
            if not value > 0:
                raise UsageError(f"{name} must be above 0, got {value}")
        self._concurrency = concurrency
        self._permits = asyncio.Semaphore(concurrency)
        self._rate = RateLimit(rate)
        self._attempts = attempts
        self._timeout = timeout
        self._headers = {"User-Agent": USER_AGENT, **(headers or {})}
        self._max_body = max_body
        self._on_retry = on_retry
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self.requests = 0
        """Attempts made, retries included."""
        self.retries = 0
        self.bytes_received = 0
        """Bytes of whole bodies, after decompression."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, ttl_dns_cache=300, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(_CONNECT_TIMEOUT, self._timeout)),
            headers=self._headers,
            trust_env=True,
            read_bufsize=_READ_BUFFER,
            max_field_size=_MAX_HEADER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[None]:
        """Hold one of the `concurrency` permits without asking for anything."""
        async with self._permits:
            yield

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[Answer]:
        """Ask for `url` until there is an answer; the permit of the last attempt is held until the block is left.

        So whoever hands the body on inside the block keeps at most `concurrency` bodies outside of queues. A URL that
        backs off holds no permit.

        Raises:
            RequestError: refused, or still failing after the last attempt.
        """
        answer = await self._answer(url)
        try:
            yield answer
        finally:
            self._permits.release()

    async def _answer(self, url: str) -> Answer:
        """Try until there is an answer, and return holding a permit."""
        # A fresh object a URL: one AsyncRetrying shared by tasks mixes their attempts up (tenacity issue 93).
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._attempts),
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, _AttemptError) and error.retry),
            before_sleep=lambda state: self._note_retry(url, state),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, url)
        except _AttemptError as failure:
            attempts = int(retrying.statistics.get("attempt_number", 1))
            raise RequestError(failure.reason, status=failure.status, attempts=attempts) from failure.__cause__

    async def _attempt(self, url: str) -> Answer:
        """Make one request under a permit, which is kept only if there is an answer."""
        await self._permits.acquire()
        try:
            await self._rate.wait()
            self.requests += 1
            async with asyncio.timeout(self._timeout):
                return await self._request(_encoded(url))
        except BaseException as error:
            self._permits.release()
            if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
                raise _translated(error, self._timeout) from error
            raise

    async def _request(self, url: URL) -> Answer:
        assert self._session is not None, "the client is used inside `async with`"
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308):
                    url = _redirected(response)
                    continue
                return await self._read(response)
        raise _AttemptError(f"more than {_MAX_REDIRECTS} redirects", status=response.status)

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        kind = outcome(response.status)
        if kind in (Outcome.RETRY, Outcome.FAIL):
            raise _AttemptError(
                f"HTTP {response.status} {response.reason or ''}".rstrip() + await _detail(response),
                status=response.status,
                retry=kind is Outcome.RETRY,
                retry_after=retry_after(response.headers.get("Retry-After")),
            )
        if kind is Outcome.EMPTY:
            return Answer(response.status, b"")
        body = await self._body(response)
        if not body:
            raise _AttemptError("the body is empty", status=response.status)
        return Answer(response.status, body)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._max_body:
                raise _AttemptError(f"the body is larger than {self._max_body:,} bytes", status=response.status)
            chunks.append(chunk)
        self.bytes_received += size
        return b"".join(chunks)

    def _note_retry(self, url: str, state: RetryCallState) -> None:
        self.retries += 1
        error = state.outcome.exception() if state.outcome else None
        if self._on_retry is not None and isinstance(error, _AttemptError) and state.next_action is not None:
            self._on_retry(url, state.attempt_number, error.reason, state.next_action.sleep)


async def _detail(response: aiohttp.ClientResponse) -> str:
    """Give the server's own words, where it sends JSON as TiTiler and API Gateway do."""
    if response.content_type != "application/json":
        return ""
    try:
        document = json.loads(await response.content.read(_MAX_DETAIL))
    except (ValueError, RecursionError):
        return ""
    words = next((document[key] for key in _DETAIL_KEYS if key in document), "") if isinstance(document, dict) else ""
    return f": {redact(' '.join(str(words).split()))[:200]}" if words else ""


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, seconds or an HTTP date, as seconds up to 120; None when it says nothing usable."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - (now or datetime.now(UTC))).total_seconds()
        except (ValueError, TypeError):  # TypeError: a date without a zone
            return None
    return min(seconds, _MAX_RETRY_AFTER) if math.isfinite(seconds) and seconds > 0 else None


def redact(url: str) -> str:
    """Give a URL without users, passwords and the values of parameters that hold secrets, nested URLs included."""
    return _SECRET.sub(r"\1***", _USER.sub(r"\1", url))


def _wait(state: RetryCallState) -> float:
    """Wait as long as the server asks, a little jitter added, and never less than the backoff (full jitter, AWS)."""
    own = _backoff(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, _AttemptError) else None
    return own if asked is None else max(own, asked + random.uniform(0, 1))  # noqa: S311 - jitter


def _encoded(url: str) -> URL:
    """Quote only what no URL may hold, so that a signed or already quoted URL is sent as it was given."""
    try:
        return URL(quote(url, safe="%/:?#[]@!$&'()*+,;=~"), encoded=True)
    except ValueError as error:
        raise SourceError("the tile URL is no URL", hint="check host, port and brackets") from error


def _redirected(response: aiohttp.ClientResponse) -> URL:
    """Follow a redirect only within its origin, so that headers with secrets stay where they were meant to go."""
    location = response.headers.get("Location", "")
    try:
        target = response.url.join(URL(location))
    except ValueError as error:
        raise _AttemptError("a redirect without a usable Location", status=response.status) from error
    if target.origin() != response.url.origin():
        raise _AttemptError(f"redirected to another host, {target.host}", status=response.status)
    return target


def _translated(error: BaseException, timeout: float) -> _AttemptError:
    """Say in our words what went wrong; aiohttp's own texts may hold the URL with its secrets."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            reason = f"no connection within {min(timeout, _CONNECT_TIMEOUT):g} seconds"
        case TimeoutError():
            reason = f"no answer within {timeout:g} seconds"
        case aiohttp.ClientSSLError() | aiohttp.InvalidURL():
            reason = f"{type(error).__name__}: the certificate or the URL is not valid"
        case aiohttp.ClientConnectorError():
            reason = f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientPayloadError():
            reason = "the body was cut short"
        case aiohttp.ClientResponseError():
            reason = "the answer is malformed HTTP"
        case _:
            reason = f"the connection broke ({type(error).__name__})"
    return _AttemptError(reason, retry=not isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL))
