"""A store of tiles as data: how one is read, and what is known of all. It knows nothing of files and servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile


@dataclass(frozen=True, kw_only=True)
class Store:
    """A store of tiles."""

    read: Callable[[Tile], Awaitable[bytes | None]]
    """Returns the bytes of a tile, and None where the store has none; raises `UnreadableError`."""
    identity: str
    """The same from run to run as long as no tile changes."""
    zooms: tuple[int, int] | None = None
    bounds: Bounds | None = None
    grid: str | None = None
    encoding: str | None = None
    notes: tuple[str, ...] = ()


class UnreadableError(Exception):
    """A tile cannot be read."""

    def __init__(
        self, reason: str, *, status: int = 500, retry_after: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        """What a server would answer."""
        self.retry_after = retry_after
        """As the server of the store sends it."""
        self.hint = hint
        """What to try; None where nothing is known."""


def stamp_of(path: Path) -> str:
    """Return what changes when a file is written; blocks."""
    found = path.stat()
    return f"{path.resolve().as_uri()}#{found.st_size}-{found.st_mtime_ns}"
