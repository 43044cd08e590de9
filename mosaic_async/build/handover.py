"""Parts on their way from the folder that they are made in to the place where all parts of an output are.

A part is handed over when it is finished and all answers that it is made of are proved. So what is published needs no
further check, on whatever machine it was made. Two that publish the same part do no harm: the last one wins, and both
are right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from mosaic_async.build.part_files import PartFiles
from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.to_its_end import to_its_end
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Grid, Part, part_name
from mosaic_async.raster.few_values import FewValues


class Publication(Protocol):
    """Where the parts of an output are published: a folder that machines share, or a bucket."""

    async def find(self, part: Part) -> PartRecord | None:
        """Return the record of a part that is published whole and undamaged; None for any other."""

    async def publish(self, part: Part, record: PartRecord, tallies: Mapping[str, Any], made: PartFiles) -> None:
        """Publish a part: its files, each whole or not at all, and after them its record.

        Args:
            part: the part; what is published of it already is replaced.
            record: what became of it.
            tallies: what is known of it beside: the scenes of its tiles, and the values of the pixels so far.
            made: has its files, `made.files(part)`; they stay.
        """

    async def fetch(self, part: Part, record: PartRecord, into: PartFiles) -> None:
        """Copy the files of a published part that lacks tiles, and declare it there, so that it can be finished."""


class Handover:
    """Hands the parts of one run over as they are finished.

    Args:
        grid: the output.
        parts: those that the run builds.
        work: the folder that they are made in.
        published: where they go.
        few_values: of the pixels so far.
    """

    def __init__(
        self, grid: Grid, parts: Sequence[Part], work: WorkFolder, published: Publication, few_values: FewValues
    ) -> None:
        self._few_values = few_values
        self.parts = parts
        self.done: dict[str, PartRecord] = {}
        """The records of the parts that are published, by name."""
        self._grid = grid
        self._names = {part.name for part in parts}
        self._work = work
        self._published = published
        self._scenes: defaultdict[str, SceneTally] = defaultdict(SceneTally)
        """By the name of the part that counts the tiles."""
        self._waiting: dict[str, tuple[Part, PartRecord]] = {}

    async def resume(self) -> None:
        """Take over what an earlier run knew of its scenes."""
        known = await self._work.read_scenes()
        self._scenes.update({name: SceneTally(tally) for name, tally in known.items()})

    def note_scenes(self, tile: Tile, headers: Mapping[str, str]) -> None:
        """Count the scenes of a tile for the part that counts it, if that is one of these."""
        name = part_name(*self._grid.touches(tile)[0])
        if name in self._names:
            self._scenes[name].note(headers)

    def scenes(self) -> dict[str, Any]:
        """Return what is known of the scenes of parts that are not published, as JSON types."""
        return {name: tally.as_dict() for name, tally in self._scenes.items() if tally}

    async def offer(self, part: Part, record: PartRecord) -> None:
        """Note that a part is finished; publish it, and those offered before, if all of its answers are proved."""
        self._waiting[part.name] = part, record
        for name in list(self._waiting):
            if (finished := self._waiting.get(name)) and self._work.arrivals.are_proved(self._grid.tiles(finished[0])):
                await self._publish(*finished)

    def withdraw(self, part: Part) -> None:
        """Note that a part has to be made again."""
        self._waiting.pop(part.name, None)

    async def finish(self, closed: Iterable[tuple[Part, PartRecord]]) -> None:
        """Publish what is finished, also parts that lack tiles: all answers are proved."""
        for part, record in closed:
            if part.name not in self.done:
                await self._publish(part, record)

    async def _publish(self, part: Part, record: PartRecord) -> None:
        self._waiting.pop(part.name, None)
        tallies = {"scenes": self._scenes.pop(part.name, SceneTally()).as_dict(), "values": self._few_values.as_dict()}
        await self._published.publish(part, record, tallies, self._work.parts)
        self.done[part.name] = record
        await to_its_end(self._work.parts.revoke, part)
