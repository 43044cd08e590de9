"""Tiles with the same bytes: pictures such as "map data not yet available", which some servers send instead of data.

Tiles of one colour, such as the sea, are the same with good reason and are left out. TIFFs name their place, so no two
are the same. It knows nothing of requests.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter

from mosaic_async.errors import TileError
from mosaic_async.events import SameBytes
from mosaic_async.raster.tile import decode, known_driver, learn

_MANY, _LEAST = 0.05, 4
"""Share of all tiles, and tiles, above which the same bytes are worth a word."""
_MOST_KEYS = 2**16
_MOST_SAMPLES = 32
_MOST_BYTES = 2**18
"""Of a sample: such pictures are small."""

_Key = tuple[int, int]


class SameBytesTally:
    """Counts equal bodies, in memory that does not depend on the number of tiles."""

    def __init__(self) -> None:
        self._total = 0
        self._counts: Counter[_Key] = Counter()
        self._samples: dict[_Key, bytes] = {}

    def note(self, body: bytes) -> None:
        """Count a tile with data."""
        self._total += 1
        if len(body) > _MOST_BYTES or known_driver(body) == "GTiff":
            return
        key = len(body), zlib.crc32(body)
        self._counts[key] += 1
        if self._counts[key] == _LEAST and len(self._samples) < _MOST_SAMPLES:
            self._samples[key] = body
        if len(self._counts) > _MOST_KEYS:  # what is frequent was seen again long ago
            self._counts = Counter({key: count for key, count in self._counts.items() if count > 1})

    def most(self) -> SameBytes | None:
        """Return the most frequent picture, if it is a large share of all tiles; it decodes, so it blocks."""
        for key, count in self._counts.most_common(_MOST_SAMPLES):
            if count <= _MANY * self._total or (body := self._samples.get(key)) is None:
                return None
            if not _is_plain(body):
                return SameBytes(count, self._total, hashlib.sha256(body).hexdigest())
        return None


def _is_plain(body: bytes) -> bool:
    """Return whether a tile has one colour, or no pixel at all; one that cannot be read is reported elsewhere."""
    try:
        pixels, mask = decode(body, learn(body))
    except TileError:
        return True
    valid = pixels.reshape(len(pixels), -1) if mask is None else pixels[:, mask]
    return valid.size == 0 or bool((valid == valid[:, :1]).all())
