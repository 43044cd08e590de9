"""What the bytes of one tile hold: pixels and a mask, read with the driver of its first bytes, or a `TileError`.

Only this module opens bytes from a server. It does not know where a tile goes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile

from mosaic_async.errors import TileError
from mosaic_async.raster import meaning, png
from mosaic_async.raster.environment import decoding
from mosaic_async.raster.form import Mask, Pixels, Reading, TileFormat
from mosaic_async.raster.packing import unpack, unpacked_form
from mosaic_async.safety.redaction import one_line

_MAGIC = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x00\x00\x00\x0cjP  ", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
    (b"\x93NUMPY", "npy"),
)
_OTHERS = (
    (re.compile(rb"GIF8[79]a"), "a GIF"),
    (re.compile(rb"BM.{12}[\x0c\x28\x6c\x7c]\0\0\0", re.DOTALL), "a BMP"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "an AVIF"),
    (re.compile(rb".{4}ftyp(hei[cxms]|mif1)", re.DOTALL), "a HEIF"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL"),
    (re.compile(rb"Lerc2 |CntZImage"), "a LERC"),
    (re.compile(rb"PK\x03\x04"), "a zip, as are npz and KMZ"),
    (re.compile(rb"\x1f\x8b\x08"), "packed with gzip without a Content-Encoding, as vector tiles often are"),
    (re.compile(rb"%PDF-"), "a PDF"),
)
"""What the first bytes of other bodies mean, which servers send as tiles."""
_FORMATS = "PNG, JPEG, WebP, JPEG 2000, GeoTIFF or npy"
_JP2_BOX = struct.Struct(">L4s")
_JP2_LONG = struct.Struct(">Q")
_JP2_SIZE = struct.Struct(">4s4x8LH")
"""The begin of a code stream: markers, two corners of the image, the corners of its tile grid, components."""
_JP2_START = b"\xff\x4f\xff\x51"
_MAX_JP2_TILES = 4096
"""Tiles times components; OpenJPEG allocates some kilobytes for each before it reads a pixel."""
_MAX_SIZE = 4096
"""Pixels per side; a larger first tile is a decompression bomb or not a tile."""
MAX_BORDER = 60
"""Pixels at each side of a tile."""
_MAX_BEGIN = 2**16
"""Bytes of an unknown body that are searched for secrets."""
_MAX_BANDS = 1024
_MOST_COLORS = 4
_WEBP_CHUNK, _WEBP_START = struct.Struct("<4sL"), 12


class _OtherSizeError(TileError):
    """The tile is not as large as the others."""


def learn(
    body: bytes,
    *,
    tile_size: int | None = None,
    border: int = 0,
    mask_band: bool | None = None,
    decode: str | None = None,
) -> TileFormat:
    """Learn from the first tile what all tiles of the run must look like.

    Args:
        body: the tile.
        tile_size: required pixels per side, without a border; None accepts the tile's size.
        border: pixels at each side to cut off.
        mask_band: as in `TileFormat`.
        decode: as in `TileFormat`.

    Raises:
        TileError: the tile cannot be read, is not square, does not have the requested size, or no packed values.
    """
    driver = driver_of(body)
    if driver == "npy":
        form, (height, width) = _npy_form(body, mask_band=mask_band)
    else:
        with _opened(body, driver) as dataset:
            height, width = dataset.shape
            form = meaning.form_of(dataset, mask_band=mask_band)
    size = height - 2 * border
    if height != width or height > _MAX_SIZE or size <= 0 or tile_size not in (None, size):
        side = tile_size and tile_size + 2 * border
        wanted = f"{side} x {side}" if side else f"square and up to {_MAX_SIZE} pixels per side"
        raise TileError(f"the tile has {width} x {height} pixels, it should be {wanted}{_border_of(height, tile_size)}")
    if not 0 < form.count <= _MAX_BANDS:
        raise TileError(f"the tile has {form.count} bands beside its mask")
    form = replace(form, size=size, border=border)
    return form if decode is None else unpacked_form(form, decode)


def _border_of(side: int, tile_size: int | None) -> str:
    """Return what a tile that is slightly too large may be."""
    excess = side - (tile_size or side)
    is_border = 0 < excess <= 2 * MAX_BORDER and not excess % 2
    return f"; if it has a border, set ``tile_border`` {excess // 2}" if is_border else ""


def read(body: bytes, tile_format: TileFormat) -> Reading:
    """Read a tile in its own form.

    An extra last band is the mask, and its values above 0 are valid. This rule fits the 0 and 255 of old tilers in any
    dtype, the -32768 and 32767 of int16 and the ±3.4e38 of float32 (rio-tiler 8 and later). The file's own mask,
    transparent colour and nodata value count as well.

    Args:
        body: the tile.
        tile_format: of the tiles so far, whose size it must have.

    Raises:
        TileError: the tile is incomplete, is not an image of a known format, or claims another size.
    """
    try:
        reading = _read(body, tile_format)
    except _OtherSizeError:
        if not is_blank(body, mask_band=tile_format.mask_band):
            raise
        size = tile_format.size
        nothing = np.zeros((tile_format.count, size, size), tile_format.dtype)
        return Reading(tile_format, nothing, np.zeros((size, size), np.uint8))
    return reading if tile_format.decode is None else unpack(reading, tile_format.decode)


def is_blank(body: bytes, *, mask_band: bool | None = None) -> bool:
    """Return whether a tile of any size has no valid pixel: many servers have one such tile for all places."""
    try:
        return not _read(body, learn(body, mask_band=mask_band)).has_data
    except TileError:
        return False


def _read(body: bytes, tile_format: TileFormat) -> Reading:
    driver = driver_of(body)
    if driver == "npy":
        return _read_npy(body, tile_format)
    if tile_format.decode is not None and _is_lossy(body, driver):
        raise TileError(f"the {driver} is stored with loss, which makes other values of packed ones")
    with _opened(body, driver) as dataset:
        form = meaning.form_of(dataset, mask_band=tile_format.mask_band)
        _check_form(form, dataset.shape, tile_format)
        reading = meaning.read(dataset, form, grey_bits=png.grey_bits(body) if driver == "PNG" else 8)
    return reading.without_border(tile_format.border)


def decode(body: bytes, tile_format: TileFormat) -> tuple[Pixels, Mask | None]:
    """Read a tile as `tile_format` has it.

    Returns:
        Pixels, (bands, height, width), and their mask, (height, width), 255 where valid; None if all are valid.

    Raises:
        TileError: the tile cannot be read, or `tile_format` does not hold its pixels.
    """
    reading = read(body, tile_format)
    form = tile_format.joined(reading.form)
    if form.count != tile_format.count:
        raise TileError(f"the tile's band count is {reading.form.count}, the first tile's was {tile_format.count}")
    if form.dtype != tile_format.dtype:
        raise TileError(f"the tile's dtype is {reading.form.dtype}, the first tile's was {tile_format.dtype}")
    return reading.in_bands(form.count).astype(form.dtype, copy=False), reading.mask


def driver_of(body: bytes) -> str:
    """Return the format by its first bytes; any other format, such as a VRT, is refused here."""
    driver = known_driver(body)
    if driver is None:
        if other := next((name for begin, name in _OTHERS if begin.match(body)), None):
            raise TileError(f"the body is {other}; request {_FORMATS}")
        raise TileError(f"the body is not an image of a known format: it begins with {_begin(body)!r}")
    return driver


def known_driver(body: bytes) -> str | None:
    """Return the format by its first bytes; None if they are not those of a tile."""
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    return next((driver for magic, driver in _MAGIC if body.startswith(magic)), None)


@contextmanager
def _opened(body: bytes, driver: str) -> Iterator[DatasetReader]:
    """Open with exactly one driver, so that the body cannot use features of other formats (VRT, WMS, zip)."""
    if driver == "PNG":
        png.check_chunks(body)
    if driver == "JP2OpenJPEG":
        _check_jp2(body)  # opening it already allocates memory for the size that it claims
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with decoding(), MemoryFile(body) as file, file.open(driver=driver) as dataset:
                yield dataset
    except (RasterioError, CPLE_BaseError, ValueError, MemoryError) as error:
        raise TileError(f"the {driver} cannot be read: {error}") from error


def _check_jp2(body: bytes) -> None:
    try:
        start, right, lower, left, top, tile_width, tile_height, tile_left, tile_top, components = (
            _JP2_SIZE.unpack_from(body, _jp2_stream(body))
        )
        tiles = -(-(right - tile_left) // tile_width) * -(-(lower - tile_top) // tile_height)
    except (struct.error, ZeroDivisionError) as error:
        raise TileError("the JP2OpenJPEG is cut short or its header is damaged") from error
    width, height = right - left, lower - top
    is_sane = 0 < width <= _MAX_SIZE and 0 < height <= _MAX_SIZE and 0 < tiles * components <= _MAX_JP2_TILES
    if start != _JP2_START or not is_sane:
        raise TileError(f"the tile claims {width:,} x {height:,} pixels, {tiles:,} tiles and {components:,} bands")


def _jp2_stream(body: bytes) -> int:
    """Return the offset of the code stream: 0, or its place in the first box that holds one.

    Raises:
        struct.error: no code stream found.
    """
    if body.startswith(_JP2_START):
        return 0
    offset = 0
    while True:
        size, kind = _JP2_BOX.unpack_from(body, offset)
        head = _JP2_BOX.size
        if size == 1:
            (size,) = _JP2_LONG.unpack_from(body, offset + head)
            head += _JP2_LONG.size
        if kind == b"jp2c":
            return offset + head
        if size < head:
            raise struct.error
        offset += size


def _is_lossy(body: bytes, driver: str) -> bool:
    """Return whether a picture is stored with loss; a WebP says so in the name of its chunk of pixels."""
    if driver != "WEBP":
        return driver == "JPEG"
    offset = _WEBP_START
    while offset + _WEBP_CHUNK.size <= len(body):
        name, size = _WEBP_CHUNK.unpack_from(body, offset)
        if name in (b"VP8 ", b"VP8L"):
            return bool(name == b"VP8 ")
        offset += _WEBP_CHUNK.size + size + size % 2
    return False


def _begin(body: bytes) -> str:
    """Return the first bytes of a body; a secret is removed before the text is cut."""
    return one_line(body[:_MAX_BEGIN].decode("latin-1"), 16)


def _check_form(form: TileFormat, shape: tuple[int, ...], tile_format: TileFormat) -> None:
    """Check size, bands and dtype before any pixel is read: a file of 122 bytes can claim gigabytes."""
    side = tile_format.side
    if shape != (side, side):
        raise _OtherSizeError(f"the tile's size is {shape[1]} x {shape[0]}, the first tile's was {side} x {side}")
    if form.count > max(tile_format.count, _MOST_COLORS) or np.dtype(form.dtype).kind not in "uif":
        raise TileError(f"the tile has {form.count} bands of {form.dtype}, the first tile had {tile_format.count}")


def _npy_header(body: bytes) -> tuple[tuple[int, int, int], str]:
    """Read shape and dtype without reading the array."""
    try:
        stream = io.BytesIO(body)
        major = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception as error:  # the header is a Python literal, and parsing it raises many kinds of errors
        raise TileError(f"the npy cannot be read: {type(error).__name__}") from error
    if len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape) or dtype.kind not in "uif":
        raise TileError(f"the npy has shape {shape} and dtype {dtype}, it should be (bands, height, width) of numbers")
    return shape, dtype.name


def _npy_form(body: bytes, *, mask_band: bool | None) -> tuple[TileFormat, tuple[int, int]]:
    """Return the form and the shape of an array; its last plane is the mask, unless the source declares otherwise.

    Half floats are read as floats, which hold them exactly and which every GeoTIFF can have.
    """
    (planes, height, width), dtype = _npy_header(body)
    form = TileFormat(
        size=width,
        count=planes - (mask_band is not False),
        dtype="float32" if dtype == "float16" else dtype,
        mask_band=mask_band,
    )
    return form, (height, width)


def _read_npy(body: bytes, tile_format: TileFormat) -> Reading:
    form, shape = _npy_form(body, mask_band=tile_format.mask_band)
    _check_form(form, shape, tile_format)
    try:
        planes = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise TileError(f"the npy cannot be read: {error}") from error
    mask = None if form.count == len(planes) else meaning.as_mask(planes[-1])
    reading = Reading(form, planes[: form.count].astype(form.dtype, copy=False), mask)
    return reading.without_border(tile_format.border)
