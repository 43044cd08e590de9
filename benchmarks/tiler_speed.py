"""The embedded tiler against plain TiTiler: tiles per second and CPU seconds per tile, same scenes, same pixels.

    python benchmarks/tiler_speed.py [SCENES] [--zoom 9] [--rounds 2] [--workers N] [--selections median first]

Plain TiTiler is `MosaicTilerFactory` with `STACReader` over the same MosaicJSON, served by as many processes, with the
same resampling and the GDAL settings that suit it. The two take turns, tile set by tile set, so that what else the
machine does meets both; CPU seconds hardly depend on it at all. Every tile's pixels and mask are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import mercantile
import numpy as np
import psutil
from rasterio.io import MemoryFile

from mosaic_async.tiler import Mosaic, Rendering, open_mosaic
from mosaic_async.tiler.address import shared_socket
from mosaic_async.tiler.server import serve_app
from mosaic_async.tiler.supervisor import READY

_SCENES = Path(__file__).parents[2] / "shared/data/landsat8-newyork-2018"
_CONCURRENCY = 8
_PLAIN_ENVIRONMENT = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",  # one a read, of statistics that the items do not have
    "MOSAIC_CONCURRENCY": "1",  # reads no scene beyond the one that fills the tile; more threads were slower
}


@dataclass
class Measured:
    """What one server did with one selection."""

    tiles: dict[mercantile.Tile, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    answers: int = 0


def plain_app(mosaic: Mosaic) -> object:
    """Make what a user of TiTiler 2 would: the factory, its memory backend and its reader, nothing of ours."""
    from cogeo_mosaic.backends.memory import MemoryBackend
    from cogeo_mosaic.mosaic import MosaicJSON
    from fastapi import FastAPI
    from rio_tiler.io import Reader, STACReader
    from titiler.core.dependencies import AssetsExprParams, BidxExprParams
    from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
    from titiler.mosaic.errors import MOSAIC_STATUS_CODES
    from titiler.mosaic.factory import MosaicTilerFactory

    document = MosaicJSON(**mosaic.document)
    factory = MosaicTilerFactory(
        backend=MemoryBackend,
        path_dependency=lambda: document,
        dataset_reader=STACReader if mosaic.is_stac else Reader,
        layer_dependency=AssetsExprParams if mosaic.is_stac else BidxExprParams,
    )
    app = FastAPI()
    app.include_router(factory.router)
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    add_exception_handlers(app, MOSAIC_STATUS_CODES)
    return app


@asynccontextmanager
async def plain_tiler(mosaic: Mosaic, workers: int) -> AsyncIterator[str]:
    """Serve the plain application from `workers` processes on one port."""
    with TemporaryDirectory() as folder, shared_socket("127.0.0.1", 0) as holder:
        path = Path(folder) / "mosaic.json"
        path.write_text(json.dumps({"document": mosaic.document, "assets": mosaic.assets, "secret": None}))
        port = holder.getsockname()[1]
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--serve-plain", str(path), str(port)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **_PLAIN_ENVIRONMENT},
            )
            for _ in range(workers)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                if (await process.stdout.readline()).strip() != READY.encode():
                    sys.exit("the plain tiler does not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            for process in processes:
                await process.wait()


async def measure(url: str, tiles: Sequence[mercantile.Tile], query: str, tilers: Sequence[psutil.Process]) -> Measured:
    """Request all tiles once."""
    measured = Measured()
    waiting = iter(tiles)

    async def fetch(session: aiohttp.ClientSession) -> None:
        for tile in waiting:
            place = f"{tile.z}/{tile.x}/{tile.y}.tif"
            async with session.get(f"{url}/tiles/WebMercatorQuad/{place}?tilesize=512&{query}") as answer:
                body = await answer.read()
            if answer.status not in (200, 204):
                sys.exit(f"{place}: HTTP {answer.status} {body[:300]!r}")
            measured.answers += 1
            if body:
                measured.tiles[tile] = body

    before = sum(sum(process.cpu_times()[:2]) for process in tilers)
    started = time.perf_counter()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600), max_line_size=2**18) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(_CONCURRENCY):
            group.create_task(fetch(session))
    measured.seconds = time.perf_counter() - started
    measured.cpu_seconds = sum(sum(process.cpu_times()[:2]) for process in tilers) - before
    return measured


def differing_pixels(plain: Measured, ours: Measured) -> int:
    """Count pixels whose mask differs, or whose values do where valid; no tile is a tile without valid pixels."""
    return sum(
        _differing(plain.tiles.get(tile), ours.tiles.get(tile)) for tile in plain.tiles.keys() | ours.tiles.keys()
    )


def _differing(one: bytes | None, other: bytes | None) -> int:
    left, right = (None if body is None else _read(body) for body in (one, other))
    if left is None or right is None:
        there = right if left is None else left
        assert there is not None
        return int((there[-1] > 0).sum())
    if left.shape != right.shape or left.dtype != right.dtype:
        sys.exit(f"tiles differ in kind: {left.shape} {left.dtype}, {right.shape} {right.dtype}")
    valid = left[-1] > 0
    return int(((valid != (right[-1] > 0)) | (valid & (left[:-1] != right[:-1]).any(axis=0))).sum())


def _read(body: bytes) -> np.ndarray:
    with MemoryFile(body) as file, file.open() as dataset:
        return dataset.read()


async def run(scenes: Path, zoom: int, rounds: int, workers: int, selections: Sequence[str], bands: str) -> bool:
    """Print a line a selection; tell whether all pixels were equal."""
    mosaic = open_mosaic(scenes)
    tiles = list(mercantile.tiles(*mosaic.document["bounds"], zooms=[zoom]))
    print(f"{scenes.name}: {len(tiles)} tiles of 512 px at z{zoom}, bands {bands}, {workers} processes each")
    print(f"{'':<14}{'plain tiles/s':>14}{'ours':>8}{'ratio':>7}{'plain CPU-s/tile':>18}{'ours':>8}{'ratio':>7}")
    from mosaic_async.tiler import serve

    parent = psutil.Process()
    equal = True
    async with plain_tiler(mosaic, workers) as plain_url:
        plain_processes = parent.children(recursive=True)
        async with serve(mosaic, host="127.0.0.1", port=0, workers=workers) as our_url:
            our_processes = [process for process in parent.children(recursive=True) if process not in plain_processes]
            for selection in selections:
                query = Rendering(bands=bands.split(","), pixel_selection=selection, group_by="none").query(mosaic)
                pairs = []
                for _ in range(rounds):
                    plain = await measure(plain_url, tiles, query, plain_processes)
                    ours = await measure(our_url, tiles, query, our_processes)
                    pairs.append((plain, ours))
                differing = sum(differing_pixels(plain, ours) for plain, ours in pairs)
                equal = equal and differing == 0
                _print_line(selection, [plain for plain, _ in pairs], [ours for _, ours in pairs], differing)
    return equal


def _print_line(selection: str, plain: Sequence[Measured], ours: Sequence[Measured], differing: int) -> None:
    rates, costs = [], []
    for runs in (plain, ours):
        answers = sum(run.answers for run in runs)
        rates.append(answers / sum(run.seconds for run in runs))
        costs.append(sum(run.cpu_seconds for run in runs) / answers)
    print(
        f"{selection:<14}{rates[0]:>14.2f}{rates[1]:>8.2f}{rates[1] / rates[0]:>7.2f}"
        f"{costs[0]:>18.3f}{costs[1]:>8.3f}{costs[0] / costs[1]:>7.2f}  "
        f"{'equal' if not differing else f'{differing} differ'}",
        flush=True,
    )


def main() -> None:
    """Parse, and run; exit code 1 when pixels differ."""
    if sys.argv[1:2] == ["--serve-plain"]:
        given = json.loads(Path(sys.argv[2]).read_text())
        serve_app(plain_app(Mosaic(given["document"], tuple(given["assets"]))), "127.0.0.1", int(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenes", type=Path, nargs="?", default=_SCENES)
    parser.add_argument("--zoom", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--selections", nargs="+", default=["median", "first"])
    parser.add_argument("--bands", default="B4,B3,B2")
    given = parser.parse_args()
    equal = asyncio.run(run(given.scenes, given.zoom, given.rounds, given.workers, given.selections, given.bands))
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
