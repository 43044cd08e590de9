"""A tiler, and what it says of itself in its OpenAPI description: what it renders, where its tiles are, how to ask.

It knows nothing of the mosaics and searches that it may be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.http.json_call import exchange
from mosaic_async.redaction import redact
from mosaic_async.sources.dialects import DIALECTS, Dialect, from_openapi, is_tile_path

REGISTER = r"/(searches|mosaic)/register$"
"""Of titiler-pgstac, from 1.0 and before."""
_DESCRIPTIONS = ("openapi.json", "api", "mosaic/openapi.json")
"""Where servers describe themselves: FastAPI's default, TiTiler's application, awspds-mosaic's function for mosaics."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A tiler, and what it says of itself."""

    url: str
    """Without a slash at its end."""
    root: str
    """URL that the description's paths begin at."""
    openapi: Mapping[str, Any] | None
    """None when it does not describe itself."""
    headers: Mapping[str, str]

    @property
    def paths(self) -> list[str]:
        """The routes it describes."""
        return list((self.openapi or {}).get("paths") or {})

    @property
    def prefix(self) -> str:
        """The endpoint's own path below the root."""
        return self.url[len(self.root) :]

    def has(self, pattern: str) -> str | None:
        """Find a route below the endpoint by a regular expression for its end."""
        return next((path for path in self.paths if re.search(pattern, path) and path.startswith(self.prefix)), None)


async def open_endpoint(url: str, *, headers: Mapping[str, str] | None = None) -> Endpoint:
    """Ask a tiler what it is; its description may stand at any path above the given one.

    Raises:
        SourceError: it does not answer.
    """
    url = url.split("?", maxsplit=1)[0].rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{redact(url)} is no URL of a tiler", hint="it looks like https://host/mosaicjson")
    folders = parts.path.rstrip("/").split("/")
    for depth in range(len(folders), 0, -1):
        root = urlunsplit((parts.scheme, parts.netloc, "/".join(folders[:depth]), "", ""))
        for name in _DESCRIPTIONS:
            reply = await exchange(f"{root}/{name}", headers=headers)
            if isinstance(reply.document, dict) and isinstance(reply.document.get("paths"), dict):
                return Endpoint(url=url, root=root, openapi=reply.document, headers=headers or {})
    return Endpoint(url=url, root=url, openapi=None, headers=headers or {})


def kind_of(endpoint: Endpoint) -> str | None:
    """Tell what a tiler renders: `awspds` or `pgstac` (searches), `titiler` (mosaics); None: it does not say."""
    if endpoint.has(r"/mosaic/create/?$"):
        return "awspds"
    if endpoint.has(REGISTER):
        return "pgstac"
    return "titiler" if any(map(is_tile_path, endpoint.paths)) else None


def dialect_named(name: str) -> Dialect:
    """Give a dialect by its name.

    Raises:
        UsageError: there is none.
    """
    if name not in DIALECTS:
        raise UsageError(f"no dialect is called {name}", hint=f"there are {', '.join(DIALECTS)}")
    return DIALECTS[name]


def spoken_by(
    opened: Endpoint, dialect: str | None, *, required: str | None, register: str | None = None
) -> tuple[str, Dialect]:
    """Give the URL that tiles stand below, and the dialect: what the server says of itself, or what was given."""
    if opened.openapi is None:
        if dialect is None:
            raise SourceError(
                f"{redact(opened.url)} does not say what it is", hint=f"give ``dialect``: {', '.join(DIALECTS)}"
            )
        middle = register.removesuffix("/register") + "/{search_id}" if register else opened.prefix
        return opened.root + middle, dialect_named(dialect)
    prefix = _mosaic_prefix(opened, required)
    name = dialect or str((opened.openapi.get("info") or {}).get("title") or "the tiler")
    return opened.root + prefix, from_openapi(opened.openapi, prefix, name=name)


def _mosaic_prefix(opened: Endpoint, required: str | None) -> str:
    """Find the one group of mosaic routes below the endpoint: those whose tiles have a pixel selection."""
    found: list[str] = []
    paths = (opened.openapi or {}).get("paths") or {}
    for path, routes in paths.items():
        names = {one.get("name") for one in (routes.get("get") or {}).get("parameters", [])}
        searched = re.search(r"\{search_?id\}", path, re.IGNORECASE) is not None
        if not is_tile_path(path) or not path.startswith(opened.prefix) or "pixel_selection" not in names:
            continue
        if (required in names and not searched) if required else searched:
            prefix = path[: path.index("/tiles/")]
            if prefix not in found:
                found.append(prefix)
    if not found:
        raise SourceError(
            f"{redact(opened.url)} describes no tiles of mosaics", hint="give the URL of the tiler's mosaic routes"
        )
    best = [prefix for prefix in found if prefix == opened.prefix] or [p for p in found if p.endswith("/mosaicjson")]
    if len(found) > 1 and not best and required:
        raise UsageError(
            f"{redact(opened.url)} has several kinds of mosaics: {', '.join(found)}", hint="give the URL of one of them"
        )
    return (best or found)[0]
