"""The COGs that the output is stitched from: what each holds, checked against a model that all must match.

It does not know where their blocks end up, or what the pixels mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import StitchError
from mosaic_async.raster.blocks import Blocks, read_at
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

    images: Mapping[Role, Image]
    empties: Mapping[Role, bytes]
    """The encoded empty block of each image; no bytes where the encoding leaves empty blocks out."""

    @classmethod
    def read(cls, blank: Path) -> Self:
        """Read the model; its headers (georeference, metadata) become those of the output.

        Raises:
            StitchError: the file is damaged.
        """
        images = {image.role: image for image in read_images(blank)}
        firsts = {role: (int(image.offsets[0, 0]), int(image.counts[0, 0])) for role, image in images.items()}
        return cls(images, {role: read_at(blank, start, count) for role, (start, count) in firsts.items()})

    def layer(self, level: int, width: int, height: int) -> list[Image]:
        """Return the images of a level, still without blocks, of an output of `width` x `height` pixels."""
        roles = sorted(role for role in self.images if role[0] == (level > 0))
        return [_empty(self.images[role], level, width, height) for role in roles]

    def blocks_of(self, plate: Plate, *, width: int, height: int) -> list[Blocks]:
        """Return the blocks of a plate that hold data, for an output of `width` x `height` pixels.

        Raises:
            StitchError: the plate is damaged, or encoded differently.
        """
        found = []
        for image in _read_like(plate, self.images):
            level = image.level + plate.level
            rows, cols = _shape(self.images[image.role], level, width, height)
            row, col = plate.row >> image.level, plate.col >> image.level
            inside = (slice(0, rows - row), slice(0, cols - col))  # a padded canvas may have more blocks
            tables = image.offsets[inside], image.counts[inside]
            has_data = _has_data(plate.path, *tables, self.empties[image.role])
            found.append(
                Blocks.within(level, is_mask=image.is_mask, corner=(row, col), tables=tables, has_data=has_data)
            )
        return found


def _has_data(path: Path, offsets: Table, counts: Table, empty: bytes) -> NDArray[np.bool_]:
    """Return which blocks differ from the empty block."""
    found: NDArray[np.bool_] = counts > 0
    candidates = np.argwhere(counts == len(empty)) if empty else ()
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
