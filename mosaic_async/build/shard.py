"""One of several shares of an output's parts, which processes that know nothing of each other build.

A share is a piece of the Z-order, so its parts are neighbours and the caches of a tiler serve them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from mosaic_async.errors import UsageError
from mosaic_async.geo.grid import Grid, Part, z_order

_TEXT = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*")


@dataclass(frozen=True)
class Shard:
    """Share number `index` of `count`."""

    index: int
    """From 0."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "I/N".

        Raises:
            UsageError: it is not a share.
        """
        found = _TEXT.fullmatch(text)
        if found is None or int(found[1]) >= int(found[2]):
            raise UsageError(f"shard {text!r} is not a share", hint="write I/N with I from 0 to N - 1, such as 0/8")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """Return what `parse` reads."""
        return f"{self.index}/{self.count}"

    def parts(self, grid: Grid) -> list[Part]:
        """Return the parts of the share; all shares have as many, give or take one."""
        parts = list(grid.parts())
        order = np.argsort(z_order(np.array([part.col for part in parts]), np.array([part.row for part in parts])))
        start, stop = (len(parts) * number // self.count for number in (self.index, self.index + 1))
        return [parts[place] for place in order[start:stop]]
