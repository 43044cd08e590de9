"""What the numbers of a tile mean, by oracles that are not GDAL: NumPy, Pillow and imagecodecs."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from mosaic_async.errors import TileError
from mosaic_async.raster.form import TileFormat
from mosaic_async.raster.tile import decode, learn, read
from tests.pictures import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, png

SIZE = 256
RNG = np.random.default_rng(7)


def samples(bands=None, depth=8):
    shape = (SIZE, SIZE) if bands is None else (SIZE, SIZE, bands)
    return RNG.integers(0, 2**depth, shape)


def read_all(body):
    """Return (bands, height, width) and which pixels are valid."""
    pixels, mask = decode(body, learn(body))
    return pixels, np.ones(pixels.shape[1:], bool) if mask is None else mask > 0


def pillow(body):
    """Return colours and opacity, (height, width, 4)."""
    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("interlaced", [False, True])
def test_grey_of_few_bits_is_scaled_to_eight_as_the_specification_says(depth, interlaced):
    values = samples(depth=depth)
    body = png(values, kind=GREY, depth=depth, interlaced=interlaced)
    pixels, valid = read_all(body)
    np.testing.assert_array_equal(pixels[0], values * 255 // (2**depth - 1))
    np.testing.assert_array_equal(pixels[0], pillow(body)[..., 0])
    assert valid.all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_is_a_mask_and_not_a_nodata_value(depth):
    values = samples(depth=depth)
    form = learn(body := png(values, kind=GREY, depth=depth, transparent=1))
    pixels, valid = read_all(body)
    assert form.nodata is None
    np.testing.assert_array_equal(valid, values != 1)
    np.testing.assert_array_equal(pixels[0], values if depth > 8 else values * 255 // (2**depth - 1))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_colour_masks_by_all_three_values_together(depth):
    values = samples(3, depth) % 4
    form = learn(body := png(values, kind=RGB, depth=depth, transparent=(1, 2, 3)))
    pixels, valid = read_all(body)
    assert form.nodata is None
    np.testing.assert_array_equal(valid, (values != (1, 2, 3)).any(axis=-1))
    np.testing.assert_array_equal(pixels, np.moveaxis(values, -1, 0))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("opacities", [None, (0,), (255, 0), (7, 128)])
def test_a_transparent_entry_of_a_palette_is_not_a_nodata_value_of_the_colours(depth, opacities):
    values = samples(depth=depth)
    palette = RNG.integers(0, 3, (2**depth, 3))  # many colours hold the value of a transparent index
    form = learn(body := png(values, kind=PALETTE, depth=depth, palette=palette, transparent=opacities))
    pixels, valid = read_all(body)
    opaque = np.full(2**depth, 255)
    opaque[: len(opacities or ())] = opacities or ()
    assert (form.nodata, form.count) == (None, 3)
    np.testing.assert_array_equal(valid, opaque[values] > 0)
    np.testing.assert_array_equal(pixels, np.moveaxis(palette[values], -1, 0))
    np.testing.assert_array_equal(np.moveaxis(pixels, 0, -1), pillow(body)[..., :3])


@pytest.mark.parametrize(("kind", "bands"), [(GREY_ALPHA, 2), (RGBA, 4)])
@pytest.mark.parametrize("depth", [8, 16])
def test_opacity_is_a_mask_that_is_valid_above_zero(kind, bands, depth):
    values = samples(bands, depth) % 3
    pixels, valid = read_all(body := png(values, kind=kind, depth=depth, interlaced=depth == 8))
    np.testing.assert_array_equal(valid, values[..., -1] > 0)
    np.testing.assert_array_equal(pixels, np.moveaxis(values[..., :-1], -1, 0))
    np.testing.assert_array_equal(imagecodecs.png_decode(body), values)


def tiff(array, *, palette=None, tags=None, **options):
    count, height, width = array.shape
    with MemoryFile() as file:
        with file.open(
            driver="GTiff", count=count, height=height, width=width, dtype=array.dtype, **options
        ) as dataset:
            dataset.write(array)
            if palette is not None:
                dataset.write_colormap(1, palette)
            dataset.update_tags(**(tags or {}))
        return bytes(file.getbuffer())


def test_a_nodata_value_is_one_of_each_band_apart():
    array = samples(2).astype("int16").transpose(2, 0, 1)
    array = np.where(array < 60, np.int16(-9999), array)
    form = learn(body := tiff(array, nodata=-9999))
    found = read(body, form)
    assert form.nodata == -9999
    np.testing.assert_array_equal(found.mask > 0, (array != -9999).any(axis=0))
    np.testing.assert_array_equal(found.gaps, array == -9999)


def by_tifffile(array, extra):
    """Return a GeoTIFF with colours or grey, and the extra samples behind them as TIFF names these."""
    stream = io.BytesIO()
    kind = "rgb" if array.shape[-1] - len(extra) == 3 else "minisblack"
    tifffile.imwrite(stream, array.astype("uint8"), photometric=kind, extrasamples=extra, planarconfig="contig")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("bands", "extra", "alpha"),
    [
        (5, ("unassalpha", "unspecified"), 3),
        (4, ("unassalpha", "unspecified", "unspecified"), 1),
        (5, ("assocalpha", "unspecified"), 3),
        (6, ("unspecified", "unassalpha", "unspecified"), 4),
        (5, ("unspecified", "unassalpha"), 4),
    ],
)
def test_an_alpha_band_is_the_mask_wherever_it_is(bands, extra, alpha):
    values = samples(bands) % 3
    pixels, valid = read_all(body := by_tifffile(values, extra))
    np.testing.assert_array_equal(valid, values[..., alpha] > 0)
    np.testing.assert_array_equal(pixels, np.delete(values, alpha, axis=-1).transpose(2, 0, 1))
    form = learn(body)
    assert (form.count, "alpha" in form.colorinterp, len(form.descriptions)) == (bands - 1, False, bands - 1)


def test_a_band_that_the_source_declares_as_its_mask_is_the_last_one():
    values = samples(5) % 3
    body = by_tifffile(values, ("unassalpha", "unspecified"))
    pixels, mask = decode(body, learn(body, mask_band=True))
    np.testing.assert_array_equal(mask > 0, values[..., 4] > 0)
    np.testing.assert_array_equal(pixels, values[..., :4].transpose(2, 0, 1))


@pytest.mark.parametrize("opacity", [1, 128, 255])
def test_indices_keep_their_colours_beside_an_alpha_band(opacity):
    indices, palette = samples() % 7, RNG.integers(0, 256, (7, 3))
    alpha = (samples() % 2) * opacity
    with MemoryFile() as file:
        with file.open(driver="GTiff", count=2, height=SIZE, width=SIZE, dtype="uint8") as dataset:
            dataset.write(np.stack([indices, alpha]).astype("uint8"))
            dataset.colorinterp = (ColorInterp.palette, ColorInterp.alpha)
            dataset.write_colormap(1, {index: (*map(int, color), 255) for index, color in enumerate(palette)})
        body = bytes(file.getbuffer())
    form = learn(body)
    pixels, valid = read_all(body)
    assert (form.count, len(form.palette)) == (3, 256)
    np.testing.assert_array_equal(valid, alpha > 0)
    np.testing.assert_array_equal(pixels, palette[indices].transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "complex_int16"])
def test_complex_numbers_are_refused_in_words(dtype):
    with MemoryFile() as file:
        with file.open(driver="GTiff", count=1, height=SIZE, width=SIZE, dtype=dtype) as dataset:
            dataset.write(np.ones((1, SIZE, SIZE), "complex64"))
        body = bytes(file.getbuffer())
    for act in (learn, lambda one: read(one, TileFormat(size=SIZE, count=1, dtype="float32"))):
        with pytest.raises(TileError, match="complex numbers; request their magnitude"):
            act(body)


def test_nodata_values_that_differ_between_bands_mark_a_pixel_together():
    array = (samples(3) % 4).astype("uint8").transpose(2, 0, 1)
    form = learn(body := tiff(array, tags={"NODATA_VALUES": "1 2 3"}))
    _, valid = read_all(body)
    assert form.nodata is None
    np.testing.assert_array_equal(valid, (array != np.array([1, 2, 3])[:, None, None]).any(axis=0))


def test_the_nodata_value_of_a_palette_is_an_index():
    array = (samples() % 5).astype("uint8")[None]
    colors = {index: (index, 4 - index, 2, 255) for index in range(5)}
    form = learn(body := tiff(array, palette=colors, nodata=2))
    pixels, valid = read_all(body)
    assert form.nodata is None
    np.testing.assert_array_equal(valid, array[0] != 2)
    np.testing.assert_array_equal(pixels[0], array[0])


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999), ("uint8", float("nan")), ("int16", 70000)])
def test_a_nodata_value_beyond_the_dtype_marks_nothing(dtype, nodata):
    array = samples(1).astype(dtype).transpose(2, 0, 1)
    stream = io.BytesIO()  # GDAL does not write such a value
    tifffile.imwrite(stream, array[0], extratags=[(42113, "s", 0, f"{nodata:g}", True)], photometric="minisblack")
    form = learn(body := stream.getvalue())
    pixels, valid = read_all(body)
    assert form.nodata is None
    assert valid.all()
    np.testing.assert_array_equal(pixels, array)


HEIGHTS = {
    "terrain-rgb": lambda red, green, blue: -10000 + (red * 65536 + green * 256 + blue) / 10,
    "terrarium": lambda red, green, blue: red * 256 + green + blue / 256 - 32768,
    "65536,256,1,0": lambda red, green, blue: red * 65536 + green * 256 + blue,
    "0,0.5,0,-3": lambda red, green, blue: green / 2 - 3,
}


@pytest.mark.parametrize("name", HEIGHTS)
def test_packed_values_are_read_from_every_picture_without_loss(name):
    values, palette = samples(4), RNG.integers(0, 256, (16, 3))
    values[..., 3] %= 2
    indices, grey = samples(depth=4), samples()
    webp = np.ascontiguousarray(values * (1, 1, 1, 255)).astype("uint8")
    pictures = [
        (png(values, kind=RGBA), values[..., :3], values[..., 3] > 0),
        (png(indices, kind=PALETTE, depth=4, palette=palette, transparent=(0,)), palette[indices], indices > 0),
        (png(grey, kind=GREY), np.repeat(grey[..., None], 3, axis=-1), grey >= 0),
        (imagecodecs.webp_encode(webp, lossless=True), values[..., :3], values[..., 3] > 0),
        (tiff(values[..., :3].transpose(2, 0, 1).astype("uint8")), values[..., :3], grey >= 0),
    ]
    for body, colors, valid in pictures:
        form = learn(body, decode=name)
        pixels, mask = decode(body, form)
        expected = HEIGHTS[name](*colors.astype("float64").transpose(2, 0, 1))
        assert (form.count, form.dtype) == (1, "float32")
        np.testing.assert_array_equal((mask > 0) if mask is not None else grey >= 0, valid)
        np.testing.assert_array_equal(pixels[0][valid], expected.astype("float32")[valid])


@pytest.mark.parametrize("kind", ["jpeg", "webp", "wide webp", "16 bits", "four bands"])
def test_packed_values_are_not_read_from_what_cannot_hold_them(kind):
    colors = np.ascontiguousarray(samples(3).astype("uint8"))
    opaque = np.ascontiguousarray(np.concatenate([colors, colors[..., :1]], axis=-1))
    body = {
        "jpeg": lambda: imagecodecs.jpeg_encode(colors),
        "webp": lambda: imagecodecs.webp_encode(colors, lossless=False),
        "wide webp": lambda: imagecodecs.webp_encode(opaque, lossless=False),
        "16 bits": lambda: png(samples(3, 16), kind=RGB, depth=16),
        "four bands": lambda: tiff(opaque.transpose(2, 0, 1), photometric="MINISBLACK", alpha="NO"),
    }[kind]()
    form = TileFormat(size=SIZE, count=1, dtype="float32", decode="terrarium")
    with pytest.raises(TileError, match="loss" if kind in ("jpeg", "webp", "wide webp") else "packed into three"):
        read(body, form)


def test_a_nodata_value_counts_beside_a_mask():
    array = (samples(2) % 3).astype("int16").transpose(2, 0, 1)
    body = tiff(array, nodata=2, photometric="MINISBLACK", alpha="YES")
    form = learn(body)
    found = read(body, form)
    assert (form.count, form.nodata) == (1, 2)
    np.testing.assert_array_equal(found.mask > 0, (array[1] > 0) & (array[0] != 2))


def test_a_band_that_looks_like_a_mask_is_data_where_the_source_says_so():
    array = samples(2).astype("uint8").transpose(2, 0, 1)
    body = tiff(array, photometric="MINISBLACK", alpha="YES")
    pixels, mask = decode(body, learn(body, mask_band=False))
    np.testing.assert_array_equal(pixels, array)
    assert mask is None


@pytest.mark.parametrize("damage", ["a bit", "a byte more", "bytes less", "a chunk less", "a wrong transparency"])
def test_a_png_that_is_damaged_anywhere_is_refused_though_gdal_reads_zeros(damage):
    body = png(samples(), kind=GREY, transparent=7)
    where = len(body) // 2
    data, key = body.index(b"IDAT") - 4, body.index(b"tRNS")
    bad = {
        "a bit": body[:where] + bytes([body[where] ^ 1]) + body[where + 1 :],
        "a byte more": body[:where] + b"x" + body[where:],
        "bytes less": body[:where] + body[where + 100 :],
        "a chunk less": body[:data] + body[-12:-8] + b"IDAT" + body[-4:],
        "a wrong transparency": body[: key + 5] + b"\1" + body[key + 6 :],
    }[damage]
    with pytest.raises(TileError, match="PNG"):
        decode(bad, learn(body))
    assert read_all(body + b"trailing bytes")[1].any()
