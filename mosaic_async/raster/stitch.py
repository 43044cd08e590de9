"""Many COGs to one, by copying encoded blocks: nothing is decoded, so nothing is lost and little is computed.

The output begins with its front: all headers, and the levels above the parts, smallest first. Then part follows part,
each with its smallest level first. So the first block of each level lies before the first block of the level below, as
validators require. Blocks without data point to one encoded empty block per image; those of the parts' levels lie in
the first part. The file has no GDAL structural metadata: that promises a leader before each block and blocks in rows,
which shared blocks cannot keep (GDAL's COG driver, "Low-level format details"). It does not know pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mosaic_async.errors import StitchError
from mosaic_async.raster.blocks import Blocks, no_digests, write_at
from mosaic_async.raster.digest import signed, total_digest
from mosaic_async.raster.insertion import STEP
from mosaic_async.raster.plates import Model, Plate
from mosaic_async.raster.tiff import Image, encode_head
from mosaic_async.raster.unfinished import OnCopy, Run, Segment, copied

_CLASSIC_LIMIT = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The pixels of the output, and how it stores those without data."""

    width: int
    """Pixels."""
    height: int
    levels: int
    """Overview levels."""
    is_sparse: bool = False
    """Whether blocks without data are left out, but for the first of each image, which validators look for."""


def with_empties(path: Path, blocks: Blocks, model: Model, levels: int) -> list[Run]:
    """Return what the output takes from the file of its first part: before each level lies its empty block.

    Args:
        path: the file.
        blocks: in it, the smallest level first.
        model: has the empty blocks.
        levels: overview levels of parts.
    """
    runs = []
    for level in reversed(range(levels + 1)):
        runs += [(model.path, model.empty_blocks(level)), (path, blocks[blocks["level"] == level])]
    return runs


def write_image(part: Run, model: Model, shape: Shape, path: Path, *, row: int, col: int) -> None:
    """Write the full image of a part, as it is encoded, as a file of its own; blocks without data are left out.

    Args:
        part: where its blocks are.
        model: its headers.
        shape: of the part, without levels.
        path: the file.
        row: of the part's first block, in blocks of the output.
        col: likewise.

    Raises:
        StitchError: the part's file ends too early.
        OSError: a file cannot be read or written.
    """
    source, blocks = part
    full = blocks[(blocks["level"] == 0) & ~blocks["is_empty"]]
    full["row"] -= row
    full["col"] -= col
    tables = _Tables(model, shape)
    _, start = _head_size(tables.images, 0, bigtiff=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        tables.add(copied([(source, full)], file, start, 0, lambda _: None), 0)
        write_at(file, encode_head(tables.images, big=True), 0)
    finally:
        os.close(file)


class Front:
    """What comes before the parts: headers, and the levels above the parts.

    Args:
        model: headers and empty blocks.
        shape: of the output.
        plates: the files of the levels above the parts.
        part_levels: overview levels of the parts.
        body: bytes of all parts in the output.
        bigtiff: True or False force it; None decides by size.

    Raises:
        StitchError: the output is too large for the requested kind of TIFF, or a plate is damaged.
    """

    def __init__(
        self,
        model: Model,
        shape: Shape,
        plates: Sequence[Plate],
        *,
        part_levels: int,
        body: int,
        bigtiff: bool | None = None,
    ) -> None:
        self._tables = _Tables(model, shape)
        self._runs = _upper_runs(model, shape, plates, part_levels)
        upper = sum(int(blocks["count"].sum()) for _, blocks in self._runs)
        self._is_big, self._head = _head_size(self._tables.images, upper + body + STEP, bigtiff=bigtiff)
        self.size = -(-(self._head + upper) // STEP) * STEP
        """Bytes, a multiple of `STEP`."""

    def write(self, file: int, segments: Iterable[Segment], on_copy: OnCopy) -> None:
        """Write the front to an open file in which the parts are.

        Args:
            file: the output.
            segments: of the parts, the first one first.
            on_copy: told of what is written.

        Raises:
            StitchError: a plate ends too early.
            OSError: a file cannot be read or written.
        """
        upper = copied(self._runs, file, self._head, 0, on_copy)
        self._tables.add(upper, 0)
        for segment in segments:
            self._tables.add(segment, self.size - self._head)
        head = signed(encode_head(self._tables.images, big=self._is_big), self._tables.digest())
        write_at(file, head, 0)
        end = self._head + upper.size
        write_at(file, bytes(self.size - end), end)
        on_copy(self.size - upper.size)


class _Tables:
    """Where each block of each image is, and its digest."""

    def __init__(self, model: Model, shape: Shape) -> None:
        levels = range(shape.levels + 1)
        self.images = [image for level in levels for image in model.layer(level, shape.width, shape.height)]
        self._digests = [no_digests(image.offsets.size).reshape(*image.offsets.shape, -1) for image in self.images]
        self._is_sparse = shape.is_sparse

    def add(self, segment: Segment, base: int) -> None:
        """Note the blocks of a segment, for offsets that count from the end of the head as `base` does."""
        for image, digests in zip(self.images, self._digests, strict=True):
            is_here = (segment.blocks["level"] == image.level) & (segment.blocks["is_mask"] == image.is_mask)
            for is_empty in (True, False):
                chosen = np.flatnonzero(is_here & (segment.blocks["is_empty"] == is_empty))
                if len(chosen):
                    blocks = segment.blocks[chosen]
                    place = ... if is_empty and not self._is_sparse else (blocks["row"], blocks["col"])
                    image.offsets[place] = blocks["start"].astype(np.int64) + base
                    image.counts[place] = blocks["count"]
                    digests[place] = segment.digests[chosen]

    def digest(self) -> str:
        """Return the digest of all blocks."""
        return total_digest(zip(self.images, self._digests, strict=True))


def _upper_runs(model: Model, shape: Shape, plates: Sequence[Plate], part_levels: int) -> list[Run]:
    """Return the levels above the parts, the smallest one first; before each level lies its empty block."""
    found = [(plate.path, model.blocks_of(plate, width=shape.width, height=shape.height)) for plate in plates]
    runs = []
    for level in reversed(range(part_levels + 1, shape.levels + 1)):
        runs.append((model.path, model.empty_blocks(level)))
        runs += [(path, blocks[blocks["level"] == level]) for path, blocks in found]
    return runs


def _head_size(images: Sequence[Image], rest: int, *, bigtiff: bool | None) -> tuple[bool, int]:
    """Return whether the output is a BigTIFF, and the size of its headers."""
    size = len(encode_head(images, big=True))
    is_large = size + rest > _CLASSIC_LIMIT
    if is_large and bigtiff is False:
        raise StitchError("the output is too large for BIGTIFF=NO, whose offsets end at 4 GiB")
    if is_large or bigtiff:
        return True, size
    return False, len(encode_head(images, big=False))
