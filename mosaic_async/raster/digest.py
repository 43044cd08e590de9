"""The digest of a COG's encoded blocks, kept in its own metadata: it proves that no block has changed.

It covers every block of every image in its place, and every tag that decides what a block means. It covers neither the
metadata, which people edit, nor the offset of a block. It does not know pixels.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mosaic_async.raster.blocks import Digests, no_digests, read_digests
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


def signed(head: bytes, digest: str) -> bytes:
    """Return a header with the digest in the place that its metadata has for it, if it has one."""
    return _ITEM.sub(rb"\g<1>" + digest.encode(), head)


def digest_of(path: Path, images: Sequence[Image]) -> str:
    """Return the SHA-256, in hexadecimal, over all images: their tags, and the digests of their blocks by row.

    Raises:
        OSError: the file cannot be read.
    """
    return total_digest((image, _block_digests(path, image)) for image in images)


def total_digest(images: Iterable[tuple[Image, Digests]]) -> str:
    """Return what `digest_of` returns, from the digests of each image's blocks, zeros for a block that is left out."""
    total = hashlib.sha256()
    for image, digests in images:
        total.update(f"{image.number(WIDTH)} {image.number(HEIGHT)} ".encode())
        for code, tag in sorted(image.tags.items()):
            if code not in _NOT_COVERED:
                total.update(f"{code} {tag.kind} {tag.count} ".encode() + tag.value)
        total.update(image.counts.astype("<i8").tobytes())
        total.update(digests.tobytes())
    return total.hexdigest()


def _head_size(images: Sequence[Image]) -> int:
    """Return where the first block begins, at which all headers end; -1, the whole file, without blocks."""
    starts = [int(image.offsets[image.counts > 0].min()) for image in images if image.counts.any()]
    return min(starts, default=-1)


def _block_digests(path: Path, image: Image) -> Digests:
    """Return the digest of each block, and zeros for one that the file leaves out; blocks are read in file order."""
    offsets, counts = image.offsets.ravel(), image.counts.ravel()
    is_there = np.flatnonzero(counts > 0)
    starts, first, places = np.unique(offsets[is_there], return_index=True, return_inverse=True)
    sizes = counts[is_there][first]  # blocks at one offset are one block
    batches = [slice(start, start + _BATCH) for start in range(0, len(starts), _BATCH)]
    descriptor = os.open(path, os.O_RDONLY)

    def read(batch: slice) -> bytes:
        return b"".join(read_digests(descriptor, starts[batch].tolist(), sizes[batch].tolist()))

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = b"".join(pool.map(read, batches))
    finally:
        os.close(descriptor)
    found = no_digests(len(offsets))
    found[is_there] = np.frombuffer(done, np.uint8).reshape(-1, found.shape[1])[places.ravel()]
    return found
