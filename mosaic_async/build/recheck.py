"""Whether what a killed run took from its connections belongs to its requests: a few tiles of each are fetched again.

A stray answer shifts all that follow it on a connection, so the last answers show whether there was one. But a tile
that equals its neighbour shows nothing. Where no few tiles can show it, all are requested again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from mosaic_async.build.arrivals import Arrivals, Unproved, digest_of
from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.job import Job
from mosaic_async.errors import RequestError
from mosaic_async.geo.cover import Tile
from mosaic_async.http.client import Client

_SHIFTS = (1, 2)
"""Answers that a connection may be shifted by, before anything else shows it."""


async def recheck(job: Job, client: Client, arrivals: Arrivals, is_kept: Callable[[Tile], bool]) -> set[Tile]:
    """Return the tiles that an earlier run has left, but that may be the answers of other requests.

    Args:
        job: whose source it is.
        client: makes the requests.
        arrivals: told which connections are proved now, and of which nothing is to be kept.
        is_kept: returns whether anything is kept of a tile.

    Raises:
        SourceError: the server refuses everything, stays unavailable, or cannot be trusted.
    """
    doubtful: set[Tile] = set()

    async def check(connection: int, answers: Sequence[Unproved]) -> None:
        kept = {answer.tile for answer in answers if is_kept(answer.tile)}
        shown = telling(answers) if kept else ()
        if kept and shown and all([await _is_same(job, client, answer) for answer in shown]):
            arrivals.accept(connection)
        else:
            doubtful.update(kept)
            arrivals.give_up(connection)

    async with asyncio.TaskGroup() as tasks:
        for connection, answers in list(arrivals.unproved.items()):
            tasks.create_task(check(connection, answers))
    return doubtful


def telling(answers: Sequence[Unproved]) -> set[Unproved]:
    """Return answers of a connection that, if the server repeats them, show that none of all was shifted.

    If the answers were shifted by one, each tile has the answer of the tile before it. So a tile whose true answer is
    known, and is unlike what the tile after it has, shows that they were not. Behind the last such tile all are alike,
    and the last ones tell whether they are right. Behind a gap, an answer that was of no use, this has to hold anew.

    Args:
        answers: in the order of the connection.

    Returns:
        Two or three answers; none if only all of them together could tell.
    """
    last = answers[-1]
    lag = last.number - len(answers)
    tail = [answer for place, answer in enumerate(answers, 1) if answer.number - place == lag]
    chosen = set(tail[-max(_SHIFTS) :])
    if len(tail) == len(answers) and len({answer.digest for answer in answers}) == 1:
        return chosen
    for shift in _SHIFTS:
        unlike = [one for one, other in zip(tail, tail[shift:], strict=False) if one.digest != other.digest]
        if unlike:
            chosen.add(unlike[-1])
        elif len(answers) > shift:
            return set()
    return chosen


async def _is_same(job: Job, client: Client, answer: Unproved) -> bool:
    """Return whether the server sends for a tile what it has sent before."""
    try:
        check = partial(check_answer, tile=answer.tile, tile_format=None, matrix=job.matrix, border=job.border)
        async with client.get(job.url(answer.tile), check=check) as found:
            return digest_of(None if found.is_doubted else found.body) == answer.digest
    except RequestError:
        return False
