"""Reads what the spool of a killed run holds, without the spool's own code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<8xLLBLL16x")


class Spooled(NamedTuple):
    """Where a tile's body lies."""

    path: Path
    start: int
    length: int


def spooled(work: Path) -> dict[tuple[int, int, int], Spooled]:
    """Return the bodies that are in a work folder, whole, by (z, x, y)."""
    return dict(found for path in sorted((work / "spool").glob("*")) for found in _bodies_in(path))


def _bodies_in(path: Path) -> Iterator[tuple[tuple[int, int, int], Spooled]]:
    data, end = path.read_bytes(), 0
    while end + _HEAD.size <= len(data):
        _, length, z, x, y = _HEAD.unpack_from(data, end)
        start = end + _HEAD.size
        end = start + length
        if end <= len(data):
            yield (z, x, y), Spooled(path, start, length)
