"""Statistics over all values of a pixel: median, percentile, mean, deviation, count, medoid, geometric median.

They work in chunks of pixels, so the extra memory does not grow with the tile. The result is float64, or the dtype of
the scenes; where nothing is valid it has no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_async.tiler.pixels import geomedian
from mosaic_async.tiler.pixels.ordering import CHUNK, filled, sort_in_place
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.ticket import check_ticket

_Values = NDArray[Any]
_Valid = NDArray[np.bool_]


def median(scenes: Sequence[Pixels]) -> Pixels:
    """Return the median of each band; for an even number the mean of the middle two, as `np.ma.median` does."""
    return _by_band(scenes, _median)


def percentile(scenes: Sequence[Pixels], share: float) -> Pixels:
    """Return a percentile of each band, interpolated between the two nearest ranks, as `np.percentile` does.

    Args:
        scenes: at least one.
        share: 0 to 100.
    """

    def work(values: _Values, valid: _Valid) -> _Values:
        count = np.maximum(valid.sum(axis=0), 1)
        values = filled(values, valid)
        sort_in_place(values)
        rank = (count - 1) * (share / 100)
        below = np.floor(rank).astype(np.intp)
        low = _at(values, below).astype(np.float64)
        high = _at(values, np.minimum(below + 1, count - 1)).astype(np.float64)
        part, span = rank - below, high - low
        between: _Values = np.where(part >= 0.5, high - span * (1 - part), low + span * part)
        return between

    return _by_band(scenes, work)


def mean(scenes: Sequence[Pixels]) -> Pixels:
    """Return the mean of each band."""
    return _by_band(scenes, _mean)


def deviation(scenes: Sequence[Pixels]) -> Pixels:
    """Return the population standard deviation of each band."""

    def work(values: _Values, valid: _Valid) -> _Values:
        away = np.where(valid, values - _mean(values, valid), 0.0)
        root: _Values = np.sqrt((away * away).sum(axis=0) / np.maximum(valid.sum(axis=0), 1))
        return root

    return _by_band(scenes, work)


def count(scenes: Sequence[Pixels]) -> Pixels:
    """Count the valid values of the first band; the count is valid everywhere, as in rio-tiler: 0 is a count too."""
    counted = np.zeros(scenes[0].data.shape[1:], np.int64)
    for scene in scenes:
        counted += scene.valid[0]
    data = counted[np.newaxis].astype(np.uint8 if len(scenes) < 256 else np.int64)
    return Pixels(data, np.ones(data.shape, bool))


def medoid(scenes: Sequence[Pixels]) -> Pixels:
    """Return for each pixel the values of the scene with the smallest sum of distances to the others.

    Only scenes that are valid in all bands count; of equals the first wins. See Flood (2013), Remote Sensing 5,
    6481, https://doi.org/10.3390/rs5126481.
    """

    def work(values: _Values, valid: _Valid) -> _Values:
        spectra = values.astype(np.float64)
        costs = np.zeros(valid.shape)
        for one in range(len(values) - 1):
            distances = np.sqrt(((spectra[one + 1 :] - spectra[one]) ** 2).sum(axis=1))
            distances[~(valid[one + 1 :] & valid[one])] = 0
            costs[one] += distances.sum(axis=0)
            costs[one + 1 :] += distances
        costs[~valid] = np.inf
        chosen: _Values = np.take_along_axis(values, costs.argmin(axis=0)[np.newaxis, np.newaxis], axis=0)[0]
        return chosen

    return _by_pixel(scenes, work)


def geometric_median(scenes: Sequence[Pixels]) -> Pixels:
    """Return the point with the smallest sum of distances to all spectra of a pixel.

    Only scenes that are valid in all bands count. See Roberts, Mueller and McIntyre (2017), IEEE Transactions on
    Geoscience and Remote Sensing 55, 6254, https://doi.org/10.1109/TGRS.2017.2723896.
    """
    return _by_pixel(scenes, geomedian.geometric_median, chunk=geomedian.CHUNK)


def _median(values: _Values, valid: _Valid) -> _Values:
    number = valid.sum(axis=0)
    values = filled(values, valid)
    sort_in_place(values)
    if (number == number[0]).all():  # the usual case needs no gathering
        return _mean_of_two(values[max(number[0] - 1, 0) // 2], values[min(number[0] // 2, len(values) - 1)])
    number = np.maximum(number, 1)
    return _mean_of_two(_at(values, (number - 1) // 2), _at(values, number // 2))


def _mean_of_two(low: _Values, high: _Values) -> _Values:
    if np.issubdtype(low.dtype, np.inexact):
        with np.errstate(over="ignore", invalid="ignore"):  # of infinities where nothing is valid
            return np.asarray((low + high) / low.dtype.type(2))
    return np.asarray(np.add(low, high, dtype=np.float64) / 2)


def _mean(values: _Values, valid: _Valid) -> _Values:
    total = np.where(valid, values, values.dtype.type(0)).sum(axis=0)
    return np.asarray(total * 1.0 / np.maximum(valid.sum(axis=0), 1))


def _at(values: _Values, rank: _Values) -> _Values:
    taken: _Values = np.take_along_axis(values, np.minimum(rank, len(values) - 1)[np.newaxis], axis=0)[0]
    return taken


def _by_band(scenes: Sequence[Pixels], work: Callable[[_Values, _Valid], _Values]) -> Pixels:
    """Apply `work` to (scenes, values) of all bands alike."""
    shape = scenes[0].data.shape
    flat = [(scene.data.reshape(-1), scene.valid.reshape(-1)) for scene in scenes]
    parts, valid = [], np.empty(flat[0][0].shape, bool)
    for part in _chunks(valid.size):
        chunk = np.stack([data[part] for data, _ in flat])
        is_valid = np.stack([there[part] for _, there in flat])
        parts.append(work(chunk, is_valid))
        valid[part] = is_valid.any(axis=0)
    return Pixels(np.concatenate(parts).reshape(shape), valid.reshape(shape))


def _by_pixel(scenes: Sequence[Pixels], work: Callable[[_Values, _Valid], _Values], chunk: int = CHUNK) -> Pixels:
    """Apply `work` to (scenes, bands, pixels), valid where all bands of a scene are valid."""
    shape = scenes[0].data.shape
    flat = [(scene.data.reshape(shape[0], -1), scene.whole.reshape(-1)) for scene in scenes]
    parts, valid = [], np.empty(flat[0][1].shape, bool)
    for part in _chunks(valid.size, chunk):
        values = np.stack([data[:, part] for data, _ in flat])
        is_valid = np.stack([there[part] for _, there in flat])
        parts.append(work(values, is_valid))
        valid[part] = is_valid.any(axis=0)
    return Pixels(
        np.concatenate(parts, axis=1).reshape(shape), np.broadcast_to(valid.reshape(1, *shape[1:]), shape).copy()
    )


def _chunks(size: int, chunk: int = CHUNK) -> Iterator[slice]:
    for start in range(0, size, chunk):
        check_ticket()
        yield slice(start, start + chunk)
