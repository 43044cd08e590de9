"""Many COGs to one, by copying encoded blocks: nothing is decoded, so nothing is lost and little is computed.

The only user of tifffile, for reading headers. It knows nothing of pixels. The file it writes has all headers first,
then the blocks, smallest overview first; blocks without data all point at one encoded empty block an image. It has no
GDAL structural metadata: that promises a leader before each block and blocks in rows, which shared blocks cannot keep
(GDAL's COG driver, "Low-level format details").
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from mosaic_async.errors import StitchError

_SUBFILE, _WIDTH, _HEIGHT, _TILE_WIDTH, _OFFSETS, _COUNTS = 254, 256, 257, 322, 324, 325
_TIEPOINT, _METADATA = 33922, 42112
_DOCUMENT = {269, 270, 285, 305, 306, 315, 316, 33432}
"""Name, description, software, date, author and the like."""
_OF_FILE = frozenset({_WIDTH, _HEIGHT, _OFFSETS, _COUNTS, _TIEPOINT, _METADATA, *_DOCUMENT})
"""Tags that may differ from file to file; all others must be equal, or the blocks mean different things."""
_IS_MASK = 4
"""Bit of NewSubfileType: the image is the mask of the one before it."""
_LONG, _LONG8 = 4, 16
_GAP = 8
"""Bytes: between two blocks GDAL's COG driver puts a trailer and the next leader; they are copied along."""
_CHUNK = 2**18
"""Bytes: small enough to stay in the processor's cache; large new buffers cost three times the copy in page faults."""
_CLASSIC_LIMIT = 2**32 - 1

_TABLES = frozenset({_OFFSETS, _COUNTS})

Blocks = NDArray[np.int64]
"""(block rows, block columns)."""
_Role = tuple[bool, bool]
"""Whether an image is an overview, and whether it is a mask; images of one role are encoded alike."""


@dataclass(frozen=True)
class Plate:
    """A COG that holds some blocks of the output's pyramid."""

    path: Path
    level: int
    """The pyramid level of its full-resolution image; 0 is the output's."""
    row: int
    """Of its first block, in blocks of that level."""
    col: int
    skip: int = 0
    """Levels of the file that another plate has already."""


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    value: bytes
    """Little endian."""


@dataclass(frozen=True)
class _Image:
    """One image of a COG: a level, or the mask of a level."""

    level: int
    is_mask: bool
    tags: dict[int, _Tag]
    offsets: Blocks
    """Bytes, from the start of a file's body while it is being planned; 0 for a block that is not there."""
    counts: Blocks
    """Bytes; 0 for a block that is not there."""

    @property
    def role(self) -> _Role:
        """What the image is for."""
        return self.level > 0, self.is_mask


def stitch(
    plates: Sequence[Plate],
    blank: Path,
    output: Path,
    *,
    width: int,
    height: int,
    levels: int,
    bigtiff: bool | None = None,
) -> None:
    """Write one COG from the blocks of many.

    Args:
        plates: the COGs; a block that none of them has is empty.
        blank: a COG without data, with one overview, made as the plates were. Its headers (georeference, metadata) are
            the output's, its blocks stand for all empty ones.
        output: the file to write, in place: give a temporary name.
        width: pixels.
        height: pixels.
        levels: overview levels.
        bigtiff: True or False force it; None decides by size.

    Raises:
        StitchError: the files differ in how they are encoded, or are too large for the kind of TIFF.
    """
    models = {image.role: image for image in _read(blank)}
    blanks = {
        role: _read_bytes(blank, int(model.offsets[0, 0]), int(model.counts[0, 0])) for role, model in models.items()
    }
    opened = [(plate, _read_like(plate, models)) for plate in plates]
    body = _Body()
    images: list[_Image] = []
    for level in reversed(range(levels + 1)):
        layer = [
            _empty(models[level > 0, is_mask], level, width, height) for is_mask in sorted({role[1] for role in models})
        ]
        body.place_blanks(blank, layer, models)
        for plate, found in opened:
            there = [image for image in found if image.level + plate.level == level]
            if there:
                body.place(plate.path, _pieces(plate, there, layer, blanks))
        images = layer + images
    needs_bigtiff = len(_head(images, big=True)) + body.size > _CLASSIC_LIMIT
    if needs_bigtiff and bigtiff is False:
        raise StitchError("the output is too large for BIGTIFF=NO, whose offsets end at 4 GiB")
    head = _head(images, big=needs_bigtiff if bigtiff is None else bigtiff)
    with output.open("wb") as file:
        file.write(head)
        body.copy_to(file)


