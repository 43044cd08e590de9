"""The share of a run's memory that its tilers get: how many processes it is enough for, and what each does with it.

It knows nothing of pixels.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from mosaic_async.tiler.forks import can_fork

_MB = 2**20
_LEAST = 192 * _MB
"""Bytes with which a process works well."""
_MOST = 512 * _MB
"""Bytes that a process may take: more would not make it faster."""
_FIXED = 130 * _MB
"""Bytes of a process before it reads: objects of libraries, masks, what GDAL needs to warp, responses on their way."""
_CACHE = (16, 64)
"""Least and most megabytes of GDAL's cache, in which neighbouring tiles find the blocks that they share."""
_TILES = 2
"""Tiles that a process composes at once: one computes while the other waits for the interpreter."""
_ROOMY = 64 * _MB
"""Bytes of scenes with which that pays: for a tile with more than it may hold, scenes are read in strips, which takes
longer."""
_USUAL = 145 * _MB
"""The same of a process as a rule, by what the system counts as resident (measured)."""
_FORKED = 91 * _MB
"""Bytes of a process that its forks share: imports and what they made (measured)."""
_MAPPED = 50 * _MB
"""Bytes of mapped libraries of a process that the run has mapped too (measured)."""
_PER_FILE = 8 * _MB
"""Bytes of the buffers of an open file, as a rule."""
_LEAST_HELD = 8 * _MB
_REQUESTS = 8
"""Requests that a process works on at once."""


@dataclass(frozen=True)
class Share:
    """The memory of the tilers of a run."""

    processes: int
    each: int
    """Bytes of a process."""

    @classmethod
    def of(cls, memory: int | None, workers: int | None) -> Share:
        """Divide memory.

        Args:
            memory: bytes for all processes together; None: as much as they can use.
            workers: number of processes; None: one per core, or as many as there is memory for.
        """
        cores = workers or os.cpu_count() or 1
        if memory is None:
            return cls(cores, _MOST)
        processes = workers or min(cores, max(1, memory // _LEAST))
        return cls(processes, max(_LEAST, min(_MOST, memory // processes)))

    @property
    def total(self) -> int:
        """Bytes of all processes together."""
        return self.processes * self.each

    @property
    def capacity(self) -> int:
        """Requests that the processes can have under way together."""
        return self.processes * _REQUESTS

    @property
    def cache(self) -> int:
        """Megabytes of GDAL's cache."""
        return max(_CACHE[0], min(_CACHE[1], self.each // 6 // _MB))

    @property
    def tiles(self) -> int:
        """Tiles that a process composes at once."""
        return _TILES if self._free // _TILES >= _ROOMY else 1

    @property
    def held(self) -> int:
        """Bytes of scenes that a tile may hold at once."""
        return max(_LEAST_HELD, self._free // self.tiles)

    @property
    def buffers(self) -> int:
        """Bytes of the buffers of files that a process keeps open."""
        return self.each // 8

    @property
    def _free(self) -> int:
        return self.each - _FIXED - self.cache * _MB - self.buffers

    def usual(self, *, files: int, held: int) -> int:
        """Return the bytes that the processes take as a rule, with memory that they share counted once.

        Args:
            files: number of files that tiles read.
            held: bytes of the scenes that a tile holds at once.
        """
        own = _USUAL + self.cache * _MB + min(self.buffers, files * _PER_FILE) + self.tiles * min(self.held, held)
        shared = (self.processes - 1) * _FORKED if can_fork() else 0
        return self.processes * (min(self.each, own) - _MAPPED) - shared

    @property
    def spare(self) -> int:
        """Bytes from which a process returns what it has freed."""
        return self.each * 4 // 5
