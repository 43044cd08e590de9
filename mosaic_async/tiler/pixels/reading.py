"""Pixels of one scene in one tile: warped with rio-tiler's numbers, in as few warps as will do.

Files on one grid are warped together: the coordinates of a tile are then transformed once and not once a band. A part
of a tile can be read alone and has the same pixels. It knows nothing of other scenes.
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
    """Numbers from 1; empty: all that are no alpha band."""


def read_layers(
    pool: DatasetPool, layers: Sequence[Layer], frame: Frame, window: Window | None = None
) -> Pixels | None:
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
    if len(stack.names) == 1 and (
        frame.options or dataset.crs in (frame.crs, WGS84_CRS) or dataset.nodata is None or dataset.gcps[0]
    ):
        return _read_generally(stack, bands, frame, window)
    if frame.options or dataset.crs in (frame.crs, WGS84_CRS):
        return None
    warp = Warp.of(stack, frame)
    return warp.read(stack, bands or tuple(dataset.indexes), window)


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


def _overlap(one: Bounds, other: Bounds) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
