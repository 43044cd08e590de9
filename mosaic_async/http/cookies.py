"""The cookies of a run: each origin gets back what it set itself, and nothing is written down.

Some servers send the first request of a session to a login or a balancer, and the tiles only to those that return its
cookie. It knows nothing of the requests.
"""

from __future__ import annotations

import aiohttp
from yarl import URL

from mosaic_async.safety.redaction import learn

_SHORTEST_SECRET = 8
"""Characters; shorter values are flags, and too common as words to be removed from texts."""


class Cookies:
    """The cookies that origins set."""

    def __init__(self) -> None:
        self._jars: dict[URL, aiohttp.CookieJar] = {}

    def keep(self, response: aiohttp.ClientResponse) -> None:
        """Keep the cookies that an answer sets, for its own origin."""
        if "Set-Cookie" not in response.headers:
            return
        learn(cookie.value for cookie in response.cookies.values() if len(cookie.value) >= _SHORTEST_SECRET)
        origin = response.url.origin()
        if origin not in self._jars:
            self._jars[origin] = aiohttp.CookieJar(unsafe=True, quote_cookie=False)
        self._jars[origin].update_cookies(response.cookies, response.url)

    def of(self, url: URL) -> str | None:
        """Return the cookies for a URL as a header's value; None without one."""
        if not self._jars or (jar := self._jars.get(url.origin())) is None:
            return None
        return "; ".join(f"{name}={cookie.value}" for name, cookie in jar.filter_cookies(url).items()) or None
