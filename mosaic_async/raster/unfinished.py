"""Outputs that a killed run began to stitch: what their journals say, proved by the bytes.

It does not know how an output is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from mosaic_async.errors import StitchError
from mosaic_async.raster.blocks import Blocks, Runs, checksum, joined, merged, read_at
from mosaic_async.raster.digest import unsigned
from mosaic_async.raster.journal import SUFFIX, Journal, Place
from mosaic_async.raster.tiff import Image, read_images

_PREFIX = "stitch-"


def unfinished_path(folder: Path, digest: str) -> Path:
    """Return the path for an output whose head has a digest, so that outputs of other layouts lie beside it."""
    return folder / f"{_PREFIX}{digest[:16]}.tif"


def discard(folder: Path, kept: Collection[Path]) -> None:
    """Delete all unfinished outputs, and their journals, but those that are kept.

    Raises:
        OSError: a file cannot be deleted.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        if path.with_suffix(".tif") not in kept:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Unfinished:
    """An output whose head is whole, and the parts that it holds according to its journal."""

    path: Path
    images: Sequence[Image]
    journal: Journal

    @classmethod
    def find(cls, folder: Path, label: str) -> list[Self]:
        """Return the unfinished outputs of a job.

        Raises:
            OSError: a file cannot be read.
        """
        journals = (Journal.read(path) for path in sorted(folder.glob(f"{_PREFIX}*{SUFFIX}")))
        opened = (cls._of(journal) for journal in journals if journal and journal.label == label)
        return [unfinished for unfinished in opened if unfinished]

    @classmethod
    def _of(cls, journal: Journal) -> Self | None:
        path = journal.path.with_suffix(".tif")
        try:
            head = read_at(path, 0, journal.head_size)
            images = read_images(path)
        except (FileNotFoundError, StitchError):
            return None
        is_same = hashlib.sha256(unsigned(head)).hexdigest() == journal.head  # it may be signed already
        return cls(path, images, journal) if is_same else None

    def holds(self, part: Place, part_blocks: int, levels: int) -> bool:
        """Return whether all blocks of a part are, byte for byte, what was copied; this reads them.

        Args:
            part: its place.
            part_blocks: blocks per side of a part.
            levels: overview levels in a part's file.
        """
        found = self.blocks_of(part, part_blocks, levels)
        runs = joined([_runs(found, level) for level in reversed(range(levels + 1))], 0)
        try:
            return checksum(self.path, runs) == self.journal.parts.get(part)
        except StitchError:  # the file is cut short
            return False

    def blocks_of(self, part: Place, part_blocks: int, levels: int) -> list[Blocks]:
        """Return the blocks of a part that hold data; arguments as for `holds`."""
        found = []
        for image in self.images:
            if image.level <= levels:
                row, col = (start * part_blocks >> image.level for start in part)
                end_row, end_col = (-(-(start + 1) * part_blocks >> image.level) for start in part)
                tables = image.offsets[row:end_row, col:end_col], image.counts[row:end_row, col:end_col]
                has_data = (tables[1] > 0) & ~np.isin(tables[0], self.journal.empties)
                found.append(
                    Blocks.within(
                        image.level, is_mask=image.is_mask, corner=(row, col), tables=tables, has_data=has_data
                    )
                )
        return found


def _runs(found: Sequence[Blocks], level: int) -> Runs:
    return merged([blocks for blocks in found if blocks.level == level], 0)[0]
