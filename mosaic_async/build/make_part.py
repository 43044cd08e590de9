"""Build parts of an output, and publish each as a whole: alone, on whatever machine, or as the share of a shard.

A part is made in a folder of its own, with all checks of a run: whether answers belong to their requests, whether a
tile is really not there, and a second pass for what failed. Only then it is published. To build a part twice, one after
the other or at once, does no harm. Nothing here changes the state of the process.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.download import Download
from mosaic_async.build.handover import Handover, Publication
from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.part_writer import PartWriter
from mosaic_async.build.run_client import RetryTally, run_client
from mosaic_async.build.run_state import RunState
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.events import OnEvent, PieceDropped, RunStarted, SameBytes, TileFailed
from mosaic_async.geo.grid import Part, part_name
from mosaic_async.http.client import Client
from mosaic_async.raster.few_values import FewValues


@dataclass(frozen=True, kw_only=True)
class PartsMade:
    """What became of parts, and what that took; small enough to send."""

    records: Mapping[str, PartRecord]
    """Of the parts that are published, by name; one that was stopped is left out."""
    found: int = 0
    """How many of them were published already."""
    failed: tuple[TileFailed, ...] = ()
    """The tiles that they lack."""
    hints: Mapping[str, int] = field(default_factory=dict)
    """What helps against failures that stay, by how many tiles have them."""
    requests: int = 0
    retries: int = 0
    retried: Mapping[str, int] = field(default_factory=dict)
    """How often each reason led to a retry."""
    bytes_received: int = 0
    same_bytes: SameBytes | None = None


def _ignore(_: object) -> None:
    """Ignore an event."""


async def make_part(
    blueprint: Blueprint,
    place: tuple[int, int],
    *,
    scratch: Path,
    published: Publication,
    stop: asyncio.Event | None = None,
    on_event: OnEvent = _ignore,
) -> PartsMade:
    """Build one part and publish it, unless it is published already.

    Args:
        blueprint: what parts are made by.
        place: (row, column) of the part in the grid of parts.
        scratch: a folder for what is under way; what this makes there is gone at the end.
        published: where finished parts are.
        stop: once set, no more tiles are requested, and the part is published only if it is finished.
        on_event: called with what happens on the way.

    Raises:
        MosaicError: as documented for `build_mosaic`, but for tiles that fail: the result lists them.
        ExceptionGroup: with one of them in it.
    """
    part = blueprint.layout.grid.part(*place)
    folder = scratch / f"{part.name}-{secrets.token_hex(4)}"
    work = await WorkFolder.open(folder, blueprint.label, on_drop=lambda *piece: on_event(PieceDropped(*piece)))
    retried, proved = RetryTally(on_event), work.arrivals.prove
    try:
        grid = blueprint.layout.grid
        for tile in blueprint.first.keys() & grid.tiles(part):
            await work.spool.write(tile, blueprint.first[tile], file=part_name(*grid.touches(tile)[0]))
        async with run_client(blueprint.job, blueprint.effort, retried, on_event=on_event, on_proof=proved) as client:
            made = await make_parts(
                blueprint, [part], client=client, work=work, published=published, stop=stop, on_event=on_event
            )
        return replace(made, retried=retried.most())
    finally:
        await work.remove()
        await work.close()


async def make_parts(
    blueprint: Blueprint,
    parts: Sequence[Part],
    *,
    client: Client,
    work: WorkFolder,
    published: Publication,
    stop: asyncio.Event | None = None,
    on_event: OnEvent = _ignore,
) -> PartsMade:
    """Build parts, one after the other and each while the one before is sealed; publish each when it is proved.

    Args:
        blueprint: what parts are made by.
        parts: in the order in which to build them.
        client: makes the requests, all those of this folder.
        work: the folder that they are made in; what an earlier call left there is used.
        published: where finished parts are; those that are there already are not built.
        stop: once set, no more tiles are requested; what is finished is published.
        on_event: called with what happens on the way.

    Raises:
        MosaicError: as for `make_part`.
        ExceptionGroup: with one of them in it.
    """
    layout = blueprint.layout
    there = {part.name: record for part in parts if (record := await published.find(part)) is not None}
    whole = {name: record for name, record in there.items() if not record.missing}
    settled = sum(record.placed + record.empty for record in whole.values())
    on_event(RunStarted(sum(map(layout.grid.count_tiles, parts)), len(parts), len(whole), settled))
    wanted = [part for part in parts if part.name not in whole]
    if not wanted:
        return PartsMade(records=whole, found=len(whole))
    state = RunState(tile_format=layout.tile_format, part_blocks=layout.grid.part_blocks, disk=None)
    await work.save_state(state.as_dict(), layout=state.layout)
    few_values = FewValues(await work.read_values())
    handover = Handover(layout.grid, wanted, work, published, few_values)
    await handover.resume()
    download = Download(
        blueprint,
        PartWriter(blueprint.job, layout, work.parts, None, few_values),
        client=client,
        work=work,
        scenes=SceneTally(),
        stop=stop,
        on_event=on_event,
        handover=handover,
    )
    download.resume(await _begun(wanted, there, work, published, on_event))
    try:
        await download.run()
    finally:
        await download.save_tallies()
    return PartsMade(
        records={**whole, **handover.done},
        found=len(whole),
        failed=tuple(download.ledger.failed.values()),
        hints=dict(download.hints),
        requests=client.requests,
        retries=client.retries,
        bytes_received=client.bytes_received,
        same_bytes=await asyncio.to_thread(download.same_bytes.most),
    )


async def _begun(
    parts: Sequence[Part],
    there: Mapping[str, PartRecord],
    work: WorkFolder,
    published: Publication,
    on_event: OnEvent,
) -> dict[str, PartRecord]:
    """Return the records of what is in the work folder, with what is published of parts that lack tiles."""
    records = await work.parts.adopt(parts, lambda *piece: on_event(PieceDropped(*piece)))
    for part in parts:
        if part.name in there and part.name not in records:
            await published.fetch(part, there[part.name], work.parts)
            records[part.name] = there[part.name]
    return records
