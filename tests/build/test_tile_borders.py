"""Tiles with a border: it is cut off, and nothing is resampled."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import MosaicError, UsageError, build_mosaic, plan_mosaic, verify_mosaic
from tests.cli.test_main import run
from tests.fake_tiler import CONTENT_TYPES, HALF_WORLD, Pattern, encode
from tests.loopback import running

pytestmark = pytest.mark.usefixtures("unblocked_loop")
AREA, ZOOM = (2.0, 46.0, 3.5, 47.0), 8
"""Two by two tiles."""
COLUMN, ROW = 129, 90


class Bordered:
    """Tiles whose borders hold what no output may show: another number than any pixel has."""

    def __init__(self, ext: str, size: int, border: int, *, scale: int = 1) -> None:
        self.ext, self.size, self.border = ext, size, border
        self.pattern = Pattern(count=1 if ext == "npy" else 3, dtype="int16" if ext == "npy" else "uint8")
        self.shift = border * scale
        self.app = web.Application()
        self.app.router.add_get("/{z}/{x}/{y}", self.tile)

    async def tile(self, request: web.Request) -> web.Response:
        z, x, y = (int(request.match_info[name]) for name in "zxy")
        inner, valid = self.pattern.expected(x * self.size, y * self.size, self.size, self.size)
        around = ((self.border, self.border),) * 2
        pixels = np.pad(inner, ((0, 0), *around), constant_values=252)
        mask = np.pad(valid, around, constant_values=True)
        span = 2 * HALF_WORLD / 2**z
        extra = span / self.size * self.shift
        west, north = x * span - HALF_WORLD, HALF_WORLD - y * span
        bounds = (west - extra, north - span - extra, west + span + extra, north + extra)
        body = encode(pixels, np.where(mask, 255, 0).astype("uint8"), self.ext, bounds)
        return web.Response(body=body, content_type=CONTENT_TYPES[self.ext])

    def assert_is_built(self, path) -> None:
        with rasterio.open(path) as dataset:
            pixels, mask = dataset.read(), dataset.dataset_mask() > 0
            assert dataset.transform.c == pytest.approx(COLUMN * 2 * HALF_WORLD / 2**ZOOM - HALF_WORLD)
        assert pixels.shape[1:] == (2 * self.size, 2 * self.size)
        expected, valid = self.pattern.expected(COLUMN * self.size, ROW * self.size, 2 * self.size, 2 * self.size)
        np.testing.assert_array_equal(mask, valid)
        np.testing.assert_array_equal(pixels[:, valid], expected[:, valid])


@pytest.mark.parametrize(
    ("ext", "size", "border", "query", "option"),
    [
        ("png", 256, 1, "", 1),
        ("tif", 256, 2, "", 2),
        ("npy", 128, 3, "?tilesize=128&buffer=3", None),
        pytest.param("tif", 512, 1, "?tilesize=512&buffer=1.0", None, marks=pytest.mark.slow),
        pytest.param("webp", 128, 60, "", 60, marks=pytest.mark.slow),
    ],
)
async def test_borders_are_cut_off(ext, size, border, query, option, tmp_path):
    tiles = Bordered(ext, size, border)
    with running(tiles.app) as url:
        template, path = url + "/{z}/{x}/{y}" + query, tmp_path / "out.tif"
        report = await build_mosaic(template, AREA, path, zoom=ZOOM, tile_border=option)
        assert (report.tile_size, report.tiles_placed) == (size, 4)
        if ext != "webp":
            tiles.assert_is_built(path)
        assert (await verify_mosaic(path, source=template, sample=4)).is_sound
        assert (await plan_mosaic(template, AREA, zoom=ZOOM, tile_border=option)).tile_size == size


async def test_what_cannot_be_a_border_is_said(tmp_path):
    tiles = Bordered("png", 256, 2)
    with running(tiles.app) as url:
        template = url + "/{z}/{x}/{y}"
        for options, words in (
            ({}, r"got 260 \(if tiles have a border, set `tile_border` 2\)"),
            ({"tile_size": 256}, "should be 256 x 256; if it has a border, set .*tile_border.* 2"),
            ({"tile_border": 1}, "got 258"),
            ({"tile_border": 2, "tile_size": 512}, "should be 516 x 516"),
            ({"tile_border": 99}, "from 0 to 60 pixels"),
        ):
            with pytest.raises(MosaicError, match=words):
                await build_mosaic(template, AREA, tmp_path / "none.tif", zoom=ZOOM, **options)
        with pytest.raises(UsageError, match=r"buffer of 0\.5 pixels"):
            await plan_mosaic(template + "?buffer=0.5", AREA, zoom=ZOOM)
        run("build", template, tmp_path / "out.tif", "--bounds", *AREA, "-z", ZOOM, "--tile-border", 2)
    tiles.assert_is_built(tmp_path / "out.tif")


async def test_a_tile_that_lies_elsewhere_with_its_border_is_refused(tmp_path):
    """Its box is one border too large, or has none."""
    for scale in (0, 2):
        with (
            running(Bordered("tif", 128, 8, scale=scale).app) as url,
            pytest.raises(MosaicError, match="another place"),
        ):
            await build_mosaic(url + "/{z}/{x}/{y}", AREA, tmp_path / "none.tif", zoom=ZOOM, tile_border=8)
