"""What the bytes of one tile hold: pixels and a mask, read with the one expected driver, or a `TileError`.

Only this module opens bytes from a server. It does not know where a tile goes.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile

from mosaic_async.errors import TileError
from mosaic_async.raster.environment import decoding
from mosaic_async.redaction import one_line

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
_PNG_END = b"IEND\xaeB`\x82"
_JP2_BOX = struct.Struct(">L4s")
_JP2_LONG = struct.Struct(">Q")
_JP2_SIZE = struct.Struct(">4s4x8LH")
"""The begin of a code stream: markers, two corners of the image, the corners of its tile grid, components."""
_JP2_START = b"\xff\x4f\xff\x51"
_MAX_JP2_TILES = 4096
"""Tiles times components; OpenJPEG allocates some kilobytes for each before it reads a pixel."""
_MAX_SIZE = 4096
"""Pixels per side; a larger first tile is a decompression bomb or not a tile."""
_MAX_BEGIN = 2**16
"""Bytes of an unknown body that are searched for secrets."""
_MAX_DESCRIPTION = 200
"""Characters of a band's name."""
_MAX_BANDS = 1024

Pixels = NDArray[Any]
Mask = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class TileFormat:
    """What every tile of a run looks like, learnt from the first tile that is not empty."""

    driver: str
    """GDAL's name of the format, or `npy`."""
    size: int
    """Pixels per side."""
    count: int
    """Bands of data, without a mask band."""
    dtype: str
    nodata: float | None = None
    """From the tile's own tag, if that is its mask; None if the mask is a band or internal."""
    mask_band: bool | None = None
    """Whether the last band is the mask; None decides by its colour interpretation."""
    colorinterp: tuple[str, ...] = ()
    """Colour interpretation of the data bands."""
    descriptions: tuple[str | None, ...] = ()
    """Names of the data bands."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TileFormat:
        """Make a format from the result of `dataclasses.asdict`, also after it was stored as JSON."""
        lists = {name: tuple(values[name]) for name in ("colorinterp", "descriptions")}
        return cls(**{**values, **lists})

    @property
    def nbytes(self) -> int:
        """Uncompressed bytes per tile."""
        return self.size * self.size * self.count * np.dtype(self.dtype).itemsize


def learn(body: bytes, *, tile_size: int | None = None, mask_band: bool | None = None) -> TileFormat:
    """Learn from the first tile what all tiles of the run must look like.

    Args:
        body: the tile.
        tile_size: required pixels per side; None accepts the tile's size.
        mask_band: as in `TileFormat`.

    Raises:
        TileError: the tile cannot be read, is not square, or does not have the requested size.
    """
    driver = driver_of(body)
    if driver == "npy":
        shape, dtype = _npy_header(body)
        tile_format = TileFormat(
            driver=driver, size=shape[1], count=shape[0] - (mask_band is not False), dtype=dtype, mask_band=mask_band
        )
        height, width = shape[1:]
    else:
        with _opened(body, driver) as dataset:
            height, width = dataset.shape
            tile_format = _format_of(dataset, mask_band=mask_band)
    if height != width or height > _MAX_SIZE or tile_size not in (None, height):
        wanted = f"{tile_size} x {tile_size}" if tile_size else f"square and up to {_MAX_SIZE} pixels per side"
        raise TileError(f"the tile has {width} x {height} pixels, it should be {wanted}")
    if not 0 < tile_format.count <= _MAX_BANDS:
        raise TileError(f"the tile has {tile_format.count} bands beside its mask")
    return tile_format


def decode(body: bytes, tile_format: TileFormat) -> tuple[Pixels, Mask | None]:
    """Read a tile's pixels, (bands, height, width), and its mask, (height, width), 255 where valid.

    An extra last band is the mask, and its values above 0 are valid. This rule fits the 0 and 255 of old tilers in any
    dtype, the -32768 and 32767 of int16 and the ±3.4e38 of float32 (rio-tiler 8 and later). Without such a band, the
    file's own mask or nodata value is used. None means that all pixels are valid.

    Raises:
        TileError: the tile is incomplete, has an unexpected format, or differs from the first tile in size, band count
            or dtype.
    """
    driver = driver_of(body)
    if driver != tile_format.driver:
        raise TileError(f"the tile is a {driver}, the first tile was a {tile_format.driver}")
    if driver == "npy":
        return _decode_npy(body, tile_format)
    with _opened(body, driver) as dataset:
        return _read(dataset, tile_format)


def driver_of(body: bytes) -> str:
    """Return the format by its first bytes; any other format, such as a VRT, is refused here."""
    for magic, driver in _MAGIC:
        if body.startswith(magic):
            return driver
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    raise TileError(f"the body is not an image of a known format: it begins with {_begin(body)!r}")


@contextmanager
def _opened(body: bytes, driver: str) -> Iterator[DatasetReader]:
    """Open with exactly one driver, so that the body cannot use features of other formats (VRT, WMS, zip)."""
    if driver == "PNG" and _PNG_END not in body[-1024:]:
        raise TileError("the PNG is cut short")  # GDAL reads the missing rows as zeros, without an error
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


def _format_of(dataset: DatasetReader, *, mask_band: bool | None) -> TileFormat:
    if _is_palette(dataset):
        count, colorinterp = 3, ("red", "green", "blue")
    else:
        count = dataset.count - _has_mask_band(dataset, mask_band=mask_band)
        colorinterp = tuple(band.name for band in dataset.colorinterp[:count])
    return TileFormat(
        driver=dataset.driver,
        size=dataset.width,
        count=count,
        dtype=dataset.dtypes[0],
        nodata=dataset.nodata if MaskFlags.nodata in dataset.mask_flag_enums[0] else None,
        mask_band=mask_band,
        colorinterp=colorinterp,
        descriptions=() if _is_palette(dataset) else tuple(map(_shown, dataset.descriptions[:count])),
    )


def _begin(body: bytes) -> str:
    """Return the first bytes of a body; a secret is removed before the text is cut."""
    return one_line(body[:_MAX_BEGIN].decode("latin-1"), 16)


def _shown(description: str | None) -> str | None:
    """Return a band's description, which the output repeats, without secrets."""
    return None if description is None else one_line(description, _MAX_DESCRIPTION)


