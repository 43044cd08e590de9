"""One attempt: send a request, follow allowed redirects, read the body up to its cap, describe what went wrong.

It knows nothing of attempts, pauses and permits. No exception of aiohttp leaves it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from aiohttp import encode_basic_auth
from yarl import URL

from mosaic_async.errors import MisplacedTileError, PageError, SourceError, TileError
from mosaic_async.http.cookies import Cookies
from mosaic_async.http.deadlines import Deadlines
from mosaic_async.http.emptiness import Emptiness, EmptyRules, is_doubt, of_document
from mosaic_async.http.outcome import REFUSALS, Outcome, connect_timeout, hint_of, of_error, of_status, reason_of
from mosaic_async.http.pacing import retry_after
from mosaic_async.http.route import Route, Routes
from mosaic_async.http.server_words import words_in
from mosaic_async.http.trust import trusted
from mosaic_async.http.user_agent import USER_AGENT
from mosaic_async.http.watched_response import DroppedError, WatchedResponse, watched_by
from mosaic_async.http.wire import OnProof, Wire, Wires
from mosaic_async.safety.redaction import learn_request, one_line, scrub

MAX_BODY = 256 * 2**20
"""Bytes; larger than any sensible tile or document."""
_MAX_REDIRECTS = 3
_SAFE = "%/:?#[]@!$&'()*+,;=~"
_is_encoded = re.compile(rf"[\w.\-{re.escape(_SAFE)}]*", re.ASCII).fullmatch
_READ_BUFFER = 2**20
"""Bytes; aiohttp's 64 KiB makes it stop and start the socket sixteen times for a tile of a megabyte."""
_MAX_ERROR_BODY = 2**16
"""Bytes of an error's body that are read, or a little more."""
_ERROR_BODY_TIMEOUT = 2.0
"""Seconds for these bytes."""
_MAX_WORDS, _MAX_PHRASE, _MAX_HOST = 200, 60, 100
"""Characters of the server's own words in a message."""
_MAX_HEADER = 2**18
"""Bytes; TiTiler's X-Assets names every scene of a tile, and a hundred scenes do not fit into aiohttp's 8 KiB."""


@dataclass(frozen=True)
class Answer:
    """A complete answer: its outcome is OK or EMPTY."""

    status: int
    body: bytes
    """Empty if, and only if, the outcome is EMPTY."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Case-insensitive."""
    attempts: int = 1
    """Attempts that the answer took."""
    reason: str = ""
    """Of an empty answer: the status and what the server says with it, without secrets."""
    empty: Emptiness | None = None
    """Why the answer has no data; None if it has some."""
    seconds: float = 0.0
    """How long the last attempt took."""
    arrival: tuple[int, int] | None = None
    """Connection of the answer, and its number there; None where nothing more is needed to prove that it is this one's.

    `on_proof` of the client tells when the connection has proved it.
    """

    @property
    def is_doubted(self) -> bool:
        """Whether the tile is empty, or something is wrong with the server: it has to be requested again."""
        return self.empty is not None and is_doubt(self.empty, self.status)


Check = Callable[[Answer], bool]
"""Examines an answer with a body, returns whether it names its place, and raises a `TileError` if it is wrong."""
_STRAY = "the connection carried more than one answer, so this one may belong to another request"


class AttemptError(Exception):
    """One attempt failed; it never leaves the client."""

    def __init__(
        self,
        reason: str,
        outcome: Outcome,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        is_bad_body: bool = False,
        is_page: bool = False,
        hint: str | None = None,
    ) -> None:
        self.reason = scrub(reason)
        super().__init__(self.reason)
        self.outcome = outcome
        self.status = status
        self.retry_after = retry_after
        """Seconds to wait that the server requests."""
        self.is_bad_body = is_bad_body
        self.hint = hint

        self._is_page = is_page

    @property
    def is_retried(self) -> bool:
        """Whether another attempt may succeed."""
        return self.outcome in (Outcome.RETRY, Outcome.THROTTLE)

    @property
    def is_passing(self) -> bool:
        """Whether a later run may succeed; a wrong tile stays wrong, and a page may be that of a server in trouble."""
        return self.is_retried and (self._is_page or not self.is_bad_body)

    @property
    def is_timeout(self) -> bool:
        """Whether the answer did not come in time."""
        return self.status is None and isinstance(self.__cause__, TimeoutError)

    @property
    def is_outage(self) -> bool:
        """Whether the server may be unavailable; a 500 comes from the application, so that is running."""
        if self.is_bad_body or not self.is_retried:
            return False
        return self.status is None or (self.status > 500 and self.status != 507)


