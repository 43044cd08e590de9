"""Measures a whole command: time, CPU, memory of it and its children, and whether its output is right."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rasterio
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from benchmarks.bodies import Body, index_of
from benchmarks.job import LEFT, TILE_SIZE, TOP, Job

_INTERVAL = 0.05
"""Seconds between two looks at memory."""
_CHECKED_TILES = 64
_VERSIONED = (
    "mosaic-async", "aiohttp", "rasterio", "rio-cogeo", "numpy", "uvloop", "requests", "contextily", "rasterama"
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a command took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all its processes, user and system."""
    peak_rss: int
    """Bytes of all its processes together."""
    rss: list[tuple[float, int]] = field(repr=False)
    """(seconds from the start, bytes)."""
    exit_code: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)

    @property
    def problem(self) -> str:
        """Return how it ended, if not well."""
        return f"exit code {self.exit_code}: {self.stderr.strip()[-200:]}" if self.exit_code else ""

    @property
    def result(self) -> dict[str, Any]:
        """Return the JSON that the command printed last."""
        for line in reversed(self.stdout.splitlines()):
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    return found
        return {}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One run of one contestant in one scenario."""

    scenario: str
    contestant: str
    turn: int
    wall: float
    """Seconds."""
    cpu: float
    """Seconds."""
    peak_rss: int
    """Bytes."""
    requests: int
    connections: int
    peak_in_flight: int
    tiles: int
    """Requested tiles, each counted once."""
    size: int
    """Bytes of the output."""
    stages: dict[str, float]
    """Seconds."""
    problem: str
    """What is wrong with the output; empty when nothing is."""
    rss: list[tuple[float, int]] = field(repr=False)
    """(seconds from the start, bytes)."""

    @classmethod
    def of(
        cls, scenario: str, contestant: str, turn: int, done: Run, stats: dict[str, Any], output: Path, problem: str
    ) -> Measurement:
        """Put together what the system, the server and the contestant itself say."""
        result = done.result
        return cls(
            scenario=scenario,
            contestant=contestant,
            turn=turn,
            wall=done.wall,
            cpu=done.cpu,
            peak_rss=done.peak_rss,
            requests=stats["requests"],
            connections=stats["connections"],
            peak_in_flight=stats["peak_in_flight"],
            tiles=stats["tiles"],
            size=output.stat().st_size if output.exists() else 0,
            stages=result.get("seconds_by_stage") or result.get("stages") or {"all": done.wall},
            problem=problem,
            rss=done.rss,
        )

    @property
    def line(self) -> str:
        """Return it in one line."""
        return (
            f"{self.scenario:12} {self.contestant:28} {self.wall:7.2f} s {self.cpu:7.2f} CPU-s "
            f"{self.peak_rss / 2**20:6.0f} MiB {self.requests:6} requests {self.connections:4} connections "
            f"{self.size / 1e6:6.0f} MB {self.problem}"
        )


def run(command: list[str], *, timeout: float = 1800) -> Run:
    """Run a command to its end."""
    samples: list[tuple[float, int]] = []
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        over = threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, started, samples, over))
        sampler.start()
        reader = threading.Thread(target=lambda: texts.append(process.stderr.read() if process.stderr else ""))
        texts: list[str] = []
        reader.start()
        stdout = process.stdout.read() if process.stdout else ""
        reader.join(timeout)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        over.set()
        sampler.join()
    peak = max([rss for _, rss in samples] + [usage.ru_maxrss * 1024])
    return Run(wall, usage.ru_utime + usage.ru_stime, peak, samples, process.returncode, stdout, texts[0])


def _sample(pid: int, started: float, samples: list[tuple[float, int]], over: threading.Event) -> None:
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        while not over.wait(_INTERVAL):
            total = 0
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
            samples.append((time.monotonic() - started, total))


def problem_with(job: Job, bodies: list[Body], *, makes_cog: bool) -> str:
    """Return what is wrong with an output, or nothing: its size, a sample of its tiles, the mask, the form of a COG."""
    if not job.output.exists():
        return "no output"
    with rasterio.open(job.output) as dataset:
        if dataset.shape != (job.height, job.width):
            return f"{dataset.width} x {dataset.height} pixels"
        if makes_cog and dataset.count != 3:
            return f"{dataset.count} bands"
        tiles = random.Random(1).sample(job.tiles, min(_CHECKED_TILES, len(job.tiles)))
        for _, x, y in tiles:
            body = bodies[index_of(x, y)]
            window = Window((x - LEFT) * TILE_SIZE, (y - TOP) * TILE_SIZE, TILE_SIZE, TILE_SIZE)
            valid = body.mask > 0
            if not np.array_equal(dataset.read([1, 2, 3], window=window)[:, valid], body.pixels[:, valid]):
                return f"wrong pixels in tile {x}/{y}"
            if makes_cog and not np.array_equal(dataset.dataset_mask(window=window) > 0, valid):
                return f"wrong mask in tile {x}/{y}"
    if makes_cog and not cog_validate(job.output, strict=True, quiet=True)[0]:
        return "no valid COG"
    return ""


def machine() -> dict[str, Any]:
    """Describe the machine and the versions."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), None)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        "versions": {name: found for name in _VERSIONED if (found := _version_of(name))},
    }


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    with suppress(OSError):
        return Path(path).read_text().splitlines()
    return []
