"""Many COGs to one, by copying encoded blocks: nothing is decoded, so nothing is lost and little is computed.

The place of every block is known from the headers of all files before the first byte is copied. So parts are copied
one after the other, and each can be deleted once the disk holds its blocks; a journal beside the output says which.

The output has all headers first, then the blocks, smallest overview first; all blocks without data point to one encoded
empty block per image. It has no GDAL structural metadata: that promises a leader before each block and blocks in rows,
which shared blocks cannot keep (GDAL's COG driver, "Low-level format details"). It does not know pixels.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mosaic_async.errors import StitchError
from mosaic_async.raster import whole_file
from mosaic_async.raster.blocks import Blocks, Runs, joined, merged, read_pieces, write_at
from mosaic_async.raster.journal import SUFFIX, Journal, Place
from mosaic_async.raster.plates import Model
from mosaic_async.raster.tiff import Image, encode_head

_BATCH = 64 * 2**20
"""Bytes, or a 16th of a smaller output: this much is copied before the disk is flushed and spent files are deleted."""
_CLASSIC_LIMIT = 2**32 - 1

OnProgress = Callable[[int, int], None]
"""Called with the bytes that the output holds, and the bytes that it will hold."""


def ignore_progress(done: int, total: int) -> None:
    """Ignore the progress."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, and the blocks that the output takes from it."""

    path: Path
    blocks: Sequence[Blocks]
    part: Place | None = None
    """The part whose blocks these are, for the journal; None notes nothing."""
    is_spent: bool = False
    """Whether the file is deleted once the output holds its blocks."""


@dataclass(frozen=True)
class _Copy:
    source: Source
    runs: Runs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The layout of the output: its head, its empty blocks, and what is copied from each file to which place."""

    head: bytes
    size: int
    """Bytes."""
    empties: Mapping[int, bytes]
    """Empty blocks by their offset."""
    copies: Sequence[_Copy]

    @property
    def digest(self) -> str:
        """SHA-256 of the head; outputs of the same digest have all blocks in the same places."""
        return hashlib.sha256(self.head).hexdigest()

    def write(self, output: Path, label: str, on_progress: OnProgress = ignore_progress) -> None:
        """Write the output, or complete an unfinished output of the same layout.

        Args:
            output: the file. A source with this path is in its place already.
            label: the job's, for the journal.
            on_progress: told how far the copy is.

        Raises:
            StitchError: a source ends too early.
            OSError: a file cannot be read or written.
        """
        progress = _Progress(self.size, on_progress)
        file = os.open(output, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._prepare(file)
            progress.add(len(self.head) + sum(map(len, self.empties.values())))
            whole_file.flush(output.parent)
            batch = _Batch(file, self._journal(output, label), min(_BATCH, self.size // 16))
            for copy in self.copies:
                if copy.source.path == output:
                    progress.add(copy.runs.size)
                else:
                    batch.add(copy, _copied(copy, file, progress))
            batch.flush()
        finally:
            os.close(file)

    def _prepare(self, file: int) -> None:
        """Write what is there before any part: the head and the empty blocks."""
        os.ftruncate(file, self.size)
        write_at(file, self.head, 0)
        for offset, block in self.empties.items():
            write_at(file, block, offset)
        os.fsync(file)

    def _journal(self, output: Path, label: str) -> Journal:
        """Return the journal of an earlier run for this layout and job, or begin one."""
        path = output.with_suffix(SUFFIX)
        found = Journal.read(path)
        if found and (found.label, found.head) == (label, self.digest):
            return found
        size, empties = len(self.head), tuple(self.empties)
        begun = Journal(path=path, label=label, head=self.digest, head_size=size, empties=empties)
        begun.begin()
        return begun


class _Progress:
    """Reports each per cent once."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._total = total
        self._done = 0
        self._told = 0
        self._on_progress = on_progress

    def add(self, size: int) -> None:
        self._done += size
        if self._done - self._told >= self._total / 100 or self._done == self._total:
            self._told = self._done
            self._on_progress(self._done, self._total)


class _Batch:
    """Sources that were copied since the last flush."""

    def __init__(self, output: int, journal: Journal, limit: int) -> None:
        self._output = output
        self._journal = journal
        self._limit = limit
        self._size = 0
        self._checksums: dict[Place, int] = {}
        self._spent: list[Path] = []

    def add(self, copy: _Copy, checksum: int) -> None:
        """Note a source, and flush if enough was copied."""
        self._size += copy.runs.size
        if copy.source.part is not None:
            self._checksums[copy.source.part] = checksum
        if copy.source.is_spent:
            self._spent.append(copy.source.path)
        if self._size >= self._limit:
            self.flush()

    def flush(self) -> None:
        """Wait for the disk, then note the parts in the journal, then delete their files."""
        os.fsync(self._output)
        if self._checksums:
            self._journal.add(self._checksums)
        for path in self._spent:
            path.unlink(missing_ok=True)
        self._size, self._checksums, self._spent = 0, {}, []


def lay_out(
    sources: Sequence[Source], model: Model, *, width: int, height: int, levels: int, bigtiff: bool | None = None
) -> Plan:
    """Decide the place of every block.

    Args:
        sources: the files; a block that none of them holds is empty.
        model: headers and empty blocks.
        width: pixels.
        height: pixels.
        levels: overview levels.
        bigtiff: True or False force it; None decides by size.

    Raises:
        StitchError: the output is too large for the requested kind of TIFF.
    """
    images: list[Image] = []
    empties: dict[int, bytes] = {}
    runs: list[list[Runs]] = [[] for _ in sources]
    size = 0
    for level in reversed(range(levels + 1)):
        layer = model.layer(level, width, height)
        for image in layer:
            if block := model.empties[image.role]:
                image.offsets[:], image.counts[:] = size, len(block)
                empties[size] = block
                size += len(block)
        for source, placed in zip(sources, runs, strict=True):
            if found := [blocks for blocks in source.blocks if blocks.level == level]:
                placed.append(_place(found, layer, size))
                size += placed[-1].size
        images = layer + images
    head = _head(images, size, bigtiff=bigtiff)
    copies = [_Copy(source, joined(placed, len(head))) for source, placed in zip(sources, runs, strict=True)]
    empties = {len(head) + offset: block for offset, block in empties.items()}
    return Plan(head=head, size=len(head) + size, empties=empties, copies=copies)


def _place(found: Sequence[Blocks], layer: Sequence[Image], base: int) -> Runs:
    """Point the images of a level to the blocks of a file, and return what is to be copied."""
    images = {image.is_mask: image for image in layer}
    runs, offsets = merged(found, base)
    for blocks, placed in zip(found, offsets, strict=True):
        image = images[blocks.is_mask]
        image.offsets[blocks.rows, blocks.cols] = placed
        image.counts[blocks.rows, blocks.cols] = blocks.counts
    return runs


def _head(images: Sequence[Image], body: int, *, bigtiff: bool | None) -> bytes:
    head = encode_head(images, big=True)
    is_large = len(head) + body > _CLASSIC_LIMIT
    if is_large and bigtiff is False:
        raise StitchError("the output is too large for BIGTIFF=NO, whose offsets end at 4 GiB")
    return head if is_large or bigtiff else encode_head(images, big=False)


def _copied(copy: _Copy, output: int, progress: _Progress) -> int:
    """Copy the blocks of a source, and return the CRC-32 of their bytes."""
    checksum = 0
    for piece, target in read_pieces(copy.source.path, copy.runs):
        checksum = zlib.crc32(piece, checksum)
        write_at(output, piece, target)
        progress.add(len(piece))
    return checksum