class Requester:
    """A session with keep-alive that makes single attempts: `async with Requester(...) as requester`.

    Args:
        connections: maximum open connections.
        timeout: seconds from connecting to the last byte.
        headers: sent with every request, but only to the origin of the requested URL.
        max_body: maximum bytes of a body, after decompression.
        allow_hosts: hosts that redirects may lead to; no headers go there.
        on_proof: called with the number of a connection, and that of the last answer that it has proved.
    """

    def __init__(
        self,
        *,
        connections: int,
        timeout: float,
        headers: Mapping[str, str],
        max_body: int,
        allow_hosts: Collection[str],
        on_proof: OnProof | None = None,
    ) -> None:
        self._connections = connections
        self._timeout = timeout
        self._headers = dict(headers)
        learn_request("", headers)
        self._learnt = ""
        self._has_authorization = any(name.lower() == "authorization" for name in headers)
        self.max_body = max_body
        self._allow_hosts = frozenset(host.lower() for host in allow_hosts)
        self._refusals = 0
        self._session: aiohttp.ClientSession | None = None
        self._routes = Routes()
        self._deadlines = Deadlines(timeout)
        self._cookies = Cookies()
        self.wires = Wires(on_proof)
        self.rules = EmptyRules()
        self.bytes_received = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ttl_dns_cache=300, keepalive_timeout=60, ssl=trusted()
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout(self._timeout)),
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_READ_BUFFER,
            max_field_size=_MAX_HEADER,
            response_class=watched_by(self.wires),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wires.close()
        self._deadlines.close()
        if self._session is not None:
            await self._session.close()

    async def farewell(self, wire: Wire) -> None:
        """Prove or doubt the answers of a wire; this makes one request."""
        await wire.farewell(self._timeout)

    async def fetch(self, url: str, check: Check | None, label: Hashable = None) -> Answer:
        """Make one request.

        Args:
            url: what to request.
            check: examines an answer with a body.
            label: what to report if the answer becomes doubtful later.

        Raises:
            AttemptError: no usable answer came.
        """
        self._learn(url)
        try:
            with self._deadlines.attempt():
                answer, response = await self._request(url, label)
        except DroppedError as error:
            raise _unanswered(error.error, self._timeout) from error.error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unanswered(error, self._timeout) from error
        is_proved = check is not None and bool(answer.body) and _examine(check, answer, response)
        if not response.note(label, is_proved=is_proved) or not (is_proved or await response.ends_well()):
            raise AttemptError(_STRAY, Outcome.RETRY, status=answer.status)
        return replace(answer, arrival=response.arrival) if response.is_unproved else answer

    def _learn(self, url: str) -> None:
        """Note the secrets of a URL; those of most runs are the same for all tiles."""
        secret = url.partition("?")[2] if "@" not in url else url
        if secret != self._learnt:
            learn_request(url, {})
            self._learnt = secret

    async def _request(self, requested: str, label: Hashable) -> tuple[Answer, WatchedResponse]:
        assert self._session is not None, "the client is used inside `async with`"
        url, is_own = _encoded(requested), True
        for _ in range(_MAX_REDIRECTS + 1):
            route = self._routes.known(url) or await self._routes.to(url)
            headers = self._headers_for(url, route, is_own=is_own)
            async with self._session.get(
                url.with_user(None) if url.raw_user else url,
                allow_redirects=False,
                headers=headers,
                proxy=route.proxy,
                proxy_headers=route.proxy_headers,
            ) as response:
                assert isinstance(response, WatchedResponse)
                self._cookies.keep(response)
                if response.status in (301, 302, 303, 307, 308):
                    target = self._redirected(response)
                    await _begin(response)
                    if not (response.note(label) and await response.ends_well()):
                        raise AttemptError(_STRAY, Outcome.RETRY, status=response.status)
                    is_own = is_own and is_same_place(url, target)
                    url = target
                    continue
                return await self._read(response), response
        raise AttemptError(f"more than {_MAX_REDIRECTS} redirects", Outcome.FAIL, status=response.status)

    def _headers_for(self, url: URL, route: Route, *, is_own: bool) -> dict[str, str]:
        """Return the headers of a request; an Authorization header wins over the URL's user, and that over ~/.netrc."""
        headers = dict(self._headers) if is_own else {}
        if not (is_own and self._has_authorization):
            own = encode_basic_auth(url.user, url.password or "") if url.user else route.authorization
            if own is not None:
                headers["Authorization"] = own
        if route.proxy_headers and url.scheme == "http":
            headers.update(route.proxy_headers)
        if not self.wires.is_trusted:
            headers["Connection"] = "close"
        if (cookies := self._cookies.of(url)) is not None:
            own_name = next((name for name in headers if name.lower() == "cookie"), "Cookie")
            headers[own_name] = "; ".join(filter(None, (headers.get(own_name), cookies)))
        return headers

    def _redirected(self, response: aiohttp.ClientResponse) -> URL:
        """Return a redirect's target, if it has the same origin or the user allowed its host."""
        location = response.headers.get("Location", "")
        try:
            target = response.url.join(URL(location))
            is_same = is_same_place(response.url, target)
        except ValueError as error:
            failure = AttemptError("the redirect has no usable Location", Outcome.FAIL, status=response.status)
            raise failure from error
        is_weaker = response.url.scheme == "https" and target.scheme != "https"
        if not is_same and (is_weaker or (target.host or "").lower() not in self._allow_hosts):
            host = one_line(target.host or "", _MAX_HOST)
            manner = ", without encryption" if is_weaker else ""
            raise AttemptError(
                f"redirected to another host, {host}{manner}, which is not allowed",
                Outcome.FAIL,
                status=response.status,
                hint="check the URL: it leads to a server without encryption"
                if is_weaker
                else f"if the redirect is right, add {host} to ``allow_hosts``; headers are not sent there",
            )
        return target

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        empty = self.rules.of_head(response.status, response.headers)
        if response.status == 200:
            return await self._read_tile(response, empty)
        text = await _begin(response)
        empty = empty or of_document(response.status, text)
        kind = of_status(response.status, refusals=self._refusals)
        self._refusals = self._refusals + 1 if response.status in REFUSALS and empty is None else 0
        reason = _reason(response, text)
        if empty is not None:
            return Answer(response.status, b"", response.headers, reason=reason, empty=empty)
        pause = retry_after(response.headers.get("Retry-After"), date=response.headers.get("Date"))
        raise AttemptError(reason, kind, status=response.status, retry_after=pause)

    async def _read_tile(self, response: aiohttp.ClientResponse, empty: Emptiness | None) -> Answer:
        """Read the body of a 200; a tile without a body has no data, if the head of the answer announces that."""
        self._refusals = 0
        body = await self._body(response)
        if body:
            empty = empty or self.rules.of_body(body)
        elif response.content_length == 0 or "chunked" in response.headers.get("Transfer-Encoding", "").lower():
            empty = empty or "no body"
        else:
            raise AttemptError("the body is empty", Outcome.RETRY, status=response.status, is_bad_body=True)
        reason = _reason(response, b"") if empty else ""
        return Answer(response.status, b"" if empty else body, response.headers, reason=reason, empty=empty)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if (response.content_length or 0) > self.max_body:
            raise self._too_large(response)
        chunks, size = [], 0
        while chunk := await response.content.readany():
            size += len(chunk)
            if size > self.max_body:
                raise self._too_large(response)
            chunks.append(chunk)
        self.bytes_received += size
        return b"".join(chunks)

    def _too_large(self, response: aiohttp.ClientResponse) -> AttemptError:
        return AttemptError(f"the body is larger than {self.max_body:,} bytes", Outcome.FAIL, status=response.status)


