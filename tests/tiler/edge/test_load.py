"""A tiler under 50 clients and a stream of dear and harmful requests: plain tiles are served, memory stays bounded."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import mercantile
import psutil
import pytest

from mosaic_async.tiler import open_mosaic, serve
from tests.conftest import PARANA
from tests.tiler.edge.test_requests import TOO_DEAR

AREA = (-54.9, -25.45, -54.6, -25.25)
PLAIN = "/tiles/WebMercatorQuad/{z}/{x}/{y}.tif?assets=B4&assets=B3&tilesize=256"
COPIES = 20
DEAR = (
    "&assets=B2&pixel_selection=geomedian&tilesize=512",
    "&assets=B2&pixel_selection=medoid&tilesize=512",
    "&pixel_selection=median&tilesize=512&resampling=lanczos&reproject=lanczos",
    "&expression=" + ";".join(["(b1%2Bb2)**0.5/(b1-b2)"] * 8) + "&tilesize=1024&pixel_selection=mean",
    "&tilesize=2048&color_formula=gamma RG 3.5, sigmoidal RG 15 0.35",
)
LIMIT = 2**30


@dataclass
class Load:
    """Plain and dear requests for some time, and what became of them."""

    url: str
    seconds: float
    served: int = 0
    failed: list[int] = field(default_factory=list)
    longest: float = 0.0
    """Seconds of the slowest plain request."""
    dear: list[int | str] = field(default_factory=list)
    peak: int = 0
    """Bytes of the largest process."""

    async def run(self, *, clients: int, attackers: int) -> Load:
        self.until = time.monotonic() + self.seconds
        self.tiles = itertools.cycle(mercantile.tiles(*AREA, zooms=[11, 12]))
        self.harmful = itertools.cycle([*(PLAIN + query for query in DEAR), *TOO_DEAR.values()])
        options = {"max_line_size": 2**18, "max_field_size": 2**18, "timeout": aiohttp.ClientTimeout(total=200)}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), **options) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(clients):
                tasks.create_task(self.client(session))
            for _ in range(attackers):
                tasks.create_task(self.attacker(session))
            tasks.create_task(self.measure())
        return self

    async def client(self, session) -> None:
        while time.monotonic() < self.until:
            tile, started = next(self.tiles), time.monotonic()
            async with session.get(self.url + PLAIN.format(z=tile.z, x=tile.x, y=tile.y)) as response:
                await response.read()
            self.longest = max(self.longest, time.monotonic() - started)
            if response.status in (200, 204):
                self.served += 1
            else:
                self.failed.append(response.status)

    async def attacker(self, session) -> None:
        while time.monotonic() < self.until:
            tile = mercantile.tile(-54.6, -25.4, 10)
            path = next(self.harmful).replace("{z}/{x}/{y}", f"{tile.z}/{tile.x}/{tile.y}")
            try:
                async with session.get(self.url + path) as response:
                    await response.read()
                self.dear.append(response.status)
            except aiohttp.ClientError as error:
                self.dear.append(type(error).__name__)

    async def measure(self) -> None:
        while time.monotonic() < self.until:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "mosaic_async.tiler.server" in process.cmdline():
                        self.peak = max(self.peak, process.memory_info().rss)
            await asyncio.sleep(0.2)

    def __str__(self) -> str:
        return (
            f"{self.served / self.seconds:.1f} plain tiles/s, the slowest in {self.longest:.1f} s, beside "
            f"{dict(Counter(self.dear))} dear requests; largest process {self.peak / 2**20:.0f} MiB"
        )


def scenes(folder: Path, copies: int = COPIES) -> Path:
    """Copy the items of Paraná many times: a plain tile ends with the first, a median needs all."""
    for path in PARANA.rglob("*.json"):
        item = json.loads(path.read_text())
        if item["type"] != "Feature":
            continue
        for asset in item["assets"].values():
            asset["href"] = str(path.parent / asset["href"])
        for number in range(copies):
            (folder / f"{path.stem}-{number}.json").write_text(json.dumps({**item, "id": f"{path.stem}-{number}"}))
    return folder


@pytest.mark.slow
async def test_plain_tiles_are_served_beside_dear_requests_in_a_small_load(tmp_path):
    async with serve(open_mosaic(scenes(tmp_path, 3)), host="127.0.0.1", port=0, workers=1) as url:
        load = await Load(url, 1).run(clients=5, attackers=4)
    assert load.served > 0, load
    assert not load.failed, load
    assert load.peak < LIMIT, load


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_plain_tiles_are_served_to_fifty_clients_beside_a_stream_of_dear_requests(record_property, tmp_path):
    async with serve(open_mosaic(scenes(tmp_path)), host="127.0.0.1", port=0, workers=2) as url:
        alone = await Load(url, 60).run(clients=50, attackers=0)
        beside = await Load(url, 150).run(clients=50, attackers=30)
    record_property("alone", str(alone))
    record_property("beside", str(beside))
    for load in (alone, beside):
        assert load.served > 0, load
        assert not load.failed, load
        assert load.peak < LIMIT, load
