"""Other tools that make a raster of tiles, where they are installed: `python -m benchmarks.peers NAME ...`.

They take 8-bit pictures, so the server sends them PNG, and what they write is their own: RGB or RGBA, not always tiled
and never with overviews. So only their download is comparable; the table says which output is right.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.job import ZOOM, Job, parse_job


def contextily(job: Job) -> None:
    """Run contextily's bounds2raster."""
    import contextily as cx

    west, south, east, north = job.bounds
    inset = 1e-7  # it adds a row and a column where bounds meet tile edges
    cx.bounds2raster(
        *(west + inset, south + inset, east - inset, north - inset, str(job.output)),
        zoom=ZOOM,
        source=job.template,
        ll=True,
        n_connections=min(job.concurrency, 64),
        use_cache=False,
    )


def rasterama(job: Job) -> None:
    """Run rasterama's command."""
    west, south, east, north = (str(value) for value in job.bounds)
    program = str(Path(sys.executable).with_name("rasterama"))
    command = [program, "stitch", "--bbox", south, west, north, east, "--zoom", str(ZOOM)]
    command += ["--output", str(job.output), "--url-template", job.template, "--workers", str(job.concurrency)]
    subprocess.run([*command, "--rate-limit-ms", "0"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    {"contextily": contextily, "rasterama": rasterama}[sys.argv[1]](parse_job(sys.argv[2:]))
