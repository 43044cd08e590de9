"""Reads a new COG back before it counts: GDAL can lose a full disk's error in a thread, and leave a file with holes.

Tried with GDAL 3.10 and 3.12: a deflate GeoTIFF that was written by two threads to a full disk ended without an
exception. GDAL's COG driver frames each block with its length before and its last four bytes repeated behind, so that a
block arrived can be seen without decoding it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from mosaic_async.errors import ResourceError

_LEADER = b"BLOCK_LEADER=SIZE_AS_UINT4"
_TRAILER = b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED"
_HEAD = 1024
"""Bytes in which GDAL says how it framed the blocks."""


def check_blocks(path: Path, images: int) -> None:
    """Insist that all blocks of a COG are in the file; it blocks.

    Args:
        path: the COG.
        images: that it has, levels and masks counted. Where a directory is lost, readers take the one before it for the
            last, and miss nothing.

    Raises:
        ResourceError: one is not, or the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            is_framed = _LEADER in head and _TRAILER in head
            for offset, count in _blocks(path, images):
                if not _is_there(file, offset, count, is_framed=is_framed):
                    raise ResourceError(
                        f"{path} was not written as a whole: the block at byte {offset:,} is missing",
                        hint="is there room on the disk?",
                    )
    except (OSError, ValueError, IndexError, struct.error, tifffile.TiffFileError) as error:
        raise ResourceError(f"{path} cannot be read back: {error}", hint="is there room on the disk?") from error


def _blocks(path: Path, images: int) -> list[tuple[int, int]]:
    """List (offset, bytes) of all blocks of all images; an empty block is nowhere."""
    blocks: list[tuple[int, int]] = []
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) != images:
            raise ValueError(f"it has {len(tiff.pages)} images of {images}")
        for page in tiff.pages:
            offsets, counts = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
            there = counts > 0
            blocks += zip(offsets[there].tolist(), counts[there].tolist(), strict=True)
    return sorted(blocks)


def _is_there(file: BinaryIO, offset: int, count: int, *, is_framed: bool) -> bool:
    file.seek(offset - 4)
    length = file.read(4)
    file.seek(offset + max(count - 4, 0))
    end = file.read(min(count, 4) + 4 * is_framed)
    if not is_framed:
        return len(end) == min(count, 4)
    return length == struct.pack("<I", count) and len(end) == 8 and end[:4] == end[4:]
