"""What was measured, for people and for programs: a table, JSON, plots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median_low
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.contestants import FLOOR, OURS
from benchmarks.measure import Measurement
from benchmarks.scenarios import TARGETS, Scenario, ratio_of

mpl.use("Agg")
_COLORS = {"probe": "C2", "download": "C0", "all": "C0", "finish": "C1"}
"""Of the stages."""
Medians = Mapping[tuple[str, str], Measurement]
"""By scenario and contestant: the run whose wall time is the median."""


def write_report(
    folder: Path, scenarios: Sequence[Scenario], measurements: Sequence[Measurement], about: Mapping[str, Any]
) -> str:
    """Write everything into a folder and return the table."""
    folder.mkdir(parents=True, exist_ok=True)
    medians = _medians(measurements)
    table = _table(scenarios, measurements, medians, about)
    (folder / "table.md").write_text(table)
    document = {**about, "measurements": [asdict(measurement) for measurement in measurements]}
    (folder / "measurements.json").write_text(json.dumps(document, indent=1))
    _plot_walls(folder / "wall.png", scenarios, medians)
    _plot_memory(folder / "memory.png", scenarios, medians)
    _plot_scaling(folder / "scaling.png", scenarios, medians)
    return table


def _medians(measurements: Iterable[Measurement]) -> dict[tuple[str, str], Measurement]:
    """Take each figure's median over the runs that were right, or over all if none was."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.scenario, measurement.contestant), []).append(measurement)
    return {key: _median([one for one in group if not one.problem] or group) for key, group in groups.items()}


def _median(group: Sequence[Measurement]) -> Measurement:
    middle = median_low(sorted(measurement.wall for measurement in group))
    one = next(measurement for measurement in group if measurement.wall == middle)
    figures = {name: median_low(getattr(run, name) for run in group) for name in ("cpu", "peak_rss")}
    return Measurement(**{**{name: getattr(one, name) for name in one.__dataclass_fields__}, **figures})


def _table(
    scenarios: Sequence[Scenario], measurements: Sequence[Measurement], medians: Medians, about: Mapping[str, Any]
) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        f"{about['started']} UTC, {about['cores']} cores of {about['cpu']}, {about['memory'] / 2**30:.0f} GiB, "
        f"Python {about['python']}, GDAL {about['gdal']}; {versions}.",
        f"Command: `python -m benchmarks {about['command']}`".rstrip(),
    ]
    for scenario in scenarios:
        rows = [found for (name, _), found in medians.items() if name == scenario.name]
        turns = max((m.turn + 1 for m in measurements if m.scenario == scenario.name), default=0)
        lines += [
            "",
            f"### {scenario.name}: {scenario.title}; medians of {turns}",
            "",
            "| | wall s | CPU s | peak MiB | requests | connections | output MB | |",
            "|---|---:|---:|---:|---:|---:|---:|---|",
        ]
        lines += [_row(found) for found in rows]
    lines += ["", "### Targets", "", "| ours / other | scenario | ratio | at most | |", "|---|---|---:|---:|---|"]
    for target in TARGETS:
        if (ratio := ratio_of(target, medians)) is not None:
            mark = "reached" if ratio <= target.most else "**missed**"
            lines.append(f"| {target.title} | {target.scenario} | {ratio:.2f} | {target.most:g} | {mark} |")
    lines += _counts(scenarios, medians)
    return "\n".join(lines) + "\n"


def _row(found: Measurement) -> str:
    figures = (
        f"{found.wall:.1f}", f"{found.cpu:.1f}", f"{found.peak_rss / 2**20:.0f}", f"{found.requests:,}",
        f"{found.connections}", f"{found.size / 1e6:.0f}" if found.size else "", found.problem,
    )  # fmt: skip
    return f"| {found.contestant} | {' | '.join(figures)} |"


