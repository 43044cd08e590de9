"""GDAL's settings, pinned while files are read and written, so that the environment decides no pixel and no byte.

People set these variables for other programs, and GDAL reads them wherever it works. It does not know files.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import rasterio
from rasterio.session import DummySession

Setting = str | int

_READING: Mapping[str, Setting] = {
    "GDAL_JPEG_TO_RGB": "YES",
    "GDAL_TIFF_INTERNAL_MASK_TO_8BIT": "YES",
    "GTIFF_IGNORE_READ_ERRORS": "NO",
}
"""What changes the pixels of a file that is read, or hides that it is damaged."""
_WRITING: Mapping[str, Setting] = {
    # An overview is stored as its image is, and lies beside it only where this package puts it there.
    "COMPRESS_OVERVIEW": "NONE",
    "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE",
    "INTERLEAVE_OVERVIEW": "PIXEL",
    "PHOTOMETRIC_OVERVIEW": "",
    "TIFF_USE_OVR": "NO",
    "USE_RRD": "NO",
    # Above this size GDAL makes a level from the full image instead of the level above it. The pixels of a mode, or of
    # float bands, then depend on the size of the canvas.
    "GDAL_OVR_CHUNK_MAX_SIZE": 2_000_000_000,
    "GDAL_OVR_PROPAGATE_NODATA": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_TIFF_ENDIANNESS": "LITTLE",
    "GDAL_TIFF_INTERNAL_MASK": "YES",
    "GTIFF_DONT_WRITE_BLOCKS": "NO",
}
"""What changes a file that is written, besides."""
_DECIDING = ({*_READING, *_WRITING} - {"GDAL_DISABLE_READDIR_ON_OPEN"}) | {
    "GDAL_SKIP",
    # With a cache smaller than a tile, GDAL writes the first blocks of a GeoTIFF before it is told which band is alpha,
    # and then cannot change the header any more: the tile's mask becomes a band of data.
    "GDAL_CACHEMAX",
}


def decoding() -> rasterio.Env:
    """Return the settings for one tile in memory; they are few, because each costs time per tile."""
    _register_drivers()
    # The place of a tile is known, and parsing its reference system takes five times as long as the rest of opening it.
    return rasterio.Env(**_READING, GDAL_GEOREF_SOURCES="NONE")


def pinned(**settings: Setting) -> rasterio.Env:
    """Return the settings for files that this package writes and reads back, with more of them."""
    _register_drivers()
    keys = {name: value for name, value in settings.items() if name.startswith("AWS_")}
    plain = {name: value for name, value in settings.items() if name not in keys}
    session = DummySession()  # rasterio takes the settings of a store from a session only, of whatever library
    session.get_credential_options = lambda: keys
    return rasterio.Env(session=session if keys else None, **{**_READING, **_WRITING, **plain})


def undecided(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for processes that render tiles, without the settings that change their pixels."""
    return {name: value for name, value in environ.items() if name not in _DECIDING}


@cache
def _register_drivers() -> None:
    """Have GDAL register all its drivers: it reads once, at the start, which of them to skip."""
    with rasterio.Env(GDAL_SKIP=""):
        pass
