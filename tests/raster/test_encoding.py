"""What the output can hold is known before the first tile is requested."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from affine import Affine
from rasterio.windows import Window
from rio_cogeo.profiles import cog_profiles

from mosaic_async.errors import UsageError
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import _BLOCK_SIZE, _CODECS, PROFILES, Encoding
from mosaic_async.raster.tile import TileFormat


def tile(count=3, dtype="uint8", **options):
    return TileFormat(size=256, count=count, dtype=dtype, **options)


def test_auto_keeps_a_mask_inside_the_file():
    encoding = Encoding.of(tile())
    assert (encoding.mask, encoding.nodata, encoding.bands) == ("internal", None, 3)


def test_auto_keeps_a_mask_as_alpha_for_webp():
    encoding = Encoding.of(tile(), profile="webp")
    assert (encoding.mask, encoding.bands) == ("alpha", 4)


@pytest.mark.parametrize(
    ("given", "of_tile", "found"), [(None, -9999.0, -9999.0), (-1.0, -9999.0, -1.0), (0.0, None, 0.0)]
)
def test_auto_means_nodata_where_the_user_or_the_tiles_have_one(given, of_tile, found):
    encoding = Encoding.of(tile(dtype="int16", nodata=of_tile), nodata=given)
    assert (encoding.mask, encoding.nodata) == ("nodata", found)


def test_gtiff_spellings_of_options_are_understood():
    encoding = Encoding.of(tile(), creation_options={"zlevel": "9", "BLOCKXSIZE": "256", "predictor": "2"})
    assert encoding.block_size == 256
    assert encoding.options["LEVEL"] == "9"
    assert encoding.options["PREDICTOR"] == "2"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_of_rio_cogeo_has_a_codec(profile):
    assert Encoding.of(tile(), profile=profile).options["COMPRESS"]


@pytest.mark.parametrize(
    ("pixels", "options", "says"),
    [
        (tile(), {"profile": "gif"}, "gif"),
        (tile(), {"creation_options": {"GDAL_NUM_THREAHDS": "2"}}, "THREAHDS"),
        (tile(), {"creation_options": {"BLOCKSIZE": "500"}}, "BLOCKSIZE"),
        (tile(), {"creation_options": {"BLOCKSIZE": "big"}}, "BLOCKSIZE"),
        (tile(dtype="uint16"), {"profile": "jpeg"}, "uint8"),
        (tile(dtype="uint16"), {"profile": "webp"}, "uint8"),
        (tile(count=5), {"profile": "jpeg"}, "four bands"),
        (tile(), {"profile": "jpeg", "mask": "alpha"}, "alpha"),
        (tile(count=1), {"profile": "webp"}, "3 bands"),
        (tile(dtype="float32"), {"mask": "alpha"}, "alpha"),
        (tile(), {"mask": "nodata"}, "nodata"),
        (tile(), {"mask": "sometimes"}, "sometimes"),
        (tile(), {"nodata": -1.0}, "nodata -1"),
        (tile(), {"nodata": 0.0, "mask": "alpha"}, "exclude each other"),
        (tile(), {"nodata": 0.0, "mask": "internal"}, "exclude each other"),
        (tile(), {"nodata": 256.0}, "nodata 256"),
        (tile(), {"dtype": "complex64"}, "complex64"),
        (tile(), {"dtype": "uint7"}, "uint7"),
        (tile(), {"overview_resampling": "cubic"}, "seam"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_a_reason(pixels, options, says):
    with pytest.raises(UsageError, match=says):
        Encoding.of(pixels, **options)


@pytest.mark.parametrize("resampling", ["average", "mode"])
@pytest.mark.parametrize("profile", ["deflate", "zstd", "lzw", "lerc", "jpeg", "webp", "raw"])
def test_overviews_are_compressed_as_the_image_is(tmp_path, gdal_variable, profile, resampling):
    gdal_variable("COMPRESS_OVERVIEW", "LZMA")
    gdal_variable("PREDICTOR_OVERVIEW", "2")
    options = {"creation_options": {"BLOCKSIZE": "128"}, "overview_resampling": resampling}
    encoding = Encoding.of(tile(count=3), profile=profile, mask="none", **options)
    with Canvas(512, 512, 2, Affine(2, 0, 0, 0, -2, 0), encoding) as canvas:
        canvas.place(np.full((3, 512, 512), 7, np.uint8), None, Window(0, 0, 512, 512))
        canvas.seal(tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert len(tiff.pages) == 3
        assert len({(page.compression, page.predictor, page.photometric) for page in tiff.pages}) == 1


def test_the_profiles_are_rio_cogeo_s():
    assert {name: str(profile.get("compress", "NONE")) for name, profile in cog_profiles.items()} == _CODECS
    assert {profile["blockxsize"] for profile in cog_profiles.values()} == {_BLOCK_SIZE}
