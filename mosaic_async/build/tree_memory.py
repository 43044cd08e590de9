"""The memory of this process and all below it, such as the tilers that it started, looked up now and then.

It knows nothing of what they do. On systems that do not tell, it finds nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_PROCESSES = Path("/proc")
_STEP = 1.0
"""Seconds between two looks; each takes some milliseconds."""


class TreeMemory:
    """The most memory that was found."""

    def __init__(self) -> None:
        self.peak = 0
        """Bytes; 0 where nothing was found."""

    @asynccontextmanager
    async def watched(self, *, is_wanted: bool) -> AsyncIterator[None]:
        """Look while the block runs.

        Args:
            is_wanted: whether there is anything to look at beside this process.
        """
        if not is_wanted:
            yield
            return
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(_STEP)

    def look(self) -> None:
        """Look once; it blocks."""
        with suppress(OSError):
            self.peak = max(self.peak, sum(_bytes_of(pid) for pid in _tree(os.getpid())))


def _tree(root: int) -> list[int]:
    """Return the ids of a process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in _PROCESSES.iterdir():
        with suppress(OSError, ValueError, IndexError):
            pid = int(folder.name)
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(pid)
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _bytes_of(pid: int) -> int:
    """Return the memory of a process; a page that several share is divided among them. 0 for one that has ended."""
    with suppress(OSError, ValueError, IndexError):
        lines = (_PROCESSES / str(pid) / "smaps_rollup").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    with suppress(OSError, ValueError, IndexError):
        return int((_PROCESSES / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
