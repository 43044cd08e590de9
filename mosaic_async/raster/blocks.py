"""Encoded blocks: where they lie in a file, and the runs of bytes that they make together.

It does not know what the blocks hold.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import StitchError
from mosaic_async.raster.tiff import Table

_GAP = 8
"""Bytes that GDAL's COG driver puts between two blocks, a trailer and the next leader; they are copied along."""
_CHUNK = 2**18
"""Bytes: small enough for the processor's cache; the page faults of large new buffers cost three times the copy."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Blocks with data of one image of a file, and their places in the output; all arrays have one axis."""

    level: int
    """Of the output."""
    is_mask: bool
    rows: Table
    cols: Table
    starts: Table
    """Bytes from the start of the file."""
    counts: Table
    """Bytes."""

    @classmethod
    def within(
        cls,
        level: int,
        *,
        is_mask: bool,
        corner: tuple[int, int],
        tables: tuple[Table, Table],
        has_data: NDArray[np.bool_],
    ) -> Self:
        """Take the blocks with data from a window of an image.

        Args:
            level: of the output.
            is_mask: whether the image is a mask.
            corner: row and column of the window's first block in the output.
            tables: offsets and counts of the window's blocks.
            has_data: of the same shape.
        """
        offsets, counts = tables
        rows, cols = np.nonzero(has_data)
        places = {"rows": rows + corner[0], "cols": cols + corner[1]}
        return cls(level=level, is_mask=is_mask, **places, starts=offsets[rows, cols], counts=counts[rows, cols])


@dataclass(frozen=True)
class Runs:
    """Bytes to copy, in the order of the output; all arrays have one axis."""

    starts: Table
    """Bytes from the start of the file."""
    lengths: Table
    targets: Table
    """Bytes from the start of the output."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.lengths.sum())

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """Yield (start, length, target) of pieces of 256 KiB at most."""
        for start, length, target in zip(
            self.starts.tolist(), self.lengths.tolist(), self.targets.tolist(), strict=True
        ):
            for done in range(0, length, _CHUNK):
                yield start + done, min(length - done, _CHUNK), target + done


def merged(found: Sequence[Blocks], base: int) -> tuple[Runs, list[Table]]:
    """Merge neighbouring blocks into runs, which will lie one after the other in the output.

    Args:
        found: the blocks of one level of a file, of one image or more.
        base: offset of the first run in the output.

    Returns:
        The runs, and the offsets in the output of the blocks of each of `found`.
    """
    starts = np.concatenate([blocks.starts for blocks in found])
    counts = np.concatenate([blocks.counts for blocks in found])
    order = np.argsort(starts)
    ordered, ends = starts[order], (starts + counts)[order]
    first = np.flatnonzero(np.r_[np.ones(min(len(order), 1), bool), ordered[1:] - ends[:-1] > _GAP])
    last = np.r_[first[1:], len(order)][: len(first)] - 1
    lengths = ends[last] - ordered[first]
    targets = base + np.cumsum(lengths) - lengths
    placed = np.empty_like(starts)
    placed[order] = ordered + np.repeat(targets - ordered[first], last - first + 1)
    return Runs(ordered[first], lengths, targets), np.split(placed, np.cumsum([len(b.starts) for b in found])[:-1])


def joined(parts: Sequence[Runs], shift: int) -> Runs:
    """Join runs, and add `shift` to their targets."""
    return Runs(
        np.concatenate([runs.starts for runs in parts]),
        np.concatenate([runs.lengths for runs in parts]),
        np.concatenate([runs.targets for runs in parts]) + shift,
    )


def read_pieces(path: Path, runs: Runs) -> Iterator[tuple[memoryview, int]]:
    """Yield the bytes of the runs, piece by piece, and where they go; the buffer is used again for the next piece.

    Raises:
        StitchError: the file ends too early.
        OSError: the file cannot be read.
    """
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        for start, length, target in runs.pieces():
            file.seek(start)
            piece = buffer[:length]
            if file.readinto(piece) != length:
                raise ended_early(path)
            yield piece, target


def checksum(path: Path, runs: Runs) -> int:
    """Return the CRC-32 of the runs' bytes.

    Raises:
        StitchError: the file ends too early.
        OSError: the file cannot be read.
    """
    found = 0
    for piece, _ in read_pieces(path, runs):
        found = zlib.crc32(piece, found)
    return found


def read_at(path: Path, start: int, length: int) -> bytes:
    """Read bytes of a file.

    Raises:
        StitchError: the file ends too early.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(length)
    if len(data) != length:
        raise ended_early(path)
    return data


def write_at(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write bytes at an offset of an open file, also where the system takes them in several steps.

    Raises:
        OSError: the disk is full, for instance.
    """
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def ended_early(path: Path) -> StitchError:
    """Return the error for a file that is shorter than its header says."""
    return StitchError(f"{path} ends before its last block")
