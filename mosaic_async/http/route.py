"""How requests get to an origin: through which proxy, and with which credentials of ~/.netrc.

aiohttp's `trust_env` reads both from the disk for every request, in two threads. Here they are read once per origin.
It knows nothing of the requests.
"""

from __future__ import annotations

import asyncio
import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

from aiohttp import encode_basic_auth
from yarl import URL


@dataclass(frozen=True)
class Route:
    """The way to one origin."""

    proxy: URL | None = None
    """Without its user and password; None for a direct connection."""
    proxy_headers: Mapping[str, str] | None = field(default=None, repr=False)
    """Credentials for the proxy."""
    authorization: str | None = field(default=None, repr=False)
    """The Authorization header of ~/.netrc; None without an entry for the host."""


class Routes:
    """Finds the route to each origin once."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, str], Route] = {}

    def known(self, url: URL) -> Route | None:
        """Return the route to the origin of `url`, if it was found before."""
        return self._routes.get((url.scheme, url.raw_authority))

    async def to(self, url: URL) -> Route:
        """Find the route to the origin of `url`.

        Raises:
            ValueError: the URL has no host, or the proxy's URL is not valid.
        """
        route = self._routes[url.scheme, url.raw_authority] = await asyncio.to_thread(route_to, url.origin())
        return route


def route_to(origin: URL) -> Route:
    """Find the route to an origin, by ~/.netrc and the environment; blocks.

    Raises:
        ValueError: the URL has no host, or the proxy's URL is not valid.
    """
    entries = _netrc()
    host = origin.host or ""
    authorization = _authorization(entries, host)
    # A proxy cannot reach this machine's own address; the embedded tiler and stores of tiles answer there.
    proxy = None if _is_loopback(host) or proxy_bypass(host) else getproxies().get(origin.scheme)
    if proxy is None or URL(proxy).scheme == "https":  # as `trust_env`, which ignores proxies with TLS
        return Route(authorization=authorization)
    url = URL(proxy)
    own = encode_basic_auth(url.user or "", url.password or "") if url.user else _authorization(entries, url.host or "")
    return Route(url.with_user(None), {"Proxy-Authorization": own} if own else None, authorization)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _netrc() -> netrc.netrc | None:
    path = os.environ.get("NETRC") or Path.home() / ("_netrc" if os.name == "nt" else ".netrc")
    try:
        return netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return None


def _authorization(entries: netrc.netrc | None, host: str) -> str | None:
    found = entries.authenticators(host) if entries else None
    if found is None:
        return None
    login, account, password = found
    return encode_basic_auth(login or account or "", password or "")
