"""A small job with all that a large one has: parts and levels above them, empty tiles, an empty part, scenes, a mask.

What an output must hold is what an undisturbed run made of the same job; that run is compared with the pattern that
the tiles are cut from.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import mercantile
import numpy as np
from aiohttp import web

from tests.fake_tiler import Pattern, encode
from tests.forks import ForkServer, Running
from tests.loopback import running
from tests.pyramid_reader import Level, read_levels
from tests.torture.shim import death

ZOOM, LEFT, TOP = 10, 500, 400
SIZE = 128
"""Pixels a tile, and a block, have to a side."""
PART = 2
"""Tiles a part has to a side."""
EMPTY = {(LEFT + x, TOP + y) for x, y in ((2, 0), (2, 1), (3, 0), (3, 1), (0, 3))}
"""A whole part, and one tile of another."""
PATTERN = Pattern(count=2)
DOCUMENTED = {0, 2, 3, 4, 5, 7}
"""Exit codes with which a run may end that finds what another left."""


@cache
def body(layer: int, x: int, y: int) -> bytes:
    """Return the bytes of a tile of a layer: the same pattern, moved."""
    pixels, mask = PATTERN.expected((x + 7 * layer) * SIZE + 31 * layer, y * SIZE, SIZE, SIZE)
    return encode(pixels, mask, "tif", tuple(mercantile.xy_bounds(x, y, ZOOM)))


@dataclass
class Tiler:
    """Serves `/{layer}/{z}/{x}/{y}.tif` and can be made to fail tiles."""

    url: str = ""
    failing: frozenset[tuple[int, int]] = frozenset()
    flaky: frozenset[tuple[int, int]] = frozenset()
    """Those that fail at each second request, and are there at the next."""
    is_away: bool = False
    hits: Counter[tuple[int, int]] = field(default_factory=Counter)

    async def answer(self, request: web.Request) -> web.Response:
        layer, x, y = (int(request.match_info[name]) for name in ("layer", "x", "y"))
        self.hits[x, y] += 1
        if self.is_away or ((x, y) in self.flaky and self.hits[x, y] % 2):
            return web.Response(status=503)
        if (x, y) in self.failing:
            return web.Response(status=422)
        if (x, y) in EMPTY:
            return web.Response(status=204)
        headers = {"X-Assets": f"scenes/{layer}-{x // 2}.json"}
        return web.Response(body=body(layer, x, y), content_type="image/tiff", headers=headers)


@contextmanager
def tiling() -> Iterator[Tiler]:
    tiler, app = Tiler(), web.Application()
    app.router.add_get("/{layer}/{z}/{x}/{y}.tif", tiler.answer)
    with running(app) as tiler.url:
        yield tiler


@dataclass(frozen=True)
class Job:
    """A command line but for its output; jobs that differ make different pixels."""

    layer: int = 0
    options: tuple[str, ...] = ()
    columns: int = 5
    rows: int = 4

    def args(self, tiler: Tiler, output: Path) -> list[object]:
        west, _, _, north = mercantile.bounds(LEFT, TOP, ZOOM)
        _, south, east, _ = mercantile.bounds(LEFT + self.columns - 1, TOP + self.rows - 1, ZOOM)
        inside = (west + 1e-6, south + 1e-6, east - 1e-6, north - 1e-6)
        return [
            "build", f"{tiler.url}/{self.layer}/{{z}}/{{x}}/{{y}}.tif", output, "--bounds", *inside, "-z", ZOOM,
            "-p", "zstd", "--co", f"BLOCKSIZE={SIZE}", "--part-size", PART * SIZE, "-c", 4, "-q", *self.options,
        ]  # fmt: skip

    def expected(self, holes: frozenset[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Compute full resolution from the pattern alone: pixels where valid, and validity."""
        x = (LEFT + 7 * self.layer) * SIZE + 31 * self.layer
        pixels, valid = PATTERN.expected(x, TOP * SIZE, self.rows * SIZE, self.columns * SIZE)
        for tile in EMPTY | holes:
            valid[window_of(*tile)] = False
        return pixels, valid


def window_of(x: int, y: int) -> tuple[slice, slice]:
    """Return the rows and columns of a tile."""
    row, column = (y - TOP) * SIZE, (x - LEFT) * SIZE
    return slice(row, row + SIZE), slice(column, column + SIZE)


def finish(run: Running) -> tuple[int, str]:
    """Wait for a run; returns its exit code and what it said."""
    with run:
        _, stderr = run.communicate(timeout=300)
    assert run.returncode is not None
    return run.returncode, stderr


def reference(job: Job, tiler: Tiler, server: ForkServer, folder: Path) -> list[Level]:
    """Run the job undisturbed with the tiles that the tiler fails now, and return all levels of its output."""
    output = folder / "reference.tif"
    code, stderr = finish(server.start(job.args(tiler, output)))
    assert code == 0, stderr
    levels = read_levels(output)
    shutil.rmtree(output.with_name("reference.tif.work"), ignore_errors=True)
    output.unlink()
    pixels, valid = job.expected(tiler.failing)
    np.testing.assert_array_equal(levels[0].mask > 0, valid)
    np.testing.assert_array_equal(levels[0].pixels[:, valid], pixels[:, valid])
    assert len(levels) > 2
    return levels


def difference(output: Path, expected: list[Level]) -> str | None:
    """Say in what an output differs from the reference; None where it does not."""
    found = read_levels(output)
    if len(found) != len(expected):
        return f"{len(found)} levels in place of {len(expected)}"
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours.mask.shape != theirs.mask.shape:
            return f"level {index} is {ours.mask.shape} in place of {theirs.mask.shape}"
        if wrong := np.count_nonzero(ours.mask != theirs.mask):
            return f"level {index}: {wrong} pixels of the mask differ"
        if wrong := np.count_nonzero((ours.pixels != theirs.pixels).any(axis=0)):
            return f"level {index}: {wrong} pixels differ"
    return None


@dataclass(frozen=True)
class Subject:
    """A job with all that is known of it: how it is run, what calls it makes, what it must make."""

    job: Job
    tiler: Tiler
    server: ForkServer
    calls: tuple[str, ...]
    """Names of the calls of an undisturbed run that change files."""
    expected: list[Level]

    def run(self, folder: Path, *, at: int = 0, torn: bool = False) -> tuple[int, str]:
        """Run the command in a folder, to its end or to the call before which it dies; returns code and words."""
        args = self.job.args(self.tiler, folder / "out.tif")
        return finish(self.server.start(args, before=[death(folder, at, torn=torn)]))

    def difference(self, folder: Path) -> str | None:
        """Say in what the output differs from what it must be; None where it does not."""
        return difference(folder / "out.tif", self.expected)


def subject_of(job: Job, tiler: Tiler, server: ForkServer, folder: Path) -> Subject:
    """Run the job undisturbed, twice: for its pixels and for its calls."""
    expected = reference(job, tiler, server, folder)
    journal, place = folder / "journal", folder / "place"
    place.mkdir()
    code, stderr = finish(server.start(job.args(tiler, place / "out.tif"), before=[death(place, 0, journal=journal)]))
    assert code == 0, stderr
    calls = tuple(line.split(" ")[1] for line in journal.read_text().splitlines())
    return Subject(job=job, tiler=tiler, server=server, calls=calls, expected=expected)
