"""Whether the source is still there: a tile that had data is requested again, and must still have data.

A server that was deployed anew, or whose search has expired, does not find any tile, and says so in the same words as
of a tile that never was. This module knows nothing of what becomes of tiles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mosaic_async.build.job import Job
from mosaic_async.errors import RequestError, SourceError
from mosaic_async.events import zxy
from mosaic_async.geo.cover import Tile
from mosaic_async.http.client import Client

_ROW = 64
"""Tiles not found in a row after which the source is checked: more requests may all be in vain."""


class Witness:
    """Watches for a source that is gone.

    Args:
        job: whose source it is.
        client: makes the requests.
        find: returns a tile that had data in an earlier run.
    """

    def __init__(self, job: Job, client: Client, find: Callable[[], Tile | None]) -> None:
        self._job = job
        self._client = client
        self._find = find
        self._tile: Tile | None = None
        self._row = 0
        """Tiles not found since the server last answered otherwise."""
        self._turn = asyncio.Lock()

    @property
    def is_due(self) -> bool:
        """Whether a long row of tiles has not been found."""
        return self._row > 0 and self._row % _ROW == 0

    def note_found(self, tile: Tile, *, has_data: bool) -> None:
        """Note that the server sent a tile, or states that it has no data."""
        self._row = 0
        if has_data:
            self._tile = tile

    def note_not_found(self) -> None:
        """Note that the server does not find a tile."""
        self._row += 1

    async def check(self) -> None:
        """Prove that the source is there, if it has not been heard of since it did not find a tile.

        Raises:
            SourceError: it is gone, or cannot be asked.
        """
        async with self._turn:
            tile = self._tile or self._find()
            if self._row == 0 or tile is None:
                return
            try:
                async with self._client.get(self._job.url(tile)) as answer:
                    has_data = bool(answer.body)
            except RequestError as error:
                raise SourceError(
                    f"tiles are not found, and tile {zxy(tile)}, which had data, cannot be fetched again: {error}",
                    hint="all tiles that arrived are kept: re-run the same command to resume",
                ) from error
            if not has_data:
                raise SourceError(
                    f"the source is gone: tile {zxy(tile)}, which had data, is not found any more ({answer.reason})",
                    hint="all tiles that arrived are kept: when the source is back, re-run the same command to resume",
                )
            self._row = 0
