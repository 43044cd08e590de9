"""The headers of TIFF files: tags and block tables, read from a file and encoded for another.

It reads what GDAL's COG driver and this package write, little endian, classic or BigTIFF. Tables are arrays, because a
country has millions of blocks. It does not know pixels or what the blocks hold.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import StitchError

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION = 254, 256, 257, 258, 259
TILE_WIDTH, TILE_HEIGHT, OFFSETS, COUNTS, _STRIPS = 322, 323, 324, 325, 273
TIEPOINT, METADATA = 33922, 42112
DOCUMENT = frozenset({269, 270, 285, 305, 306, 315, 316, 33432})
"""Name, description, software, date, author and the like."""
NAMES = {258: "BitsPerSample", 259: "Compression", 262: "PhotometricInterpretation", 277: "SamplesPerPixel"} | {
    317: "Predictor", 322: "TileWidth", 323: "TileLength", 338: "ExtraSamples", 339: "SampleFormat", 347: "JPEGTables",
    33550: "ModelPixelScale", 34735: "GeoKeyDirectory", 42113: "GDAL_NODATA",
}  # fmt: skip
"""Names of the tags whose values decide what a block means, for messages."""

_TABLES = frozenset({OFFSETS, COUNTS})
_IS_MASK = 4
"""Bit of NewSubfileType: the image is the mask of the image before it."""
_LONG, _LONG8 = 4, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes per value of each kind of tag."""
_INTEGERS = {3: "<u2", _LONG: "<u4", _LONG8: "<u8"}

Table = NDArray[np.int64]
"""One value per block: (block rows, block columns) in an image, one axis in a list of blocks."""
Role = tuple[bool, bool]
"""Whether an image is an overview, and whether it is a mask; images of the same role are encoded alike."""


@dataclass(frozen=True)
class Tag:
    """The value of a tag, as it is in the file."""

    kind: int
    count: int
    value: bytes
    """Little endian."""

    @classmethod
    def long(cls, value: int) -> Tag:
        """Return a tag with one unsigned integer of 32 bits."""
        return cls(_LONG, 1, struct.pack("<I", value))

    def integers(self) -> Table:
        """Return the values of a tag that holds unsigned integers."""
        return np.frombuffer(self.value, _INTEGERS[self.kind]).astype(np.int64)


@dataclass(frozen=True)
class Image:
    """One image of a COG: a level, or the mask of a level."""

    level: int
    is_mask: bool
    tags: Mapping[int, Tag]
    offsets: Table
    """Bytes from the start of the file; 0 for a block that the file leaves out."""
    counts: Table
    """Bytes; 0 for a block that the file leaves out."""

    @property
    def role(self) -> Role:
        """The purpose of the image."""
        return self.level > 0, self.is_mask

    def number(self, code: int) -> int:
        """Return the first value of a tag that holds unsigned integers.

        Raises:
            StitchError: the image lacks the tag, or it holds something else.
        """
        try:
            return int(self.tags[code].integers()[0])
        except (KeyError, IndexError) as error:
            raise StitchError(f"an image has no usable tag {code}") from error


class _ForeignError(Exception):
    """The file is sound for all that is known, and of a kind that this package does not write."""


