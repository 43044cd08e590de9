"""Encoded blocks: where they lie in a file, and how they are copied and proved.

It does not know what the blocks hold.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import StitchError

BLOCK = np.dtype(
    [
        ("level", "u1"),
        ("is_mask", "?"),
        ("is_empty", "?"),
        ("row", "<u4"),
        ("col", "<u4"),
        ("start", "<u8"),
        ("count", "<u4"),
    ]
)
"""One block: its place in the output, and its bytes in some file. The encoded empty block of an image has no place."""

Blocks = NDArray[np.void]
"""Rows of `BLOCK`, one axis."""
Digests = NDArray[np.uint8]
"""SHA-256 of blocks: (blocks, 32)."""

_SIZE = hashlib.sha256().digest_size
_BUFFER = 2**20
"""Bytes that are written at once, or one block, if that is larger; large new buffers cost more than the copy."""


def no_blocks(number: int = 0) -> Blocks:
    """Return rows that are all zero."""
    return np.zeros(number, BLOCK)


def no_digests(number: int = 0) -> Digests:
    """Return digests that are all zero, as blocks have that a file leaves out."""
    return np.zeros((number, _SIZE), np.uint8)


def shifted(blocks: Blocks, distance: int) -> Blocks:
    """Return blocks that start this many bytes later."""
    moved = blocks.copy()
    moved["start"] += distance
    return moved


def copy_blocks(source: Path, blocks: Blocks, output: int, offset: int) -> Iterator[tuple[Digests, int]]:
    """Copy blocks to an open file, one directly after the other; yield digests and bytes after each write.

    Raises:
        StitchError: the source ends too early.
        OSError: a file cannot be read or written.
    """
    largest = int(blocks["count"].max(initial=0))
    buffer = memoryview(bytearray(max(_BUFFER, largest) if len(blocks) else 0))
    digests, filled = bytearray(), 0
    with source.open("rb", buffering=0) as file:
        for start, count in zip(blocks["start"].tolist(), blocks["count"].tolist(), strict=True):
            if filled + count > len(buffer):
                write_at(output, buffer[:filled], offset)
                yield _as_digests(digests), filled
                offset, filled, digests = offset + filled, 0, bytearray()
            piece = buffer[filled : filled + count]
            if os.preadv(file.fileno(), [piece], start) != count:
                raise _ended_early(source)
            digests += hashlib.sha256(piece).digest()
            filled += count
    write_at(output, buffer[:filled], offset)
    yield _as_digests(digests), filled


def digests_in(path: Path, blocks: Blocks) -> Digests:
    """Return the digest of each block; zeros for one that lies outside the file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        return _as_digests(b"".join(read_digests(descriptor, blocks["start"].tolist(), blocks["count"].tolist())))


def read_digests(descriptor: int, starts: list[int], counts: list[int]) -> Iterator[bytes]:
    """Yield the digest of each range of an open file; zeros for one that lies outside."""
    end = os.fstat(descriptor).st_size
    for start, count in zip(starts, counts, strict=True):
        is_inside = 0 <= start <= end - count  # a damaged header can claim any size
        yield hashlib.sha256(os.pread(descriptor, count, start)).digest() if is_inside else bytes(_SIZE)


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
        raise _ended_early(path)
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


def _as_digests(data: bytes | bytearray) -> Digests:
    return np.frombuffer(bytes(data), np.uint8).reshape(-1, _SIZE)


def _ended_early(path: Path) -> StitchError:
    return StitchError(f"{path} ends before its last block")
