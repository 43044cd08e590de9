"""Tiles in a bucket whose reader may neither list it nor read all of it: SeaweedFS, as a real server of that kind."""

from __future__ import annotations

import mercantile
import numpy as np
import pytest
import rasterio

from mosaic_async import SourceError, build_mosaic
from tests.fake_tiler import FakeTiler
from tests.map_server import PATTERN
from tests.object_server import Identity, seaweed_server

ZOOM, AREA = 8, (0.0, 44.0, 8.0, 49.0)
TILES = list(mercantile.tiles(*AREA, ZOOM))
COLUMNS = sorted({tile.x for tile in TILES})
READABLE = COLUMNS[:3]
NOBODY = Identity("anonymous", "none", tuple(f"Read:tiles/{ZOOM}/{column}/*" for column in READABLE))


@pytest.mark.slow
async def test_what_a_bucket_denies_is_empty_once_other_tiles_have_data(tmp_path):
    tiler = FakeTiler(pattern=PATTERN, ext="png")
    stored = [tile for tile in TILES if tile.x in READABLE and (tile.x + tile.y) % 3]
    with seaweed_server(tmp_path, [NOBODY]) as server:
        client = server.client()
        client.create_bucket(Bucket="tiles")
        for tile in stored:
            key = f"{ZOOM}/{tile.x}/{tile.y}.png"
            client.put_object(Bucket="tiles", Key=key, Body=tiler.body((ZOOM, tile.x, tile.y)))
        template = f"{server.endpoint}/tiles/{{z}}/{{x}}/{{y}}.png"
        report = await build_mosaic(template, AREA, tmp_path / "out.tif", zoom=ZOOM)
        denied = sum(tile.x not in READABLE for tile in TILES)
        lacking = len(TILES) - denied - len(stored)
        assert report.empty_kinds == {"denied": denied, "not found": lacking}
        assert (report.tiles_placed, report.tiles_failed) == (len(stored), 0)
        with rasterio.open(tmp_path / "out.tif") as dataset:
            pixels, mask = dataset.read(), dataset.dataset_mask() > 0
        left, top = min(COLUMNS), min(tile.y for tile in TILES)
        for tile in TILES:
            place = np.s_[(tile.y - top) * 256 :, (tile.x - left) * 256 :]
            found, valid = pixels[(slice(None), *place)][:, :256, :256], mask[place][:256, :256]
            assert valid.all() == valid.any() == (tile in stored)
            if tile in stored:
                expected, _ = PATTERN.expected(tile.x * 256, tile.y * 256, 256, 256)
                np.testing.assert_array_equal(found, expected)
        with pytest.raises(SourceError, match="fail"):
            await build_mosaic(template.replace("/tiles/", "/other/"), AREA, tmp_path / "none.tif", zoom=ZOOM)