def is_big(path: Path) -> bool:
    """Return whether a file is a BigTIFF.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(4) == b"II+\0"


def read_images(path: Path) -> list[Image]:
    """Read the header of a COG: the full image and its mask, then each overview and its mask.

    Raises:
        StitchError: the file is not a TIFF of this package's kind, or its header is damaged.
        OSError: the file cannot be read.
    """
    images: list[Image] = []
    try:
        with path.open("rb") as file:
            for tags in _directories(file):
                is_mask = SUBFILE in tags and bool(tags[SUBFILE].integers()[0] & _IS_MASK)
                level = sum(image.is_mask == is_mask for image in images)
                images.append(_image(level, tags, is_mask=is_mask))
    except _ForeignError as error:
        raise StitchError(f"{path} is {error}, and not a file that this package has written") from error
    except (struct.error, LookupError, ValueError, ZeroDivisionError, EOFError) as error:
        raise StitchError(f"the header of {path} is damaged") from error
    return images


def encode_head(images: Sequence[Image], *, big: bool) -> bytes:
    """Encode all headers: the tags of each image with their values, then all block tables.

    Args:
        images: with offsets that count from the end of the head, where the blocks follow.
        big: whether to write a BigTIFF.
    """
    word = 8 if big else 4
    start = 2 * word
    directories = [{**image.tags, **_tables(image, 0, big=big)} for image in images]
    starts, places, size = _arrange(directories, start, word)
    head = bytearray(size)
    head[:start] = struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) if big else struct.pack("<2sHI", b"II", 42, start)
    for index, image in enumerate(images):
        tags = {**image.tags, **_tables(image, size, big=big)}
        entries = []
        for code, tag in sorted(tags.items()):
            value = tag.value
            if len(value) > word:
                place = places[index, code]
                head[place : place + len(value)] = value
                value = struct.pack("<Q" if big else "<I", place)
            entries.append(struct.pack("<HHQ" if big else "<HHI", code, tag.kind, tag.count) + value.ljust(word, b"\0"))
        following = starts[index + 1] if index + 1 < len(images) else 0
        encoded = (
            struct.pack("<Q" if big else "<H", len(entries))
            + b"".join(entries)
            + struct.pack("<Q" if big else "<I", following)
        )
        head[starts[index] : starts[index] + len(encoded)] = encoded
    return bytes(head)


def _directories(file: BinaryIO) -> Iterator[dict[int, Tag]]:
    """Yield the tags of each image directory.

    Raises:
        ValueError: a directory follows itself.
        _ForeignError: the file is of another kind.
        EOFError: a directory, or a value, lies outside the file.
    """
    magic = _read_at(file, 0, 4)
    if magic not in (b"II*\0", b"II+\0"):
        is_big_endian = magic in (b"MM\0*", b"MM\0+")
        raise _ForeignError("a big-endian TIFF" if is_big_endian else "no TIFF by its first bytes")
    word = 8 if magic == b"II+\0" else 4
    offset = int.from_bytes(_read_at(file, word, word), "little")
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise ValueError(offset)
        seen.add(offset)
        tags, offset = _directory(file, offset, word)
        yield tags


def _directory(file: BinaryIO, offset: int, word: int) -> tuple[dict[int, Tag], int]:
    """Read one directory, and return its tags and the offset of the next directory."""
    entry = struct.Struct("<HHQ8s" if word == 8 else "<HHI4s")
    count_size = 8 if word == 8 else 2
    count = int.from_bytes(_read_at(file, offset, count_size), "little")
    data = _read_at(file, offset + count_size, count * entry.size + word)
    tags = {}
    for code, kind, values, inline in entry.iter_unpack(data[:-word]):
        size = values * _SIZES[kind]
        value = inline[:size] if size <= word else _read_at(file, int.from_bytes(inline, "little"), size)
        tags[code] = Tag(kind, values, value)
    return tags, int.from_bytes(data[-word:], "little")


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Read exactly `size` bytes; the size of the file is checked first, because a damaged header can claim any size."""
    if offset + size > os.fstat(file.fileno()).st_size:
        raise EOFError
    file.seek(offset)
    return file.read(size)


def _image(level: int, tags: Mapping[int, Tag], *, is_mask: bool) -> Image:
    def size(code: int) -> int:
        return int(tags[code].integers()[0])

    if TILE_WIDTH not in tags and _STRIPS in tags:
        raise _ForeignError("a TIFF with strips instead of tiles")
    shape = (-(-size(HEIGHT) // size(TILE_HEIGHT)), -(-size(WIDTH) // size(TILE_WIDTH)))
    return Image(level, is_mask, tags, tags[OFFSETS].integers().reshape(shape), tags[COUNTS].integers().reshape(shape))


def _arrange(
    directories: Sequence[Mapping[int, Tag]], start: int, word: int
) -> tuple[list[int], dict[tuple[int, int], int], int]:
    """Return the offset of each directory and of each value that does not fit into its entry, and the head's size."""
    starts, places, cursor = [], {}, start
    for index, tags in enumerate(directories):
        starts.append(cursor)
        cursor += (8 if word == 8 else 2) + len(tags) * (4 + 2 * word) + word
        for code in sorted(tags.keys() - _TABLES):
            if len(tags[code].value) > word:
                places[index, code] = cursor
                cursor += len(tags[code].value) + len(tags[code].value) % 2
    for index, tags in enumerate(directories):
        for code in sorted(_TABLES):
            if len(tags[code].value) > word:
                places[index, code] = cursor
                cursor += len(tags[code].value)
    return starts, places, cursor


def _tables(image: Image, base: int, *, big: bool) -> dict[int, Tag]:
    """Encode the block tables of an image, with `base` added to each offset."""
    is_there = image.counts > 0
    offsets = np.where(is_there, image.offsets + base, 0).astype("<u8" if big else "<u4")
    return {
        OFFSETS: Tag(_LONG8 if big else _LONG, offsets.size, offsets.tobytes()),
        COUNTS: Tag(_LONG, offsets.size, image.counts.astype("<u4").tobytes()),
    }
