"""GDAL's block cache, which all threads and all runs of a process share, kept small while mosaics are built.

By default it may take a twentieth of the machine's memory. A canvas is memory already, so what is cached is held twice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.env import get_gdal_config, set_gdal_config

BLOCK_CACHE = 64 * 2**20
"""Bytes; enough for the blocks that one tile touches, in any dtype."""
_NAME = "GDAL_CACHEMAX"
_lock = threading.Lock()
_limits: list[int] = []
"""What it was before the first of the runs under way, once for each of them."""


@contextmanager
def small_block_cache() -> Iterator[None]:
    """Limit the cache until the last of the runs that do so has left its block."""
    with _lock:
        _limits.append(_limits[0] if _limits else int(get_gdal_config(_NAME)))
        set_gdal_config(_NAME, min(BLOCK_CACHE, _limits[0]))
    try:
        yield
    finally:
        with _lock:
            before = _limits.pop()
            if not _limits:
                set_gdal_config(_NAME, before)
