"""Whether renewed credentials lead to the tiles that the work folder holds: one kept tile is fetched again.

A new token can belong to another account, which sees other layers. So a run that resumes with other credentials than
before first compares the sample, a tile that the job keeps for this, with what the source sends now.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.job import Job
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import RequestError, SourceError, TileError, WorkFolderError
from mosaic_async.events import zxy
from mosaic_async.geo.cover import Tile
from mosaic_async.http.client import Client
from mosaic_async.raster.tile import decode, learn

_HINT = "use the earlier credentials, choose another output, or drop the folder with ``resume=False``"


@dataclass(frozen=True)
class Sample:
    """A tile as the source sent it, and the digest of the credentials that it was sent for."""

    tile: Tile
    body: bytes
    credentials: str

    def as_dict(self) -> dict[str, Any]:
        """Return the sample as JSON types."""
        body = base64.b64encode(self.body).decode()
        return {"tile": [self.tile.x, self.tile.y, self.tile.z], "body": body, "credentials": self.credentials}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sample | None:
        """Return what `as_dict` made; None if it did not make this."""
        try:
            return cls(Tile(*values["tile"]), base64.b64decode(values["body"]), str(values["credentials"]))
        except (KeyError, TypeError, binascii.Error):
            return None


async def keep_sample(work: WorkFolder, credentials: str) -> None:
    """Keep a tile from the spool as the sample, unless the folder has one of the same credentials."""
    sample = await _sample(work)
    if sample is not None and sample.credentials != credentials:
        await work.save_sample(Sample(sample.tile, sample.body, credentials).as_dict())


async def check_renewal(job: Job, client: Client, work: WorkFolder, credentials: str) -> None:
    """Check that the source still sends what it sent before, if the credentials are not those of before.

    Args:
        job: whose source it is.
        client: makes the request.
        work: holds what was sent before.
        credentials: digest of those that the client uses now.

    Raises:
        WorkFolderError: it sends other pixels, or nothing is left to compare.
        SourceError: the tile cannot be fetched.
    """
    kept = await work.read_sample()
    if credentials in (work.state.get("credentials"), kept.get("credentials")):
        return
    sample = await _sample(work)
    if sample is not None:
        await _compare(job, client, work, sample)
    elif not work.is_new:
        raise WorkFolderError(f"{work.path} is of other credentials, and no kept tile shows what they gave", hint=_HINT)
    else:  # nothing is kept: whatever comes from now on is of these
        await work.save_sample({"credentials": credentials})


async def _sample(work: WorkFolder) -> Sample | None:
    """Return the sample of an earlier run, or any tile with data in the spool."""
    if sample := Sample.from_dict(await work.read_sample()):
        return sample
    for tile in work.spool:
        if work.spool.has_body(tile) and (body := await work.spool.read(tile)):
            return Sample(tile, body, "")
    return None


async def _compare(job: Job, client: Client, work: WorkFolder, sample: Sample) -> None:
    body = await _fetch(job, client, sample.tile)
    if not await asyncio.to_thread(_is_same, sample.body, body):
        raise WorkFolderError(
            f"{work.path} is of other credentials: with these, tile {zxy(sample.tile)} has other pixels", hint=_HINT
        )


async def _fetch(job: Job, client: Client, tile: Tile) -> bytes:
    try:
        check = partial(check_answer, tile=tile, tile_format=None, matrix=job.matrix, border=job.border)
        async with client.get(job.url(tile), check=check, label=tile) as answer:
            return answer.body
    except RequestError as error:
        raise SourceError(
            f"the credentials changed, and tile {zxy(tile)} cannot be fetched to compare it: {error.message}",
            hint=error.marked_hint or "check the token or the headers",
        ) from error


def _is_same(kept: bytes, sent: bytes) -> bool:
    """Return whether two bodies have the same bytes, or the same pixels and mask."""
    if kept == sent:
        return True
    try:
        tile_format = learn(kept)
        (pixels, mask), (other_pixels, other_mask) = decode(kept, tile_format), decode(sent, tile_format)
    except TileError:
        return False
    return _is_equal(mask, other_mask) and _is_equal(pixels, other_pixels)


def _is_equal(kept: NDArray[Any] | None, sent: NDArray[Any] | None) -> bool:
    if kept is None or sent is None:
        return kept is sent
    return np.array_equal(kept, sent, equal_nan=kept.dtype.kind == "f")
