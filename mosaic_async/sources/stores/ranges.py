"""Bytes of a file, here or behind a URL: any range of them, and a name for the file as it is now.

It knows nothing of what the bytes mean.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from yarl import URL

from mosaic_async.http.client import USER_AGENT
from mosaic_async.http.outcome import reason_of
from mosaic_async.http.request import is_same_place
from mosaic_async.http.server_words import words_in
from mosaic_async.http.trust import trusted
from mosaic_async.safety.redaction import learn_request, one_line
from mosaic_async.sources.stores.store import UnreadableError, stamp_of

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_SPAN = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_MAX_WORDS = 200
_MAX_REDIRECTS = 4
_GONE = (204, 404, 410)
"""Statuses that would be those of a tile without data, if they were passed on."""

Read = Callable[[int, int], Awaitable[bytes]]
"""Returns the bytes from an offset on, as many as requested; raises `UnreadableError`."""


@dataclass(frozen=True)
class Ranges:
    """A file of which ranges can be read."""

    read: Read
    stamp: Callable[[], str]
    """Names the file as it was at the first read."""


@asynccontextmanager
async def local_ranges(path: Path) -> AsyncIterator[Ranges]:
    """Yield the ranges of a file.

    Raises:
        OSError: it cannot be opened.
    """
    file = await asyncio.to_thread(os.open, path, os.O_RDONLY)
    try:
        stamp = await asyncio.to_thread(stamp_of, path)

        def read(offset: int, length: int) -> bytes:
            body = os.pread(file, length, offset)
            if len(body) != length:
                raise UnreadableError(f"{path.name} ends before byte {offset + length:,}")
            return body

        yield Ranges(lambda offset, length: asyncio.to_thread(read, offset, length), lambda: stamp)
    finally:
        os.close(file)


@asynccontextmanager
async def remote_ranges(url: str, headers: Mapping[str, str], allow_hosts: Collection[str]) -> AsyncIterator[Ranges]:
    """Yield the ranges of a file behind a URL; each is one request.

    An answer must name the requested range, and the file must stay what it was at the first request.

    Args:
        url: of the file.
        headers: sent to the origin of the URL.
        allow_hosts: other hosts that redirects may lead to.
    """
    learn_request(url, headers)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trusted()),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        timeout=_TIMEOUT,
        trust_env=True,
    ) as session:
        remote = _Remote(URL(url, encoded=True), session, headers, frozenset(host.lower() for host in allow_hosts))
        yield Ranges(remote.read, lambda: f"{url}#{remote.version}")


class _Remote:
    """A file behind a URL."""

    def __init__(
        self, url: URL, session: aiohttp.ClientSession, headers: Mapping[str, str], allow_hosts: Collection[str]
    ) -> None:
        self._url = url
        self._session = session
        self._headers = headers
        self._allow_hosts = allow_hosts
        self.version: str | None = None

    async def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file, as `Read`."""
        try:
            async with self._answer(f"bytes={offset}-{offset + length - 1}") as response:
                if response.status != 206:
                    raise await _refusal(response)
                self._check(response, offset, length)
                return await response.content.readexactly(length)
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise UnreadableError(reason_of(error, _TIMEOUT.sock_read or 0), status=502) from error

    @asynccontextmanager
    async def _answer(self, span: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the answer to a request for a range, after redirects that may be followed."""
        url, is_own = self._url, True
        for _ in range(_MAX_REDIRECTS):
            headers = {"Range": span, **(self._headers if is_own else {})}
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status not in (301, 302, 303, 307, 308):
                    yield response
                    return
                target = url.join(URL(response.headers.get("Location", ""), encoded=True))
                is_own = is_own and is_same_place(url, target)
                if not is_own and (target.host or "").lower() not in self._allow_hosts:
                    raise UnreadableError(
                        f"redirected to another host, {one_line(target.host or '', _MAX_WORDS)}, which is not allowed",
                        status=502,
                        hint="if the redirect is right, add the host to ``allow_hosts``; headers are not sent there",
                    )
                url = target
        raise UnreadableError(f"more than {_MAX_REDIRECTS} redirects", status=502)

    def _check(self, response: aiohttp.ClientResponse, offset: int, length: int) -> None:
        """Check that an answer holds the requested range of the same file as before."""
        span = _SPAN.fullmatch(response.headers.get("Content-Range", ""))
        if span is None or (int(span[1]), int(span[2])) != (offset, offset + length - 1):
            raise UnreadableError("the server sends another range than the requested one", status=502)
        version = f"{span[3]}-{response.headers.get('ETag') or response.headers.get('Last-Modified')}"
        if self.version is None:
            self.version = version
        if version != self.version:
            raise UnreadableError("the file has changed since the run began", status=409)


async def _refusal(response: aiohttp.ClientResponse) -> UnreadableError:
    if response.status == 200:
        return UnreadableError("the server sends whole files only, and no ranges of bytes", status=501)
    words = words_in(await response.content.read(2**14), response.headers.get("Content-Type", ""))
    status = 502 if response.status in _GONE or response.status < 400 else response.status
    reason = one_line(f"HTTP {response.status} {response.reason or ''}: {words}".rstrip(": "), _MAX_WORDS)
    return UnreadableError(reason, status=status, retry_after=response.headers.get("Retry-After"))
