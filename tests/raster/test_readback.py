"""What GDAL or the disk lost is found before a file counts, in masks too."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from rio_cogeo import cog_validate

from mosaic_async.errors import ResourceError
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.readback import blocks_with_data, check_blocks
from tests.pyramid_reader import read_levels
from tests.raster.test_stitch import BLOCK, build, encoding_of, grid_of, source_pixels

BLOCKS = {"stitched": 1, "sealed at once": 16}


@pytest.fixture(scope="module", params=BLOCKS)
def built(request, tmp_path_factory) -> Path:
    folder, grid = tmp_path_factory.mktemp("built") / "a", grid_of(part_blocks=BLOCKS[request.param])
    return build(grid, encoding_of("zstd", "uint8", 3, "internal"), folder)


@pytest.fixture
def cog(built, tmp_path) -> Path:
    return shutil.copy(built, tmp_path / "a.tif")


def images_of(path: Path) -> int:
    with rasterio.open(path) as dataset:
        return 2 * (len(dataset.overviews(1)) + 1)


def damage(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def offsets_of_masks(path: Path) -> list[tuple[int, int]]:
    """Return offset and size of each mask block, by tifffile."""
    with tifffile.TiffFile(path) as tiff:
        masks = [page for page in tiff.pages if page.subfiletype & 4]
        return sorted({pair for page in masks for pair in zip(page.dataoffsets, page.databytecounts, strict=True)})


def test_a_whole_file_passes(cog):
    check_blocks(cog, images_of(cog))


def test_a_file_whose_masks_cannot_be_read_is_refused_although_it_is_strictly_valid(cog):
    offset, size = offsets_of_masks(cog)[-1]
    damage(cog, offset + 2, bytes(size - 6))
    assert cog_validate(cog, strict=True, quiet=True)[0]
    with pytest.raises(ResourceError, match=f"the mask at byte {offset:,} is damaged"):
        check_blocks(cog, images_of(cog))


def is_refused(cog: Path) -> bool:
    try:
        check_blocks(cog, images_of(cog))
    except ResourceError:
        return True
    return False


def test_one_flipped_bit_in_a_mask_block_of_any_level_is_found_if_it_changes_a_pixel(cog):
    whole = cog.read_bytes()
    masks, refused = [level.mask for level in read_levels(cog)], 0
    for offset, size in offsets_of_masks(cog):
        for place in (offset, offset + size // 2, offset + size - 1):
            damage(cog, place, bytes([whole[place] ^ 4]))
            if is_refused(cog):
                refused += 1
            else:  # a bit of padding
                for level, mask in zip(read_levels(cog), masks, strict=True):
                    np.testing.assert_array_equal(level.mask, mask)
            damage(cog, place, whole[place : place + 1])
    assert refused > 2 * len(offsets_of_masks(cog))
    assert not is_refused(cog)


def test_a_file_that_ends_early_or_lacks_an_image_is_refused(cog):
    images, data = images_of(cog), cog.read_bytes()
    with pytest.raises(ResourceError, match="images"):
        check_blocks(cog, images + 1)
    cog.write_bytes(data[:-200])
    with pytest.raises(ResourceError):
        check_blocks(cog, images)
    cog.write_bytes(data[:300])
    with pytest.raises(ResourceError, match=r"the header of .* is damaged"):
        check_blocks(cog, images)


def test_a_damaged_header_is_an_error_or_harmless_and_never_a_crash(cog):
    images, whole = images_of(cog), cog.read_bytes()
    for place in range(4, 2000, 7):
        damage(cog, place, b"\xff\xff\xff")
        with suppress(ResourceError):
            check_blocks(cog, images)
        damage(cog, place, whole[place : place + 3])
    check_blocks(cog, images)


@pytest.mark.quick(2)
@pytest.mark.parametrize("part_blocks", BLOCKS.values())
@pytest.mark.parametrize("sparse", ["NO", "YES"])
def test_blocks_with_data_are_those_whose_mask_has_a_valid_pixel(tmp_path, part_blocks, sparse):
    options = {"BLOCKSIZE": str(BLOCK), "SPARSE_OK": sparse}
    encoding, grid = encoding_of("zstd", "uint8", 3, "internal", creation_options=options), grid_of(9, 8, part_blocks)
    _, mask = source_pixels(grid, encoding)
    expected = mask.reshape(8, BLOCK, 9, BLOCK).any(axis=(1, 3)).sum()
    assert 0 < expected < 72
    assert blocks_with_data(build(grid, encoding, tmp_path / "a")) == expected


def test_without_a_mask_all_blocks_count_that_are_not_left_out(tmp_path):
    assert blocks_with_data(build(grid_of(9, 8), encoding_of("zstd", "uint8", 3, "none"), tmp_path / "a")) == 72


def test_a_file_without_a_valid_pixel_has_no_block_with_data(tmp_path):
    encoding, path = encoding_of("deflate", "int16", 1, "internal"), tmp_path / "a.tif"
    with Canvas(300, 300, 1, grid_of().transform(), encoding) as canvas:
        canvas.seal(path)
    assert blocks_with_data(path) == 0
    with rasterio.open(path) as dataset:
        assert not np.any(dataset.dataset_mask())
