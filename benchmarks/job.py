"""What every contestant builds: the same tiles, the same concurrency, the same encoding."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mercantile

ZOOM = 11
LEFT, TOP = 1000, 680
"""The first tile: the west of France."""
TILE_SIZE = 512


@dataclass(frozen=True, kw_only=True)
class Job:
    """A rectangle of tiles to be made into one COG."""

    template: str
    """With `{z}`, `{x}` and `{y}`."""
    output: Path
    columns: int
    rows: int
    concurrency: int
    profile: str
    """deflate or zstd."""

    @property
    def tiles(self) -> list[tuple[int, int, int]]:
        """List (z, x, y)."""
        return [(ZOOM, LEFT + x, TOP + y) for y in range(self.rows) for x in range(self.columns)]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees."""
        west, north = mercantile.ul(LEFT, TOP, ZOOM)
        east, south = mercantile.ul(LEFT + self.columns, TOP + self.rows, ZOOM)
        return (west, south, east, north)

    @property
    def width(self) -> int:
        """Pixels."""
        return self.columns * TILE_SIZE

    @property
    def height(self) -> int:
        """Pixels."""
        return self.rows * TILE_SIZE

    @property
    def arguments(self) -> list[str]:
        """Return the job as arguments of the contestants' scripts."""
        sizes = (self.columns, self.rows, self.concurrency)
        return [self.template, str(self.output), *map(str, sizes), self.profile]


def parse_job(arguments: Sequence[str] | None = None) -> Job:
    """Read a job back from the command line of a contestant's script."""
    parser = ArgumentParser()
    parser.add_argument("template")
    parser.add_argument("output", type=Path)
    for name in ("columns", "rows", "concurrency"):
        parser.add_argument(name, type=int)
    parser.add_argument("profile")
    return Job(**vars(parser.parse_args(arguments)))
