"""The output while it grows: the blocks of part after part, each copied as it was encoded.

Parts follow each other in the order of the output, so the same job always makes the same bytes. What comes before them
(headers and small overviews) is known only when the last part is there; it is inserted then, or room was kept for it.
A journal says which parts the disk holds; a file that is found again is believed only where its bytes agree.
It does not know headers.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np

from mosaic_async.raster import whole_file
from mosaic_async.raster.blocks import BLOCK, Blocks, Digests, copy_blocks, digests_in, no_blocks, no_digests, shifted
from mosaic_async.raster.insertion import insert_at_start
from mosaic_async.raster.journal import SUFFIX, Entry, Journal, Place

BATCH = 64 * 2**20
"""Bytes, or a 16th of a smaller file: so much is copied before the disk is flushed and spent files are deleted."""
_PREFIX, _ASIDE = "stitch-", "-aside"

OnCopy = Callable[[int], None]
"""Called with the bytes that were just copied."""
Run = tuple[Path, Blocks]
"""A file, and the blocks to take from it."""
Spent = Callable[[], None]
"""Called to delete what was copied, once the disk holds the copy."""


@dataclass(frozen=True)
class Segment:
    """What the output holds of one part: its blocks, one directly after the other."""

    start: int
    """Bytes from the start of the first segment."""
    blocks: Blocks
    """They start where the file says in which they are; see `Unfinished.blocks_of`."""
    digests: Digests

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.blocks["count"].sum())

    @cached_property
    def content(self) -> bytes:
        """What two segments with the same blocks in the same order have in common."""
        names = ["level", "is_mask", "row", "col", "count"]
        data = ~self.blocks["is_empty"]
        columns = [self.blocks[name][data] for name in names]
        return b"".join(column.tobytes() for column in (*columns, self.digests[data]))

    def entry(self, place: Place) -> Entry:
        """Return the line of the journal."""
        packed = self.blocks.tobytes()
        proof = hashlib.sha256(f"{place} {self.start}\n".encode() + packed + self.digests.tobytes()).hexdigest()
        return Entry(self.start, base64.b64encode(packed).decode(), proof)


class Unfinished:
    """An output of which only parts are written yet.

    Args:
        path: the file.
        base: bytes before the first part.
        journal: of the file; it is written by `begin`.
    """

    def __init__(self, path: Path, base: int, journal: Journal) -> None:
        self.path = path
        self.base = base
        self.segments: dict[Place, Segment] = {}
        """As they follow each other in the file."""
        self._journal = journal
        self._size = 0
        self._unflushed: dict[Place, Segment] = {}
        self._spent: dict[Place, Spent] = {}

    @classmethod
    def find(cls, folder: Path, label: str, layout: str) -> tuple[Self, Self]:
        """Return the output as an earlier run of a job left it, and the parts that it had put aside.

        Both are proved by their bytes, which this reads. The files of other jobs are deleted.

        Raises:
            OSError: a file cannot be read.
        """
        paths = [folder / f"{_PREFIX}{layout[:16]}{end}.tif" for end in ("", _ASIDE)]
        for other in folder.glob(f"{_PREFIX}*"):
            if other.with_suffix(".tif") not in paths:
                other.unlink(missing_ok=True)
        output, aside = (cls._found(path, label, layout) for path in paths)
        for place in reversed([place for place in aside.segments if place in output.segments]):
            aside.drop(place)  # a kill between copying it and deleting it here
        if not aside.segments:
            aside.remove()
        return output, aside

    @classmethod
    def _found(cls, path: Path, label: str, layout: str) -> Self:
        journal = Journal.read(path.with_suffix(SUFFIX))
        if journal is None or (journal.label, journal.layout) != (label, layout) or not path.exists():
            return cls(path, 0, Journal(path=path.with_suffix(SUFFIX), label=label, layout=layout, model="", base=0))
        found = cls(path, journal.base, journal)
        found._adopt(journal)
        return found

    @property
    def is_shared(self) -> bool:
        """Whether the file has another name, as that of an output with holes has, and must not be changed."""
        return self.path.exists() and self.path.stat().st_nlink > 1

    @property
    def is_gapless(self) -> bool:
        """Whether the parts follow each other, and nothing else is in the file."""
        ends = accumulate((segment.size for segment in self.segments.values()), initial=0)
        return [*(segment.start for segment in self.segments.values()), self._size] == list(ends)

    @property
    def size(self) -> int:
        """Bytes of the segments."""
        return self._size

    @property
    def model(self) -> str:
        """A name for how the parts are encoded."""
        return self._journal.model

    def begin(self, base: int, model: str) -> None:
        """Begin an empty file.

        Args:
            base: bytes to keep free for what comes before the parts.
            model: a name for how the parts are encoded.

        Raises:
            OSError: a file cannot be written.
        """
        self.base, self.segments, self._size = base, {}, 0
        self._journal.base, self._journal.model = base, model
        self._journal.begin()
        self.path.unlink(missing_ok=True)  # it may be shared
        with self._open() as file:
            os.ftruncate(file, base)
        whole_file.flush(self.path.parent)

    def append(
        self, place: Place, runs: Sequence[Run], *, spent: Spent = lambda: None, on_copy: OnCopy = lambda _: None
    ) -> None:
        """Copy the blocks of a part.

        Args:
            place: of the part.
            runs: where its blocks are, in the order of the output.
            spent: called once the disk holds the blocks.
            on_copy: told of what is copied.

        Raises:
            StitchError: a source ends too early.
            OSError: a file cannot be read or written.
        """
        with self._open() as file:
            segment = copied(runs, file, self.base, self._size, on_copy)
            self.segments[place] = self._unflushed[place] = segment
            self._size += segment.size
            self._spent[place] = spent
            if sum(segment.size for segment in self._unflushed.values()) >= min(BATCH, self._size // 16):
                self._flush(file)

    def flush(self) -> None:
        """Wait for the disk, then note the parts in the journal, then delete their files.

        Raises:
            OSError: the disk does not take it.
        """
        if self._unflushed or self._spent:
            with self._open() as file:
                self._flush(file)

    def holds(self, place: Place, run: Run) -> bool:
        """Return whether the blocks of a part that was made again are those in the file; this reads them.

        Raises:
            OSError: a file cannot be read.
        """
        segment, (path, blocks) = self.segments[place], run
        return Segment(segment.start, blocks, digests_in(path, blocks)).content == segment.content

    def common(self, order: Sequence[Place]) -> int:
        """Return how many parts of the file are, one directly after the other, the first ones of an order."""
        end = number = 0
        for due, (place, segment) in zip(order, self.segments.items(), strict=False):
            if (place, segment.start) != (due, end):
                break
            number, end = number + 1, end + segment.size
        return number

    def spend(self, place: Place, spent: Spent) -> None:
        """Call this once the disk holds a part."""
        self._spent[place] = spent

    def drop(self, place: Place) -> None:
        """Do without the blocks of a part; the file is cut off behind the last of the others.

        Raises:
            OSError: the journal or the file cannot be written.
        """
        del self.segments[place]
        self._spent.pop(place, None)
        if self._unflushed.pop(place, None) is None:
            self._journal.drop(place)
        self._cut()

    def move(self, place: Place, target: Unfinished) -> None:
        """Append the last part to another file, and drop it here once the disk holds it there.

        Raises:
            StitchError: the file ends too early.
            OSError: a file cannot be read or written.
        """
        if not target.segments:
            target.begin(0, self.model)
        path, blocks = self.blocks_of(place)
        target.append(place, [(path, blocks[~blocks["is_empty"]])], spent=partial(self.drop, place))

    def share(self, other: Unfinished) -> None:
        """Let another file hold the same parts, which are the same bytes on the disk.

        Raises:
            OSError: the files cannot be linked.
        """
        other.remove()
        os.link(self.path, other.path)
        os.link(self._journal.path, other._journal.path)
        other._journal = replace(self._journal, path=other._journal.path, parts=dict(self._journal.parts))
        other.base, other.segments, other._size = self.base, dict(self.segments), self._size

    def remove(self) -> None:
        """Delete the file.

        Raises:
            OSError: it cannot be deleted.
        """
        self.segments, self._size = {}, 0
        self.path.unlink(missing_ok=True)
        self._journal.path.unlink(missing_ok=True)

    def blocks_of(self, place: Place) -> Run:
        """Return where in the file the blocks of a part are."""
        segment = self.segments[place]
        return self.path, shifted(segment.blocks, self.base)

    def insert_front(self, size: int) -> None:
        """Move all parts to make room before them.

        Raises:
            OSError: the file system cannot, or the disk is full.
        """
        self._journal.announce_front(size)
        with self._open() as file:
            insert_at_start(file, size)
        self.base = size

    @contextmanager
    def front(self) -> Iterator[int]:
        """Open the file to write what comes before the parts; wait for the disk at the end.

        Raises:
            OSError: the file cannot be written.
        """
        with self._open() as file:
            yield file
            os.fsync(file)

    @contextmanager
    def _open(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield file
        finally:
            os.close(file)

    def _flush(self, file: int) -> None:
        os.fsync(file)
        self._journal.add({place: segment.entry(place) for place, segment in self._unflushed.items()})
        spent, self._unflushed, self._spent = self._spent, {}, {}
        for delete in spent.values():
            delete()

    def _cut(self) -> None:
        """Cut off what lies behind the last part, unless another name has it, too."""
        self._size = max((segment.start + segment.size for segment in self.segments.values()), default=0)
        if not self.is_shared and self.path.stat().st_size != self.base + self._size:
            os.truncate(self.path, self.base + self._size)

    def _adopt(self, journal: Journal) -> None:
        """Take over the segments whose bytes are in the file, and cut off what was not finished."""
        for base in {journal.front, journal.base} - {None}:
            proved = self._proved(journal, base or 0)
            if len(proved) >= len(self.segments):
                self.base, self.segments = base or 0, proved
        journal.forget()
        self._cut()

    def _proved(self, journal: Journal, base: int) -> dict[Place, Segment]:
        """Return the segments that are where the journal says, if the first one starts at `base`."""
        found = {}
        entries = [(place, entry) for place, entry in journal.parts.items() if entry is not None]
        for place, entry in sorted(entries, key=lambda item: item[1].start):
            blocks = _unpacked(entry)
            segment = Segment(entry.start, blocks, digests_in(self.path, shifted(blocks, base)))
            if segment.entry(place) == entry:
                found[place] = segment
        return found


def copied(runs: Sequence[Run], output: int, base: int, start: int, on_copy: OnCopy) -> Segment:
    """Copy blocks from files to an open file, one directly after the other, and return what is there now.

    Args:
        runs: the files and their blocks.
        output: the open file.
        base: where in it the first segment starts.
        start: where the new segment starts, from `base`.
        on_copy: told of what is copied.

    Raises:
        StitchError: a source ends too early.
        OSError: a file cannot be read or written.
    """
    digests, offset = [no_digests()], base + start
    for path, blocks in runs:
        for some, size in copy_blocks(path, blocks, output, offset):
            digests.append(some)
            offset += size
            on_copy(size)
    placed = np.concatenate([no_blocks(), *(blocks for _, blocks in runs)])
    placed["start"] = start + np.cumsum(placed["count"], dtype=np.uint64) - placed["count"]
    return Segment(start, placed, np.concatenate(digests))


def _unpacked(entry: Entry) -> Blocks:
    """Return the blocks of an entry; none if it is damaged."""
    try:
        return np.frombuffer(base64.b64decode(entry.blocks, validate=True), BLOCK)
    except ValueError:
        return no_blocks()
