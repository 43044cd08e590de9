"""The digest of an output's blocks, against one that is computed here with tifffile."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.io import MemoryFile

from mosaic_async.raster.digest import DIGEST, UNSIGNED, digest_of, recorded_digest, sign, signed
from mosaic_async.raster.tiff import read_images
from tests.damage import KINDS, damaged

TAGS = {DIGEST: UNSIGNED, "MOSAIC_SOURCE": "here & <there>"}


def write(path: Path, *, seed: int = 0, tags=TAGS, data: bool = True, **options) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 300, 500), dtype=np.uint8)
    profile = {"width": 500, "height": 300, "count": 2, "dtype": "uint8", "tiled": True, "sparse_ok": True}
    with MemoryFile(ext=".tif") as memory:
        with memory.open(driver="GTiff", transform=rasterio.Affine(2, 0, 5, 0, -2, 5), **profile) as dataset:
            if data:
                dataset.write(pixels)
            dataset.update_tags(**tags)
        rasterio.shutil.copy(memory.name, path, driver="COG", BLOCKSIZE=128, **options)
    return path


def expected(path: Path) -> str:
    total = hashlib.sha256()
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            total.update(f"{page.imagewidth} {page.imagelength} ".encode())
            for tag in sorted(page.tags.values(), key=lambda tag: tag.code):
                if tag.code not in {256, 257, 269, 270, 285, 305, 306, 315, 316, 324, 325, 33432, 42112}:
                    value = data[tag.valueoffset : tag.valueoffset + tag.valuebytecount]
                    total.update(f"{tag.code} {int(tag.dtype)} {tag.count} ".encode() + value)
            total.update(np.array(page.databytecounts, "<i8").tobytes())
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                total.update(hashlib.sha256(data[offset : offset + count]).digest() if count else bytes(32))
    return total.hexdigest()


@pytest.mark.parametrize("options", [{}, {"COMPRESS": "DEFLATE"}, {"BIGTIFF": "YES"}], ids=repr)
def test_a_file_is_signed_in_place_with_the_digest_of_all_its_blocks(tmp_path, options):
    path = write(tmp_path / "a.tif", **options)
    before = path.read_bytes()
    assert recorded_digest(read_images(path)) is None
    sign(path)
    images = read_images(path)
    assert recorded_digest(images) == digest_of(path, images) == expected(path)
    assert len(path.read_bytes()) == len(before)
    assert signed(path.read_bytes(), UNSIGNED) == before
    sign(path)
    assert recorded_digest(read_images(path)) == expected(path)


def test_a_file_without_a_place_for_it_stays_as_it_is(tmp_path):
    path = write(tmp_path / "a.tif", tags={"MOSAIC_SOURCE": "x"})
    before = path.read_bytes()
    sign(path)
    assert path.read_bytes() == before
    assert recorded_digest(read_images(path)) is None


def test_a_sparse_file_has_a_digest_too(tmp_path):
    path = write(tmp_path / "a.tif", data=False, SPARSE_OK="YES")
    sign(path)
    assert recorded_digest(read_images(path)) == expected(path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "stale"])
def test_every_kind_of_damage_changes_the_digest(tmp_path, kind):
    path, other = write(tmp_path / "a.tif", COMPRESS="LZW"), write(tmp_path / "b.tif", seed=1, COMPRESS="LZW")
    sign(path)
    recorded = recorded_digest(read_images(path))
    for seed in range(5):
        if damaged(path, other, kind, seed, tmp_path / "bad.tif"):
            assert digest_of(tmp_path / "bad.tif", read_images(tmp_path / "bad.tif")) != recorded
