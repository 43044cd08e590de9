"""What is compared with what, and the ratios that are to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.contestants import DEFAULTS, FLOOR, GDAL, NOTEBOOK, OURS
from benchmarks.measure import Measurement


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The same job for several contestants."""

    name: str
    law: str
    side: int
    """Tiles a side."""
    concurrency: int
    profile: str
    contestants: tuple[str, ...]
    repeats: int = 3

    @property
    def tiles(self) -> int:
        """How many there are."""
        return self.side * self.side

    @property
    def title(self) -> str:
        """Say in words what it is."""
        return f"{self.tiles:,} tiles, latency {self.law}, {self.concurrency} connections, {self.profile}"


Figure = Callable[[Measurement], float]
"""What is read off a measurement."""


@dataclass(frozen=True)
class Target:
    """A ratio inside one scenario, or of ours over two scenarios."""

    what: str
    scenario: str
    figure: Figure
    most: float
    over: str
    """A contestant of the same scenario; or, behind `@`, the scenario in which ours is compared with itself."""


def wall(measurement: Measurement) -> float:
    """Give seconds."""
    return measurement.wall


def cpu(measurement: Measurement) -> float:
    """Give CPU seconds."""
    return measurement.cpu


def rss(measurement: Measurement) -> float:
    """Give bytes."""
    return measurement.peak_rss


SHORT = (
    Scenario(
        name="no-latency", law="none", side=24, concurrency=50, profile="deflate",
        contestants=(OURS, FLOOR, NOTEBOOK, GDAL, "gdal_translate"),
    ),
    Scenario(
        name="200ms", law="lognormal", side=24, concurrency=50, profile="deflate",
        contestants=(OURS, DEFAULTS, FLOOR, NOTEBOOK, GDAL),
    ),
    Scenario(
        name="slow-tiles", law="slow", side=24, concurrency=50, profile="deflate", contestants=(OURS, FLOOR, GDAL)
    ),
    Scenario(name="zstd", law="lognormal", side=24, concurrency=25, profile="zstd", contestants=(OURS, FLOOR)),
    Scenario(name="failing", law="failing", side=12, concurrency=50, profile="deflate", contestants=(OURS,), repeats=1),
    Scenario(name="limited", law="limited", side=12, concurrency=50, profile="deflate", contestants=(OURS,), repeats=1),
    Scenario(
        name="peers", law="none", side=12, concurrency=50, profile="deflate",
        contestants=(OURS, "contextily", "rasterama"), repeats=1,
    ),
)  # fmt: skip
"""Under ten minutes on two cores."""

FULL = (
    *SHORT,
    Scenario(name="zstd-2304", law="lognormal", side=48, concurrency=25, profile="zstd", contestants=(OURS, FLOOR)),
    Scenario(
        name="200ms-2304", law="lognormal", side=48, concurrency=50, profile="deflate",
        contestants=(OURS, NOTEBOOK, GDAL),
    ),
    Scenario(
        name="memory-2304", law="none", side=48, concurrency=50, profile="zstd", contestants=(OURS,)
    ),
    Scenario(
        name="memory-9216", law="none", side=96, concurrency=50, profile="zstd", contestants=(OURS,), repeats=1
    ),
)  # fmt: skip

TARGETS = (
    Target("wall / download alone, zstd, 200 ms, 25 connections", "zstd-2304", wall, 1.2, FLOOR),
    Target("wall / the notebook's, deflate, 200 ms, 50 connections", "200ms-2304", wall, 0.4, NOTEBOOK),
    Target("CPU / the notebook's, deflate", "200ms-2304", cpu, 0.5, NOTEBOOK),
    Target("CPU / tuned GDAL's, deflate", "200ms-2304", cpu, 0.9, GDAL),
    Target("wall / download alone, zstd, 200 ms, 25 connections", "zstd", wall, 1.2, FLOOR),
    Target("wall / the notebook's, deflate, 200 ms", "200ms", wall, 0.4, NOTEBOOK),
    Target("CPU / the notebook's, deflate, no latency", "no-latency", cpu, 0.5, NOTEBOOK),
    Target("CPU / tuned GDAL's, deflate, no latency", "no-latency", cpu, 0.9, GDAL),
    Target("wall / tuned GDAL's, deflate, no latency", "no-latency", wall, 0.9, GDAL),
    Target("wall / tuned GDAL's, deflate, 200 ms", "200ms", wall, 0.7, GDAL),
    Target("wall / tuned GDAL's, deflate, 5 % of tiles ten times slower", "slow-tiles", wall, 0.5, GDAL),
    Target("peak memory, 9,216 tiles / 2,304 tiles", "memory-9216", rss, 1.05, "@memory-2304"),
)


def ratio_of(target: Target, medians: Mapping[tuple[str, str], Measurement]) -> float | None:
    """Work a target's ratio out; None where a part of it was not measured."""
    other = (target.over[1:], OURS) if target.over.startswith("@") else (target.scenario, target.over)
    ours = medians.get((target.scenario, OURS))
    theirs = medians.get(other)
    return None if ours is None or theirs is None else target.figure(ours) / target.figure(theirs)
