"""The structure of a PNG: its header, and whether all chunks that decide pixels are there and undamaged.

GDAL reads rows that are missing or behind damage as zeros, without an error. It does not know pixels.
"""

from __future__ import annotations

import struct
import zlib

from mosaic_async.errors import TileError

_START = 8
"""Bytes of the signature."""
_CHUNK = struct.Struct(">L4s")
_CHECKSUM = struct.Struct(">L")
_DEPTH, _KIND, _GREY = 24, 25, 0
"""Where the header has its bits per sample and its kind of colours, and the kind of grey."""


def check_chunks(body: bytes) -> None:
    """Check the chunks that decide pixels, up to the end of the image, by their lengths and checksums.

    Raises:
        TileError: one is cut short or damaged.
    """
    view, offset = memoryview(body), _START
    while True:
        try:
            length, name = _CHUNK.unpack_from(body, offset)
            end = offset + _CHUNK.size + length
            (checksum,) = _CHECKSUM.unpack_from(body, end)
        except struct.error as error:
            raise TileError("the PNG is cut short") from error
        decides = name[:1].isupper() or name == b"tRNS"
        if decides and zlib.crc32(view[offset + 4 : end]) != checksum:
            raise TileError("the PNG is damaged: a checksum is wrong")
        if name == b"IEND":
            return
        offset = end + _CHECKSUM.size


def grey_bits(body: bytes) -> int:
    """Return the bits per sample if they are grey and fewer than 8; 8 otherwise."""
    return min(body[_DEPTH], 8) if body[_KIND] == _GREY else 8
