"""JSON of a server, for code that blocks: a body that ends, nesting that ends, one kind of error.

Its requests trust the certificates, and go the ways, of all others of this package.
It knows nothing of what the documents mean.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import HTTPAdapter
from yarl import URL

from mosaic_async.http.route import route_to
from mosaic_async.http.trust import context_for_libraries
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.access import headers_for, origins_of

MAX_BODY = 64 * 2**20
"""Bytes, unpacked: a page of 1,000 items has 10 MB."""
_MAX_REDIRECTS = 10
_RETRIED = (408, 425, 429, 500, 502, 503, 504)


def get_json(
    url: str, *, timeout: float, headers: Mapping[str, str] | None = None, attempts: int = 1, backoff: float = 0.5
) -> Any:
    """Fetch a URL.

    Args:
        url: http or https.
        timeout: seconds per attempt, from one byte to the next.
        headers: sent with the request.
        attempts: maximum, of which all but the first follow a temporary failure.
        backoff: seconds before the second retry; doubled for each further one.

    Raises:
        OSError: the server is not reached, or answers with an error.
        ValueError: the body is not JSON, or has more than `MAX_BODY` bytes.
    """
    with requests.Session() as session:
        prepare(session, attempts, backoff)
        answer = _followed(session, url, dict(headers or {}), timeout)
        answer.raise_for_status()
        return parse(answer.content)


def _followed(session: requests.Session, url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """Follow redirects; headers stay with the origin that they are for, where `requests` forgets only some of them."""
    first = origins_of([url])
    for _ in range(_MAX_REDIRECTS):
        own = headers if origins_of([url]) == first else {}
        sent = {**headers_for(url), **own}
        answer = session.get(url, headers=sent, timeout=timeout, stream=True, allow_redirects=False)
        if not answer.is_redirect:
            return answer
        url = urljoin(url, answer.headers["Location"])
    raise requests.TooManyRedirects(f"more than {_MAX_REDIRECTS} redirects")


def prepare(session: requests.Session, attempts: int, backoff: float = 0.5) -> None:
    """Let a session repeat requests, trust certificates and find proxies as this package does, and bound its bodies."""
    session.hooks["response"].append(bound_body)
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(max_retries=_retries(attempts, backoff)))


class _Adapter(HTTPAdapter):
    """Sends requests by the routes of `http.route`, to servers that `http.trust` trusts."""

    def init_poolmanager(self, connections: int, maxsize: int, *args: Any, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, *args, **{**options, **_tls()})

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, **_tls())

    def proxy_headers(self, _: str) -> dict[str, str]:
        return self._credentials

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        url = URL(str(request.url))
        route = route_to(url.origin())
        self._credentials = dict(route.proxy_headers or {})
        options["proxies"] = {url.scheme: str(route.proxy)} if route.proxy else {}
        return super().send(request, *args, **options)


def _tls() -> dict[str, Any]:
    context = context_for_libraries()
    return {"ssl_context": context} if context else {}


def _retries(attempts: int, backoff: float) -> urllib3.Retry:
    """Return the rule that repeats requests after temporary failures, a POST too."""
    return urllib3.Retry(
        total=attempts - 1, backoff_factor=backoff, status_forcelist=_RETRIED, allowed_methods=None,
        respect_retry_after_header=True,
    )  # fmt: skip


def bound_body(response: requests.Response, *_: Any, **__: Any) -> None:
    """Read the body of a response up to `MAX_BODY`; a hook for sessions of requests.

    Raises:
        OSError: the connection breaks.
        ValueError: the body is larger.
    """
    body = io.BytesIO()
    try:
        for chunk in response.raw.stream(2**16, decode_content=True):
            body.write(chunk)
            if body.tell() > MAX_BODY:
                response.close()
                raise ValueError(f"the body has more than {MAX_BODY:,} bytes")
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error
    body.seek(0)
    response.raw = body
