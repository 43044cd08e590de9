"""What is compared with what, and the ratios to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.contestants import AUTO, DEFAULTS, FLOOR, GDAL, NOTEBOOK, OURS
from benchmarks.measure import Measurement


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The same job for several contestants."""

    name: str
    law: str
    side: int
    """Width of the square, in tiles."""
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
        """Return a description."""
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
    """A contestant of the same scenario; or, behind `@`, the scenario in which it is compared with itself."""
    contestant: str = OURS
    """Whose figure is divided."""

    @property
    def title(self) -> str:
        """Return which figure is divided by which."""
        return self.what if self.contestant == OURS else f"{self.what} ({self.contestant})"


def wall(measurement: Measurement) -> float:
    """Return seconds."""
    return measurement.wall


def cpu(measurement: Measurement) -> float:
    """Return CPU seconds."""
    return measurement.cpu


def rss(measurement: Measurement) -> float:
    """Return bytes."""
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
        contestants=(OURS, DEFAULTS, NOTEBOOK, GDAL),
    ),
    Scenario(
        name="memory-2304", law="none", side=48, concurrency=50, profile="zstd", contestants=(OURS,)
    ),
    Scenario(
        name="memory-9216", law="none", side=96, concurrency=50, profile="zstd", contestants=(OURS,)
    ),
    *(
        Scenario(
            name=f"auto-{name}", law=law, side=48, concurrency=50, profile="zstd", contestants=(OURS, AUTO)
        )
        for name, law in (
            ("no-latency", "none"), ("200ms", "lognormal"), ("slow-tiles", "slow"), ("limited", "limited"),
        )
    ),
)  # fmt: skip

_ENTERED = {scenario.name: scenario.contestants for scenario in FULL}

_AGAINST_OTHERS = (
    ("wall / the notebook's, deflate, 200 ms, 50 connections", "200ms-2304", wall, 0.4, NOTEBOOK),
    ("CPU / the notebook's, deflate", "200ms-2304", cpu, 0.5, NOTEBOOK),
    ("CPU / tuned GDAL's, deflate", "200ms-2304", cpu, 0.9, GDAL),
    ("wall / the notebook's, deflate, 200 ms", "200ms", wall, 0.4, NOTEBOOK),
    ("CPU / the notebook's, deflate, 200 ms", "200ms", cpu, 0.5, NOTEBOOK),
    ("CPU / tuned GDAL's, deflate, 200 ms", "200ms", cpu, 0.9, GDAL),
    ("wall / tuned GDAL's, deflate, 200 ms", "200ms", wall, 0.7, GDAL),
    ("wall / tuned GDAL's, deflate, no latency", "no-latency", wall, 0.9, GDAL),
    ("wall / tuned GDAL's, deflate, 5 % of tiles ten times slower", "slow-tiles", wall, 0.5, GDAL),
)
"""With deflate, so for the same level and for each tool's own."""

TARGETS = (
    Target("wall / download alone, zstd, 200 ms, 25 connections", "zstd-2304", wall, 1.2, FLOOR),
    Target("wall / download alone, zstd, 200 ms, 25 connections", "zstd", wall, 1.2, FLOOR),
    *(
        Target(what, scenario, figure, most, over, contestant=contestant)
        for what, scenario, figure, most, over in _AGAINST_OTHERS
        for contestant in (OURS, DEFAULTS)
        if contestant in _ENTERED[scenario]
    ),
    Target("CPU / the notebook's, deflate, no latency", "no-latency", cpu, 0.5, NOTEBOOK),
    Target("CPU / tuned GDAL's, deflate, no latency", "no-latency", cpu, 0.9, GDAL),
    Target("peak memory, 9,216 tiles / 2,304 tiles", "memory-9216", rss, 1.05, "@memory-2304"),
    *(
        Target("wall / fixed 50's", scenario, wall, 1.1, OURS, contestant=AUTO)
        for scenario, contestants in _ENTERED.items()
        if AUTO in contestants
    ),
)


def ratio_of(target: Target, medians: Mapping[tuple[str, str], Measurement]) -> float | None:
    """Work a target's ratio out; None where a part of it was not measured."""
    mine = (target.scenario, target.contestant)
    other = (target.over[1:], target.contestant) if target.over.startswith("@") else (target.scenario, target.over)
    if mine not in medians or other not in medians:
        return None
    return target.figure(medians[mine]) / target.figure(medians[other])
