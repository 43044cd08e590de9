"""Pixels of one scene in one tile: the same numbers as rio-tiler, in as few warps as possible.

Files on one grid are warped together, which transforms the coordinates of a tile once instead of once per band. A part
of a tile has the same pixels as the whole. It knows nothing of other scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window
from rio_tiler.constants import WGS84_CRS
from rio_tiler.io import Reader

from mosaic_async.tiler.pixels.datasets import Bounds, DatasetPool, Stack, grouped
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.warp import Warp


@dataclass(frozen=True)
class Layer:
    """One file to read of a scene."""

    name: str
    """Path or URL."""
    bands: tuple[int, ...] = ()
    """Numbers from 1; empty: all bands except alpha."""


def read_layers(
    pool: DatasetPool, layers: Sequence[Layer], frame: Frame, window: Window | None = None
) -> Pixels | None:
    """Read files of a scene as the bands of one image.

    Args:
        pool: open datasets.
        layers: the files, in the order of the bands.
        frame: the tile.
        window: the pixels to read; None: all.

    Returns:
        Pixels of the window; None if a file does not reach it.

    Raises:
        rasterio.errors.RasterioError: a file cannot be opened or read.
        TooLargeError: the files have more bands than the frame allows.
    """
    window = window or frame.whole
    found: list[Pixels] = []
    count = 0
    for names, bands in _runs(layers):
        with pool.lent(names) as stack:
            count += len(bands or stack.dataset.indexes)
            frame.check(count)
            if not _overlap(stack.reach(frame.crs), frame.bounds_of(window)):
                return None
            pixels = _read(stack, bands, frame, window)
        found += [pixels] if pixels else [_read_alone(pool, name, frame, window) for name in names]
    if len(found) == 1:
        return found[0]
    return Pixels(np.concatenate([one.data for one in found]), np.concatenate([one.valid for one in found]))


def _runs(layers: Sequence[Layer]) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Combine neighbouring layers that are read whole into stacks, where possible."""
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
    """Warp a dataset; None for a stack whose bands have different masks and must be warped one by one."""
    dataset = stack.dataset
    if len(stack.names) == 1 and (
        frame.options or dataset.crs in (frame.crs, WGS84_CRS) or dataset.nodata is None or dataset.gcps[0]
    ):
        return _read_generally(stack, bands, frame, window)
    if frame.options or dataset.crs in (frame.crs, WGS84_CRS):
        return None
    warp = Warp.of(stack, frame)
    return warp.read(stack, bands or tuple(dataset.indexes), window)


def _read_generally(stack: Stack, bands: tuple[int, ...], frame: Frame, window: Window) -> Pixels:
    """Read with rio-tiler what the short way does not cover: alpha and mask bands, GCPs, scaling."""
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


def _overlap(one: Bounds, other: Bounds) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
