"""The digest of a COG's encoded blocks, kept in its own metadata: it proves that no block has changed.

It covers every block of every image in its place, and every tag that decides what a block means. It covers neither the
metadata, which people edit, nor the offset of a block. It does not know pixels.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosaic_async.raster.tiff import COUNTS, DOCUMENT, HEIGHT, METADATA, OFFSETS, WIDTH, Image, read_images

DIGEST = "MOSAIC_DIGEST"
"""Name of the metadata item."""
UNSIGNED = "0" * 64
"""Its value until all blocks are written; `sign` replaces it in place, so the header does not move."""

_ITEM = re.compile(rb'(<Item name="MOSAIC_DIGEST">)([0-9a-f]{64})(?=</Item>)')
_NOT_COVERED = DOCUMENT | {OFFSETS, COUNTS, METADATA, WIDTH, HEIGHT}
"""Tags that are left out; of width and height only the value counts, because GDAL changes their kind when it edits."""
_BATCH = 64
"""Blocks per task: few enough to keep all cores busy, enough to make a task worth its price."""

_SIZE = hashlib.sha256().digest_size

_Digests = NDArray[np.uint8]
"""(blocks, bytes of a digest)."""


def sign(path: Path) -> None:
    """Write the digest of a file into its metadata, if the metadata has a place for it.

    Raises:
        StitchError: the header is damaged.
        OSError: the file cannot be read or written.
    """
    images = read_images(path)
    with path.open("r+b") as file:
        if found := _ITEM.search(file.read(_head_size(images))):
            file.seek(found.start(2))
            file.write(digest_of(path, images).encode())


def recorded_digest(images: Sequence[Image]) -> str | None:
    """Return the digest in the metadata of a file; None if it has none."""
    metadata = images[0].tags.get(METADATA) if images else None
    found = _ITEM.search(metadata.value) if metadata else None
    return found[2].decode() if found and found[2].decode() != UNSIGNED else None


def unsigned(head: bytes) -> bytes:
    """Return a header as it is before `sign`."""
    return _ITEM.sub(rb"\g<1>" + UNSIGNED.encode(), head)


def digest_of(path: Path, images: Sequence[Image]) -> str:
    """Return the SHA-256, in hexadecimal, over all images: their tags, and the digests of their blocks by row.

    Raises:
        OSError: the file cannot be read.
    """
    total = hashlib.sha256()
    for image in images:
        total.update(f"{image.number(WIDTH)} {image.number(HEIGHT)} ".encode())
        for code, tag in sorted(image.tags.items()):
            if code not in _NOT_COVERED:
                total.update(f"{code} {tag.kind} {tag.count} ".encode() + tag.value)
        total.update(image.counts.astype("<i8").tobytes())
        total.update(_block_digests(path, image).tobytes())
    return total.hexdigest()


def _head_size(images: Sequence[Image]) -> int:
    """Return where the first block begins, at which all headers end; -1, the whole file, without blocks."""
    starts = [int(image.offsets[image.counts > 0].min()) for image in images if image.counts.any()]
    return min(starts, default=-1)


def _block_digests(path: Path, image: Image) -> _Digests:
    """Return the digest of each block, and zeros for one that the file leaves out; blocks are read in file order."""
    offsets, counts = image.offsets.ravel(), image.counts.ravel()
    is_there = np.flatnonzero(counts > 0)
    starts, first, places = np.unique(offsets[is_there], return_index=True, return_inverse=True)
    sizes = counts[is_there][first]  # blocks at one offset are one block
    batches = [slice(start, start + _BATCH) for start in range(0, len(starts), _BATCH)]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = list(pool.map(lambda batch: b"".join(_digests(descriptor, starts[batch], sizes[batch])), batches))
    finally:
        os.close(descriptor)
    found = np.zeros((len(offsets), _SIZE), np.uint8)
    found[is_there] = np.frombuffer(b"".join(done), np.uint8).reshape(-1, _SIZE)[places.ravel()]
    return found


def _digests(descriptor: int, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[bytes]:
    end = os.fstat(descriptor).st_size
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        is_inside = 0 <= start <= end - size  # a damaged header can claim any size
        yield hashlib.sha256(os.pread(descriptor, size, start)).digest() if is_inside else bytes(_SIZE)
