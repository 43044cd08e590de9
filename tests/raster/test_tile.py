"""The bytes of a tile become pixels and a mask, or a `TileError`, and nothing else is ever opened."""

from __future__ import annotations

import gzip
import io

import imagecodecs
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile

from mosaic_async.errors import TileError
from mosaic_async.raster.tile import TileFormat, decode, learn
from tests.fake_tiler import FakeTiler, Pattern

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of the tiles we make

TILE = (5, 16, 11)
LOSSLESS = (
    [("tif", dtype, count) for dtype in ("uint8", "uint16", "int16", "float32", "float64") for count in (1, 2, 3, 4, 5)]
    + [("npy", dtype, count) for dtype in ("uint8", "int16", "float32") for count in (1, 3, 5)]
    + [("png", "uint8", 1), ("png", "uint8", 3), ("png", "uint16", 3), ("webp", "uint8", 3)]
)


def fake(ext="tif", dtype="uint8", count=3, masked=True, size=256, **options):
    return FakeTiler(pattern=Pattern(count=count, dtype=dtype, masked=masked, **options), ext=ext, tile_size=size)


def encode(array, driver="GTiff", **options):
    count, height, width = array.shape
    with MemoryFile() as file:
        with file.open(driver=driver, count=count, height=height, width=width, dtype=array.dtype, **options) as dataset:
            dataset.write(array)
        return bytes(file.getbuffer())


@pytest.mark.quick(26)
@pytest.mark.parametrize(("ext", "dtype", "count"), LOSSLESS)
@pytest.mark.parametrize("size", [128, 512])
def test_pixels_and_mask_come_out_as_they_were_made(ext, dtype, count, size):
    tiler = fake(ext, dtype, count, size=size)
    body = tiler.body(TILE)
    tile_format = learn(body)
    pixels, mask = decode(body, tile_format)
    expected, valid = tiler.pattern.expected(TILE[1] * size, TILE[2] * size, size, size)
    assert (tile_format.size, tile_format.count, tile_format.dtype) == (size, count, dtype)
    np.testing.assert_array_equal(mask > 0, valid)
    np.testing.assert_array_equal(pixels[:, valid], expected[:, valid])


@pytest.mark.parametrize("ext", ["tif", "png", "jpg"])
def test_a_tile_without_a_mask_is_valid_everywhere(ext):
    body = fake(ext, masked=False).body(TILE)
    _, mask = decode(body, learn(body))
    assert mask is None


def test_a_jpeg_is_what_gdal_reads():
    tiler = fake("jpg", masked=False, smooth=True)
    body = tiler.body(TILE)
    pixels, _ = decode(body, learn(body))
    expected, _ = tiler.pattern.expected(TILE[1] * 256, TILE[2] * 256, 256, 256)
    assert np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("mask_values", [(0, 255), (0, 1)])
def test_an_old_tiler_s_mask_of_small_values_in_a_wide_dtype_counts_as_valid_above_zero(mask_values):
    mask = np.zeros((256, 256), "int16")
    mask[:100] = mask_values[1]
    body = encode(np.stack([np.full((256, 256), 7, "int16"), mask]))
    pixels, found = decode(body, learn(body, mask_band=True))
    assert pixels.shape[0] == 1
    np.testing.assert_array_equal(found > 0, mask > 0)


def test_four_plain_bands_are_four_bands():
    body = encode(np.ones((4, 256, 256), "uint8"), photometric="MINISBLACK", alpha="NO")
    assert learn(body).count == 4
    assert learn(body, mask_band=True).count == 3


def test_an_internal_mask_is_read():
    with MemoryFile() as file, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with file.open(driver="GTiff", count=1, height=256, width=256, dtype="uint8") as dataset:
            dataset.write(np.ones((1, 256, 256), "uint8"))
            dataset.write_mask(np.pad(np.full((200, 200), 255, "uint8"), (0, 56)))
        body = bytes(file.getbuffer())
    _, mask = decode(body, learn(body))
    assert (mask > 0).sum() == 200 * 200


def test_a_nodata_tag_masks():
    array = np.arange(256 * 256, dtype="int16").reshape(1, 256, 256)
    array[0, :10] = -9999
    body = encode(array, nodata=-9999)
    tile_format = learn(body)
    _, mask = decode(body, tile_format)
    assert tile_format.nodata == -9999
    np.testing.assert_array_equal(mask > 0, array[0] != -9999)


def test_a_palette_is_looked_up():
    array = np.random.default_rng(0).integers(0, 3, (1, 256, 256)).astype("uint8")
    colors = {0: (255, 0, 0, 255), 1: (0, 128, 255, 255), 2: (9, 9, 9, 0)}
    with MemoryFile() as file:
        with file.open(driver="PNG", count=1, height=256, width=256, dtype="uint8") as dataset:
            dataset.write_colormap(1, colors)
            dataset.write(array)
        body = bytes(file.getbuffer())
    tile_format = learn(body)
    pixels, mask = decode(body, tile_format)
    assert (tile_format.count, tile_format.colorinterp) == (3, ("red", "green", "blue"))
    for index, color in colors.items():
        assert (color[:3] == pixels[:, array[0] == index].T).all()
    np.testing.assert_array_equal(mask > 0, array[0] != 2)


