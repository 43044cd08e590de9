"""GDAL's block cache, kept small while mosaics are built; all threads and all runs of a process share it.

By default it may take a twentieth of the machine's memory. A canvas is in memory, so the cache holds a second copy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rasterio.env import get_gdal_config, set_gdal_config

_NAME = "GDAL_CACHEMAX"
_lock = threading.Lock()
_limits: list[int] = []
"""The limit before the first of the current runs, once per run."""


@contextmanager
def small_block_cache(nbytes: int) -> Iterator[None]:
    """Limit the cache to `nbytes` until the last of the concurrent runs has left this block."""
    with _lock:
        _limits.append(_limits[0] if _limits else int(get_gdal_config(_NAME)))
        set_gdal_config(_NAME, min(nbytes, _limits[0]))
    try:
        yield
    finally:
        with _lock:
            before = _limits.pop()
            if not _limits:
                set_gdal_config(_NAME, before)
