"""What jobs of any size take, from measured constants: the table of docs/scale.md. Run `python -m benchmarks.scale`.

All is arithmetic, nothing is fetched: each constant names where it was measured. Tiles are 512 pixels wide, in three
bands of bytes with a mask, and cover a square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mosaic_async.build.cost import LARGE_HEAD, head_bytes
from mosaic_async.geo.grid import COG_UNTILED_SIZE

TILE_SIZE = 512
"""Pixels per side, of a tile and of a block."""
PART_TILES = 8
"""Per side of a part of 4096 pixels."""
CPU = 0.017
"""Seconds per tile with deflate and own defaults (docs/performance.md, a law of scaling)."""
CORES = 2
"""Of a worker, as they were measured with."""
BODY = 1.05e6
"""Bytes of a tile on the way (docs/performance.md)."""
OUTPUT = 1630e6 / 2304
"""Bytes per tile in the output, overviews included (docs/performance.md, against others)."""
LATENCY = 0.2
"""Seconds per request."""
CONCURRENCY = 50
"""Requests in flight per worker."""
STITCH_MEMORY = 35_000
"""Bytes per part until a file is stitched (docs/scale.md)."""
SCHEDULING = 0.0048
"""CPU seconds of a Dask scheduler per task: 2,000 in 9.6 s (docs/scale.md)."""
DESCRIBING = 0.05
"""CPU seconds per part to validate it, to find its outline, and to write its item (docs/scale.md)."""
INDEX_ENTRY = 250
"""Bytes per part in the tile index (docs/scale.md)."""
LINK = 95
"""Bytes per part in collection.json."""
WORKERS = (1, 16, 256)
SIZES = (10**4, 10**6, 10**8)


@dataclass(frozen=True)
class Scale:
    """A job of some tiles."""

    tiles: int

    @property
    def side(self) -> int:
        """Pixels per side."""
        return math.ceil(math.sqrt(self.tiles)) * TILE_SIZE

    @property
    def parts(self) -> int:
        """Parts of 4096 pixels."""
        return math.ceil(self.tiles / PART_TILES**2)

    @property
    def output(self) -> float:
        """Bytes."""
        return self.tiles * OUTPUT

    @property
    def head(self) -> int:
        """Bytes before the first block of one file."""
        levels = max(0, math.ceil(math.log2(self.side / COG_UNTILED_SIZE)))
        return head_bytes(self.side, self.side, block_size=TILE_SIZE, levels=levels, images=2)

    @property
    def cpu(self) -> float:
        """CPU seconds of all workers."""
        return self.tiles * CPU

    def hours(self, workers: int) -> float:
        """Return the hours that this number of workers takes, if the server keeps up."""
        return self.tiles / (workers * tiles_per_second()) / 3600


def tiles_per_second() -> float:
    """Return what one worker does: what its requests in flight or its cores allow."""
    return min(CONCURRENCY / LATENCY, CORES / CPU)


def table() -> str:
    """Return the table of docs/scale.md."""
    scales = [Scale(tiles) for tiles in SIZES]
    rows = {
        "pixels per side": [f"{scale.side:,}" for scale in scales],
        "requests": [f"{scale.tiles:,}" for scale in scales],
        "download": [_bytes(scale.tiles * BODY) for scale in scales],
        "output": [_bytes(scale.output) for scale in scales],
        "parts of 4096 pixels": [f"{scale.parts:,}" for scale in scales],
        "CPU of all workers": [_hours(scale.cpu / 3600) for scale in scales],
        **{f"hours, {_workers(count)}": [_hours(scale.hours(count)) for scale in scales] for count in WORKERS},
        "Dask: scheduler, CPU": [_hours(scale.parts * SCHEDULING / 3600) for scale in scales],
        "one file: header": [_bytes(scale.head) for scale in scales],
        "one file: BigTIFF": ["yes" if scale.output > 2**32 else "no" for scale in scales],
        "one file: memory to stitch": [_bytes(scale.parts * STITCH_MEMORY) for scale in scales],
        "collection: files": [f"{2 * scale.parts + 3:,}" for scale in scales],
        "collection: to describe it, CPU": [_hours(scale.parts * DESCRIBING / 3600) for scale in scales],
        "collection: tile index": [_bytes(scale.parts * INDEX_ENTRY) for scale in scales],
        "collection: `collection.json`": [_bytes(scale.parts * LINK) for scale in scales],
        "advice": ["one file" if scale.head <= LARGE_HEAD else "collection" for scale in scales],
    }
    head = ["tiles of 512 pixels", *(f"{tiles:,}" for tiles in SIZES)]
    lines = [head, ["---", *["---:"] * len(SIZES)], *([name, *values] for name, values in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count > 1)}: {count * tiles_per_second():,.0f} requests/s"


def _bytes(count: float) -> str:
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:,.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"


if __name__ == "__main__":
    print(table())
