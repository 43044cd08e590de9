"""Open datasets, kept open: single files, and files on one grid as the bands of one dataset.

A dataset of GDAL is one thread's at a time, so it is lent and given back. It knows nothing of scenes and tiles.
"""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds

Bounds = tuple[float, float, float, float]

_OPEN = 256
"""Datasets that stay open in a process; a stack of files counts once."""
_FACTS = 50_000
_SMALL = 2**20
"""Pixels of a band up to which a whole file is compared with its neighbours, once."""


@dataclass(frozen=True)
class FileFacts:
    """What decides whether files can be warped as bands of one."""

    grid: tuple[Any, ...]
    """Width, height, transform and reference system."""
    block_shape: tuple[int, int]
    dtype: str
    nodata: float
    """NaN also where there is none: then `stackable` is False."""
    stackable: bool
    """One band whose mask is its nodata value."""


@dataclass
class Stack:
    """An open dataset: a file, or several on one grid as its bands."""

    names: tuple[str, ...]
    dataset: DatasetReader = field(repr=False)
    _reach: dict[CRS, Bounds] = field(default_factory=dict, repr=False)
    _even: bool | None = field(default=None, repr=False)

    def reach(self, crs: CRS) -> Bounds:
        """Give its bounds in a reference system, a hundredth larger: straight edges bend when they are projected."""
        if crs not in self._reach:
            left, bottom, right, top = transform_bounds(self.dataset.crs, crs, *self.dataset.bounds, densify_pts=21)
            across, up = 0.01 * (right - left), 0.01 * (top - bottom)
            self._reach[crs] = (left - across, bottom - up, right + across, top + up)
        return self._reach[crs]

    def is_even(self, bounds: Bounds, crs: CRS) -> bool:
        """Tell whether all bands are valid in the same pixels around a box; only then can one mask warp them all.

        A small file is compared whole and once.
        """
        if self.dataset.count == 1:
            return True
        if self._even is None and self.dataset.width * self.dataset.height <= _SMALL:
            self._even = _is_even(self.dataset.read(), self.dataset.nodata)
        if self._even is not None:
            return self._even
        return _is_even(self.dataset.read(window=self._around(bounds, crs)), self.dataset.nodata)

    def _around(self, bounds: Bounds, crs: CRS) -> tuple[tuple[int, int], tuple[int, int]]:
        left, bottom, right, top = transform_bounds(crs, self.dataset.crs, *bounds, densify_pts=21)
        corners = [~self.dataset.transform @ corner for corner in ((left, top), (right, bottom), (left, bottom), (right, top))]
        columns, rows = zip(*corners, strict=True)
        return (
            _clipped(min(rows), max(rows), self.dataset.height),
            _clipped(min(columns), max(columns), self.dataset.width),
        )


def _clipped(low: float, high: float, size: int) -> tuple[int, int]:
    """Widen a range by what a kernel and the bend of an edge may reach, and cut it to the file."""
    margin = 8 + 0.02 * (high - low)
    first = min(max(math.floor(low - margin), 0), size - 1)
    return first, min(max(math.ceil(high + margin), first + 1), size)


def _is_even(pixels: np.ndarray, nodata: float | None) -> bool:
    missing = np.isnan(pixels) if nodata is None or math.isnan(nodata) else pixels == nodata
    return bool((missing[1:] == missing[:1]).all())


class DatasetPool:
    """Datasets that are open and idle, the longest idle first to go."""

    def __init__(self, limit: int = _OPEN) -> None:
        """Make an empty pool.

        Args:
            limit: datasets that stay open while nobody uses them.
        """
        self._limit = limit
        self._idle: OrderedDict[int, Stack] = OrderedDict()
        self._by_names: dict[tuple[str, ...], list[int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._idle)

    @contextmanager
    def lent(self, names: tuple[str, ...]) -> Iterator[Stack]:
        """Lend the dataset of some files until the block is left; one that fails inside is closed and not kept.

        Args:
            names: of files that `grouped` put together, or of one file.

        Raises:
            rasterio.errors.RasterioIOError: it cannot be opened.
        """
        stack = self._taken(names) or Stack(names, _open(names))
        try:
            yield stack
        except BaseException:
            stack.dataset.close()
            raise
        self._put(stack)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            stacks, self._idle, self._by_names = list(self._idle.values()), OrderedDict(), {}
        for stack in stacks:
            stack.dataset.close()

    def _taken(self, names: tuple[str, ...]) -> Stack | None:
        with self._lock:
            keys = self._by_names.get(names)
            if not keys:
                return None
            key = keys.pop()
            if not keys:
                del self._by_names[names]
            return self._idle.pop(key)

    def _put(self, stack: Stack) -> None:
        with self._lock:
            self._idle[id(stack)] = stack
            self._by_names.setdefault(stack.names, []).append(id(stack))
            evicted = self._oldest() if len(self._idle) > self._limit else None
        if evicted is not None:
            evicted.dataset.close()

    def _oldest(self) -> Stack:
        key, stack = self._idle.popitem(last=False)
        self._by_names[stack.names].remove(key)
        if not self._by_names[stack.names]:
            del self._by_names[stack.names]
        return stack


@lru_cache(maxsize=_FACTS)
def grouped(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Put files together that can be warped as one, in the order they come.

    Raises:
        rasterio.errors.RasterioIOError: one cannot be opened.
    """
    groups: list[list[str]] = []
    for name in names:
        facts = _facts(name)
        if groups and facts.stackable and _gdal_name(name) and _facts(groups[-1][0]) == facts:
            groups[-1].append(name)
        else:
            groups.append([name])
    return tuple(tuple(group) for group in groups)


@lru_cache(maxsize=_FACTS)
def _facts(name: str) -> FileFacts:
    with rasterio.open(name) as dataset:
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
            and not dataset.gcps[0],
        )


def _open(names: Sequence[str]) -> DatasetReader:
    return rasterio.open(names[0] if len(names) == 1 else _document(names))


def _document(names: Sequence[str]) -> str:
    """Write the VRT whose bands are the files; only what a warp needs is in it.

    See the driver's schema, https://gdal.org/drivers/raster/vrt.html.
    """
    facts = _facts(names[0])
    width, height, transform, crs = facts.grid
    size = f'xOff="0" yOff="0" xSize="{width}" ySize="{height}"'
    kind = rasterio.dtypes._gdal_typename(facts.dtype)  # noqa: SLF001 - as in rio-tiler; there is no public spelling
    properties = (
        f'<SourceProperties RasterXSize="{width}" RasterYSize="{height}" DataType="{kind}" '
        f'BlockXSize="{facts.block_shape[1]}" BlockYSize="{facts.block_shape[0]}"/>'
    )
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><NoDataValue>{facts.nodata!r}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{escape(_gdal_name(name) or name)}</SourceFilename>'
        f"<SourceBand>1</SourceBand>{properties}<SrcRect {size}/><DstRect {size}/></SimpleSource></VRTRasterBand>"
        for number, name in enumerate(names, start=1)
    )
    place = ",".join(repr(number) for number in transform.to_gdal())
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{escape(crs.to_wkt())}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )


def _gdal_name(name: str) -> str | None:
    """Name a file as GDAL does; None for what rasterio opens with credentials of its own."""
    if re.match(r"https?://", name):
        return f"/vsicurl/{name}"
    if name.startswith("file://"):
        return name.removeprefix("file://")
    return None if "://" in name else name
