"""Pixels of one scene in one tile: warped with rio-tiler's numbers, in as few warps as will do.

Files on one grid are warped together: the coordinates of a tile are then transformed once and not once a band. A part of
a tile can be read alone and has the same pixels. It knows nothing of other scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from rio_tiler.io import Reader
from rio_tiler.utils import get_vrt_transform

from mosaic_async.tiler.datasets import Bounds, DatasetPool, Stack, grouped
from mosaic_async.tiler.pixels import Pixels

_MAX_DECIMATION = 4.0
"""Source pixels a tile pixel up to which it is worth looking whether bands are valid alike: looking costs their reading."""


@dataclass(frozen=True)
class Layer:
    """One file to read of a scene."""

    name: str
    """Path or URL."""
    bands: tuple[int, ...] = ()
    """Numbers from 1; empty: all that are no alpha band."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The tile to fill and how."""

    bounds: Bounds
    """Left, bottom, right, top in `crs`."""
    crs: CRS
    width: int
    height: int
    padding: int = 0
    """Pixels that are read around the tile, so that tiles meet."""
    resampling: str = "nearest"
    """For coming from the data's resolution to the tile's."""
    reprojection: str = "nearest"
    """For coming from the data's reference system to the tile's."""
    options: tuple[tuple[str, Any], ...] = ()
    """Whatever else rio-tiler's `Reader.part` takes: nodata, unscale, buffer."""

    @property
    def whole(self) -> Window:
        """All pixels."""
        return Window(0, 0, self.width, self.height)

    def bounds_of(self, window: Window) -> Bounds:
        """Give the bounds of some of its pixels."""
        left, bottom, right, top = self.bounds
        across, up = (right - left) / self.width, (top - bottom) / self.height
        return (
            left + across * window.col_off,
            top - up * (window.row_off + window.height),
            left + across * (window.col_off + window.width),
            top - up * window.row_off,
        )


def read_layers(pool: DatasetPool, layers: Sequence[Layer], frame: Frame, window: Window | None = None) -> Pixels | None:
    """Read files of a scene as the bands of one image, all of which are on the same frame.

    Args:
        pool: open datasets.
        layers: in the order of the bands.
        frame: the tile.
        window: the pixels wanted; None: all.

    Returns:
        Pixels of the window's size; None where a file does not reach it.

    Raises:
        rasterio.errors.RasterioError: a file cannot be opened or read.
    """
    window = window or frame.whole
    found: list[Pixels] = []
    for names, bands in _runs(layers):
        with pool.lent(names) as stack:
            if not _overlap(stack.reach(frame.crs), frame.bounds_of(window)):
                return None
            pixels = _read(stack, bands, frame, window)
        found += [pixels] if pixels else [_read_alone(pool, name, frame, window) for name in names]
    if len(found) == 1:
        return found[0]
    return Pixels(np.concatenate([one.data for one in found]), np.concatenate([one.valid for one in found]))


def _runs(layers: Sequence[Layer]) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Put neighbours that are read whole into stacks where they can be."""
    whole: list[str] = []
    for layer in layers:
        if layer.bands in ((), (1,)):
            whole.append(layer.name)
            continue
        yield from ((names, ()) for names in _grouped(whole))
        whole = []
        yield (layer.name,), layer.bands
    yield from ((names, ()) for names in _grouped(whole))


def _grouped(names: Sequence[str]) -> Sequence[tuple[str, ...]]:
    return grouped(tuple(names)) if len(names) > 1 else [tuple(names)] if names else []


def _read_alone(pool: DatasetPool, name: str, frame: Frame, window: Window) -> Pixels:
    with pool.lent((name,)) as stack:
        pixels = _read(stack, (), frame, window)
    assert pixels is not None
    return pixels


def _read(stack: Stack, bands: tuple[int, ...], frame: Frame, window: Window) -> Pixels | None:
    """Warp a dataset; None for a stack whose bands are not valid alike and must be warped one by one."""
    dataset = stack.dataset
    if len(stack.names) == 1 and (frame.options or dataset.crs == frame.crs or dataset.nodata is None or dataset.gcps[0]):
        return _read_generally(stack, bands, frame, window)
    if frame.options:
        return None
    transform, width, height = get_vrt_transform(dataset, frame.bounds, frame.height, frame.width, dst_crs=frame.crs)
    is_larger = (width, height) != (frame.width, frame.height)
    if len(stack.names) > 1 and (
        width > _MAX_DECIMATION * frame.width or not stack.is_even(_grown(frame.bounds), frame.crs)
    ):
        return None
    padding = frame.padding
    warped = {
        "crs": frame.crs,
        "transform": transform @ Affine.translation(-padding, -padding),
        "width": width + 2 * padding,
        "height": height + 2 * padding,
        "dtype": dataset.dtypes[0],
        "nodata": dataset.nodata,
        "src_nodata": dataset.nodata,
        "add_alpha": False,
        "resampling": Resampling[frame.reprojection],
    }
    wanted = (
        Window(padding, padding, width, height)
        if is_larger
        else Window(window.col_off + padding, window.row_off + padding, window.width, window.height)
    )
    shape = (frame.height, frame.width) if is_larger else (window.height, window.width)
    indexes = bands or _data_bands(stack)
    with WarpedVRT(dataset, **warped) as vrt:
        data = vrt.read(
            indexes, window=wanted, out_shape=(len(indexes), *shape), resampling=Resampling[frame.resampling]
        )
    if is_larger:
        data = data[(slice(None), *window.toslices())]
    return Pixels(data, _valid(data, dataset.nodata))


def _data_bands(stack: Stack) -> tuple[int, ...]:
    return tuple(stack.dataset.indexes)


def _grown(bounds: Bounds) -> Bounds:
    """Take in what padding and kernels read around a tile."""
    left, bottom, right, top = bounds
    across, up = 0.05 * (right - left), 0.05 * (top - bottom)
    return (left - across, bottom - up, right + across, top + up)


def _read_generally(stack: Stack, bands: tuple[int, ...], frame: Frame, window: Window) -> Pixels:
    """Let rio-tiler read what the short way does not cover: alpha and mask bands, GCPs, scaling, buffers."""
    with Reader(None, dataset=stack.dataset) as reader:
        image = reader.part(
            frame.bounds,
            dst_crs=frame.crs,
            bounds_crs=frame.crs,
            width=frame.width,
            height=frame.height,
            indexes=bands or None,
            padding=frame.padding,
            resampling_method=frame.resampling,
            reproject_method=frame.reprojection,
            **dict(frame.options),
        )
    data, valid = image.array.data, ~np.ma.getmaskarray(image.array)
    if (image.width, image.height) == (frame.width, frame.height):
        data, valid = (part[(slice(None), *window.toslices())] for part in (data, valid))
    if np.issubdtype(data.dtype, np.floating):
        valid = valid & ~np.isnan(data)
    return Pixels(data, valid)


def _valid(data: np.ndarray, nodata: float) -> np.ndarray:
    if np.issubdtype(data.dtype, np.floating):
        return ~np.isnan(data) & (data != nodata)
    return data != nodata


def _overlap(one: Bounds, other: Bounds) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
