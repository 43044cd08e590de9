"""What every part of an output is made by, on whatever machine. It can be pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import Layout
from mosaic_async.geo.cover import Tile


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A job, and what its first tiles have decided."""

    job: Job
    effort: Effort
    """Of one process: its concurrency, rate and memory."""
    layout: Layout
    label: str
    """Of the job's identity, which its pieces are proved by."""
    known: Tile | None = None
    """A tile that had data, which tells a tile that is not found from a source that is gone; None: unknown."""
    first: Mapping[Tile, bytes] = field(default_factory=dict)
    """Bodies that have arrived already and are proved; an empty one stands for a tile without data."""
