"""Checks of a tile's body that need no decoding: kind, size, blocks, codec, place.

They take a few dozen microseconds per tile, without GDAL. They find a body that is not a tile, or is another tile, or
a bomb, while its request still has attempts left. Decoding later shows whether the pixels are readable.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mosaic_async.build.tile_place import TilePlace
from mosaic_async.errors import PageError, TileError
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.matrix import TileMatrix, web_mercator
from mosaic_async.http.request import Answer
from mosaic_async.http.server_words import words_in
from mosaic_async.raster.form import TileFormat
from mosaic_async.raster.tile import driver_of, known_driver
from mosaic_async.safety.redaction import one_line

MAX_SIDE = 4096
"""Pixels per side of a first tile; a larger one is a bomb or not a tile."""
_MAX_BLOCK = 1024
"""Pixels per side that a tile's block may have if the tile is smaller."""
_MAX_SAMPLES = 1025
_LARGEST_SAMPLE = 8
"""Bytes: a byte may be followed by a double."""
_ALLOWANCE = 2**20
"""Bytes that a body may have beside twice its pixels: headers, and a tiler's metadata."""
_WORDS = re.compile(rb"[\x20-\x7e]+")
_MAX_TEXT = 2**16
"""Bytes of a body that is not a tile, for the words in its message."""
_MAX_WORDS, _MAX_KIND = 120, 60
"""Characters of the server's own words in a message."""
_PAGES = (b"<html", b"<!doctype", b"<?xml")
_BLANK, _MARKUP = b" \t\r\n\xef\xbb\xbf", (b"<", b"{")
_TEXTS = ("text/", "application/json", "application/xml", "application/problem+json", "application/xhtml")
_CODECS = frozenset((1, 5, 7, 8, 32773, 32946, 50000, 50001))
"""None, LZW, JPEG, deflate, packbits, deflate again, ZSTD and WebP."""
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_DOUBLES = {12: "d"}
_COSTS = (256, 257, 259, 277, 278, 322, 323)
"""Tags that set the cost of decoding. Libtiff also reads signed values, and the first of two tags: both are refused."""
_WANTED = dict.fromkeys((*_COSTS, 34735), _INTEGERS) | dict.fromkeys((33550, 33922, 34264), _DOUBLES)
"""Tags, and the types that their values may have."""
_MAX_DIRECTORIES = 32
_MAX_ENTRIES = 512
_MAX_VALUES = 4096
_MODEL_TYPE, _RASTER_TYPE, _GEOGRAPHIC, _PROJECTED, _PROJECTION = 1024, 1025, 2048, 3072, 3075
"""GeoKeys."""
_USER_DEFINED = 32767


def max_body(tile_format: TileFormat) -> int:
    """Return the maximum bytes of a body: twice the pixels of the widest tile with a mask, and some headers."""
    return 2 * tile_format.side**2 * (_widest(tile_format) + 1) * _LARGEST_SAMPLE + _ALLOWANCE


def _widest(tile_format: TileFormat) -> int:
    """Return how many bands the widest tile may have: a grey one may be followed by tiles with colours."""
    return max(tile_format.count, 3)


def check_answer(
    answer: Answer, tile: Tile, tile_format: TileFormat | None, matrix: TileMatrix | None = None, border: int = 0
) -> bool:
    """Check an answer with a body, and return whether it names its place, which proves that it is this tile's.

    Args:
        answer: of an untrusted server.
        tile: the requested one.
        tile_format: what tiles look like; None for the first.
        matrix: where tiles lie; None: in Web Mercator.
        border: pixels at each side that tiles have beside their place.

    Raises:
        TileError: the body is not a tile, unlike the first one, another tile, or dangerous to decode.
    """
    driver = known_driver(answer.body)
    if driver is None:  # the first bytes overrule the media type, which servers guess
        _check_page(answer)
    driver = driver or driver_of(answer.body)
    place = TilePlace(matrix or web_mercator(tile.z), tile, border)
    is_placed = driver == "GTiff" and _check_tiff(answer.body, place, tile_format)
    return place.check_headers(answer.headers, is_placed=is_placed)


def _check_page(answer: Answer) -> None:
    """Raise what a page or an exception document states, whose media type may be that of the requested image."""
    kind = answer.headers.get("Content-Type", "").lower()
    is_text = kind.startswith(_TEXTS) or "xml" in kind or "json" in kind
    text = answer.body[:_MAX_TEXT].lstrip(_BLANK)
    words = words_in(text, kind) if is_text or text[:1] in _MARKUP else ""
    if is_text or words or text.lower().startswith(_PAGES):
        shown = one_line(kind.partition(";")[0], _MAX_KIND) if is_text else "a document"
        raise PageError(f"the body is {shown}, not a tile: {one_line(words or _first_words(text), _MAX_WORDS)!r}")


