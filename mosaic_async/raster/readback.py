"""Reads a new COG back before it counts: GDAL can lose a full disk's error in a thread, and leave a file with holes.

Tried with GDAL 3.10 and 3.12: a deflate GeoTIFF that two threads wrote to a full disk ended without an exception.
GDAL's COG driver frames each block with its length before and its last four bytes repeated behind, which shows, without
decoding, that the block arrived. Masks are decoded: readers take a mask that they cannot decode for "all valid", and a
strict validation passes. Checksums prove the masks.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mosaic_async.errors import ResourceError, StitchError
from mosaic_async.raster.tiff import BITS, COMPRESSION, TILE_HEIGHT, TILE_WIDTH, Image, Table, read_images

_LEADER = b"BLOCK_LEADER=SIZE_AS_UINT4"
_TRAILER = b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED"
_HEAD = 1024
"""Bytes in which GDAL describes how it framed the blocks."""
_DEFLATE = 8
_HINT = "free disk space, then re-run to resume"


def check_blocks(path: Path, images: int) -> None:
    """Check that all blocks of a COG are in the file, and that its masks can be decoded; this blocks.

    Args:
        path: the COG.
        images: how many it has, levels and masks counted. If a directory is lost, readers take the directory before it
            for the last, and miss nothing.

    Raises:
        ResourceError: a block is missing or damaged, or the file cannot be read.
    """
    with _whole(path, images) as (file, found):
        head = file.read(_HEAD)
        is_framed = _LEADER in head and _TRAILER in head
        for image in found:
            if is_framed:
                _check_frames(file, image)
            else:
                _check_ends(file, image)
            if image.is_mask:
                for _ in _decoded(file, image):
                    pass


def check_places(path: Path, images: int) -> None:
    """Check that all blocks of a COG end inside the file, which this reads only the headers of; it blocks.

    That is enough where each block was copied from a checked file, and the disk has taken it: a write of ours that
    fails is an error, unlike one of GDAL's threads.

    Args:
        path: the COG.
        images: as for `check_blocks`.

    Raises:
        ResourceError: a block is missing, or the file cannot be read.
    """
    with _whole(path, images) as (file, found):
        for image in found:
            _check_ends(file, image)


@contextmanager
def _whole(path: Path, images: int) -> Iterator[tuple[BinaryIO, list[Image]]]:
    """Open a COG of that many images; whatever is wrong with it is one error.

    Raises:
        ResourceError: something is.
    """
    try:
        found = read_images(path)
        if len(found) != images:
            raise ValueError(f"the file has {len(found)} of {images} images")
        with path.open("rb") as file:
            yield file, found
    except (OSError, ValueError, StitchError) as error:
        raise ResourceError(f"{path} was not written as a whole: {error}", hint=_HINT) from error


def blocks_with_data(path: Path) -> int:
    """Return how many blocks of a COG's full image hold a valid pixel, by its mask; this blocks.

    Without a mask inside the file, all blocks count that are not left out.

    Raises:
        ResourceError: the file cannot be read, or a mask block is damaged.
    """
    try:
        full = {image.is_mask: image for image in read_images(path) if image.level == 0}
        if True not in full:
            return int(np.count_nonzero(full[False].counts))
        with path.open("rb") as file:
            _, _, uses = _unique(full[True])
            masks = zip(uses.tolist(), _decoded(file, full[True]), strict=True)
            return sum(times for times, mask in masks if mask.strip(b"\0"))
    except (OSError, ValueError, StitchError) as error:
        raise ResourceError(f"{path} cannot be read back: {error}", hint=_HINT) from error


def _unique(image: Image) -> tuple[Table, Table, Table]:
    """Return offset, size and number of uses of each block, in the order of the file; a block may be shared."""
    is_there = image.counts > 0
    starts, first, uses = np.unique(image.offsets[is_there], return_index=True, return_counts=True)
    return starts, image.counts[is_there][first], uses


def _check_frames(file: BinaryIO, image: Image) -> None:
    """Check a leader before each block, and a trailer behind it.

    Raises:
        ValueError: one is missing.
    """
    starts, counts, _ = _unique(image)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        length = os.pread(file.fileno(), 4, start - 4)
        end = os.pread(file.fileno(), min(count, 4) + 4, start + max(count - 4, 0))
        if length != struct.pack("<I", count) or len(end) != 8 or end[:4] != end[4:]:
            raise ValueError(f"the block at byte {start:,} is missing")


def _check_ends(file: BinaryIO, image: Image) -> None:
    """Check that no block ends outside the file.

    Raises:
        ValueError: one does.
    """
    starts, counts, _ = _unique(image)
    outside = starts + counts > os.fstat(file.fileno()).st_size
    if outside.any():
        raise ValueError(f"the block at byte {starts[outside][0]:,} is missing")


def _decoded(file: BinaryIO, mask: Image) -> Iterator[bytes]:
    """Yield the pixels of each block of a mask, in the order of the file.

    Raises:
        ValueError: a block is damaged, or its codec is not the one that GDAL uses for masks.
    """
    if mask.number(COMPRESSION) != _DEFLATE:
        raise ValueError(f"its masks have the unexpected codec {mask.number(COMPRESSION)}")
    size = mask.number(TILE_WIDTH) * mask.number(TILE_HEIGHT) * mask.number(BITS) // 8
    starts, counts, _ = _unique(mask)
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        decoder = zlib.decompressobj()
        try:
            pixels = decoder.decompress(os.pread(file.fileno(), count, start), size + 1)
        except zlib.error as error:
            raise ValueError(f"the mask at byte {start:,} is damaged: {error}") from error
        if len(pixels) != size or not decoder.eof:
            raise ValueError(f"the mask at byte {start:,} is damaged")
        yield pixels
