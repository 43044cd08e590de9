"""Other processes that build the parts of an output, such as the workers of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.make_part import PartsMade
from mosaic_async.events import OnEvent, WorkerShare
from mosaic_async.geo.grid import Part


@dataclass(frozen=True, kw_only=True)
class CrewResult:
    """What a crew has built."""

    made: PartsMade
    """Of all parts together; their records are where they are published."""
    published: int
    """Parts."""
    workers: tuple[WorkerShare, ...]
    """Who has built how much."""


class Crew(Protocol):
    """Builds parts somewhere else."""

    async def memory(self) -> int:
        """Return the bytes that a part may take on any of the workers.

        Raises:
            ResourceError: no worker comes, or one is too small for any part.
        """

    async def make(
        self,
        blueprint: Blueprint,
        parts: Sequence[Part],
        *,
        output: Path,
        layout: str,
        stop: asyncio.Event,
        on_event: OnEvent,
    ) -> CrewResult:
        """Build parts and publish them in the folder of `output`.

        Args:
            blueprint: what they are made by; its effort is that of all workers together.
            parts: in the order in which to start them.
            output: the file to make, in a folder that all workers share.
            layout: the name for how the output is divided into parts.
            stop: once set, no more tiles are requested.
            on_event: called with what happens.

        Raises:
            MosaicError: whatever ends the run.
        """