@dataclass(frozen=True)
class _Header:
    """One directory of a TIFF."""

    tags: Mapping[int, tuple[float, ...]]
    """Values by tag, of the tags in `_WANTED`."""

    def one(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        values = self.tags.get(tag)
        return int(values[0]) if values else default

    def key(self, number: int) -> int | None:
        """Return the value of a GeoKey."""
        keys = self.tags.get(34735, ())
        return next((int(keys[i + 3]) for i in range(4, len(keys) - 3, 4) if keys[i] == number), None)

    @property
    def corner(self) -> tuple[float, float, float, float] | None:
        """X and y of the upper left corner, and the pixel size in both directions; None without georeference."""
        scale, tie, matrix = (self.tags.get(tag, ()) for tag in (33550, 33922, 34264))
        if len(matrix) == 16:
            x, y, width, height = matrix[3], matrix[7], matrix[0], -matrix[5]
        elif len(scale) >= 2 and len(tie) >= 6:
            width, height = scale[0], scale[1]
            x, y = tie[3] - tie[0] * width, tie[4] + tie[1] * height
        else:
            return None
        shift = 0.5 if self.key(_RASTER_TYPE) == 2 else 0.0  # the tie point is the centre of the pixel
        return x - shift * width, y + shift * height, width, height


def _headers(body: bytes) -> Iterator[_Header]:
    """Read the directories of a TIFF in turn: the image, then masks or overviews."""
    order = "<" if body[:2] == b"II" else ">"
    # offset of the first directory, its counter, the entries (code, type, count and value), an offset
    layout = ("H", "HHQ8s", "Q") if body[2:4] in (b"+\0", b"\0+") else ("H", "HHL4s", "L")
    counter, entry, pointer = (struct.Struct(order + code) for code in layout)
    if pointer.size == 8:
        counter = pointer
    try:
        (offset,) = pointer.unpack_from(body, pointer.size if pointer.size == 8 else 4)
        for _ in range(_MAX_DIRECTORIES):
            (count,) = counter.unpack_from(body, offset)
            start = offset + counter.size
            end = start + count * entry.size
            if count > _MAX_ENTRIES:
                raise ValueError("the directory has no end")
            yield _Header(_tags(body, order, entry.iter_unpack(body[start:end]), pointer))
            (offset,) = pointer.unpack_from(body, end)
            if not offset:
                return
    except (struct.error, ValueError, OverflowError) as error:
        raise TileError("the GTiff is cut short, or its header is damaged") from error
    raise TileError(f"the GTiff has more than {_MAX_DIRECTORIES} images")


def _tags(
    body: bytes, order: str, entries: Iterable[tuple[Any, ...]], pointer: struct.Struct
) -> dict[int, tuple[float, ...]]:
    """Read the entries in `_WANTED`; none of them can be trusted."""
    tags: dict[int, tuple[float, ...]] = {}
    for code, kind, length, value in entries:
        types = _WANTED.get(code, {})
        is_usable = kind in types and 0 < length <= _MAX_VALUES
        if code in tags or (code in _COSTS and not (is_usable and length == 1)):
            raise ValueError("a tag is repeated, or is not a number")
        if is_usable:
            values = struct.Struct(f"{order}{length}{types[kind]}")
            is_inside = values.size <= len(value)
            tags[code] = values.unpack_from(value) if is_inside else values.unpack_from(body, *pointer.unpack(value))
    return tags


def _check_tiff(body: bytes, place: TilePlace, tile_format: TileFormat | None) -> bool:
    is_placed = False
    for index, header in enumerate(_headers(body)):
        width, height = header.one(256, 0), header.one(257, 0)
        if index == 0:
            _check_size(width, height, tile_format)
            is_placed = _check_corner(header, width, height, place)
        _check_cost(header, width, height, tile_format)
    return is_placed


def _check_size(width: int, height: int, tile_format: TileFormat | None) -> None:
    if tile_format is not None and (width, height) != (tile_format.side, tile_format.side):
        raise TileError(
            f"the tile's size is {width} x {height}, the first one's was {tile_format.side} x {tile_format.side}"
        )


def _check_cost(header: _Header, width: int, height: int, tile_format: TileFormat | None) -> None:
    """Refuse a tile that needs too much memory or work to decode: a few bytes can claim gigabytes."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise TileError(f"the tile claims {width:,} x {height:,} pixels")
    samples = header.one(277, 1)
    if not 0 < samples <= (_MAX_SAMPLES if tile_format is None else _widest(tile_format) + 1):
        raise TileError(f"the tile claims {samples:,} bands")
    block = (header.one(322, width), header.one(323, min(header.one(278, height), height)))
    most = max(width, height, _MAX_BLOCK)
    if not all(0 < side <= most for side in block):
        raise TileError(f"the tile's blocks claim {block[0]:,} x {block[1]:,} pixels")
    codec = header.one(259, 1)
    if codec not in _CODECS:
        raise TileError(f"the tile is compressed with codec {codec}, which no tiler uses")


def _check_corner(header: _Header, width: int, height: int, place: TilePlace) -> bool:
    """Compare the place in a TIFF's header, and return whether it has one."""
    model, code = header.key(_MODEL_TYPE), header.key(_PROJECTED)
    is_geographic = model == 2 or (model is None and code is None and header.key(_GEOGRAPHIC) is not None)
    code = header.key(_GEOGRAPHIC) if is_geographic else code
    place.check_projection(
        is_geographic=is_geographic,
        code=None if code == _USER_DEFINED else code,
        projection=header.key(_PROJECTION),
    )
    if header.corner is None:
        return False
    x, y, pixel_width, pixel_height = header.corner
    place.check_bounds((x, y - height * pixel_height, x + width * pixel_width, y), side=max(width, height))
    return True


def _first_words(body: bytes) -> str:
    """Return the first words of a body that is not a tile."""
    return b" ".join(_WORDS.findall(body[:_MAX_TEXT])).decode()
