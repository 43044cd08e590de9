"""The geometric median of many pixels at once: the point with the smallest sum of distances to a pixel's spectra.

Weiszfeld's step never misses and is slow; Newton's step is quick and can miss. So each pixel takes Newton's step, and
returns to Weiszfeld's where the sum has grown. It knows nothing of scenes and tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mosaic_async.tiler.pixels.ordering import sort_in_place
from mosaic_async.tiler.ticket import check_ticket

_Floats = NDArray[np.floating[Any]]
_Valid = NDArray[np.bool_]

CHUNK = 2**14
"""Pixels per chunk: 7 spectra of 3 bands are then 1.4 MB and stay in the cache (measured)."""
_STEPS = 100
"""Maximum steps; nearly all pixels settle within 10."""
_SETTLED = 1e-5
"""Share of the spread of a pixel's values below which a step counts as settled."""
_NEAREST = 1e-9
"""Smallest distance, as a share of the spread: a spectrum that coincides with the median pulls with a finite force."""
_NOISE = 1e-6
"""Share of a sum of distances that is lost in rounding."""
_DAMPING = 1e-3
"""First share of the forces that is added to their change; with 1 no step can miss."""
_LEAST_DAMPING = 1e-6
_WORTH_LEAVING = 0.15
"""Share of settled pixels from which it pays to copy the others together."""
_TEST = 3
"""Steps from one test of the nearest spectrum to the next: towards a spectrum, steps only get shorter."""


def geometric_median(values: NDArray[Any], valid: _Valid) -> NDArray[np.float64]:
    """Return the geometric median of each pixel, (bands, pixels); without meaning where nothing is valid.

    Args:
        values: (spectra, bands, pixels).
        valid: (spectra, pixels).
    """
    there = valid[:, np.newaxis]
    away = np.where(there, values, 0).astype(np.float64)
    mean = away.sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
    away -= mean
    spread = np.where(there, np.abs(away), 0).max(axis=(0, 1))
    away /= np.where(spread > 0, spread, 1)
    low, high = _middle(away, valid)
    if values.shape[1] == 1:  # all points between the middle two have the same sum
        found = np.clip(0, low, high)
    else:
        found = _descended(away.astype(np.float32), valid, ((low + high) / 2).astype(np.float32))
    median: NDArray[np.float64] = mean + spread * found
    return median


