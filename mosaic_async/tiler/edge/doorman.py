"""Who may send requests at all: known hosts, origins and secrets. Anyone else gets a short refusal.

A page of another site can let a browser send requests to this machine, also under a name of its own that resolves to
it. So a host must be an address or a known name, and an origin must be this server.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_MAX_HEAD = 65_536


class Doorman:
    """Refuses requests of strangers."""

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], origins: Sequence[str], secret: str | None) -> None:
        """Wrap an application.

        Args:
            app: the application.
            hosts: names of this server beside `localhost` and addresses.
            origins: other sites whose pages may read responses.
            secret: the `access_token` that every request must have; None serves everybody.
        """
        self._app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._origins = frozenset(origins)
        self._secret = None if secret is None else secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        refused = self._refusal(scope) if scope["type"] == "http" else None
        if refused is None:
            await self._app(scope, receive, send)
        else:
            status, reason = refused
            await JSONResponse({"detail": reason}, status_code=status)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        size = len(scope["query_string"]) + sum(len(name) + len(value) for name, value in scope["headers"])
        if size > _MAX_HEAD:
            return 431, f"the query and the headers of this request are too large: the limit is {_MAX_HEAD:,} bytes"
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host and not self._is_known(host):
            return 400, "the host of this request is not known: use an address, or allow its name"
        if origin is not None and origin not in self._origins and urlsplit(origin).netloc != host:
            return 403, "pages of other sites cannot use this tiler, unless their origin is allowed"
        if self._secret is not None and not compare_digest(_token(scope), self._secret):
            return 403, "access_token is missing or wrong"
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _token(scope: Scope) -> bytes:
    query: bytes = scope.get("query_string", b"")
    return dict(parse_qsl(query)).get(b"access_token", b"")
