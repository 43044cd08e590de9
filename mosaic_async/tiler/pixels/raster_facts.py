"""The facts of raster files that decide how they are opened: alone, as bands of one dataset, or with a nodata value.

It opens files for a moment only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from mosaic_async.tiler.scenes.raster_file import open_raster

_FACTS = 50_000


@dataclass(frozen=True)
class FileFacts:
    """The facts that decide whether files can be warped as bands of one dataset."""

    grid: tuple[Any, ...]
    """Width, height, transform and coordinate reference system."""
    block_shape: tuple[int, int]
    dtype: str
    nodata: float
    """NaN if the file has none; `stackable` is then False."""
    stackable: bool
    """Whether the file has one band of quantities, masked by its nodata value."""
    taggable: bool
    """Whether nothing marks pixels without data, and a VRT can stand for the file."""
    colours: tuple[str, ...]
    """Colour interpretation of each band, as GDAL writes it."""
    separable: bool = False
    """Whether a nodata value alone masks several bands of quantities, each for itself."""


@lru_cache(maxsize=_FACTS)
def grouped(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Group neighbouring files that can be warped as one dataset.

    Raises:
        rasterio.errors.RasterioIOError: a file cannot be opened.
    """
    groups: list[list[str]] = []
    for name in names:
        facts = facts_of(name)
        if groups and stackable(name) and facts_of(groups[-1][0]) == facts:
            groups[-1].append(name)
        else:
            groups.append([name])
    return tuple(tuple(group) for group in groups)


def taggable(name: str) -> bool:
    """Return whether a file does not mark pixels without data, and can be opened as if a nodata value did.

    Raises:
        rasterio.errors.RasterioIOError: the file cannot be opened.
    """
    return facts_of(name).taggable and _gdal_name(name) is not None


def separate_nodata(name: str, nodata: float | None) -> float | None:
    """Return the nodata value with which each band of a file must be warped by itself; None if all are warped at once.

    GDAL takes a pixel of several bands for valid if one band is, and lets the nodata values of the others into means.

    Args:
        name: of the file.
        nodata: the value by the item, for a file that does not mark pixels.

    Raises:
        rasterio.errors.RasterioIOError: the file cannot be opened.
    """
    facts = facts_of(name)
    if len(facts.colours) == 1 or _gdal_name(name) is None or {"Red", "Green", "Blue"} <= set(facts.colours):
        return None
    if facts.separable:
        return facts.nodata
    return nodata if facts.taggable else None


def stackable(name: str) -> bool:
    """Return whether a file has one band masked by its nodata value, and a VRT can name it.

    Raises:
        rasterio.errors.RasterioIOError: the file cannot be opened.
    """
    return facts_of(name).stackable and _gdal_name(name) is not None


@lru_cache(maxsize=_FACTS)
def facts_of(name: str) -> FileFacts:
    """Read the facts of a file, once.

    Raises:
        rasterio.errors.RasterioIOError: the file cannot be opened.
    """
    with open_raster(name) as dataset:
        nodata = dataset.nodata
        return FileFacts(
            grid=(dataset.width, dataset.height, dataset.transform, dataset.crs),
            block_shape=dataset.block_shapes[0],
            dtype=dataset.dtypes[0],
            nodata=math.nan if nodata is None else float(nodata),
            stackable=dataset.count == 1
            and nodata is not None
            and not math.isnan(nodata)
            and dataset.mask_flag_enums[0] == [MaskFlags.nodata]
            and not dataset.gcps[0]
            and dataset.colorinterp[0] is not ColorInterp.palette,
            taggable=all(flags == [MaskFlags.all_valid] for flags in dataset.mask_flag_enums)
            and not dataset.gcps[0]
            and dataset.crs is not None
            and dataset.colorinterp[0] is not ColorInterp.palette,
            colours=tuple(colour.name.capitalize() for colour in dataset.colorinterp),
            separable=dataset.count > 1
            and all(flags == [MaskFlags.nodata] for flags in dataset.mask_flag_enums)
            and not dataset.gcps[0]
            and dataset.crs is not None,
        )


def can_hold(dtype: str, value: float) -> bool:
    """Return whether pixels of a data type can have a value."""
    if np.dtype(dtype).kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def document(names: Sequence[str], *, nodata: float | None, band: int | None = None) -> str:
    """Return a VRT whose bands are those of the files, with only the elements that a warp needs.

    See the driver's schema, https://gdal.org/drivers/raster/vrt.html.

    Args:
        names: files with the same facts.
        nodata: the value that marks pixels without data; None: nothing does.
        band: the only band to take of each; None: all.
    """
    facts = facts_of(names[0])
    width, height, grid, crs = facts.grid
    size = f'xOff="0" yOff="0" xSize="{width}" ySize="{height}"'
    kind = rasterio.dtypes._gdal_typename(facts.dtype)  # noqa: SLF001 - as in rio-tiler; rasterio has no public function
    properties = (
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="{kind}" '
        f'BlockXSize="{facts.block_shape[1]}" BlockYSize="{facts.block_shape[0]}"/>'
    )
    value = "" if nodata is None else f"<NoDataValue>{nodata!r}</NoDataValue>"
    sources = [
        (name, number, colour)
        for name in names
        for number, colour in enumerate(facts.colours, start=1)
        if band in (None, number)
    ]
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><ColorInterp>{colour}</ColorInterp>{value}<SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{escape(_gdal_name(name) or name)}</SourceFilename>'
        f"<SourceBand>{source}</SourceBand>{properties}<SrcRect {size}/><DstRect {size}/>"
        "</SimpleSource></VRTRasterBand>"
        for number, (name, source, colour) in enumerate(sources, start=1)
    )
    place = ",".join(repr(number) for number in grid.to_gdal())
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{escape(crs.to_wkt())}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )


def _gdal_name(name: str) -> str | None:
    """Return GDAL's name of a file; None for a scheme that rasterio opens with its own credentials."""
    if re.match(r"https?://", name):
        return f"/vsicurl/{name}"
    if name.startswith("file://"):
        return name.removeprefix("file://")
    return None if "://" in name else name