def _middle(away: _Floats, valid: _Valid) -> tuple[_Floats, _Floats]:
    """Return the middle two values of each band."""
    ranked = np.where(valid[:, np.newaxis], away, 2)  # beyond the spread
    sort_in_place(ranked)
    number = np.maximum(valid.sum(axis=0), 1)
    low, high = (
        np.take_along_axis(ranked, rank[np.newaxis, np.newaxis], axis=0)[0] for rank in ((number - 1) // 2, number // 2)
    )
    return low, high


@dataclass
class _Moving:
    """The pixels that have not settled."""

    pixels: NDArray[np.intp]
    """Their places in the result."""
    spectra: _Floats
    """(spectra, bands, pixels), invalid ones included."""
    weights: _Floats
    """(spectra, pixels): 1 where a spectrum is valid, and 0 elsewhere."""
    place: _Floats
    """(bands, pixels): where each pixel has come to."""
    safe: _Floats
    """(bands, pixels): where Weiszfeld's step leads from the last place that was good."""
    cost: _Floats
    """Sum of distances at the last place that was good."""
    damping: _Floats

    @classmethod
    def of(cls, spectra: _Floats, valid: _Valid, place: _Floats) -> Self:
        """Return the pixels that have more than one spectrum."""
        pixels = np.flatnonzero(valid.sum(axis=0) > 1)
        cost = np.full(len(pixels), np.inf, spectra.dtype)
        weights, damping = valid[:, pixels].astype(spectra.dtype), np.full(len(pixels), _DAMPING, spectra.dtype)
        return cls(pixels, spectra[..., pixels], weights, place[:, pixels], place[:, pixels], cost, damping)

    def only(self, kept: NDArray[np.intp]) -> Self:
        """Return some of the pixels."""
        return type(self)(
            self.pixels[kept],
            self.spectra.take(kept, axis=2),
            self.weights.take(kept, axis=1),
            self.place.take(kept, axis=1),
            self.safe.take(kept, axis=1),
            self.cost[kept],
            self.damping[kept],
        )


def _descended(spectra: _Floats, valid: _Valid, start: _Floats) -> _Floats:
    """Return the geometric medians of spectra whose spread is 1."""
    result = start.copy()
    moving = _Moving.of(spectra, valid, start)
    for step in range(_STEPS):
        check_ticket()
        is_settled = _step(moving)
        if step % _TEST == _TEST - 1:
            is_settled |= _at_spectrum(moving)
        result[:, moving.pixels] = moving.place
        if is_settled.all():
            break
        if is_settled.mean() > _WORTH_LEAVING:
            moving = moving.only(np.flatnonzero(~is_settled))
    return result


def _step(moving: _Moving) -> _Valid:
    """Move each pixel by one step, and return which have settled."""
    away = moving.spectra - moving.place
    distance = np.sqrt(np.einsum("nbp,nbp->np", away, away))
    cost = np.einsum("np,np->p", distance, moving.weights)
    is_good = cost <= moving.cost * (1 + _NOISE)
    pull, force = _pulled(moving, away, distance)
    total = np.maximum(pull.sum(axis=0), _NEAREST)
    safe = moving.place + force / total
    moving.damping = np.clip(np.where(is_good, moving.damping / 8, moving.damping * 64), _LEAST_DAMPING, 1)
    change = _change(away, pull / np.maximum(distance, _NEAREST) ** 2, total * (1 + moving.damping))
    aim = np.where(is_good, moving.place + _solved(change, force), moving.safe)
    is_settled: _Valid = is_good & (np.abs(aim - moving.place).max(axis=0) <= _SETTLED)
    moving.place = aim
    moving.safe = np.where(is_good, safe, moving.safe)
    moving.cost = np.where(is_good, cost, moving.cost)
    return is_settled


def _pulled(moving: _Moving, away: _Floats, distance: _Floats) -> tuple[_Floats, _Floats]:
    """Return how hard each spectrum pulls, and the force that moves each pixel.

    A spectrum at the place of the pixel holds it: only a larger force moves it. See Vardi and Zhang (2000), PNAS 97,
    1423, https://doi.org/10.1073/pnas.97.4.1423.
    """
    is_here = distance <= _NEAREST
    pull = np.where(is_here, 0, moving.weights / np.maximum(distance, _NEAREST))
    force = np.einsum("np,nbp->bp", pull, away)
    if is_here.any():
        held = (moving.weights * is_here).sum(axis=0)
        strength = np.sqrt(np.einsum("bp,bp->p", force, force))
        force *= np.maximum(0, 1 - held / np.maximum(strength, _NEAREST))
    return pull, force


def _at_spectrum(moving: _Moving) -> _Valid:
    """Move pixels to their nearest spectrum where no force moves them from it, and return which."""
    away = moving.spectra - moving.place
    distance = np.einsum("nbp,nbp->np", away, away)
    nearest = np.where(moving.weights > 0, distance, np.inf).argmin(axis=0)
    point = np.take_along_axis(moving.spectra, nearest[np.newaxis, np.newaxis], axis=0)[0]
    away = moving.spectra - point
    _, force = _pulled(moving, away, np.sqrt(np.einsum("nbp,nbp->np", away, away)))
    is_median: _Valid = np.logical_not(force.any(axis=0))
    moving.place = np.where(is_median, point, moving.place)
    return is_median


def _change(away: _Floats, pull: _Floats, total: _Floats) -> _Floats:
    """Return how the force changes with the place."""
    size = away.shape[1]
    change = np.empty((size, size, away.shape[2]), away.dtype)
    for one in range(size):
        pulled = pull * away[:, one]
        for other in range(one, size):
            change[one, other] = change[other, one] = -np.einsum("np,np->p", pulled, away[:, other])
        change[one, one] += total
    return change


def _solved(matrix: _Floats, right: _Floats) -> _Floats:
    """Solve a symmetric positive definite system per pixel, by elimination.

    Args:
        matrix: (bands, bands, pixels); it is changed.
        right: (bands, pixels).
    """
    size = len(right)
    found = right.copy()
    for one in range(size):
        for other in range(one + 1, size):
            factor = matrix[other, one] / matrix[one, one]
            matrix[other, one + 1 :] -= factor * matrix[one, one + 1 :]
            found[other] -= factor * found[one]
    for one in reversed(range(size)):
        found[one] -= np.einsum("bp,bp->p", matrix[one, one + 1 :], found[one + 1 :])
        found[one] /= matrix[one, one]
    return found
