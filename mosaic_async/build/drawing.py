"""How a run comes to its layout: from what an earlier run, or another process, has learnt, or from its first tiles."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from mosaic_async.build.blueprint import Blueprint
from mosaic_async.build.cost import encoded_bytes
from mosaic_async.build.identity import Identity
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import Layout, prepare
from mosaic_async.build.preflight import bytes_needed
from mosaic_async.build.probe import probe
from mosaic_async.build.renewal import Sample, check_renewal, keep_sample
from mosaic_async.build.run_state import RunState
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.shared_folder import SharedFolder
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import TileError
from mosaic_async.events import OnEvent, PieceDropped
from mosaic_async.geo.cover import Cover
from mosaic_async.http.client import Client


async def draw(
    job: Job,
    effort: Effort,
    cover: Cover,
    credentials: str,
    *,
    client: Client,
    work: WorkFolder,
    scenes: SceneTally,
    on_event: OnEvent,
) -> tuple[Layout, RunState]:
    """Return how the output is laid out, and what a later run needs to lay it out in the same way.

    Args:
        job: what decides its pixels.
        effort: whose memory decides the size of the parts.
        cover: its tiles.
        credentials: digest of those that the client uses.
        client: makes the requests.
        work: what is known; it keeps what arrives.
        scenes: counts what tiles are made of.
        on_event: called with every body.

    Raises:
        WorkFolderError: the source sends other pixels than before.
        SourceError: it is unreachable, refuses, or sends no tiles.
        MosaicError: as for `prepare`.
    """
    await check_renewal(job, client, work, credentials)
    known = _known(work, on_event)
    if known is not None:
        return prepare(job, effort, cover, known.tile_format, known.part_blocks), known
    tile_format = await probe(job, cover, client, work, effort=effort, scenes=scenes, on_event=on_event)
    layout = prepare(job, effort, cover, tile_format)
    disk = await _estimate_disk(layout, work)
    return layout, RunState(tile_format=tile_format, part_blocks=layout.grid.part_blocks, disk=disk)


async def draw_shared(
    job: Job,
    effort: Effort,
    cover: Cover,
    identity: Identity,
    *,
    client: Client,
    work: WorkFolder,
    folder: SharedFolder,
    on_event: OnEvent,
) -> tuple[Blueprint, RunState]:
    """Return by what all processes that share a folder make the parts: the first one that knows it shares it.

    Args:
        job: what to build.
        effort: how hard each process tries.
        cover: the tiles of the job.
        identity: of the job.
        client: makes the requests.
        work: a folder of this process, which keeps what arrives.
        folder: the one that is shared; it is divided into parts now.
        on_event: called with what happens.

    Raises:
        MosaicError: as for `draw`.
    """
    if shared := await folder.read_state():
        work.state = shared
        await work.save_sample(await folder.read_sample())
    scenes = SceneTally()
    layout, state = await draw(
        job, effort, cover, identity.credentials, client=client, work=work, scenes=scenes, on_event=on_event
    )
    await keep_sample(work, identity.credentials)
    sample = await work.read_sample()
    if scenes:  # they are counted part by part, when the tiles are fetched for their parts
        await work.spool.drop(list(work.spool))
    if not shared:
        own = {**state.as_dict(), "credentials": identity.credentials}
        state = RunState.from_dict(await folder.share_state(own, sample))
        layout = prepare(job, effort, cover, state.tile_format, state.part_blocks)
    folder.divide(state.layout)
    known = found.tile if (found := Sample.from_dict(sample)) else None
    return Blueprint(job=job, effort=effort, layout=layout, label=identity.label, known=known), state


def _known(work: WorkFolder, on_event: OnEvent) -> RunState | None:
    """Return what an earlier run learnt, so that this one continues in the same way."""
    if not work.state:
        return None
    try:
        return RunState.from_dict(work.state)
    except ValueError as error:
        on_event(PieceDropped("job.json", str(error)))
        return None


async def _estimate_disk(layout: Layout, work: WorkFolder) -> int | None:
    """Estimate from the first tile what the run writes."""
    grid = layout.grid
    tile = next(filter(work.spool.has_body, grid.cover.outward()), None)
    body = await work.spool.read(tile) if tile else None
    if body:
        with suppress(TileError):  # an unreadable one is requested again
            encoded = await asyncio.to_thread(
                encoded_bytes, body, layout.tile_format, layout.encoding, grid.cover.count
            )
            return bytes_needed(grid, layout.encoding, encoded=encoded, body=len(body))
    return None
