"""Many parts are one part: same pixels and masks on every level, whatever is stored and however it is packed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.enums import Resampling
from rasterio.windows import Window
from rio_cogeo import cog_validate
from rio_tiler.io import Reader

from mosaic_async.errors import StitchError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.geo.grid import Grid
from mosaic_async.geo.matrix import web_mercator
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.journal import Journal
from mosaic_async.raster.plates import Model, Plate
from mosaic_async.raster.tile import TileFormat
from mosaic_async.raster.unfinished import Unfinished
from tests.fake_tiler import Pattern
from tests.pairwise import quick_values
from tests.pyramid_reader import assert_same_levels, read_levels
from tests.raster.assembling import assemble

BLOCK = 128
METHODS = ["nearest", "average", "mode", "rms"]
LOSSLESS = list(
    product(["deflate", "zstd", "lzw"], ["uint8", "uint16", "int16", "float32"], [1, 2, 3, 4, 5], ["internal", "none"])
)
LOSSY = [
    *product(["jpeg"], ["uint8"], [1, 2, 3, 4], ["internal", "none"]),
    *product(["webp"], ["uint8"], [3], ["internal", "none", "alpha"]),
    *product(["webp"], ["uint8"], [4], ["internal", "none"]),
]
OTHERS = [
    *product(["lerc"], ["uint8", "float32"], [1, 3], ["internal", "none"]),
    *product(["raw", "packbits", "lzma"], ["uint8"], [3], ["internal"]),
    *product(["deflate"], ["uint8", "uint16"], [1, 3, 4], ["alpha"]),
    *product(["deflate"], ["int16", "float32"], [1, 3], ["nodata"]),
]


def with_methods(kinds: list[tuple], methods: list[str]) -> list:
    """Cross kinds of files with methods; overviews are made before anything is encoded, so few codecs see them all."""
    return quick_values((*kind, method) for kind, method in product(kinds, methods))


def encoding_of(profile, dtype, count, mask, **options) -> Encoding:
    colors = ("red", "green", "blue") if count == 3 and dtype == "uint8" else ()
    tile = TileFormat(size=BLOCK, count=count, dtype=dtype, colorinterp=colors)
    options.setdefault("creation_options", {"BLOCKSIZE": str(BLOCK)})
    nodata = -3000.0 if mask == "nodata" else None
    return Encoding.of(tile, profile=profile, mask=mask, nodata=nodata, **options)


def grid_of(columns=4, rows=5, part_blocks=1, tile_size=BLOCK, **options) -> Grid:
    cover = Cover(matrix=web_mercator(10), left=500, top=400, columns=columns, rows=rows)
    return Grid(cover=cover, tile_size=tile_size, block_size=BLOCK, part_blocks=part_blocks, **options)


def source_pixels(grid: Grid, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Return a pattern with a corner and a middle without data, larger than several parts."""
    pattern = Pattern(
        count=encoding.count, dtype=encoding.dtype, smooth=encoding.options["COMPRESS"] in ("JPEG", "WEBP")
    )
    pixels, valid = pattern.expected(500 * BLOCK, 400 * BLOCK, grid.height, grid.width)
    valid[: 2 * BLOCK + 5, : 2 * BLOCK + 7] = False
    valid[3 * BLOCK : 4 * BLOCK, 2 * BLOCK : 3 * BLOCK] = False
    pixels[:, : 2 * BLOCK, : 2 * BLOCK] = 0
    pixels[:, 3 * BLOCK : 4 * BLOCK, 2 * BLOCK : 3 * BLOCK] = 0
    return pixels, np.where(valid, np.uint8(255), np.uint8(0))


def build(grid: Grid, encoding: Encoding, folder: Path, tags=None, **options) -> Path:
    """Build from arrays what the pipeline builds from tiles."""
    return assemble(grid, encoding, folder, seal_parts(grid, encoding, folder, tags), tags or {}, **options)


def seal_parts(grid: Grid, encoding: Encoding, folder: Path, tags=None) -> dict[tuple[int, int], Path]:
    folder.mkdir()
    pixels, mask = source_pixels(grid, encoding)
    parts = {}
    for part in grid.parts():
        rows = slice(part.row_off, part.row_off + part.height)
        cols = slice(part.col_off, part.col_off + part.width)
        if encoding.mask != "none" and not mask[rows, cols].any():
            continue
        path = folder / f"{part.name}.tif"
        with Canvas(part.height, part.width, grid.part_levels, grid.transform(part), encoding) as canvas:
            canvas.place(pixels[:, rows, cols], mask[rows, cols], Window(0, 0, part.width, part.height))
            canvas.seal(path, tags=tags, top=path.with_suffix(".top.tif"))
        parts[part.row, part.col] = path
    return parts


