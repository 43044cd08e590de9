"""The rules of a COG against rio-cogeo's, on files that keep them and files that break one each."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy
from rio_cogeo.cogeo import cog_validate as reference
from rio_cogeo.profiles import cog_profiles

from mosaic_async.raster.cog_rules import cog_validate
from mosaic_async.raster.encoding import _CODECS

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def made(path, size, *, overviews=(), external=False, **options):
    settings = {"driver": "GTiff", "width": size, "height": size, "count": 1, "dtype": "uint8", **options}
    with rasterio.open(path, "w", **settings) as file:
        file.write(np.random.default_rng(0).integers(0, 255, (1, size, size), dtype="uint8"))
    with rasterio.Env(TIFF_USE_OVR=external), rasterio.open(path, "r+") as file:
        file.build_overviews(list(overviews))
    return path


def cases(folder):
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    plain = made(folder / "tiled.tif", 1200, **tiled)
    yield plain
    yield made(folder / "small.tif", 300)
    yield made(folder / "strips.tif", 1200)
    yield made(folder / "overviews-last.tif", 1200, overviews=(2, 4, 8), **tiled)
    yield made(folder / "external.tif", 1200, overviews=(2, 4), external=True, **tiled)
    yield made(folder / "wide-blocks.tif", 1200, overviews=(2,), tiled=True, blockxsize=1200 // 16 * 16, blockysize=16)
    for number, options in enumerate(({}, {"blocksize": "128"}, {"sparse_ok": "yes"}, {"overviews": "none"})):
        cog = folder / f"cog-{number}.tif"
        copy(plain, cog, driver="COG", **options)
        yield cog
    edited = folder / "edited.tif"
    copy(plain, edited, driver="COG", compress="deflate")
    with (
        rasterio.Env(IGNORE_COG_LAYOUT_BREAK="YES"),
        rasterio.open(edited, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file,
    ):
        file.write(np.random.default_rng(1).integers(0, 255, (1, 1200, 1200), dtype="uint8"))
    yield edited
    other = folder / "other.png"
    copy(plain, other, driver="PNG")
    yield other


def test_files_are_judged_as_rio_cogeo_judges_them(tmp_path):
    verdicts = {
        path.name: (cog_validate(path)[0], reference(path, strict=True, quiet=True)[0]) for path in cases(tmp_path)
    }
    assert all(ours == theirs for ours, theirs in verdicts.values()), verdicts
    assert sum(ours for ours, _ in verdicts.values()) in range(3, len(verdicts) - 3)


def test_the_profiles_are_rio_cogeo_s():
    assert {name: str(profile.get("compress", "NONE")) for name, profile in cog_profiles.items()} == _CODECS
    assert {profile["blockxsize"] for profile in cog_profiles.values()} == {512}
