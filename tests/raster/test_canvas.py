"""A canvas that was kept on the disk between two tiles becomes the file that it would have become."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from mosaic_async.errors import ResourceError
from mosaic_async.raster.canvas import Canvas
from tests.pyramid_reader import assert_same_levels
from tests.raster.test_stitch import BLOCK, encoding_of

HEIGHT, WIDTH = 3 * BLOCK - 11, 2 * BLOCK + 5
COMMON = ("deflate", "uint8", 3, "internal")
KINDS = [
    ("zstd", "float32", 1, "none"),
    ("jpeg", "uint8", 3, "internal"),
    ("webp", "uint8", 3, "alpha"),
    ("webp", "uint8", 4, "internal"),
    ("lerc", "float32", 3, "internal"),
    ("raw", "uint8", 3, "internal"),
    ("deflate", "uint16", 4, "alpha"),
    ("deflate", "int16", 3, "nodata"),
]


def pieces(encoding):
    """Return four quarters of noise with holes, one of them wholly without data, and the window of each."""
    chance = np.random.default_rng(5)
    found = []
    for row_off, col_off in ((0, 0), (0, BLOCK), (BLOCK, 0), (BLOCK, BLOCK)):
        height, width = (HEIGHT - BLOCK if row_off else BLOCK), (WIDTH - BLOCK if col_off else BLOCK)
        pixels = chance.integers(0, 255, (encoding.count, height, width)).astype(encoding.dtype)
        mask = (chance.random((height, width)) > 0.3).astype(np.uint8) * 255
        if (row_off, col_off) == (BLOCK, 0):
            mask[:] = 0
        found.append((pixels, mask, Window(col_off, row_off, width, height)))
    return found


def canvas_for(encoding) -> Canvas:
    return Canvas(HEIGHT, WIDTH, 2, rasterio.Affine(2, 0, 0, 0, -2, 0), encoding)


@pytest.mark.parametrize(
    ("kind", "kept_after"), [(COMMON, 0), (COMMON, 1), (COMMON, 3), *((kind, 2) for kind in KINDS)]
)
def test_a_kept_canvas_becomes_the_same_file(tmp_path, kind, kept_after):
    encoding = encoding_of(*kind)
    found = pieces(encoding)
    with canvas_for(encoding) as canvas:
        for piece in found:
            canvas.place(*piece)
        canvas.seal(tmp_path / "straight.tif", top=tmp_path / "straight.top.tif")
    with canvas_for(encoding) as canvas:
        for piece in found[:kept_after]:
            canvas.place(*piece)
        canvas.keep(tmp_path / "kept.tif")
        canvas.seal(tmp_path / "provisional.tif")
    with canvas_for(encoding) as canvas:
        canvas.restore(tmp_path / "kept.tif")
        for piece in found[kept_after:]:
            canvas.place(*piece)
        canvas.seal(tmp_path / "later.tif", top=tmp_path / "later.top.tif")
    for suffix in (".tif", ".top.tif"):
        assert_same_levels(tmp_path / f"later{suffix}", tmp_path / f"straight{suffix}")
    assert {path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")} == set()


def test_an_empty_canvas_takes_little_room(tmp_path):
    encoding = encoding_of("deflate", "uint8", 3, "internal")
    with Canvas(4096, 4096, 3, rasterio.Affine(2, 0, 0, 0, -2, 0), encoding) as canvas:
        canvas.keep(tmp_path / "kept.tif")
    assert (tmp_path / "kept.tif").stat().st_size < 50_000


def test_a_canvas_that_cannot_be_kept_says_so_and_can_still_be_filled(tmp_path):
    encoding = encoding_of("deflate", "uint8", 3, "internal")
    with canvas_for(encoding) as canvas:
        with pytest.raises(ResourceError, match="cannot be written"):
            canvas.keep(tmp_path / "nowhere" / "kept.tif")
        for piece in pieces(encoding):
            canvas.place(*piece)
        canvas.seal(tmp_path / "out.tif")
