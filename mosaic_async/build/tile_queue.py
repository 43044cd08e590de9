"""Which tile is requested next: first those that come back, then tile after tile, part after part.

It knows nothing of requests and pixels.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mosaic_async.build.part_record import EmptyKind
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part


@dataclass
class OpenPart:
    """A part that is being filled."""

    part: Part
    tiles: list[Tile]
    waiting: int
    """Orders that are not settled."""


@dataclass(frozen=True)
class Order:
    """One tile that one part waits for."""

    opened: OpenPart
    tile: Tile
    bodies: int = 0
    """Unreadable bodies that the server has sent."""
    attempts: int = 0
    """Attempts that these bodies took."""


@dataclass(frozen=True)
class Ending:
    """How an order ended: with a body, with an empty body where the tile has no data, or without the tile."""

    order: Order
    body: bytes = b""
    attempts: int = 0
    """That the body took; 0 for one from the work folder."""
    is_missing: bool = False
    status: int = 200
    empty: EmptyKind | None = None


class Orders:
    """Hands out orders to any number of fetchers, and knows which of them are not settled.

    A fetcher waits here, and not in the writer, until a part's canvas has room. This cannot deadlock: tiles of open
    parts need no room, neither the first time nor when they come back.

    Args:
        tiles: returns the tiles that a part needs, at least one.
        is_stopped: returns whether to hand out nothing new.
        room: returns how many parts may be open at once; one is opened in any case.
    """

    def __init__(
        self, tiles: Callable[[Part], list[Tile]], is_stopped: Callable[[], bool], room: Callable[[], int]
    ) -> None:
        self._tiles = tiles
        self._room = room
        self._is_stopped = is_stopped
        self._parts: Iterator[Part] = iter(())
        self._fresh: Iterator[Order] = iter(())
        self._again: deque[Order] = deque()
        self._unsettled = 0
        self._changed = asyncio.Condition()
        self.open: dict[str, OpenPart] = {}
        """Parts that are being filled or sealed, by name."""

    def begin(self, parts: Iterable[Part]) -> None:
        """Set the parts to go through, after all parts before have been closed."""
        self._parts = iter(parts)

    async def next(self) -> Order | None:
        """Wait for the next order and return it; None when all are settled and all parts closed."""
        async with self._changed:
            while True:
                order = self._take()
                if order is not None:
                    self._unsettled += 1
                    return order
                if not self._unsettled and (self._is_stopped() or not self.open):
                    return None
                await self._changed.wait()

    def _take(self) -> Order | None:
        """Return an order that needs no waiting."""
        if self._again:
            return self._again.popleft()
        if self._is_stopped():
            return None
        order = next(self._fresh, None)
        if order is None and len(self.open) < max(1, self._room()) and (part := next(self._parts, None)) is not None:
            tiles = self._tiles(part)
            opened = self.open[part.name] = OpenPart(part, tiles, waiting=len(tiles))
            self._fresh = (Order(opened, tile) for tile in tiles)
            order = next(self._fresh)
        return order

    async def settle(self, again: Order | None = None) -> None:
        """Note that an order is settled, or comes back."""
        self._unsettled -= 1
        if again is not None:
            self._again.append(again)
        if again is not None or not self._unsettled:
            await self._notify()

    async def close(self, opened: OpenPart) -> None:
        """Note that a part no longer needs its room."""
        del self.open[opened.part.name]
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
