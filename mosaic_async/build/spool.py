"""Bodies of the tiles of open parts: one file per part, to which records are appended.

A record is a head and a body. The head begins with a mark, so that the next sound record is found behind a damaged one;
it has a checksum of its own, so that its length can be trusted. The digest covers job, tile and body, and is checked
when the body is read. A kill loses nothing that was written. After a power cut heads and digests show what is whole.

All writing is done by one thread, and what arrives meanwhile is written together. Bodies that are not proved by their
place lie in files of their own: a later run uses them only if the log of arrivals knows them as proved. The spool knows
nothing of what is in the bodies.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import aiofiles.os

from mosaic_async.build.arrivals import Arrival, Arrivals, Body, Note, digest_of
from mosaic_async.build.proof import OnDrop, Proof
from mosaic_async.events import zxy
from mosaic_async.geo.cover import Tile

_HEAD = struct.Struct("<8sLLBLL16s")
"""Mark, checksum of what follows, length of the body, z, x, y, digest."""
_CHECKED = struct.Struct("<LBLL16s")
"""The part of the head that its checksum covers."""
_MARK, _DIGEST = 8, 16
"""Bytes: chance never makes such a mark, and no damage leaves such a digest as it was."""
_UNPROVED = ".unproved"
"""Ends the names of files whose bodies need the log of arrivals."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record lies."""

    file: str
    start: int
    length: int
    """Of the body, in bytes."""

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.start + _HEAD.size + self.length


@dataclass(frozen=True, eq=False)
class _Record:
    """A body on its way to the disk."""

    file: str
    tile: Tile
    body: Body


