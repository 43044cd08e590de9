"""Which answers came over which connection: a log beside the spool, until their connections have proved them.

A tile that names its place proves itself, and is not in here. All others are proved by the connection that they came
over, which may be only at its end. A run that is killed before that leaves answers that may belong to other requests.
So each is noted before its body is kept, and so is each proof; what the next run finds without one, it checks.

The log is flushed only when a part is declared. A torn record at its end is cut off, and a damaged one is skipped: what
is not in the log is not proved. It knows nothing of requests, and of where the bodies are.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

from mosaic_async.build.proof import Proof
from mosaic_async.geo.cover import Tile
from mosaic_async.raster import whole_file

_RECORD = struct.Struct("<BLLBLL16s")
"""Kind, connection, number of the answer on it, z, x, y, digest; a checksum of 4 bytes follows."""
_SIZE = _RECORD.size + 4
_HEAD = 16
"""Bytes that tell the job."""
_ARRIVED, _PROVED, _GIVEN_UP = b"apg"
_LAST = 2**32 - 1

Arrival = tuple[int, int]
"""The connection of an answer, and its number there."""
Note = tuple[int, Arrival, Tile | None, "Body | None"]
"""What is to be written: its kind, where it was, and for an answer the tile and the body."""


@dataclass(frozen=True)
class Unproved:
    """An answer that its connection has not proved."""

    number: int
    """On the connection, from 1."""
    tile: Tile
    digest: bytes


def digest_of(body: bytes | None) -> bytes:
    """Return what tells answers apart, whichever tile they are of; None stands for "not found"."""
    return hashlib.sha256(b"\0not found" if body is None else body).digest()[:16]


class Body:
    """The body of an answer on its way to the disk, which is hashed once, by the thread that writes it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @cached_property
    def digest(self) -> bytes:
        """What `digest_of` returns for the bytes."""
        return digest_of(self.data)