@dataclass(frozen=True)
class _Piece:
    """Blocks of one image of a plate, and their places in an image of the output; all arrays have one axis."""

    image: _Image
    rows: Blocks
    cols: Blocks
    starts: Blocks
    counts: Blocks


class _Body:
    """The blocks of the output in the order of the file: runs of bytes to copy, and where each block goes."""

    def __init__(self) -> None:
        self.size = 0
        self._runs: list[tuple[Path, int, int]] = []
        """(file, start, length)."""

    def place_blanks(self, blank: Path, layer: Sequence[_Image], models: Mapping[_Role, _Image]) -> None:
        """Add one empty block for each image of a level and point the whole image at it."""
        for image in layer:
            model = models[image.role]
            start, length = int(model.offsets[0, 0]), int(model.counts[0, 0])
            if length:  # 0 where the encoding leaves empty blocks out
                image.offsets[:], image.counts[:] = self.size, length
                self._runs.append((blank, start, length))
                self.size += length

    def place(self, path: Path, pieces: Sequence[_Piece]) -> None:
        """Add blocks of one file in the order in which they lie there; neighbours become one run."""
        starts = np.concatenate([piece.starts for piece in pieces])
        if not len(starts):
            return
        counts = np.concatenate([piece.counts for piece in pieces])
        order = np.argsort(starts)
        ordered, ends = starts[order], (starts + counts)[order]
        first = np.flatnonzero(np.r_[True, ordered[1:] - ends[:-1] > _GAP])
        last = np.r_[first[1:], len(ordered)] - 1
        lengths = ends[last] - ordered[first]
        shifts = self.size + np.cumsum(lengths) - lengths - ordered[first]
        placed = np.empty_like(starts)
        placed[order] = ordered + np.repeat(shifts, last - first + 1)
        self._runs += [(path, int(start), int(length)) for start, length in zip(ordered[first], lengths, strict=True)]
        self.size += int(lengths.sum())
        for piece, offsets in zip(
            pieces, np.split(placed, np.cumsum([len(piece.starts) for piece in pieces])[:-1]), strict=True
        ):
            piece.image.offsets[piece.rows, piece.cols] = offsets
            piece.image.counts[piece.rows, piece.cols] = piece.counts

    def copy_to(self, output: BinaryIO) -> None:
        """Append all runs to the output."""
        buffer = memoryview(bytearray(_CHUNK))
        for path, runs in groupby(self._runs, key=itemgetter(0)):
            with path.open("rb") as source:
                for _, start, length in runs:
                    source.seek(start)
                    for done in range(0, length, _CHUNK):
                        piece = buffer[: min(length - done, _CHUNK)]
                        if source.readinto(piece) != len(piece):
                            raise _ended_early(path)
                        output.write(piece)


def _pieces(
    plate: Plate, found: Sequence[_Image], layer: Sequence[_Image], blanks: Mapping[_Role, bytes]
) -> list[_Piece]:
    """Say which blocks of a plate go where in a level; those without data stay with the shared empty block."""
    targets = {image.is_mask: image for image in layer}
    pieces = []
    for image in found:
        target = targets[image.is_mask]
        row, col = plate.row >> image.level, plate.col >> image.level
        inside = (slice(0, target.counts.shape[0] - row), slice(0, target.counts.shape[1] - col))
        offsets, counts = image.offsets[inside], image.counts[inside]  # a padded canvas may have more blocks
        rows, cols = np.nonzero(_has_data(plate.path, offsets, counts, blanks[image.role]))
        pieces.append(_Piece(target, rows + row, cols + col, offsets[rows, cols], counts[rows, cols]))
    return pieces


def _has_data(path: Path, offsets: Blocks, counts: Blocks, blank: bytes) -> NDArray[np.bool_]:
    """Tell the blocks that are not, byte for byte, the empty block."""
    found: NDArray[np.bool_] = counts > 0
    candidates = np.argwhere(counts == len(blank)) if blank else ()
    if len(candidates):
        with path.open("rb") as file:
            for row, col in candidates:
                file.seek(int(offsets[row, col]))
                # The first bytes tell most blocks apart, where all have one size because nothing is compressed.
                found[row, col] = file.read(256) != blank[:256] or file.read(len(blank) - 256) != blank[256:]
    return found


