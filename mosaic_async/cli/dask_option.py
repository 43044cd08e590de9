"""`--dask`: the processes that build the parts, on a cluster or on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mosaic_async.build.crew import Crew
from mosaic_async.cli import extras
from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.opened_source import tiler_on_workers
from mosaic_async.errors import UsageError


@asynccontextmanager
async def crew_of(dask: str | None, source: str | Path, given: JobArguments) -> AsyncIterator[Crew | None]:
    """Yield the crew that the option names; None without it.

    Args:
        dask: address of a scheduler, or a number of processes.
        source: what the user named; scenes are rendered on the workers.
        given: the other options.

    Raises:
        UsageError: it is neither, or the extra is not installed.
        SourceError: the scheduler cannot be reached.
    """
    if dask is None:
        yield None
        return
    if given.library.get("shard"):
        raise UsageError("--dask and --shard exclude each other", hint="set one of them")
    room = extras.cluster()
    scenes = tiler_on_workers(source, given)
    tiler = None if scenes is None else room.TilerOrder(mosaic=scenes[0], options=scenes[1])
    async with room.crew_at(_place(dask), tiler=tiler) as crew:
        yield crew


def _place(dask: str) -> str | int:
    if dask.isdecimal() and int(dask) > 0:
        return int(dask)
    if "://" not in dask:
        raise UsageError(
            f"--dask {dask} is neither an address nor a number of processes",
            hint="write tcp://HOST:8786, or a number such as 4",
        )
    return dask