def stitch(plates: list[Plate], blank: Path, output: Path, *, width: int, height: int) -> None:
    model = Model.read(blank)
    runs = [(plate.path, model.blocks_of(plate, width=width, height=height)) for plate in plates]
    journal = Journal(path=output.with_suffix(".journal"), label="", layout="", model="", base=0)
    for index, run in enumerate(runs):
        Unfinished(output, 0, journal).append((0, index), [run])


def same_for_all_part_sizes(encoding: Encoding, folder: Path, **grid_options) -> tuple[Path, Path]:
    one = build(grid_of(part_blocks=16, **grid_options), encoding, folder / "one")
    many = build(grid_of(part_blocks=1, **grid_options), encoding, folder / "many")
    assert_same_levels(many, one)
    return one, many


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("profile", "dtype", "count", "mask", "method"), with_methods(LOSSLESS, ["nearest", "average", "mode"])
)
def test_parts_of_one_block_give_what_one_part_gives(tmp_path, profile, dtype, count, mask, method):
    encoding = encoding_of(profile, dtype, count, mask, overview_resampling=method)
    one, many = same_for_all_part_sizes(encoding, tmp_path)
    pixels, valid = source_pixels(grid_of(), encoding)
    for path in (one, many):
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(), pixels)
            expected = valid if mask == "internal" else np.full_like(valid, 255)
            np.testing.assert_array_equal(dataset.dataset_mask(), expected)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("profile", "dtype", "count", "mask", "method"),
    with_methods([*LOSSY, *OTHERS], METHODS),
)
def test_lossy_and_rarer_codecs_and_masks_too(tmp_path, profile, dtype, count, mask, method):
    same_for_all_part_sizes(encoding_of(profile, dtype, count, mask, overview_resampling=method), tmp_path)


@pytest.mark.quick(2)
@pytest.mark.parametrize(("shape", "part_blocks"), quick_values(product([(9, 1), (1, 9), (11, 7), (33, 2)], [2, 4, 8])))
def test_every_part_size_and_shape_gives_the_same(tmp_path, part_blocks, shape):
    encoding = encoding_of("zstd", "uint8", 3, "internal")
    columns, rows = shape
    one = build(grid_of(columns, rows, 64), encoding, tmp_path / "one")
    many = build(grid_of(columns, rows, part_blocks), encoding, tmp_path / "many")
    assert_same_levels(many, one)


@pytest.mark.parametrize(
    "method", ["average", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nearest", "mode"))]
)
def test_levels_above_a_part_are_made_in_rounds_when_there_are_many_parts(tmp_path, method, monkeypatch):
    monkeypatch.setattr("mosaic_async.raster.pyramid._STEP", 2)  # squares of 4 x 4 parts, so that few parts fill many
    encoding = encoding_of("zstd", "int16", 2, "internal", overview_resampling=method)
    one = build(grid_of(10, 9, 64), encoding, tmp_path / "one")
    many = build(grid_of(10, 9, 1), encoding, tmp_path / "many")
    assert len(list((tmp_path / "many" / "upper").glob("[0-9]-*-*.top.tif"))) > 9
    assert len(read_levels(many)) == 5
    assert_same_levels(many, one)


@pytest.mark.parametrize("shape", [(35, 2), (3, 35)])
def test_rounds_take_sixteen_parts_a_side(tmp_path, shape):
    encoding = encoding_of("zstd", "uint8", 1, "internal")
    one = build(grid_of(*shape, 64), encoding, tmp_path / "one")
    many = build(grid_of(*shape, 1), encoding, tmp_path / "many")
    assert len(list((tmp_path / "many" / "upper").glob("[0-9]-*-*.top.tif"))) == 3 + 1
    assert_same_levels(many, one)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("method", "mask", "count", "dtype"),
    quick_values(product(METHODS, ["internal", "none"], [1, 3, 5], ["uint8", "uint16", "int16", "float32"])),
)
def test_overviews_are_gdal_s(tmp_path, dtype, count, mask, method):
    """The oracle is GDAL alone, a level at a time: each is made from a file that holds the level above it."""
    encoding = encoding_of("deflate", dtype, count, mask, overview_resampling=method)
    found = read_levels(build(grid_of(4, 8), encoding, tmp_path / "many"))
    above = found[0]
    for level in found[1:]:
        path = tmp_path / "level.tif"
        height, width = above.mask.shape
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            with rasterio.open(
                path, "w", driver="GTiff", count=count, height=height, width=width, dtype=dtype, tiled=True,
                blockxsize=BLOCK, blockysize=BLOCK, interleave="pixel", photometric="MINISBLACK", alpha="NO",
                crs="EPSG:3857", transform=rasterio.transform.from_origin(0, 0, 10, 10),
            ) as dataset:  # fmt: skip
                dataset.write(above.pixels)
                if mask == "internal":
                    dataset.write_mask(above.mask)
            with rasterio.open(path, "r+") as dataset:
                dataset.build_overviews([2], Resampling[method])
        expected = read_levels(path)[1]
        np.testing.assert_array_equal(level.mask, expected.mask)
        np.testing.assert_array_equal(level.pixels, expected.pixels)
        above = level


