"""Open datasets, kept open: single files, and files on one grid as the bands of one dataset.

GDAL allows one thread per dataset, so the pool lends each to one caller. It knows nothing of scenes and tiles.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from rasterio.warp import calculate_default_transform

from mosaic_async.geo.projection import transformed
from mosaic_async.sources.raster_grid import RasterGrid
from mosaic_async.tiler.pixels.raster_facts import document, facts_of
from mosaic_async.tiler.pixels.turns import Bounds, moved, reach_in
from mosaic_async.tiler.scenes.raster_file import open_raster

_Range = tuple[int, int]
Palette = tuple[tuple[int, tuple[int, int, int, int]], ...]
"""Pairs of a value and its red, green, blue and opacity."""
_Key = tuple[tuple[str, ...], str, int | None]

_OPEN = 256
"""Datasets that a process keeps open; a stack of files counts once."""
_ANY = 2**31
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_SMALL = 2**20
"""Pixels per band up to which the mask of a whole file is read at once and kept."""
_MASKS = 2**24
"""Bytes of the masks that idle datasets of a process keep."""
_BUFFERS = 2**27
"""Bytes of the buffers that idle datasets of a process keep."""
_PER_BLOCK = 5
"""Buffers of the size of a block that an open file keeps: packed and unpacked, of the image and an overview, and those
of the codec; measured with zstd."""


class Cover(Enum):
    """Which source pixels around a box are valid."""

    NONE = auto()
    """The file does not reach the box."""
    FULL = auto()
    """All pixels exist and are valid in all bands."""
    EVEN = auto()
    """All bands are valid in the same pixels."""
    UNEVEN = auto()


@dataclass
class Stack:
    """An open dataset: a file, or several on one grid as its bands."""

    names: tuple[str, ...]
    dataset: DatasetReader = field(repr=False)
    nodata: float | None = None
    """The nodata value that it got when it was opened; None: that of its files."""
    band: int | None = None
    """The only band that it has of its file; None: all."""
    turn: int = 0
    """How many worlds further west `dataset` lies than the files, see `turns`."""
    _bare: DatasetReader | None = field(default=None, repr=False)
    _turns: list[Stack] | None = field(default=None, repr=False)
    _grid: RasterGrid | None = field(default=None, repr=False)
    _reach: dict[CRS, tuple[Bounds, ...]] = field(default_factory=dict, repr=False)
    _resolution: dict[CRS, tuple[float, float]] = field(default_factory=dict, repr=False)
    _seen: tuple[_Range, _Range, NDArray[np.bool_]] | None = field(default=None, repr=False)

    @property
    def key(self) -> _Key:
        """What it is found by."""
        return self.names, str(self.nodata), self.band

    @property
    def bare(self) -> DatasetReader:
        """Return the same bands without their nodata value; requires names that are `stackable`."""
        if self._bare is None:
            bare = rasterio.open(document(self.names, nodata=None), driver="VRT")
            self._bare = moved(bare, self.turn) if self.turn else bare
        return self._bare

    @property
    def mask_bytes(self) -> int:
        """Bytes of the masks that `cover` remembers."""
        kept = 0 if self._seen is None else self._seen[2].nbytes
        return kept + sum(turn.mask_bytes for turn in self._others)

    @cached_property
    def buffer_bytes(self) -> int:
        """Bytes of the buffers that its files keep while it is open."""
        facts = facts_of(self.names[0])
        height, width = facts.block_shape
        return _PER_BLOCK * height * width * np.dtype(facts.dtype).itemsize * len(facts.colours) * len(self.names)

    def forget_masks(self) -> None:
        """Let `cover` read masks anew."""
        self._seen = None
        for turn in self._others:
            turn.forget_masks()

    @property
    def _others(self) -> list[Stack]:
        return [turn for turn in self._turns or () if turn is not self]

    @property
    def turns(self) -> list[Stack]:
        """The dataset wherever it lies on the map of its reference system: mostly itself, see `RasterGrid.turns`."""
        if self._turns is None:
            grids = RasterGrid.of(self.dataset).turns
            self._turns = [self._turned(turn, grid) for turn, grid in grids.items()]
        return self._turns

    def _turned(self, turn: int, grid: RasterGrid) -> Stack:
        if turn == 0:
            self._grid = grid
            return self
        return Stack(self.names, moved(self.dataset, turn), self.nodata, self.band, turn, _grid=grid)

    @property
    def grid(self) -> RasterGrid:
        """The part of its pixels that lies on the map of its reference system."""
        if self._grid is None:
            self._grid = RasterGrid.of(self.dataset)
        return self._grid

    @cached_property
    def bands(self) -> tuple[int, ...]:
        """Return the numbers of its bands but alpha."""
        return tuple(
            number
            for number, colour in zip(self.dataset.indexes, self.dataset.colorinterp, strict=True)
            if colour is not ColorInterp.alpha
        )

    @cached_property
    def has_nodata(self) -> bool:
        """Return whether a nodata value of its own marks the pixels without data."""
        return self.dataset.nodata is not None

    @cached_property
    def warped_dtype(self) -> str:
        """The data type to warp in with a nodata value: of 64-bit integers, GDAL would take all pixels for valid."""
        dtype: str = self.dataset.dtypes[0]
        return "float64" if dtype in ("int64", "uint64") else dtype

    @cached_property
    def has_mask(self) -> bool:
        """Return whether it marks pixels without data at all: by a nodata value, a mask or an alpha band."""
        return any(flags != [MaskFlags.all_valid] for flags in self.dataset.mask_flag_enums)

    @cached_property
    def holds_classes(self) -> bool:
        """Return whether its values are numbers of a colour table."""
        return ColorInterp.palette in self.dataset.colorinterp

    @cached_property
    def palette(self) -> Palette | None:
        """The colours by value, where its values are numbers of a colour table in bytes."""
        if not self.holds_classes or self.dataset.dtypes[0] != "uint8":
            return None
        return tuple(sorted(self.dataset.colormap(1).items()))

    def colours(self, bands: Sequence[int]) -> tuple[int, ...]:
        """Return the places of red, green and blue among these bands, if all three are."""
        found = [self._colorinterp[band - 1] for band in bands]
        return tuple(found.index(colour) for colour in _COLOURS) if set(_COLOURS) <= set(found) else ()

    @cached_property
    def _colorinterp(self) -> tuple[ColorInterp, ...]:
        return tuple(self.dataset.colorinterp)

    def close(self) -> None:
        """Close the datasets."""
        for turn in self._others:
            turn.close()
        self.dataset.close()
        if self._bare is not None:
            self._bare.close()

    def reaches(self, crs: CRS, box: Bounds) -> bool:
        """Return whether the dataset can have pixels in a box in another reference system."""
        if crs not in self._reach:
            self._reach[crs] = reach_in(self.grid, crs)
        return any(_overlap(box, reach) for reach in self._reach[crs])

    def resolution(self, crs: CRS) -> tuple[float, float]:
        """Return width and (negative) height of the pixels that GDAL would choose to warp the whole file."""
        if crs not in self._resolution:
            grid = self.grid
            whole, _, _ = calculate_default_transform(grid.crs, crs, grid.width, grid.height, *grid.bounds)
            self._resolution[crs] = (whole.a, whole.e)
        return self._resolution[crs]

    def cover(self, x: NDArray[np.float64], y: NDArray[np.float64], crs: CRS, margin: float) -> list[Cover]:
        """Return which source pixels around each strip of a box are valid.

        The last window is remembered, and the whole of a small file: so the first strip should be the whole box.

        Args:
            x: (strips, points) along the outlines of the strips, so dense that segments are nearly straight.
            y: the same shape.
            crs: reference system of the points.
            margin: source pixels around an outline that count too.
        """
        easting, northing = transformed(crs, self.dataset.crs, x.ravel(), y.ravel())
        columns, rows = ~self.dataset.transform @ (easting, northing)
        spans = [_spans(axis.reshape(x.shape), margin) for axis in (rows, columns)]
        return [self._cover_of(*strip) for strip in zip(*spans, strict=True)]

    def _cover_of(self, rows: _Range, columns: _Range) -> Cover:
        within = _cut(rows, self.dataset.height), _cut(columns, self.dataset.width)
        if any(first >= last for first, last in within):
            return Cover.NONE
        valid = self._valid(*within)
        if within == (rows, columns) and valid.all():
            return Cover.FULL
        return Cover.EVEN if (valid[1:] == valid[:1]).all() else Cover.UNEVEN

    def _valid(self, rows: _Range, columns: _Range) -> NDArray[np.bool_]:
        if self._seen is None or not (_holds(self._seen[0], rows) and _holds(self._seen[1], columns)):
            dataset = self.dataset
            if dataset.width * dataset.height <= _SMALL:
                rows_read, columns_read = (0, dataset.height), (0, dataset.width)
            else:
                rows_read, columns_read = rows, columns
            self._seen = (rows_read, columns_read, dataset.read(window=(rows_read, columns_read)) != dataset.nodata)
        top, left = self._seen[0][0], self._seen[1][0]
        return self._seen[2][:, rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]


def _spans(axis: NDArray[np.float64], margin: float) -> list[_Range]:
    """Return the pixels that the points of each strip span; all pixels if a point cannot be projected."""
    low, high = np.floor(axis.min(axis=1) - margin), np.ceil(axis.max(axis=1) + margin)
    return [(int(a), int(b)) if np.isfinite(b - a) else (0, _ANY) for a, b in zip(low, high, strict=True)]


def _overlap(one: Bounds, other: Bounds) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _cut(span: _Range, size: int) -> _Range:
    return max(span[0], 0), min(span[1], size)


def _holds(outer: _Range, inner: _Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


class DatasetPool:
    """Open, idle datasets; the one that is idle longest is closed first, and loses its masks even earlier."""

    def __init__(self, limit: int = _OPEN, mask_limit: int = _MASKS, buffer_limit: int = _BUFFERS) -> None:
        """Create an empty pool.

        Args:
            limit: maximum idle datasets.
            mask_limit: maximum bytes of their masks.
            buffer_limit: maximum bytes of their buffers; one dataset is kept in any case.
        """
        self._limit = limit
        self._mask_limit = mask_limit
        self._buffer_limit = buffer_limit
        self._buffers = 0
        self._idle: OrderedDict[int, Stack] = OrderedDict()
        self._by_names: dict[_Key, list[int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._idle)

    @contextmanager
    def lent(self, names: tuple[str, ...], nodata: float | None = None, band: int | None = None) -> Iterator[Stack]:
        """Lend the dataset of some files for the block; a dataset that fails inside is closed and not kept.

        Args:
            names: files that `grouped` combines, or one file.
            nodata: the value that marks pixels without data in one file that is `taggable`; None: as the file says.
            band: the only band of a file with such a value; None: all.

        Raises:
            rasterio.errors.RasterioIOError: a file cannot be opened.
        """
        stack = self._taken((names, str(nodata), band)) or Stack(names, _open(names, nodata, band), nodata, band)
        try:
            yield stack
        except BaseException:
            stack.close()
            raise
        self._put(stack)

    def close(self) -> None:
        """Close all idle datasets."""
        with self._lock:
            stacks, self._idle, self._by_names = list(self._idle.values()), OrderedDict(), {}
            self._buffers = 0
        for stack in stacks:
            stack.close()

    def _taken(self, names: _Key) -> Stack | None:
        with self._lock:
            keys = self._by_names.get(names)
            if not keys:
                return None
            key = keys.pop()
            if not keys:
                del self._by_names[names]
            stack = self._idle.pop(key)
            self._buffers -= stack.buffer_bytes
            return stack

    def _put(self, stack: Stack) -> None:
        with self._lock:
            self._idle[id(stack)] = stack
            self._by_names.setdefault(stack.key, []).append(id(stack))
            self._buffers += stack.buffer_bytes
            evicted = list(self._excess())
            self._drop_masks()
        for old in evicted:
            old.close()

    def _excess(self) -> Iterator[Stack]:
        while len(self._idle) > self._limit or (len(self._idle) > 1 and self._buffers > self._buffer_limit):
            yield self._oldest()

    def _drop_masks(self) -> None:
        left = self._mask_limit
        for stack in reversed(self._idle.values()):
            left -= stack.mask_bytes
            if left < 0:
                stack.forget_masks()

    def _oldest(self) -> Stack:
        key, stack = self._idle.popitem(last=False)
        self._buffers -= stack.buffer_bytes
        self._by_names[stack.key].remove(key)
        if not self._by_names[stack.key]:
            del self._by_names[stack.key]
        return stack


def _open(names: Sequence[str], nodata: float | None, band: int | None) -> DatasetReader:
    if len(names) == 1 and nodata is None:
        return open_raster(names[0])
    value = facts_of(names[0]).nodata if nodata is None else nodata
    return rasterio.open(document(names, nodata=value, band=band), driver="VRT")
