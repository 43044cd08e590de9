"""The first tiles of a run: what they look like decides everything else, so they are requested before the layout.

Whatever is fetched here goes into the work folder and is not requested again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.scene_tally import SceneTally
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import RequestError, SourceError, TileError
from mosaic_async.events import OnEvent, SceneSkipped, TileFetched, zxy
from mosaic_async.geo.cover import Cover, Tile
from mosaic_async.http.client import Answer, Client
from mosaic_async.http.outcome import REFUSALS
from mosaic_async.raster.form import TileFormat
from mosaic_async.raster.tile import is_blank, learn
from mosaic_async.sources.source import TileSource

_SAMPLE = 50
"""Tiles from the whole area, after those in the centre; if almost none of them is found, the URL is wrong."""
_WRONG_SHARE = 0.95
"""Share of them; a cache may answer otherwise for a few."""
_GOLDEN = 0.618033988749895
"""Multiples of the golden ratio, without their whole parts, spread evenly however many there are."""
_SPOOL_FILE = "probe"
_FEW = 3
"""Tiles; when this many fail before anything has arrived, the others will fail too."""


async def probe(
    job: Job,
    cover: Cover,
    client: Client,
    work: WorkFolder,
    *,
    effort: Effort,
    scenes: SceneTally,
    on_event: OnEvent,
) -> TileFormat:
    """Find a tile with a valid pixel, first in the centre, then in the whole area, and learn from it.

    What a tile without one looks like decides nothing, or the output would depend on which tile comes first.

    Args:
        job: whose source is probed.
        cover: its tiles.
        client: makes the requests.
        work: keeps what arrives.
        effort: how many tiles to request at once, and whether to continue where most have no data.
        scenes: counts what tiles are made of.
        on_event: called with every body.

    Raises:
        SourceError: unreachable, refused, a wrong URL, not tiles, or no tile with data in the whole area.
    """
    source = job.source

    def note(tile: Tile, answer: Answer) -> None:
        if answer.body:
            on_event(TileFetched(tile, len(answer.body)))
        for scene in scenes.note(answer.headers):
            on_event(SceneSkipped(scene, tile))

    answers: list[Answer] = []
    failures: list[RequestError] = []
    blank: tuple[bytes, Tile] | None = None
    for tiles in _batches(_order(cover), min(effort.in_flight, _SAMPLE)):
        async with asyncio.TaskGroup() as tasks:
            requests = [tasks.create_task(_request(client, job, tile, work, note)) for tile in tiles]
        for tile in tiles:
            if work.spool.has_body(tile) and (body := await work.spool.read(tile)):
                if job.mask == "none" or not await asyncio.to_thread(is_blank, body, mask_band=source.mask_band):
                    return await asyncio.to_thread(learn_first, body, tile, job)
                blank = blank or (body, tile)
        results = [task.result() for task in requests]
        failures += [result for result in results if isinstance(result, RequestError)]
        answers += [result for result in results if isinstance(result, Answer)]
        _check_failures(failures, cover.count)
        if not effort.sparse:
            _check_answers(answers, cover.count)
    if blank:
        return await asyncio.to_thread(learn_first, *blank, job)
    statuses = sorted({answer.status for answer in answers})
    raise SourceError(
        f"none of the {cover.count:,} tiles has data (HTTP {', '.join(map(str, statuses))})", hint=_place(source)
    )


def learn_first(body: bytes, tile: Tile, job: Job) -> TileFormat:
    """Learn from a first tile.

    Raises:
        SourceError: it is not a tile, or not of the requested size.
    """
    try:
        return learn(
            body,
            tile_size=job.known_tile_size,
            border=job.border,
            mask_band=job.source.mask_band,
            decode=job.decode,
        )
    except TileError as error:
        raise SourceError(f"tile {zxy(tile)} is not usable: {error}") from error


def _order(cover: Cover) -> Iterator[Tile]:
    """Yield the tiles in the centre, then a sample of the whole area, then all others from the centre outwards."""
    outward = cover.outward()
    first = list(islice(outward, 1 + _FEW))
    yield from first
    sample = [tile for tile in _spread(cover) if tile not in first]
    yield from sample
    seen = {*first, *sample}
    yield from (tile for tile in outward if tile not in seen)


def _spread(cover: Cover) -> list[Tile]:
    """Return different tiles, at most `_SAMPLE`, as evenly spread over the area as their order in it allows."""
    rows, columns = np.nonzero(np.ones((cover.rows, cover.columns), np.bool_) if cover.mask is None else cover.mask)
    places = (np.arange(_SAMPLE) * _GOLDEN % 1 * len(rows)).astype(np.int64)
    return [cover.tile(int(columns[place]), int(rows[place])) for place in dict.fromkeys(places.tolist())]


def _batches(tiles: Iterator[Tile], size: int) -> Iterator[list[Tile]]:
    """Return the centre, its neighbours, then many at a time."""
    for count in (1, _FEW):
        if batch := list(islice(tiles, count)):
            yield batch
    while batch := list(islice(tiles, size)):
        yield batch


async def _request(
    client: Client, job: Job, tile: Tile, work: WorkFolder, note: Callable[[Tile, Answer], None]
) -> Answer | RequestError | None:
    """Fetch one tile and return the answer or what went wrong; None for a tile that is in the folder."""
    if tile in work.spool:
        return None
    try:
        check = partial(check_answer, tile=tile, tile_format=None, matrix=job.matrix, border=job.border)
        async with client.get(job.url(tile), check=check, label=tile) as answer:
            if answer.body or answer.empty == "no content":  # the spool knows no other kinds, and most are only doubts
                await work.spool.write(tile, answer.body, file=_SPOOL_FILE, arrival=answer.arrival)
            note(tile, answer)
            return replace(answer, body=b"")
    except RequestError as error:
        return error


def _check_failures(failures: list[RequestError], count: int) -> None:
    """End the run where more requests are pointless: no connection, or only failures."""
    if not failures:
        return
    last = failures[-1]
    if last.status is None:
        raise SourceError(
            f"the source cannot be reached: {last.message}", hint=last.marked_hint or "check host, port and network"
        ) from last
    if len(failures) >= min(_FEW, count):
        hints = {401: "check the token or the headers", 403: "check the token or the headers"}
        raise SourceError(
            f"the first {len(failures)} tiles fail, the last with: {last.message}",
            hint=last.marked_hint or hints.get(last.status, "check the URL and its parameters"),
        ) from last


def _check_answers(answers: Sequence[Answer], count: int) -> None:
    """End the run where nearly all of a sample is not found, and none has data."""
    doubted = [answer for answer in answers if answer.is_doubted]
    if len(answers) < min(_SAMPLE, count) or len(doubted) < _WRONG_SHARE * len(answers):
        return
    reason, times = Counter(answer.reason for answer in doubted).most_common(1)[0]
    is_denied = any(answer.status in REFUSALS for answer in doubted)
    checks = (
        "the token or the headers, the URL template, the zoom and the area"
        if is_denied
        else ("the URL template, the zoom and the area")
    )
    raise SourceError(
        f"none of {len(answers):,} tiles from the whole area has data: {times:,} are {reason}",
        hint=f"check {checks}; if so few tiles have data, set ``sparse``",
    )


def _place(source: TileSource) -> str:
    if source.bounds is None:
        return "compare the area and the zoom with what the source covers"
    west, south, east, north = source.bounds
    return f"the source covers W {west:g} S {south:g} E {east:g} N {north:g}"