def test_a_width_that_does_not_halve_loses_no_column(tmp_path):
    area = Area.parse((-4.0, 38.0, -3.199, 38.7))
    encoding = encoding_of("deflate", "uint8", 1, "none", overview_resampling="nearest")
    grids = [
        Grid(cover=Cover.of(area, 10), tile_size=BLOCK, block_size=BLOCK, part_blocks=n, clip=area) for n in (16, 1)
    ]
    assert grids[0].width == 293
    one, many = (build(grid, encoding, tmp_path / str(n)) for n, grid in enumerate(grids))
    assert_same_levels(many, one)
    full, half = read_levels(one)[:2]
    assert half.pixels.shape == (1, -(-full.pixels.shape[1] // 2), -(-full.pixels.shape[2] // 2))
    np.testing.assert_array_equal(half.pixels, full.pixels[:, ::2, ::2])


@pytest.mark.quick(2)
@pytest.mark.parametrize("profile", ["deflate", "zstd", "lzw", "webp", "jpeg", "lerc"])
def test_the_file_is_a_strictly_valid_cog_that_all_readers_understand(tmp_path, profile):
    encoding = encoding_of(profile, "uint8", 3, "internal")
    grid = grid_of()
    path = build(grid, encoding, tmp_path / "many", {"MOSAIC_SOURCE": "here & <there>", "TIFFTAG_SOFTWARE": "us"})
    assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    full = read_levels(path)[0]
    with rasterio.open(path) as dataset:
        assert dataset.tags()["MOSAIC_SOURCE"] == "here & <there>"
        assert dataset.tags()["TIFFTAG_SOFTWARE"] == "us"
        assert [band.name for band in dataset.colorinterp] == ["red", "green", "blue"]
        assert dataset.transform.almost_equals(grid.transform(), precision=1e-9)
        assert dataset.crs.to_epsg() == 3857
    with Reader(str(path)) as reader:
        np.testing.assert_array_equal(reader.read().array.data, full.pixels)
    with tifffile.TiffFile(path) as tiff:
        assert_close(np.moveaxis(tiff.pages[0].asarray(), -1, 0), full.pixels, profile)
    if profile != "lerc":  # async-tiff has no LERC decoder
        found = asyncio.run(read_with_async_geotiff(path))
        assert_close(found.data, full.pixels, profile)
        np.testing.assert_array_equal(found.mask, full.mask > 0)


def assert_close(found: np.ndarray, expected: np.ndarray, profile: str) -> None:
    """Compare exactly, or, as JPEG decoders smooth colours differently, on the whole."""
    if profile == "jpeg":
        assert np.abs(found.astype(int) - expected).mean() < 2
    else:
        np.testing.assert_array_equal(found, expected)


async def read_with_async_geotiff(path: Path):
    from async_geotiff import GeoTIFF
    from obstore.store import LocalStore

    return await (await GeoTIFF.open(path.name, store=LocalStore(path.parent))).read()


def test_blocks_without_data_share_one_empty_block_an_image(tmp_path):
    path = build(grid_of(9, 8, 1), encoding_of("deflate", "uint8", 3, "internal"), tmp_path / "many")
    with tifffile.TiffFile(path) as tiff:
        offsets = np.asarray(tiff.pages[0].dataoffsets).reshape(8, 9)
    assert len({*offsets[:2, :2].ravel(), offsets[3, 2]}) == 1
    assert len(set(offsets.ravel())) == 72 - 4


def test_sparse_blocks_are_left_out_when_asked(tmp_path):
    options = {"BLOCKSIZE": str(BLOCK), "SPARSE_OK": "YES"}
    encoding = encoding_of("deflate", "uint8", 3, "internal", creation_options=options)
    path = build(grid_of(), encoding, tmp_path / "many")
    dense = build(grid_of(), encoding_of("deflate", "uint8", 3, "internal"), tmp_path / "dense")
    with tifffile.TiffFile(path) as tiff:
        assert 0 in tiff.pages[0].dataoffsets
    assert_same_levels(path, dense)


@pytest.mark.parametrize("bigtiff", ["YES", "NO", "IF_SAFER"])
def test_bigtiff_is_written_when_asked_and_reads_the_same(tmp_path, bigtiff):
    options = {"BLOCKSIZE": str(BLOCK), "BIGTIFF": bigtiff}
    encoding = encoding_of("zstd", "uint16", 3, "internal", creation_options=options)
    path = build(grid_of(), encoding, tmp_path / "many")
    assert path.read_bytes()[:4] == (b"II+\0" if bigtiff == "YES" else b"II*\0")
    assert cog_validate(path, strict=True, quiet=True)[0]
    assert_same_levels(path, build(grid_of(part_blocks=16), encoding, tmp_path / "one"))


def test_a_mosaic_above_four_gigabytes_becomes_a_bigtiff_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("mosaic_async.raster.stitch._CLASSIC_LIMIT", 50_000)
    path = build(grid_of(), encoding_of("deflate", "uint8", 3, "internal"), tmp_path / "many")
    assert path.read_bytes()[:4] == b"II+\0"
    assert cog_validate(path, strict=True, quiet=True)[0]


@pytest.mark.parametrize(
    "other",
    [
        encoding_of("zstd", "uint8", 3, "internal"),
        encoding_of("deflate", "uint8", 3, "none"),
        encoding_of("deflate", "uint16", 3, "internal"),
        encoding_of("deflate", "uint8", 3, "internal", creation_options={"BLOCKSIZE": "128", "PREDICTOR": "NO"}),
    ],
)
def test_parts_that_are_encoded_differently_are_an_error_and_never_reencoded(tmp_path, other):
    encoding = encoding_of("deflate", "uint8", 3, "internal")
    for name, kind in (("blank", encoding), ("part", other)):
        with Canvas(2 * BLOCK, 2 * BLOCK, 1, grid_of().transform(), kind) as canvas:
            canvas.seal(tmp_path / f"{name}.tif")
    plates = [Plate(tmp_path / "part.tif", level=0, row=0, col=0)]
    with pytest.raises(StitchError, match=r"part\.tif"):
        stitch(plates, tmp_path / "blank.tif", tmp_path / "out.tif", width=256, height=256)
    assert not (tmp_path / "out.tif").exists()


def test_jpeg_parts_of_different_quality_are_an_error(tmp_path):
    options = [{"BLOCKSIZE": "128", "QUALITY": quality} for quality in ("75", "60")]
    for name, option in zip(("blank", "part"), options, strict=True):
        encoding = encoding_of("jpeg", "uint8", 3, "internal", creation_options=option)
        with Canvas(2 * BLOCK, 2 * BLOCK, 1, grid_of().transform(), encoding) as canvas:
            canvas.seal(tmp_path / f"{name}.tif")
    plates = [Plate(tmp_path / "part.tif", level=0, row=0, col=0)]
    with pytest.raises(StitchError, match="JPEGTables"):
        stitch(plates, tmp_path / "blank.tif", tmp_path / "out.tif", width=256, height=256)


def test_a_part_that_was_cut_short_is_an_error(tmp_path):
    grid, encoding = grid_of(), encoding_of("deflate", "uint8", 3, "internal")
    build(grid, encoding, tmp_path / "many")
    part = seal_parts(grid, encoding, tmp_path / "parts")[2, 2]
    part.write_bytes(part.read_bytes()[:-100])
    plates = [Plate(part, level=0, row=0, col=0)]
    with pytest.raises(StitchError, match="ends before its last block"):
        stitch(plates, tmp_path / "many" / "upper" / "blank.tif", tmp_path / "out.tif", width=128, height=128)


def test_all_bands_keep_their_names_and_meaning(tmp_path):
    encoding = encoding_of("deflate", "uint16", 4, "internal")
    encoding = replace(
        encoding, descriptions=("B4", "B3", None, "NIR & more"), colorinterp=("red", "green", "blue", "undefined")
    )
    for blocks in (1, 16):
        path = build(grid_of(part_blocks=blocks), encoding, tmp_path / str(blocks))
        with rasterio.open(path) as dataset:
            assert dataset.descriptions == ("B4", "B3", None, "NIR & more")
            assert [band.name for band in dataset.colorinterp] == ["red", "green", "blue", "undefined"]
