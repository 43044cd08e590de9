"""A raster file, opened so that its environment and its name decide nothing.

It knows nothing of scenes.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k")
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
"""First bytes of TIFF, BigTIFF, JP2 and a JPEG 2000 codestream."""


def is_raster(path: Path) -> bool:
    """Return whether a file on this machine is a GeoTIFF or JPEG 2000, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(12).startswith(_SIGNATURES)
    except OSError:
        return False


def is_named_raster(name: str) -> bool:
    """Return whether the name of a file ends as those of rasters do."""
    return urlsplit(name).path.lower().endswith(SUFFIXES)


def is_readable_raster(name: str) -> bool:
    """Return whether a file can be opened as a raster."""
    try:
        open_raster(name).close()
    except RasterioError:
        return False
    return True


def open_raster(name: str, level: int | None = None) -> DatasetReader:
    """Open a raster as GeoTIFF or JPEG 2000 only: a VRT, which may read other files, is refused whatever its name.

    Masks, overviews and metadata beside a local file (`.msk`, `.ovr`, `.aux.xml`) belong to it. On a server, each of
    them would take a request per file.

    Args:
        name: path or URL.
        level: the number of the overview to read, from 0; None: the image.
    """
    driver = "JP2OpenJPEG" if urlsplit(name).path.lower().endswith((".jp2", ".j2k")) else "GTiff"
    # TRUE probes the names of sidecar files, and does not list the folder, which may hold thousands of scenes.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE" if is_local(name) else "EMPTY_DIR"):
        return rasterio.open(name, driver=driver, **({} if level is None else {"overview_level": level}))


def is_local(name: str) -> bool:
    """Return whether a file is on this machine's disks."""
    return re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://|/vsi", name) is None
