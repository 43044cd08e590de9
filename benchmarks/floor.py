"""The floor: download alone, with aiohttp on uvloop, bodies discarded. Nothing that writes a file can be faster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiohttp
import uvloop

from benchmarks.job import Job, parse_job


async def download(job: Job) -> None:
    """Request every tile once."""
    tiles = iter(job.tiles)
    connector = aiohttp.TCPConnector(limit=job.concurrency)
    async with aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session, asyncio.TaskGroup() as tasks:
        for _ in range(job.concurrency):
            tasks.create_task(_work(session, job.template, tiles))


async def _work(session: aiohttp.ClientSession, template: str, tiles: Iterator[tuple[int, int, int]]) -> None:
    for z, x, y in tiles:
        status = 0
        while status != 200:
            async with session.get(template.format(z=z, x=x, y=y)) as response:
                status = response.status
                async for _ in response.content.iter_any():
                    pass


if __name__ == "__main__":
    uvloop.run(download(parse_job()))