def _read(path: Path) -> list[_Image]:
    """Read the headers of a COG."""
    images: list[_Image] = []
    with tifffile.TiffFile(path) as tiff:
        if tiff.byteorder != "<":
            raise StitchError(f"{path} is not little endian")
        for page in tiff.pages:
            assert isinstance(page, tifffile.TiffPage)
            tags = {tag.code: _Tag(int(tag.dtype), tag.count, _raw(tiff, tag)) for tag in page.tags.values()}
            is_mask = bool(page.subfiletype & _IS_MASK)
            level = sum(image.is_mask == is_mask for image in images)
            shape = (-(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth))
            offsets = np.asarray(page.dataoffsets, dtype=np.int64).reshape(shape)
            counts = np.asarray(page.databytecounts, dtype=np.int64).reshape(shape)
            images.append(_Image(level, is_mask, tags, offsets, counts))
    return images


def _raw(tiff: tifffile.TiffFile, tag: tifffile.TiffTag) -> bytes:
    tiff.filehandle.seek(tag.valueoffset)
    return bytes(tiff.filehandle.read(tag.valuebytecount))


def _read_like(plate: Plate, models: Mapping[_Role, _Image]) -> list[_Image]:
    """Read the headers of a plate's own levels and insist that they are encoded as the models are."""
    path = plate.path
    images = [image for image in _read(path) if image.level >= plate.skip]
    if {image.is_mask for image in images} != {is_mask for _, is_mask in models}:
        raise StitchError(f"{path} and the other parts do not agree on having a mask")
    for image in images:
        expected, found = (_encoding(tags) for tags in (models[image.role].tags, image.tags))
        if different := sorted(code for code in expected | found if expected.get(code) != found.get(code)):
            names = ", ".join(tifffile.TIFF.TAGS.get(code, str(code)) for code in different)
            raise StitchError(f"{path} is encoded differently from the other parts, in {names}")
    return images


def _encoding(tags: Mapping[int, _Tag]) -> dict[int, _Tag]:
    return {code: tag for code, tag in tags.items() if code not in _OF_FILE}


def _empty(model: _Image, level: int, width: int, height: int) -> _Image:
    """Make an image without blocks, like a model, at a level of an output of `width` x `height` pixels."""
    width, height = -(-width >> level), -(-height >> level)
    size = int.from_bytes(model.tags[_TILE_WIDTH].value, "little")
    shape = (-(-height // size), -(-width // size))
    tags = {**model.tags, _WIDTH: _long(width), _HEIGHT: _long(height)}
    return _Image(level, model.is_mask, tags, np.zeros(shape, np.int64), np.zeros(shape, np.int64))


def _long(value: int) -> _Tag:
    return _Tag(_LONG, 1, struct.pack("<I", value))


def _head(images: Sequence[_Image], *, big: bool) -> bytes:
    """Encode all headers: each image's tags with their values, then all block tables; blocks follow at once."""
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
        directory = (
            struct.pack("<Q" if big else "<H", len(entries))
            + b"".join(entries)
            + struct.pack("<Q" if big else "<I", following)
        )
        head[starts[index] : starts[index] + len(directory)] = directory
    return bytes(head)


def _arrange(
    directories: Sequence[Mapping[int, _Tag]], start: int, word: int
) -> tuple[list[int], dict[tuple[int, int], int], int]:
    """Say where each directory and each value that does not fit into its entry goes, and where the head ends."""
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


def _tables(image: _Image, base: int, *, big: bool) -> dict[int, _Tag]:
    """Encode where the blocks are, counted from `base`, and how long they are."""
    there = image.counts > 0
    offsets = np.where(there, image.offsets + base, 0).astype("<u8" if big else "<u4")
    return {
        _OFFSETS: _Tag(_LONG8 if big else _LONG, offsets.size, offsets.tobytes()),
        _COUNTS: _Tag(_LONG, offsets.size, image.counts.astype("<u4").tobytes()),
    }


def _read_bytes(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(length)
    if len(data) != length:
        raise _ended_early(path)
    return data


def _ended_early(path: Path) -> StitchError:
    return StitchError(f"{path} ends before its last block")