def _unanswered(error: Exception, timeout: float) -> AttemptError:
    """Return the failure of an attempt without an answer."""
    return AttemptError(reason_of(error, timeout), of_error(error), hint=hint_of(error))


def _examine(check: Check, answer: Answer, response: WatchedResponse) -> bool:
    """Return whether an answer names its place, and raise what is wrong with it."""
    try:
        return check(answer)
    except TileError as error:
        if isinstance(error, MisplacedTileError) and response.number > 1:
            response.wire.doubt()
        raise AttemptError(
            error.message,
            Outcome.RETRY,
            status=answer.status,
            is_bad_body=True,
            is_page=isinstance(error, PageError),
            hint=error.marked_hint,
        ) from error


async def _begin(response: aiohttp.ClientResponse) -> bytes:
    """Read the body of an error to its end, if that comes soon: so the connection stays usable."""
    body = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(_ERROR_BODY_TIMEOUT):
            while len(body) < _MAX_ERROR_BODY and (chunk := await response.content.readany()):
                body += chunk
    return body


def _reason(response: aiohttp.ClientResponse, text: bytes) -> str:
    """Return the status and what the server says with it, without secrets."""
    status = f"HTTP {response.status} {one_line(response.reason or '', _MAX_PHRASE)}".rstrip()
    words = one_line(words_in(text, response.headers.get("Content-Type", "")), _MAX_WORDS)
    return f"{status}: {words}" if words else status


def _encoded(url: str) -> URL:
    """Quote only characters that no URL may hold, so that a signed or quoted URL stays unchanged."""
    try:
        return URL(url if _is_encoded(url) else quote(url, safe=_SAFE), encoded=True)
    except ValueError as error:
        raise SourceError("the tile URL is not a valid URL", hint="check host, port and brackets") from error


def is_same_place(here: URL, there: URL) -> bool:
    """Return whether secret headers may follow: to the same origin, or to the same host over https."""
    if here.origin() == there.origin():
        return True
    is_upgrade = (here.scheme, there.scheme) == ("http", "https") and here.host == there.host
    return is_upgrade and here.is_default_port() and there.is_default_port()
