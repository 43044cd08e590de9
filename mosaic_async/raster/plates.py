"""The COGs that the output is stitched from: what each holds, checked against a model that all must match.

It does not know where their blocks end up, or what the pixels mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import StitchError
from mosaic_async.raster.blocks import Blocks, no_blocks, read_at
from mosaic_async.raster.tiff import (
    COUNTS,
    DOCUMENT,
    HEIGHT,
    METADATA,
    NAMES,
    OFFSETS,
    TIEPOINT,
    TILE_WIDTH,
    WIDTH,
    Image,
    Role,
    Table,
    Tag,
    read_images,
)

_OF_FILE = frozenset({WIDTH, HEIGHT, OFFSETS, COUNTS, TIEPOINT, METADATA}) | DOCUMENT
"""Tags that may differ between files. All others must be equal, or the same bytes mean different pixels."""


@dataclass(frozen=True)
class Plate:
    """A COG that holds some blocks of the output's pyramid."""

    path: Path
    level: int
    """The pyramid level of its full-resolution image; 0 is the output's."""
    row: int
    """Row of its first block, in blocks of that level."""
    col: int
    skip: int = 0
    """Levels of the file that other plates hold already."""


@dataclass(frozen=True)
class Model:
    """What all files have in common, learnt from a COG without data and with one overview."""

    path: Path
    images: Mapping[Role, Image]
    empties: Mapping[Role, bytes]
    """The encoded empty block of each image."""

    @classmethod
    def read(cls, blank: Path) -> Self:
        """Read the model; its headers (georeference, metadata) become those of the output.

        Raises:
            StitchError: the file is damaged, or leaves empty blocks out.
        """
        images = {image.role: image for image in read_images(blank)}
        firsts = {role: (int(image.offsets[0, 0]), int(image.counts[0, 0])) for role, image in images.items()}
        return cls(blank, images, {role: read_at(blank, start, count) for role, (start, count) in firsts.items()})

    @property
    def digest(self) -> str:
        """SHA-256 of what decides which bytes mean which pixels."""
        total = hashlib.sha256()
        for role in sorted(self.images):
            for code, tag in sorted(_encoding(self.images[role].tags).items()):
                total.update(f"{role} {code} {tag.kind} {tag.count} ".encode() + tag.value)
            total.update(hashlib.sha256(self.empties[role]).digest())
        return total.hexdigest()

    def layer(self, level: int, width: int, height: int) -> list[Image]:
        """Return the images of a level, still without blocks, of an output of `width` x `height` pixels."""
        roles = sorted(role for role in self.images if role[0] == (level > 0))
        return [_empty(self.images[role], level, width, height) for role in roles]

    def empty_blocks(self, level: int) -> Blocks:
        """Return where in the model's file the empty blocks of a level are, of its image and of its mask."""
        roles = sorted(role for role in self.images if role[0] == (level > 0))
        blocks = no_blocks(len(roles))
        blocks["level"], blocks["is_empty"] = level, True
        for block, role in zip(blocks, roles, strict=True):
            image = self.images[role]
            block["is_mask"], block["start"], block["count"] = role[1], image.offsets[0, 0], image.counts[0, 0]
        return blocks

    def blocks_of(self, plate: Plate, *, width: int, height: int) -> Blocks:
        """Return the blocks of a plate that hold data, for an output of `width` x `height` pixels.

        The smallest level comes first, as in the output, and each level in the order of the file.

        Raises:
            StitchError: the plate is damaged, or encoded differently.
        """
        found = [self._blocks_in(plate, image, width, height) for image in _read_like(plate, self.images)]
        blocks = np.concatenate([no_blocks(), *found])
        return blocks[np.lexsort((blocks["start"], -blocks["level"].astype(np.int64)))]

    def _blocks_in(self, plate: Plate, image: Image, width: int, height: int) -> Blocks:
        level = image.level + plate.level
        rows, cols = _shape(self.images[image.role], level, width, height)
        row, col = plate.row >> image.level, plate.col >> image.level
        inside = (slice(0, rows - row), slice(0, cols - col))  # a padded canvas may have more blocks
        offsets, counts = image.offsets[inside], image.counts[inside]
        there = np.nonzero(_has_data(plate.path, offsets, counts, self.empties[image.role]))
        blocks = no_blocks(len(there[0]))
        blocks["level"], blocks["is_mask"] = level, image.is_mask
        blocks["row"], blocks["col"] = there[0] + row, there[1] + col
        blocks["start"], blocks["count"] = offsets[there], counts[there]
        return blocks


def _has_data(path: Path, offsets: Table, counts: Table, empty: bytes) -> NDArray[np.bool_]:
    """Return which blocks differ from the empty block."""
    found: NDArray[np.bool_] = counts > 0
    candidates = np.argwhere(counts == len(empty))
    if len(candidates):
        with path.open("rb") as file:
            for row, col in candidates:
                file.seek(int(offsets[row, col]))
                # The first bytes tell most blocks apart, where all have one size because nothing is compressed.
                found[row, col] = file.read(256) != empty[:256] or file.read(len(empty) - 256) != empty[256:]
    return found


def _read_like(plate: Plate, models: Mapping[Role, Image]) -> list[Image]:
    """Read the headers of a plate's own levels, and check that they are encoded as the models are."""
    path = plate.path
    images = [image for image in read_images(path) if image.level >= plate.skip]
    if {image.is_mask for image in images} != {is_mask for _, is_mask in models}:
        raise StitchError(f"{path} and the other parts do not agree on having a mask")
    for image in images:
        expected, found = (_encoding(tags) for tags in (models[image.role].tags, image.tags))
        if different := sorted(code for code in expected | found if expected.get(code) != found.get(code)):
            names = ", ".join(NAMES.get(code, str(code)) for code in different)
            raise StitchError(f"{path} is encoded differently from the other parts, in {names}")
    return images


def _encoding(tags: Mapping[int, Tag]) -> dict[int, Tag]:
    return {code: tag for code, tag in tags.items() if code not in _OF_FILE}


def _empty(model: Image, level: int, width: int, height: int) -> Image:
    shape = _shape(model, level, width, height)
    tags = {**model.tags, WIDTH: Tag.long(-(-width >> level)), HEIGHT: Tag.long(-(-height >> level))}
    return Image(level, model.is_mask, tags, np.zeros(shape, np.int64), np.zeros(shape, np.int64))


def _shape(model: Image, level: int, width: int, height: int) -> tuple[int, int]:
    """Return the block rows and block columns of a level."""
    size = model.number(TILE_WIDTH)
    height, width = -(-height >> level), -(-width >> level)
    return -(-height // size), -(-width // size)