@pytest.mark.parametrize("ext", ["tif", "png", "jpg", "webp", "npy"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_tile_is_an_error(ext, share):
    body = fake(ext, masked=ext != "jpg").body(TILE)
    tile_format = learn(body)
    cut = body[: int(len(body) * share)]
    if ext == "jpg" and share == 0.99:
        pytest.skip("a JPEG that lacks only its last bytes decodes")
    with pytest.raises(TileError):
        decode(cut, tile_format)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>502</title>",
        b'{"detail": "oops"}',
        b"II*\0",
        b"II*\0" + bytes(300),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"RIFF\0\0\0\0WEBP" + bytes(40),
        b"\x93NUMPY\x01\x00\x10\x00" + b"garbage".ljust(16),
        b"\x93NUMPY\x09\x00\x10\x00" + b"garbage".ljust(16),
        b"<VRTDataset rasterXSize='256' rasterYSize='256'></VRTDataset>",
    ],
)
def test_what_is_no_image_is_a_tile_error_that_says_how_it_begins_or_why(body):
    tile_format = TileFormat(size=256, count=3, dtype="uint8")
    with pytest.raises(TileError):
        learn(body)
    with pytest.raises(TileError):
        decode(body, tile_format)


def by_pillow(name):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, name)
    return stream.getvalue()


def npz():
    np.savez(stream := io.BytesIO(), np.zeros((3, 8, 8)))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: by_pillow("GIF"), "a GIF"),
        (lambda: by_pillow("BMP"), "a BMP"),
        (lambda: by_pillow("AVIF"), "an AVIF"),
        (lambda: imagecodecs.jpegxl_encode(np.zeros((8, 8, 3), np.uint8)), "a JPEG XL"),
        (lambda: imagecodecs.lerc_encode(np.zeros((8, 8), np.float32)), "a LERC"),
        (lambda: gzip.compress(by_pillow("PNG")), "packed with gzip"),
        (npz, "a zip"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_those_that_are(make, name):
    with pytest.raises(TileError, match=rf"the body is {name}.*; request PNG, JPEG, WebP, JPEG 2000, GeoTIFF or npy"):
        learn(make())


def test_an_npy_of_objects_is_refused_before_it_is_unpickled():
    stream = io.BytesIO()
    np.save(stream, np.array([[[object()]]], dtype=object), allow_pickle=True)
    with pytest.raises(TileError, match="numbers"):
        learn(stream.getvalue())


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (np.ones((3, 256, 256), "uint16"), "dtype is uint16"),
        (np.ones((2, 256, 256), "uint8"), "band count is 2"),
        (np.ones((3, 512, 512), "uint8"), "size is 512 x 512"),
        (np.ones((3, 256, 128), "uint8"), "size is 128 x 256"),
    ],
)
def test_a_tile_unlike_the_first_is_an_error_that_says_in_what(other, says):
    tile_format = learn(encode(np.ones((3, 256, 256), "uint8")))
    with pytest.raises(TileError, match=says):
        decode(encode(other), tile_format)


def test_a_tile_of_another_format_with_the_same_pixels_is_read():
    tiler = fake("png")
    pixels, mask = decode(tiler.body(TILE), learn(encode(np.ones((3, 256, 256), "uint8"))))
    expected, valid = tiler.pattern.expected(TILE[1] * 256, TILE[2] * 256, 256, 256)
    np.testing.assert_array_equal(mask > 0, valid)
    np.testing.assert_array_equal(pixels[:, valid], expected[:, valid])


def test_a_tiny_file_that_claims_a_huge_raster_is_refused_by_its_header():
    with MemoryFile() as file:
        with file.open(driver="GTiff", count=1, height=10**6, width=10**6, dtype="uint8", sparse_ok=True):
            pass
        bomb = bytes(file.getbuffer())
    assert len(bomb) < 20_000_000
    with pytest.raises(TileError):
        learn(bomb)
    with pytest.raises(TileError, match="1000000 x 1000000"):
        decode(bomb, TileFormat(size=256, count=1, dtype="uint8"))


def test_a_first_tile_must_be_square_and_of_the_size_that_was_asked_for():
    with pytest.raises(TileError, match="256 x 128"):
        learn(encode(np.ones((1, 128, 256), "uint8")))
    with pytest.raises(TileError, match="should be 512 x 512"):
        learn(encode(np.ones((1, 256, 256), "uint8")), tile_size=512)


def test_a_jpeg_2000_tile_is_read():
    array = np.random.default_rng(1).integers(0, 255, (3, 256, 256)).astype("uint8")
    body = encode(array, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES", YCBCR420="NO")
    tile_format = learn(body)
    assert tile_format.count == 3
    np.testing.assert_array_equal(decode(body, tile_format)[0], array)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 256, 256)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 256, 256)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2**40, 256)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 256)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (4, 256, 256)}",
        "__import__('os').system('true')",
        "(" * 5000,
    ],
)
def test_an_npy_with_a_hostile_header_is_a_tile_error(header):
    text = header.encode()
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
    with pytest.raises(TileError):
        learn(body)
    with pytest.raises(TileError):
        decode(body, TileFormat(size=256, count=3, dtype="uint8"))


def test_an_npy_that_claims_more_than_it_has_is_refused_by_its_header():
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 100000, 100000)}"
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(100)
    with pytest.raises(TileError, match="should be square"):
        learn(body)


def test_a_palette_that_is_no_byte_is_not_looked_up():
    array = np.arange(256 * 256, dtype="uint16").reshape(1, 256, 256)
    body = encode(array, photometric="PALETTE")
    np.testing.assert_array_equal(decode(body, learn(body))[0], array)