class Arrivals:
    """The log of one job.

    Args:
        path: of the file.
        proof: of the job.
    """

    def __init__(self, path: Path, proof: Proof) -> None:
        self.path = path
        self._head = proof.digest("arrivals", b"")[:_HEAD]
        self._waiting: list[Note] = []
        self._first = 1
        """Number of this run's first connection: those before are of earlier runs."""
        self._noted: set[int] = set()
        self._pending: dict[int, list[tuple[int, Tile]]] = {}
        """By connection: what this run has noted and not proved."""
        self._is_synced = True
        self.unproved: dict[int, list[Unproved]] = {}
        """By connection: what earlier runs have left."""
        self.proved: dict[Tile, bytes] = {}
        """Digests of the tiles in the spool that earlier runs proved."""

    def scan(self, spooled: Collection[Tile]) -> bool:
        """Read what earlier runs have noted, and return whether it is undamaged; it blocks.

        Args:
            spooled: the tiles whose digests are wanted where they are proved.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        is_ours = data.startswith(self._head)
        records = list(_records(data)) if is_ours else []
        end = _HEAD + (len(data) - _HEAD) // _SIZE * _SIZE if is_ours else 0
        if end < len(data):  # a kill leaves a torn record
            os.truncate(self.path, end)
        for kind, connection, number, *place, digest in records:
            self._first = max(self._first, connection + 1)
            if kind == _ARRIVED:
                z, x, y = place
                self.unproved.setdefault(connection, []).append(Unproved(number, Tile(x, y, z), digest))
            else:
                self._resolve(connection, number, spooled if kind == _PROVED else ())
        for answers in self.unproved.values():
            answers.sort(key=attrgetter("number"))
        return is_ours and end == _HEAD + _SIZE * len(records) if data else True

    def _resolve(self, connection: int, number: int, spooled: Collection[Tile]) -> None:
        """Forget the answers of a connection up to a number; if they are proved, but for the digests of some tiles."""
        answers = self.unproved.pop(connection, [])
        done = (answer for answer in answers if answer.number <= number and answer.tile in spooled)
        self.proved.update((answer.tile, answer.digest) for answer in done)
        if left := [answer for answer in answers if answer.number > number]:
            self.unproved[connection] = left

    def note(self, arrival: Arrival, tile: Tile, body: Body | None) -> None:
        """Note an answer that is not proved; `take` and `append` write it."""
        self._noted.add(arrival[0])
        connection, number = arrival
        self._pending.setdefault(connection, []).append((number, tile))
        self._waiting.append((_ARRIVED, (self._of_this_run(connection), number), tile, body))

    def prove(self, connection: int, number: int) -> None:
        """Note that a connection has proved its answers up to a number."""
        if connection in self._noted:
            left = [pending for pending in self._pending.pop(connection, ()) if pending[0] > number]
            if left:
                self._pending[connection] = left
            self._waiting.append((_PROVED, (self._of_this_run(connection), number), None, None))

    def withdraw(self, connections: Collection[int]) -> None:
        """Note that nothing is kept of what this run has taken from connections; `sync` after it was dropped."""
        for connection in self._noted.intersection(connections):
            self._pending.pop(connection, None)
            self._waiting.append((_GIVEN_UP, (self._of_this_run(connection), _LAST), None, None))

    def are_proved(self, tiles: Collection[Tile]) -> bool:
        """Return whether this run has no unproved answer of these tiles."""
        return all(tile not in tiles for pending in self._pending.values() for _, tile in pending)

    def are_sure(self, tiles: Collection[Tile]) -> bool:
        """Return whether neither this run nor an earlier one has an unproved answer of these tiles."""
        earlier = (answer.tile for answers in self.unproved.values() for answer in answers)
        return self.are_proved(tiles) and all(tile not in tiles for tile in earlier)

    def accept(self, connection: int) -> None:
        """Note that what an earlier run has left of a connection was checked, and is right."""
        answers = self.unproved.pop(connection)
        self.proved.update((answer.tile, answer.digest) for answer in answers)
        self._waiting.append((_PROVED, (connection, answers[-1].number), None, None))

    def give_up(self, connection: int) -> None:
        """Note that nothing is kept of what an earlier run has left of a connection; `sync` after it was dropped."""
        answers = self.unproved.pop(connection)
        self._waiting.append((_GIVEN_UP, (connection, answers[-1].number), None, None))

    def take(self) -> list[Note]:
        """Return what is to be written."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def append(self, notes: Iterable[Note]) -> None:
        """Write what `take` returned; it blocks.

        Raises:
            OSError: the disk does not take it.
        """
        data = b"".join(map(_encoded, notes))
        if not data:
            return
        with self.path.open("ab") as file:
            if not file.tell():
                file.write(self._head)
            file.write(data)
        self._is_synced = False

    def sync(self, notes: Iterable[Note]) -> None:
        """Write what `take` returned, and wait until the disk holds the log; it blocks."""
        self.append(notes)
        if not self._is_synced:
            whole_file.flush(self.path)
            self._is_synced = True

    def _of_this_run(self, connection: int) -> int:
        return self._first + connection - 1


_NOT_FOUND = digest_of(None)


def _encoded(note: Note) -> bytes:
    kind, (connection, number), tile, body = note
    digest = _NOT_FOUND if body is None else body.digest
    z, x, y = (0, 0, 0) if tile is None else (tile.z, tile.x, tile.y)
    record = _RECORD.pack(kind, connection, number, z, x, y, digest)
    return record + zlib.crc32(record).to_bytes(4, "little")


def _records(data: bytes) -> Iterator[tuple[Any, ...]]:
    """Yield the records that are undamaged."""
    for start in range(_HEAD, len(data) - _SIZE + 1, _SIZE):
        record = data[start : start + _RECORD.size]
        if zlib.crc32(record).to_bytes(4, "little") == data[start + _RECORD.size : start + _SIZE]:
            yield _RECORD.unpack(record)
