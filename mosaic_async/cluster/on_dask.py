"""Mosaics on a Dask cluster: one that is there, or processes of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, LocalCluster

from mosaic_async.build.api import build_mosaic
from mosaic_async.cluster import own_process
from mosaic_async.cluster.dask_crew import DaskCrew
from mosaic_async.cluster.site import TilerOrder
from mosaic_async.errors import SourceError
from mosaic_async.events import MosaicReport
from mosaic_async.sources.source import TileSource

_TIMEOUT = 30.0
"""Seconds to reach a scheduler."""


async def build_mosaic_on(
    client: Client | str | int,
    source: str | Path | TileSource,
    area: Sequence[float] | Mapping[str, Any],
    output: str | Path,
    *,
    tiler: TilerOrder | None = None,
    **options: Any,
) -> MosaicReport:
    """Build a mosaic as `build_mosaic` does, with the parts built by the workers of a Dask cluster.

    The output is the same, byte for byte. Concurrency and rate are divided among the workers, so the server sees no
    more than from one machine. A part whose worker dies is built by another one.

    Args:
        client: a client, the address of a scheduler such as `tcp://host:8786`, or how many processes of this machine
            to use.
        source: as for `build_mosaic`; all workers have to reach it.
        area: as for `build_mosaic`.
        output: as for `build_mosaic`, in a folder that all workers share under the same path.
        tiler: the scenes of `source`, if that is a `local_tiler`: every worker renders them with a tiler of its own.
        options: the other arguments of `build_mosaic`; "auto" is not a concurrency that can be divided. The memory of a
            part follows from the limit of the workers.

    Returns:
        As `build_mosaic`, with the share of each worker.

    Raises:
        MosaicError: as `build_mosaic`; `SourceError` also if the scheduler is gone, and `ResourceError` if a worker is
            too small, or if workers die again and again over the same part.
    """
    async with crew_at(client, tiler=tiler) as crew:
        return await build_mosaic(source, area, output, crew=crew, **options)


@asynccontextmanager
async def crew_at(client: Client | str | int, *, tiler: TilerOrder | None = None) -> AsyncIterator[DaskCrew]:
    """Yield the workers of a cluster as a crew.

    Args:
        client: as for `build_mosaic_on`.
        tiler: as for `build_mosaic_on`.

    Raises:
        SourceError: the scheduler cannot be reached.
    """
    if isinstance(client, int):
        async with _processes(client) as cluster, Client(cluster, asynchronous=True) as own:
            yield DaskCrew(own, tiler)
        return
    address, security = (client, None) if isinstance(client, str) else (_address(client), client.security)
    try:
        own = await Client(address, asynchronous=True, security=security, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"the Dask scheduler at {address} cannot be reached: {error}",
            hint="start one with `dask scheduler`, or set the number of processes of this machine instead",
        ) from error
    try:
        yield DaskCrew(own, tiler)
    finally:
        await own.close()


def _address(client: Client) -> str:
    if client.scheduler is None:
        raise SourceError("the Dask client is not connected", hint="make a new one")
    return str(client.scheduler.address)


@asynccontextmanager
async def _processes(number: int) -> AsyncIterator[LocalCluster]:
    with TemporaryDirectory(prefix="mosaic-async-") as folder:
        async with LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            asynchronous=True,
            dashboard_address=None,
            local_directory=folder,
            preload=[own_process.__name__],
            silence_logs=False,
        ) as cluster:
            yield cluster
