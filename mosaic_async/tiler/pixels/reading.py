"""Pixels of one scene in one tile: the same numbers as rio-tiler, in as few warps as possible.

Files on one grid are warped together, which transforms the coordinates of a tile once instead of once per band. A part
of a tile has the same pixels as the whole. It knows nothing of other scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rasterio.windows import Window
from rio_tiler.constants import WGS84_CRS
from rio_tiler.errors import InvalidBandName
from rio_tiler.io import Reader

from mosaic_async.tiler.pixels.datasets import DatasetPool, Stack
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.levels import read_level
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.raster_facts import can_hold, facts_of, grouped, separate_nodata, taggable
from mosaic_async.tiler.pixels.warp import Warp


@dataclass(frozen=True)
class Layer:
    """One file to read of a scene."""

    name: str
    """Path or URL."""
    bands: tuple[int, ...] = ()
    """Numbers from 1; empty: all bands except alpha."""
    nodata: float | None = None
    """The value that marks pixels without data by the item, for a file that does not mark them itself."""
    is_alone: bool = False
    """Whether its one band is warped by itself, with `nodata`."""


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
        InvalidBandName: a file does not have a band.
        TooLargeError: the files have more bands than the frame allows.
    """
    window = window or frame.whole
    found: list[Pixels] = []
    count = 0
    for group in _groups(list(_separated(layers))):
        with pool.lent(tuple(layer.name for layer in group), *_tag(group)) as stack:
            bands = _bands(stack, group)
            count += len(bands)
            frame.check(count)
            near = [turn for turn in stack.turns if turn.reaches(frame.crs, frame.bounds_of(window))]
            if not near:
                return None
            pixels = _read_all(near, bands, group[0].nodata, frame, window)
        found += [pixels] if pixels else [_read_alone(pool, layer, frame, window) for layer in group]
    if len(found) == 1:
        return found[0]
    return Pixels(np.concatenate([one.data for one in found]), np.concatenate([one.valid for one in found]))