class Spool:
    """Keeps bodies until the parts that need them are finished.

    Args:
        folder: for its files; nothing else is in it.
        proof: of the job.
        on_drop: called with the name of a body that is damaged, and the reason.
        arrivals: the log of answers that their connections have not proved yet.
    """

    def __init__(self, folder: Path, proof: Proof, on_drop: OnDrop, arrivals: Arrivals) -> None:
        self.folder = folder
        self._arrivals = arrivals
        self._proof = proof
        self._on_drop = on_drop
        self._mark = proof.digest("spool 2", b"")[:_MARK]
        self._places: dict[Tile, _Place] = {}
        self._sizes: Counter[str] = Counter()
        """Tiles per file; a file without any is deleted."""
        self.unproved: set[Tile] = set()
        """The tiles of earlier runs that need the log of arrivals."""
        self._waiting: list[_Record] = []
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mosaic-spool")

    def __contains__(self, tile: Tile) -> bool:
        """Whether the tile's body is here, even if it is empty."""
        return tile in self._places

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles that are here."""
        return iter(list(self._places))

    def has_own(self) -> bool:
        """Return whether any file begins with a record of this job; it blocks."""
        return any(self._begins_with_own(path) for path in self.folder.glob("*") if path.is_file())

    def has_body(self, tile: Tile) -> bool:
        """Return whether the tile is here and has data."""
        place = self._places.get(tile)
        return place is not None and place.length > 0

    def scan(self) -> list[str]:
        """List what an earlier run left, and return the names of files that have damaged records; it blocks.

        Damaged records count as absent. A torn record at the end, which a kill leaves, is cut off and not reported.
        """
        self.folder.mkdir(exist_ok=True)
        names = [path.name for path in sorted(self.folder.iterdir()) if path.is_file()]
        damaged = [name for name in names if not self._scan_file(self.folder / name)]
        self._delete(name for name in names if not self._sizes[name])
        self.unproved = {tile for tile, place in self._places.items() if place.file.endswith(_UNPROVED)}
        return damaged

    async def write(self, tile: Tile, body: bytes, *, file: str, arrival: Arrival | None = None) -> None:
        """Keep a body; an empty one stands for a tile without data.

        Args:
            tile: that it is of; a later body replaces an earlier one.
            body: the bytes.
            file: the name of the first part that needs the tile.
            arrival: how the body came, if its connection has not proved it.

        Raises:
            OSError: the disk does not take it.
        """
        record = _Record(file if arrival is None else file + _UNPROVED, tile, Body(body))
        if arrival is not None:
            self._arrivals.note(arrival, tile, record.body)
        self.unproved.discard(tile)
        self._waiting.append(record)
        async with self._turn:
            if record in self._waiting:
                await self._write_waiting()

    async def read(self, tile: Tile) -> bytes | None:
        """Return a body that is here; None, and it is dropped, if it is not what was written.

        A body that another part has dropped meanwhile is None, too.
        """
        if (place := self._places.get(tile)) is None:
            return None
        body = await self._read(tile, place)
        if body is None:
            self._on_drop(f"tile {zxy(tile)}", "it is damaged in the spool")
            await self.drop([tile])
        return body

    async def drop(self, tiles: Iterable[Tile]) -> None:
        """Forget bodies, and delete the files that have no others."""
        async with self._turn:
            touched = {place.file for tile in tiles if (place := self._forget(tile))}
            await self._in_thread(partial(self._delete, [name for name in touched if not self._sizes[name]]))

    async def drop_unproved(self) -> None:
        """Forget the bodies of earlier runs that the log of arrivals does not know as proved."""
        unknown = []
        for tile in self.unproved:
            body = await self.read(tile)
            if body is not None and self._arrivals.proved.get(tile) != digest_of(body):
                unknown.append(tile)
        await self.drop(unknown)
        self.unproved.clear()

    async def sync(self) -> None:
        """Write what has been noted of arrivals, and have the disk hold it."""
        async with self._turn:
            await self._in_thread(partial(self._arrivals.sync, self._arrivals.take()))

    async def withdraw(self, tiles: Collection[Tile], *, files: Iterable[str]) -> None:
        """Delete all files that may hold one of the tiles, so that a later run does not find them either.

        Args:
            tiles: whose bodies may be wrong.
            files: where they were to be written.
        """
        async with self._turn:
            names = {name + end for name in files for end in ("", _UNPROVED)}
            names |= {place.file for tile in tiles if (place := self._places.get(tile))}
            for tile in [tile for tile, place in self._places.items() if place.file in names]:
                self._forget(tile)
            await self._in_thread(partial(self._delete, names))

    def close(self) -> None:
        """Wait for what is being written, and end the thread; it blocks."""
        self._thread.shutdown()

    async def _write_waiting(self) -> None:
        batch = self._waiting[:]
        places = await self._in_thread(partial(self._append, batch, self._arrivals.take()))
        del self._waiting[: len(batch)]
        for record, place in zip(batch, places, strict=True):
            self._note(record.tile, place)

    def _append(self, records: Iterable[_Record], arrivals: Iterable[Note]) -> list[_Place]:
        """Write records, those of one file at once; bytes of a failed attempt are cut off again."""
        self._arrivals.append(arrivals)  # first, so that no body is without its arrival
        places = []
        for name, group in groupby(records, key=attrgetter("file")):
            path = self.folder / name
            with path.open("ab") as file:
                start = file.tell()
                try:
                    for record in group:
                        places.append(_Place(name, file.tell(), len(record.body.data)))
                        file.write(self._head(record.tile, record.body))
                        file.write(record.body.data)
                    file.flush()
                except OSError:
                    with suppress(OSError):
                        os.truncate(path, start)
                    raise
        return places

    async def _read(self, tile: Tile, place: _Place) -> bytes | None:
        """Return a body if its record is, byte for byte, the one that was written."""
        try:
            record = await _bytes_at(
                self.folder / place.file, place.start, _HEAD.size + place.length, executor=self._thread
            )
        except OSError:
            return None
        head, body = record[: _HEAD.size], record[_HEAD.size :]
        return body if head == self._head(tile, Body(body)) else None

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _scan_file(self, path: Path) -> bool:
        """List the records of a file, cut it off behind the last one, and return whether nothing else is damaged."""
        size = path.stat().st_size
        if not size:
            return True
        end = gaps = 0
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for tile, place in self._records(path.name, view):
                gaps += abs(place.start - end)
                end = place.end
                self._note(tile, place)
            is_clean = not gaps and self._is_torn(view, end)
        if end < size:
            os.truncate(path, end)
        return is_clean

    def _begins_with_own(self, path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(_MARK) == self._mark

    def _records(self, name: str, view: mmap.mmap) -> Iterator[tuple[Tile, _Place]]:
        """Yield the records whose heads are sound, in the order of the file."""
        start = 0
        while (start := view.find(self._mark, start)) >= 0:
            found = self._parse(name, view, start)
            start += 1
            if found and found[1].end <= len(view):
                yield found
                is_followed = view[found[1].end : found[1].end + _MARK] == self._mark
                start = found[1].end if is_followed else start  # bytes can have been lost inside the body

    def _parse(self, name: str, view: mmap.mmap, start: int) -> tuple[Tile, _Place] | None:
        """Read a head; None if it is damaged."""
        if start + _HEAD.size > len(view):
            return None
        mark, check, length, z, x, y, _ = _HEAD.unpack_from(view, start)
        checked = view[start + _HEAD.size - _CHECKED.size : start + _HEAD.size]
        if mark != self._mark or check != zlib.crc32(checked):
            return None
        return Tile(x, y, z), _Place(name, start, length)

    def _is_torn(self, view: mmap.mmap, start: int) -> bool:
        """Return whether nothing follows, or only the begin of a record, as a kill leaves it."""
        if len(view) - start < _HEAD.size:
            return self._mark.startswith(view[start : start + _MARK])
        return self._parse("", view, start) is not None

    def _head(self, tile: Tile, body: Body) -> bytes:
        digest = self._proof.digest(f"tile {zxy(tile)}", body.digest)[:_DIGEST]
        checked = _CHECKED.pack(len(body.data), tile.z, tile.x, tile.y, digest)
        return self._mark + zlib.crc32(checked).to_bytes(4, "little") + checked

    def _note(self, tile: Tile, place: _Place) -> None:
        self._forget(tile)
        self._places[tile] = place
        self._sizes[place.file] += 1

    def _forget(self, tile: Tile) -> _Place | None:
        place = self._places.pop(tile, None)
        if place is not None:
            self._sizes[place.file] -= 1
        return place

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


@aiofiles.os.wrap
def _bytes_at(path: Path, start: int, length: int) -> bytes:
    """Read in one call to the thread, which closes the file even if the task that waits is cancelled."""
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
