"""A tiler and its OpenAPI description: what it renders, where its tiles are, which dialect it has.

It knows nothing of mosaics and searches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.http.json_call import exchange
from mosaic_async.safety.redaction import scrub
from mosaic_async.sources.dialects import DIALECTS, Dialect, from_openapi, is_tile_path

REGISTER = r"/(searches|mosaic)/register$"
"""Route of titiler-pgstac, from 1.0 on and before it."""
_DESCRIPTIONS = ("openapi.json", "api", "mosaic/openapi.json")
"""Paths of OpenAPI descriptions: FastAPI's default, TiTiler's application, awspds-mosaic's function for mosaics."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A tiler and its OpenAPI description."""

    url: str
    """Without a trailing slash."""
    root: str
    """URL that the paths of the description are relative to."""
    openapi: Mapping[str, Any] | None
    """The description; None when the tiler has none."""
    headers: Mapping[str, str]

    @property
    def paths(self) -> list[str]:
        """The routes of the description."""
        return list((self.openapi or {}).get("paths") or {})

    @property
    def prefix(self) -> str:
        """The endpoint's own path below the root."""
        return self.url[len(self.root) :]

    def has(self, pattern: str) -> str | None:
        """Return the first route below the endpoint whose end matches a regular expression; None without one."""
        return next((path for path in self.paths if re.search(pattern, path) and path.startswith(self.prefix)), None)


async def open_endpoint(url: str, *, headers: Mapping[str, str] | None = None) -> Endpoint:
    """Fetch the description of a tiler, which may stand at any path above the given one.

    Raises:
        UsageError: the URL is not one of a tiler.
        SourceError: the server does not answer.
    """
    url = url.split("?", maxsplit=1)[0].rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{scrub(url)} is not the URL of a tiler", hint="it looks like https://host/mosaicjson")
    folders = parts.path.rstrip("/").split("/")
    for depth in range(len(folders), 0, -1):
        root = urlunsplit((parts.scheme, parts.netloc, "/".join(folders[:depth]), "", ""))
        for name in _DESCRIPTIONS:
            reply = await exchange(f"{root}/{name}", headers=headers)
            if isinstance(reply.document, dict) and isinstance(reply.document.get("paths"), dict):
                return Endpoint(url=url, root=root, openapi=reply.document, headers=headers or {})
    return Endpoint(url=url, root=url, openapi=None, headers=headers or {})


def kind_of(endpoint: Endpoint) -> str | None:
    """Return what a tiler renders: `awspds` or `pgstac` (searches), `titiler` (mosaics); None when not known."""
    if endpoint.has(r"/mosaic/create/?$"):
        return "awspds"
    if endpoint.has(REGISTER):
        return "pgstac"
    return "titiler" if any(map(is_tile_path, endpoint.paths)) else None


def dialect_named(name: str) -> Dialect:
    """Return a dialect by its name.

    Raises:
        UsageError: the name is not known.
    """
    if name not in DIALECTS:
        raise UsageError(f"dialect {name} is not known", hint=f"use one of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def spoken_by(
    opened: Endpoint, dialect: str | None, *, required: str | None, register: str | None = None
) -> tuple[str, Dialect]:
    """Return the base URL of the tiles, and the dialect: from the server's description, or the named one."""
    if opened.openapi is None:
        if dialect is None:
            raise SourceError(
                f"{scrub(opened.url)} has no OpenAPI description", hint=f"set ``dialect``: {', '.join(DIALECTS)}"
            )
        middle = register.removesuffix("/register") + "/{search_id}" if register else opened.prefix
        return opened.root + middle, dialect_named(dialect)
    prefix = _mosaic_prefix(opened, required)
    name = dialect or str((opened.openapi.get("info") or {}).get("title") or "the tiler")
    return opened.root + prefix, from_openapi(opened.openapi, prefix, name=name)


def _mosaic_prefix(opened: Endpoint, required: str | None) -> str:
    """Return the one group of mosaic routes below the endpoint: those whose tiles have a pixel selection."""
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
            f"{scrub(opened.url)} has no tile routes of mosaics", hint="use the URL of the tiler's mosaic routes"
        )
    best = [prefix for prefix in found if prefix == opened.prefix] or [p for p in found if p.endswith("/mosaicjson")]
    if len(found) > 1 and not best and required:
        raise UsageError(
            f"{scrub(opened.url)} has several kinds of mosaics: {', '.join(found)}", hint="use the URL of one of them"
        )
    return (best or found)[0]
