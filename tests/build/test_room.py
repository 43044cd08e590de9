"""The room that is required beforehand is what a run has on the disk at most, and not much more."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import mercantile
import numpy as np
import pytest

import mosaic_async.build.drawing
from mosaic_async import build_mosaic_sync
from tests.fake_tiler import encode
from tests.moods import says

NOISE = np.random.default_rng(3).integers(0, 255, (3, 256, 256), dtype=np.uint8)
BODY = encode(NOISE, np.full((256, 256), True), "npy", (0, 0, 1, 1))
"""A tile that no codec makes smaller."""


def area_of(columns, rows):
    west, _, _, north = mercantile.bounds(500, 400, 10)
    _, south, east, _ = mercantile.bounds(499 + columns, 399 + rows, 10)
    return (west + 1e-6, south + 1e-6, east - 1e-6, north - 1e-6)


class Watch:
    """The most bytes that a folder is seen to have."""

    def __init__(self, folder):
        self.folder, self.most, self._stop = folder, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(0.002):
            sizes = 0
            for folder, _, names in os.walk(self.folder):  # which lets pass what has just been deleted
                for name in names:
                    with suppress(OSError):
                        sizes += (Path(folder) / name).stat().st_size
            self.most = max(self.most, sizes)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("columns", "rows", "part_size"), [(4, 4, None), (5, 3, None), (8, 8, 512), (8, 7, 1024)], ids=str
)
def test_noise_takes_no_more_room_than_was_required(serve, tmp_path, monkeypatch, columns, rows, part_size):
    monkeypatch.setattr("mosaic_async.build.preflight.OPEN_PARTS", 1)  # or the bodies hide what else is counted
    tiler, told = serve(), []

    async def noise(tile, hit):
        return await says(BODY, "application/x-binary")(tiler, tile)

    tiler.mood = noise
    estimate = mosaic_async.build.drawing.bytes_needed

    def note(*args, **options):
        told.append(estimate(*args, **options))
        return told[0]

    monkeypatch.setattr(mosaic_async.build.drawing, "bytes_needed", note)
    with Watch(tmp_path) as watch:
        report = build_mosaic_sync(
            tiler.template, area_of(columns, rows), tmp_path / "out.tif", zoom=10, part_size=part_size, concurrency=2
        )
    assert report.bytes_written < watch.most <= told[0] < 8 * report.bytes_written
