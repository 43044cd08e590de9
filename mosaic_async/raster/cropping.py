"""A COG cut to the size of its data: a canvas is padded, so that all of its levels halve exactly.

Blocks stay as they are encoded; those that hold nothing but padding are no longer listed. It does not know pixels.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mosaic_async.raster import whole_file
from mosaic_async.raster.tiff import (
    HEIGHT,
    TILE_HEIGHT,
    TILE_WIDTH,
    WIDTH,
    Image,
    Tag,
    encode_head,
    is_big,
    read_images,
)

_LEADER = 4
"""Bytes that GDAL's COG driver writes before a block."""


def crop(path: Path, width: int, height: int) -> None:
    """Cut a COG to its upper left pixels, as a new file under the same name.

    Args:
        path: the COG.
        width: pixels of the full image, at most as many as it has.
        height: likewise.

    Raises:
        StitchError: the header is damaged.
        OSError: the file cannot be read or written.
    """
    images = read_images(path)
    if (images[0].number(WIDTH), images[0].number(HEIGHT)) == (width, height):
        return
    cut = [_cut(image, width, height) for image in images]
    start = int(np.concatenate([image.offsets[image.counts > 0] for image in images]).min()) - _LEADER
    with path.open("rb") as source, whole_file.aside(path) as partial, partial.open("wb") as target:
        target.write(encode_head(_moved(cut, -start), big=is_big(path)))
        source.seek(start)
        shutil.copyfileobj(source, target)


def _cut(image: Image, width: int, height: int) -> Image:
    width, height = -(-width >> image.level), -(-height >> image.level)
    rows, cols = -(-height // image.number(TILE_HEIGHT)), -(-width // image.number(TILE_WIDTH))
    tags = {**image.tags, WIDTH: Tag.long(width), HEIGHT: Tag.long(height)}
    return replace(image, tags=tags, offsets=image.offsets[:rows, :cols], counts=image.counts[:rows, :cols])


def _moved(images: Sequence[Image], distance: int) -> list[Image]:
    return [replace(image, offsets=np.where(image.counts > 0, image.offsets + distance, 0)) for image in images]