def _counts(scenarios: Sequence[Scenario], medians: Medians) -> list[str]:
    """Return what is not a ratio of two contestants: requests per tile, and connections."""
    lines = []
    for scenario in scenarios:
        ours = medians.get((scenario.name, OURS))
        if ours is None or scenario.law in ("failing", "limited"):
            continue
        polite = ours.requests == scenario.tiles and ours.connections <= scenario.concurrency
        lines.append(
            f"| requests / tiles {ours.requests / scenario.tiles:.2f}, {ours.connections} connections, "
            f"{ours.peak_rss / 2**20:.0f} MiB | {scenario.name} | {ours.requests / scenario.tiles:.2f} | 1 | "
            f"{'reached' if polite else '**missed**'} |"
        )
    return lines


def _plot_walls(path: Path, scenarios: Sequence[Scenario], medians: Medians) -> None:
    """Draw seconds by stage, a panel a scenario."""
    figure = Figure(figsize=(9, 1.2 + 1.9 * len(scenarios)), layout="constrained")
    panels = figure.subplots(len(scenarios), squeeze=False)[:, 0]
    for panel, scenario in zip(panels, scenarios, strict=True):
        found = [one for (name, _), one in medians.items() if name == scenario.name]
        for place, one in enumerate(found):
            left = 0.0
            for stage, seconds in one.stages.items():
                panel.barh(place, seconds, left=left, color=_COLORS.get(stage, "C3"))
                if seconds > 0.05 * max(other.wall for other in found):
                    panel.text(left + seconds / 2, place, stage, ha="center", va="center", fontsize=7, color="white")
                left += seconds
            panel.barh(place, max(one.wall - left, 0), left=left, color="lightgrey")
            panel.text(one.wall, place, f" {one.wall:.1f} s", va="center", fontsize=8)
        panel.set_yticks(range(len(found)), [one.contestant for one in found], fontsize=8)
        panel.invert_yaxis()
        panel.set_title(scenario.title, fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("seconds (grey: start of the program and its end)")
    figure.savefig(path, dpi=110)


def _plot_memory(path: Path, scenarios: Sequence[Scenario], medians: Medians) -> None:
    """Draw memory over time of the scenario with most contestants."""
    scenario = max(scenarios, key=lambda one: sum(name == one.name for name, _ in medians))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panel = figure.subplots()
    for (name, contestant), found in medians.items():
        if name == scenario.name and found.rss:
            seconds, sizes = zip(*found.rss, strict=True)
            panel.plot(seconds, [size / 2**20 for size in sizes], label=contestant)
    panel.set_xlabel("seconds")
    panel.set_ylabel("MiB of all processes")
    panel.set_title(scenario.title, fontsize=9, loc="left")
    panel.legend(fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _plot_scaling(path: Path, scenarios: Sequence[Scenario], medians: Medians) -> None:
    """Draw CPU seconds and memory over the number of tiles: what the servers' laws change little."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    by_cpu, by_memory = figure.subplots(1, 2)
    lines: dict[tuple[str, str], dict[int, list[Measurement]]] = {}
    for scenario in scenarios:
        for (name, contestant), one in medians.items():
            if name == scenario.name and not one.problem:
                line = lines.setdefault((contestant, "" if contestant == FLOOR else scenario.profile), {})
                line.setdefault(scenario.tiles, []).append(one)
    for names, line in lines.items():
        if len(line) > 1:
            label, counts = ", ".join(filter(None, names)), sorted(line)
            by_cpu.plot(counts, [median_low(one.cpu for one in line[count]) for count in counts], "o-", label=label)
            sizes = [max(one.peak_rss for one in line[count]) / 2**20 for count in counts]
            by_memory.plot(counts, sizes, "o-", label=label)
    for panel, what in ((by_cpu, "CPU seconds"), (by_memory, "peak MiB")):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("tiles of 512 x 512")
        panel.set_ylabel(what)
        panel.spines[["top", "right"]].set_visible(False)
    if by_cpu.lines:
        figure.legend(*by_cpu.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
