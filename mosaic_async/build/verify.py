"""Checks an output: against the digest it was published with, against itself, and against its source.

It changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from mosaic_async.build.job import QUALITY_TAG, RESAMPLING_TAG, Effort
from mosaic_async.build.source_comparison import SourceComparison, TileFault, TilePlaces
from mosaic_async.errors import StitchError, UsageError
from mosaic_async.events import zxy
from mosaic_async.http.client import Client
from mosaic_async.raster.digest import digest_of, recorded_digest
from mosaic_async.raster.environment import pinned
from mosaic_async.raster.inspection import BlockFault, inspect
from mosaic_async.raster.tiff import Image, read_images
from mosaic_async.sources.source import TileSource

SAMPLE = 100
"""Tiles to request again: this many of all, and as many of those at the edges."""
_MAX_FAULTS = 1000
"""Blocks that are listed; a file with more is hardly sound."""

DigestState = Literal["equal", "differs", "absent"]


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was checked, and what differs."""

    output: Path
    digest: DigestState
    """Whether the blocks are those that were published; absent where the file does not record a digest."""
    blocks: int
    """Blocks that were decoded, those of masks included."""
    overviews_checked: bool
    """Whether the file says how its overviews were made, so that they were made again."""
    block_faults: tuple[BlockFault, ...] = ()
    """At most 1,000."""
    header_fault: str | None = None
    """Why the file cannot be read at all."""
    tiles_compared: int = 0
    tile_faults: tuple[TileFault, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing differs."""
        return self.digest != "differs" and not (self.block_faults or self.header_fault or self.tile_faults)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types; tiles are written z/x/y."""
        tiles = [{"tile": zxy(fault.tile), "reason": fault.reason} for fault in self.tile_faults]
        return {**asdict(self), "output": str(self.output), "is_sound": self.is_sound, "tile_faults": tiles}


def verify_file(output: Path) -> VerifyReport:
    """Check an output against its digest and against itself; this reads and decodes all of it.

    Raises:
        UsageError: the file does not exist.
        OSError: the file cannot be read.
    """
    if not output.is_file():
        raise UsageError(f"{output} not found")
    found = partial(VerifyReport, output=output)
    try:
        images = read_images(output)
        if not images:
            raise StitchError(f"{output} has no images")
        tags = _tags(output)
        resampling = tags.get(RESAMPLING_TAG)
        faults = inspect(output, images, resampling, tags.get(QUALITY_TAG))
        return found(
            digest=_digest_state(output, images),
            blocks=sum(int(np.count_nonzero(image.counts)) for image in images),
            overviews_checked=resampling is not None,
            block_faults=tuple(islice(faults, _MAX_FAULTS)),
        )
    except (StitchError, RasterioError, CPLE_BaseError) as error:
        return found(digest="absent", blocks=0, overviews_checked=False, header_fault=str(error))


def _digest_state(output: Path, images: list[Image]) -> DigestState:
    recorded = recorded_digest(images)
    if recorded is None:
        return "absent"
    return "equal" if recorded == digest_of(output, images) else "differs"


def _tags(output: Path) -> dict[str, str]:
    with pinned(), rasterio.open(output, driver="GTiff") as dataset:
        found: dict[str, str] = dataset.tags()
        return found


async def verify(
    output: Path, source: TileSource | None, effort: Effort, *, sample: int = SAMPLE, seed: int | None = None
) -> VerifyReport:
    """Check a file, and compare it with its source if there is one.

    Raises:
        MosaicError: as documented for `verify_mosaic`; or a group with one of them in it.
    """
    report = await asyncio.to_thread(verify_file, output)
    if source is None or report.header_fault:
        return report
    places = await asyncio.to_thread(TilePlaces.of, output)
    async with Client(effort.pace, headers=source.headers, allow_hosts=effort.allow_hosts) as client:
        client.call_empty(places.rules)
        sized = replace(source, tile_size=places.tile_size)  # a URL may leave the size to us
        comparison = SourceComparison(output, sized, client, places)
        await comparison.run(sample=sample, seed=seed, in_flight=effort.in_flight)
    compared = sorted(comparison.compared.items())
    faults = tuple(fault for _, fault in compared if fault)
    return replace(report, tiles_compared=len(compared), tile_faults=faults)