def _read(dataset: DatasetReader, tile_format: TileFormat) -> tuple[Pixels, Mask | None]:
    """Check size, bands and dtypes before any pixel is read: a file of 122 bytes can claim gigabytes."""
    _check("size", f"{dataset.width} x {dataset.height}", f"{tile_format.size} x {tile_format.size}")
    _check("dtype", "/".join(sorted(set(dataset.dtypes))), tile_format.dtype)
    if _is_palette(dataset):
        _check("band count", 3, tile_format.count)
        return _read_palette(dataset)
    has_mask_band = _has_mask_band(dataset, mask_band=tile_format.mask_band)
    _check("band count", dataset.count - has_mask_band, tile_format.count)
    pixels = dataset.read()
    if has_mask_band:
        return pixels[:-1], _as_mask(pixels[-1])
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.all_valid in flags or tile_format.mask_band is False:
        return pixels, None
    return pixels, dataset.dataset_mask()


def _check(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise TileError(f"the tile's {what} is {found}, the first tile's was {expected}")


def _has_mask_band(dataset: DatasetReader, *, mask_band: bool | None) -> bool:
    return dataset.colorinterp[-1] is ColorInterp.alpha if mask_band is None else mask_band


def _is_palette(dataset: DatasetReader) -> bool:
    return bool(dataset.colorinterp == (ColorInterp.palette,) and dataset.dtypes == ("uint8",))


def _read_palette(dataset: DatasetReader) -> tuple[Pixels, Mask | None]:
    """Replace indices by colours: a palette belongs to one tile and has no meaning in a mosaic."""
    palette = np.zeros((256, 4), dtype=np.uint8)
    for index, color in dataset.colormap(1).items():
        palette[index] = color
    colors = np.moveaxis(palette[dataset.read(1)], -1, 0)
    mask = _as_mask(colors[3])
    return np.ascontiguousarray(colors[:3]), None if mask.all() else mask


def _as_mask(band: Pixels) -> Mask:
    return np.multiply(band > 0, 255, dtype=np.uint8)


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


def _decode_npy(body: bytes, tile_format: TileFormat) -> tuple[Pixels, Mask | None]:
    """Read an array; its last plane is the mask, as rio-tiler writes it, unless the source declares otherwise."""
    has_mask = tile_format.mask_band is not False
    shape, dtype = _npy_header(body)
    _check("shape", shape, (tile_format.count + has_mask, tile_format.size, tile_format.size))
    _check("dtype", dtype, tile_format.dtype)
    try:
        pixels = np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise TileError(f"the npy cannot be read: {error}") from error
    return (pixels[:-1], _as_mask(pixels[-1])) if has_mask else (pixels, None)
