"""One JSON request to a tiler's own routes, such as its description or the registration of a search.

It knows nothing of tiles: `http.Client` has what thousands of requests need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from mosaic_async.errors import SourceError
from mosaic_async.http.outcome import Outcome, hint_of, of_status, reason_of
from mosaic_async.http.server_words import words_in
from mosaic_async.http.trust import trusted
from mosaic_async.http.user_agent import USER_AGENT
from mosaic_async.safety.redaction import learn_request, one_line, scrub
from mosaic_async.safety.safe_json import parse

TIMEOUT = 60.0
"""Seconds per attempt; a mosaic of a search takes as long as the search."""
_ATTEMPTS = 4
_MAX_BODY = 64 * 2**20
_MAX_WORDS = 300
_wait = wait_random_exponential(multiplier=0.5, max=10)


@dataclass(frozen=True)
class Reply:
    """A complete answer."""

    status: int
    document: Any
    """The JSON; None if the body is not JSON."""
    words: str
    """The status and what the server says with it, without secrets."""


class _AgainError(Exception):
    """One attempt failed, and another may succeed."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


async def exchange(
    url: str, *, body: Any = None, headers: Mapping[str, str] | None = None, attempts: int = _ATTEMPTS
) -> Reply:
    """GET a URL, or POST a JSON body to it, until there is an answer.

    Every such request may be repeated: a search that is registered twice has the same id.

    Raises:
        SourceError: the last attempt failed.
    """
    learn_request(url, headers or {})
    retrying = AsyncRetrying(
        stop=stop_after_attempt(attempts), wait=_wait, retry=retry_if_exception_type(_AgainError), reraise=True
    )
    try:
        return await retrying(_attempt, url, body, headers or {})
    except _AgainError as error:
        raise SourceError(
            f"no answer from {scrub(url)}: {error}", hint=error.hint or "check that the tiler is running"
        ) from error


async def _attempt(url: str, document: Any, headers: Mapping[str, str]) -> Reply:
    try:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trusted()),
                headers={"User-Agent": USER_AGENT, **headers},
                timeout=aiohttp.ClientTimeout(total=TIMEOUT, sock_connect=10),
                trust_env=True,
            ) as session,
            session.request(
                "GET" if document is None else "POST", url, json=document, allow_redirects=False
            ) as response,
        ):
            body = await _body(response)
            kind = response.headers.get("Content-Type", "")
            reply = Reply(response.status, _parsed(body), _words(response.status, body, kind))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _AgainError(reason_of(error, TIMEOUT), hint_of(error)) from error
    if of_status(reply.status) in (Outcome.RETRY, Outcome.THROTTLE):
        raise _AgainError(reply.words)
    return reply


async def _body(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        if (size := size + len(chunk)) > _MAX_BODY:
            raise SourceError(f"{scrub(str(response.url))} sends more than {_MAX_BODY:,} bytes")
    return b"".join(chunks)


def _words(status: int, body: bytes, kind: str) -> str:
    words = one_line(words_in(body, kind), _MAX_WORDS)
    return f"HTTP {status}: {words}" if words else f"HTTP {status}"


def _parsed(body: bytes) -> Any:
    try:
        return parse(body)
    except ValueError:
        return None
