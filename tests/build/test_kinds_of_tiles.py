"""Every kind of tile beside every other kind, in both orders: the same file, and what NumPy and the formats say."""

from __future__ import annotations

import asyncio
from itertools import combinations

import mercantile
import numpy as np
import pytest
import rasterio

from mosaic_async.build.job import Effort, Job
from mosaic_async.build.layout import prepare
from mosaic_async.build.part_files import PartFiles
from mosaic_async.build.part_writer import PartWriter
from mosaic_async.build.proof import Proof
from mosaic_async.errors import TileError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.raster.few_values import FewValues
from mosaic_async.raster.tile import learn
from mosaic_async.sources.source import TileSource
from tests.build.test_unlike_tiles import (
    ALL,
    SIZE,
    array,
    data,
    grey_alpha_png,
    grey_png,
    jpeg,
    keyed_png,
    palette_png,
    rgba_png,
    values,
    webp,
)
from tests.pictures import GREY, RGB, png
from tests.raster.test_meaning import tiff


def deep_png(bands):
    def make(seed):
        found = values(seed, bands, 0, 2**16).transpose(1, 2, 0)
        key = found[0, 0]
        body = png(found, kind=RGB if bands == 3 else GREY, depth=16, transparent=key, interlaced=True)
        return body, found, (found != key).any(axis=-1)

    return make


def bits_tiff(seed):
    """Return a TIFF of one bit, which has black and white as its colours."""
    found = values(seed, 1, 0, 2)
    return tiff(found.astype("uint8"), nbits=1), np.repeat(found[0][..., None] * 255, 3, axis=-1), ALL


DTYPES = ("uint8", "int8", "int16", "uint32", "float32", "float64")
KINDS = {
    **{f"grey png of {depth} bits": (grey_png(depth), "uint8") for depth in (1, 2, 4, 8)},
    "grey png of 16 bits": (deep_png(1), "uint16"),
    "png of 16 bits": (deep_png(3), "uint16"),
    "png with a transparent colour": (keyed_png, "uint8"),
    "png with a palette": (palette_png, "uint8"),
    "png with grey and opacity": (grey_alpha_png, "uint8"),
    "png with opacity": (rgba_png, "uint8"),
    "jpeg": (jpeg(3), "uint8"),
    "grey jpeg": (jpeg(1), "uint8"),
    "webp": (webp, "uint8"),
    "tiff of a bit": (bits_tiff, "uint8"),
    **{
        f"tiff of {dtype}": (data(dtype), dtype) for dtype in ("uint8", "int8", "int16", "uint32", "float32", "float64")
    },
    "tiff with nodata": (data("int16", nodata=-9999), "int16"),
    "tiff with nodata of 0": (data("uint8", nodata=0), "uint8"),
    "tiff with nodata of NaN": (data("float32", nodata=np.nan), "float32"),
    **{f"npy of {dtype}": (array(dtype), "float32" if dtype == "float16" else dtype) for dtype in ("float16", "int32")},
}
BANDS = {name: 1 if "grey" in name or name.startswith(("npy", "tiff of ", "tiff with")) else 3 for name in KINDS}
BANDS["tiff of a bit"] = 3
_ORDER = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")
PAIRS = list(combinations(KINDS, 2))
QUICK = [PAIRS[index] for index in np.random.default_rng(13).choice(len(PAIRS), 16, replace=False)]

WEST, EAST = mercantile.Tile(64, 48, 7), mercantile.Tile(65, 48, 7)
_BOUNDS = mercantile.bounds(WEST)
AREA = (_BOUNDS.west + 0.1, _BOUNDS.south + 0.1, mercantile.bounds(EAST).east - 0.1, _BOUNDS.north - 0.1)


async def written(folder, arrivals):
    """Write a part of tiles that arrive in this order."""
    job = Job(source=TileSource(template="http://127.0.0.1/{z}/{x}/{y}"), area=Area.parse(AREA), zoom=7)
    cover = Cover.of(job.area, 7, max_tiles=2)
    layout = prepare(job, Effort(), cover, learn(arrivals[0][1]))
    files = PartFiles(folder, Proof("job"))
    writer = PartWriter(job, layout, files, None, FewValues())
    (part,) = layout.grid.parts()
    tiles = {(tile.x, tile.y): tile for tile in layout.grid.tiles(part)}
    for tile, body in arrivals:
        await writer.place(part, tiles[tile.x, tile.y], body)
    await writer.seal(part, tags={})
    await writer.close()
    return files.cog(part)


def beside(pair):
    (one, _), (other, _) = (KINDS[name] for name in pair)
    made = one(1), other(2)
    bands = max(BANDS[name] for name in pair)
    pixels = np.concatenate([np.broadcast_to(found[1][..., :bands], (SIZE, SIZE, bands)) for found in made], axis=1)
    return [found[0] for found in made], pixels.astype("float64"), np.concatenate([found[2] for found in made], axis=1)


def is_measurement_beside_colours(pair):
    return len({BANDS[name] for name in pair}) > 1 and not {KINDS[name][1] for name in pair} <= {"uint8", "uint16"}


def check(tmp_path, pair):
    if is_measurement_beside_colours(pair):
        with pytest.raises(TileError, match="band count"):
            asyncio.run(written(tmp_path, list(zip((WEST, EAST), beside(pair)[0], strict=True))))
        return
    bodies, pixels, valid = beside(pair)
    arrivals = list(zip((WEST, EAST), bodies, strict=True))
    paths = [asyncio.run(written(tmp_path / f"{index}", arrivals[::step])) for index, step in enumerate((1, -1))]
    assert paths[0].read_bytes() == paths[1].read_bytes(), pair
    dtypes = [KINDS[name][1] for name in pair]
    expected = next(dtype for dtype in _ORDER if all(np.can_cast(one, dtype) for one in dtypes))
    with rasterio.open(paths[0]) as dataset:
        assert (dataset.dtypes[0], dataset.count) == (expected, pixels.shape[-1]), pair
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid, err_msg=str(pair))
        found = np.moveaxis(dataset.read(), 0, -1)
        np.testing.assert_array_equal(found[valid], pixels[valid], err_msg=str(pair))


def test_some_kinds_of_tiles_beside_others(tmp_path):
    for index, pair in enumerate(QUICK):
        check(tmp_path / str(index), pair)


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=" and ".join)
def test_every_kind_of_tile_beside_every_other(tmp_path, pair):
    check(tmp_path, pair)