def _groups(layers: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Combine neighbouring layers whose files can be warped together."""
    alike: list[Layer] = []
    for layer in layers:
        if layer.bands in ((), (1,)):
            alike.append(layer)
            continue
        yield from _stacked(alike)
        alike = []
        yield (layer,)
    yield from _stacked(alike)


def _stacked(layers: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Cut layers into stacks: only files of one band are in a stack of several."""
    if len(layers) < 2:
        yield from ((layer,) for layer in layers)
        return
    start = 0
    for names in grouped(tuple(layer.name for layer in layers)):
        yield layers[start : start + len(names)]
        start += len(names)


def _separated(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Replace a file by its bands where each has a mask of its own."""
    for layer in map(_fitting, layers):
        nodata = separate_nodata(layer.name, layer.nodata)
        if nodata is None:
            yield layer
            continue
        colours = facts_of(layer.name).colours
        numbers = layer.bands or [number for number, colour in enumerate(colours, start=1) if colour != "Alpha"]
        _check(numbers, len(colours))
        yield from (Layer(layer.name, (number,), nodata, is_alone=True) for number in numbers)


def _fitting(layer: Layer) -> Layer:
    """Return a layer without a nodata value that no pixel of its file can have, such as NaN among integers."""
    if layer.nodata is None or can_hold(facts_of(layer.name).dtype, layer.nodata):
        return layer
    return replace(layer, nodata=None)


def _tag(group: Sequence[Layer]) -> tuple[float | None, int | None]:
    """Return the nodata value with which to open a file, and its only band; None: as the file says, and all."""
    layer = group[0]
    if layer.is_alone:
        return layer.nodata, layer.bands[0]
    is_tagged = len(group) == 1 and layer.nodata is not None and taggable(layer.name)
    return layer.nodata if is_tagged else None, None


def _bands(stack: Stack, group: Sequence[Layer]) -> tuple[int, ...]:
    if group[0].is_alone or len(group) > 1:
        return stack.bands
    bands = group[0].bands or stack.bands
    _check(bands, stack.dataset.count)
    return bands


def _check(bands: Sequence[int], count: int) -> None:
    if missing := [band for band in bands if band > count]:
        raise InvalidBandName(f"the file has no band {missing[0]}: it has {count}")


def _read_alone(pool: DatasetPool, layer: Layer, frame: Frame, window: Window) -> Pixels:
    with pool.lent((layer.name,)) as stack:
        pixels = _read_all(stack.turns, stack.bands, layer.nodata, frame, window)
    assert pixels is not None
    return pixels


def _read_all(
    turns: Sequence[Stack], bands: tuple[int, ...], nodata: float | None, frame: Frame, window: Window
) -> Pixels | None:
    """Read a dataset wherever it lies; None if its bands must be read one by one."""
    found: Pixels | None = None
    for turn in turns:
        pixels = _read(turn, bands, nodata, frame, window)
        if pixels is None:
            return None
        found = pixels if found is None else _beside(found, pixels)
    return found


def _beside(one: Pixels, other: Pixels) -> Pixels:
    """Return both, which hardly overlap; the first wins."""
    return Pixels(np.where(one.valid, one.data, other.data), one.valid | other.valid)


def _read(stack: Stack, bands: tuple[int, ...], nodata: float | None, frame: Frame, window: Window) -> Pixels | None:
    """Warp a dataset; None for a stack whose bands have different masks and must be warped one by one."""
    is_general = bool(frame.options) or stack.dataset.crs in (frame.crs, WGS84_CRS)
    if len(stack.names) > 1:
        return None if is_general else Warp.of(stack, frame).read(stack, bands, window)
    if stack.holds_classes:
        frame = frame.nearest
    if (pixels := read_level(stack, bands, nodata, frame, window)) is not None:
        pass  # nothing is resampled
    elif is_general or not stack.has_nodata or stack.dataset.gcps[0]:
        pixels = _read_generally(stack, bands, None if stack.has_mask else nodata, frame, window)
    else:
        found = Warp.of(stack, frame).read(stack, bands, window)
        assert found is not None
        pixels = found
    return _as_picture(_as_stored(pixels, stack, frame), stack.colours(bands))


def _as_stored(pixels: Pixels, stack: Stack, frame: Frame) -> Pixels:
    """Return counts in the data type of the file, if they were warped in another."""
    own = np.dtype(stack.dataset.dtypes[0])
    if own in (pixels.data.dtype, stack.warped_dtype) or dict(frame.options).get("unscale"):
        return pixels
    return Pixels(np.rint(np.where(pixels.valid, pixels.data, 0)).astype(own), pixels.valid)


def _as_picture(pixels: Pixels, colours: tuple[int, ...]) -> Pixels:
    """Let the colours of a pixel be valid together: where only one of them is the nodata value, it is a colour."""
    if not colours:
        return pixels
    valid = pixels.valid.copy()
    valid[list(colours)] = valid[list(colours)].any(axis=0)
    return Pixels(pixels.data, valid)


def _read_generally(stack: Stack, bands: tuple[int, ...], nodata: float | None, frame: Frame, window: Window) -> Pixels:
    """Read with rio-tiler what the short way does not cover: alpha and mask bands, GCPs, scaling."""
    options = dict(frame.options)
    if stack.dataset.crs != frame.crs:
        dtype = {"dtype": stack.warped_dtype} if stack.has_nodata or nodata is not None else {}
        options = {"vrt_options": {**dtype, **frame.warping}, **options}
    with Reader(None, dataset=stack.dataset) as reader:
        image = reader.part(
            frame.bounds,
            dst_crs=frame.crs,
            bounds_crs=frame.crs,
            width=frame.width,
            height=frame.height,
            indexes=bands,
            padding=frame.padding,
            resampling_method=frame.resampling,
            reproject_method=frame.reprojection,
            **{"nodata": nodata, **options},
        )
    data, valid = image.array.data, ~np.ma.getmaskarray(image.array)
    if (image.width, image.height) == (frame.width, frame.height):
        data, valid = (part[(slice(None), *window.toslices())] for part in (data, valid))
    if np.issubdtype(data.dtype, np.floating):
        valid = valid & ~np.isnan(data)
    return Pixels(data, valid)
