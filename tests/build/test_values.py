"""Values that must not be averaged: those packed into colours, and indices of a colour table."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from mosaic_async import (
    MosaicReport,
    OverviewsChosen,
    StoppedError,
    UsageError,
    build_mosaic,
    plan_mosaic,
    verify_mosaic,
)
from mosaic_async.cli.terminal import report_text
from mosaic_async.sources.source import TileSource
from tests.build.test_unlike_tiles import (
    ALL,
    AREA,
    FIRST,
    LAST,
    OPTIONS,
    SIZE,
    ZOOM,
    Layer,
    begin_with,
    data,
    serve,
    values,
)
from tests.pictures import PALETTE, RGB, RGBA, png
from tests.raster.test_meaning import HEIGHTS, tiff

__all__ = ["serve"]
pytestmark = pytest.mark.usefixtures("unblocked_loop")


@pytest.mark.parametrize(
    ("template", "encoding", "packing"),
    [
        ("https://s3.amazonaws.com/elevation-tiles-prod/terrarium/{z}/{x}/{y}.png", None, "terrarium"),
        ("https://api.mapbox.com/v4/mapbox.terrain-rgb/{z}/{x}/{y}.pngraw?access_token=x", None, "terrain-rgb"),
        ("https://api.maptiler.com/tiles/terrain-rgb-v2/{z}/{x}/{y}.webp?key=x", None, "terrain-rgb"),
        ("https://tiles.example/dem/tiles/{z}/{x}/{y}.png?algorithm=terrainrgb", None, "terrain-rgb"),
        ("https://cyberjapandata.gsi.go.jp/xyz/dem5a_png/{z}/{x}/{y}.png", None, "packed"),
        ("https://tiles.example/dtm/{z}/{x}/{y}", "mapbox", "terrain-rgb"),
        ("https://tiles.example/dtm/{z}/{x}/{y}", "TERRARIUM", "terrarium"),
        ("https://tiles.example/dtm/{z}/{x}/{y}", "custom", "custom"),
        ("https://tiles.example/terrain/{z}/{x}/{y}.png", None, None),
        ("https://tiles.example/terrain-relief/{z}/{x}/{y}.png?rgb=1", None, None),
        ("https://tiles.example/terrarium/{z}/{x}/{y}.png", "rgb", "terrarium"),
    ],
)
def test_packed_values_are_known_by_description_and_url(template, encoding, packing):
    assert TileSource(template=template, encoding=encoding).packing == packing


@pytest.mark.parametrize(
    ("template", "has_classes"),
    [
        ("https://titiler.example/stac/tiles/{z}/{x}/{y}.tif?url=item.json&assets=scl", True),
        ("https://titiler.example/stac/tiles/{z}/{x}/{y}.tif?assets=qa_pixel&return_mask=true", True),
        ("https://tiles.example/esa-worldcover-2021/{z}/{x}/{y}.png", True),
        ("https://tiles.example/land_cover/{z}/{x}/{y}", True),
        ("https://nlcd.example/roads/{z}/{x}/{y}", False),
        ("https://tiles.example/light_only_labels/{z}/{x}/{y}.png", False),
        ("https://tiles.example/sclera/{z}/{x}/{y}.png?style=classic", False),
    ],
)
async def test_class_codes_that_a_url_names_are_not_averaged(serve, tmp_path, template, has_classes):
    assert TileSource(template=template).has_classes is has_classes
    if "labels" in template or "qa_pixel" in template:
        place = serve(Layer(data("uint16")))
        path, seen = tmp_path / "out.tif", []
        local = place.replace("/{z}", f"/{template.split('/', 3)[3].partition('/{z}')[0]}/{{z}}")
        query = "?" + template.partition("?")[2] if has_classes else ""
        await build_mosaic(local + query, AREA, path, **OPTIONS, on_event=seen.append)
        with rasterio.open(path) as dataset:
            found = dataset.tags()["MOSAIC_OVERVIEW_RESAMPLING"]
        assert found == ("mode" if has_classes else "average")
        assert [event.resampling for event in seen if isinstance(event, OverviewsChosen)] == ["mode"] * has_classes


def codes(count, dtype):
    """Return how to make tiles of patches that have one of few numbers each; one value is rare."""

    def make(seed):
        array = values(seed, 1, 0, count)[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2).astype(dtype)
        array[0, seed, 7] = 99
        return tiff(array, photometric="MINISBLACK"), array.transpose(1, 2, 0).astype("float64"), ALL

    return make


def indices_of_16_bits(seed):
    array = values(seed, 1, 0, 5000)[0].astype("uint16")
    colors = np.arange(3 * 2**16, dtype="uint16").reshape(3, -1)
    tifffile.imwrite(stream := io.BytesIO(), array, photometric="palette", colormap=colors)
    return stream.getvalue(), array[..., None].astype("float64"), ALL


async def test_indices_of_16_bits_keep_their_numbers_and_are_not_averaged(serve, tmp_path):
    template, seen = serve(layer := Layer(indices_of_16_bits)), []
    await build_mosaic(template, AREA, path := tmp_path / "out.tif", **OPTIONS, on_event=seen.append)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), layer.pixels[..., 0])
        factor = dataset.overviews(1)[0]
        smaller = dataset.read(1, out_shape=(dataset.height // factor, dataset.width // factor))
        blocks = layer.pixels[..., 0].reshape(smaller.shape[0], factor, smaller.shape[1], factor).swapaxes(1, 2)
        assert (blocks.reshape(*smaller.shape, -1) == smaller[..., None]).any(axis=-1).all()
    assert [event.reason for event in seen if isinstance(event, OverviewsChosen)] == [
        "the tiles hold indices of a colour table, which have no average"
    ]


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("dtype", "count"), [("uint8", 11), ("int16", 40), ("float32", 3), pytest.param("uint16", 70, id="many")]
)
async def test_averages_of_few_values_are_told(serve, tmp_path, dtype, count):
    template = serve(layer := Layer(codes(count, dtype)))
    report = await build_mosaic(template, AREA, path := tmp_path / "out.tif", **OPTIONS)
    expected = 0 if count > 64 else len(np.unique(layer.pixels))
    assert (report.averaged_values, MosaicReport.from_dict(report.as_dict())) == (expected, report)
    warning = f"averages of only {expected} different values; if these are class codes"
    assert (warning in report_text(report)) == (expected > 0)
    if expected:
        assert "--overview-resampling mode" in report_text(report)
        chosen = await build_mosaic(
            template, AREA, path, **OPTIONS, overwrite=True, overview_resampling="nearest" if count < 12 else "average"
        )
        assert chosen.averaged_values == 0


async def test_the_report_of_a_resumed_run_counts_the_values_of_all_runs(serve, tmp_path):
    layer = Layer(*[codes(5, "uint8")] * 4, *[codes(9, "uint8")] * 12)
    template, path = serve(layer), tmp_path / "out.tif"
    layer.requests_left = 5
    with pytest.raises(StoppedError):
        await build_mosaic(template, AREA, path, **OPTIONS, stop=layer.stop)
    report = await build_mosaic(template, AREA, path, **OPTIONS)
    assert report.parts_resumed
    assert report.averaged_values == len(np.unique(layer.pixels)) == 10


def heights(seed):
    """Return a slope whose last byte wraps around between neighbours."""
    row, column = np.mgrid[:SIZE, :SIZE]
    code = 100_000 + (seed * 1000 + row * 40 + column * 7)
    colors = np.stack([code >> 16, (code >> 8) & 255, code & 255], axis=-1)
    if seed % 3:
        return png(colors, kind=RGB), colors, ALL
    opacity = np.where((row + column) % 9, 255, 0)
    return png(np.concatenate([colors, opacity[..., None]], axis=-1), kind=RGBA), colors, opacity > 0


def level(path, number):
    with rasterio.open(path, overview_level=number - 1) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0


async def test_colours_that_hold_packed_values_are_not_averaged(serve, tmp_path):
    template, seen = serve(layer := Layer(heights)).replace("/{z}", "/terrain-rgb/{z}"), []
    path = tmp_path / "out.tif"
    await build_mosaic(template, AREA, path, **OPTIONS, on_event=seen.append)
    (note,) = [event for event in seen if isinstance(event, OverviewsChosen)]
    assert note.resampling == "nearest"
    assert "terrain-rgb" in note.reason
    pixels, valid = level(path, 1)
    stored = {tuple(color) for color in layer.pixels[layer.valid].astype(int)}
    assert {tuple(color) for color in pixels[:, valid].T.astype(int)} <= stored
    assert (await verify_mosaic(path, source=template, sample=16)).is_sound
    await build_mosaic(template, AREA, path, **OPTIONS, overview_resampling="average", overwrite=True)
    pixels, valid = level(path, 1)
    assert not {tuple(color) for color in pixels[:, valid].T.astype(int)} <= stored


@pytest.mark.parametrize("decode", ["terrain-rgb", pytest.param("65536,256,1,0", marks=pytest.mark.slow)])
async def test_packed_values_are_written_as_floats_and_averaged(serve, tmp_path, decode):
    template = serve(layer := Layer(heights)).replace("/{z}", "/terrain-rgb/{z}")
    path, seen = tmp_path / "out.tif", []
    await build_mosaic(template, AREA, path, **OPTIONS, decode=decode, on_event=seen.append)
    assert not [event for event in seen if isinstance(event, OverviewsChosen)]
    expected = HEIGHTS[decode](*layer.pixels.transpose(2, 0, 1)).astype("float32")
    with rasterio.open(path) as dataset:
        assert (dataset.count, dataset.dtypes[0]) == (1, "float32")
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, layer.valid)
        np.testing.assert_array_equal(dataset.read(1)[layer.valid], expected[layer.valid])
    pixels, valid = level(path, 1)
    blocks = np.where(layer.valid, expected.astype("float64"), np.nan).reshape(256, 2, 256, 2)
    np.testing.assert_allclose(pixels[0][valid], np.nanmean(blocks, axis=(1, 3))[valid], rtol=1e-6)
    assert (await verify_mosaic(path, source=template, sample=16)).is_sound
    plan = await plan_mosaic(template, AREA, zoom=ZOOM, decode=decode)
    assert (plan.count, plan.dtype) == (1, "float32")


async def test_a_decoding_that_is_not_known_is_refused_before_any_request(serve, tmp_path):
    for decode in ("terrain", "1,2,3", "1,2,nan,4", ""):
        with pytest.raises(UsageError, match="decoding"):
            await build_mosaic("http://127.0.0.1:9/{z}/{x}/{y}", AREA, tmp_path / "x.tif", zoom=ZOOM, decode=decode)


COLORS = values(99, 3)[:, :16, 0].T
"""The colours of sixteen classes."""


def classes(*, used=16, colors=COLORS):
    """Return how to make tiles that use the first colours only; an encoder leaves out the others."""

    def make(seed):
        indices = values(seed, 1, 0, used)[0].repeat(2, axis=0)[:SIZE]
        body = png(indices, kind=PALETTE, depth=8, palette=colors[:used], transparent=(0,))
        return body, colors[indices], indices > 0

    return make


async def test_tiles_that_share_a_colour_table_keep_it_and_their_overviews_have_no_other_class(
    serve, tmp_path, monkeypatch
):
    template, seen = serve(layer := Layer(classes(used=5), classes(), classes(used=9))), []
    path, files = tmp_path / "out.tif", set()
    for first in (FIRST, LAST):
        begin_with(monkeypatch, first)
        await build_mosaic(template, AREA, path, **OPTIONS, overwrite=True, on_event=seen.append)
        files.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert {event.resampling for event in seen if isinstance(event, OverviewsChosen)} == {"mode"}
    with rasterio.open(path) as dataset:
        table = np.array([dataset.colormap(1)[index][:3] for index in range(256)])
        assert (dataset.dtypes, dataset.colorinterp) == (("uint8",), (ColorInterp.palette,))
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, layer.valid)
        np.testing.assert_array_equal(table[dataset.read(1)][layer.valid], layer.pixels[layer.valid])
    pixels, valid = level(path, 1)
    assert set(np.unique(pixels[0][valid])) <= set(range(1, 16))
    assert cog_validate(path, strict=True, quiet=True)[0]
    assert (await verify_mosaic(path, source=template, sample=16)).is_sound
    assert len(files) == 1


@pytest.mark.parametrize("options", [{}, pytest.param({"overview_resampling": "mode"}, marks=pytest.mark.slow)])
async def test_tiles_with_colours_of_their_own_become_colours(serve, tmp_path, monkeypatch, options):
    other = COLORS[::-1].copy()
    template = serve(layer := Layer(*[classes()] * 9, classes(colors=other), *[classes()] * 6))
    path, files = tmp_path / "out.tif", set()
    for first in (FIRST, LAST):
        begin_with(monkeypatch, first)
        await build_mosaic(template, AREA, path, **OPTIONS, **options, overwrite=True)
        files.add(hashlib.sha256(path.read_bytes()).hexdigest())
    with rasterio.open(path) as dataset:
        assert dataset.tags()["MOSAIC_OVERVIEW_RESAMPLING"] == options.get("overview_resampling", "average")
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, layer.valid)
        found = np.moveaxis(dataset.read(), 0, -1)
        np.testing.assert_array_equal(found[layer.valid], layer.pixels[layer.valid])
    assert (await verify_mosaic(path, source=template, sample=16)).is_sound
    assert len(files) == 1


async def test_a_verified_colour_table_is_compared_by_its_colours(serve, tmp_path):
    path = tmp_path / "out.tif"
    await build_mosaic(serve(Layer(classes())), AREA, path, **OPTIONS)
    other = serve(Layer(classes(colors=COLORS[::-1].copy())))
    assert not (await verify_mosaic(path, source=other, sample=16)).is_sound


@pytest.mark.parametrize(
    "options",
    [
        {"overview_resampling": "average"},
        pytest.param({"profile": "jpeg"}, marks=pytest.mark.slow),
        pytest.param({"dtype": "uint16"}, marks=pytest.mark.slow),
        pytest.param({"mask": "alpha"}, marks=pytest.mark.slow),
    ],
)
async def test_a_colour_table_is_replaced_by_colours_where_the_user_wants_what_indices_cannot_be(
    serve, tmp_path, options
):
    await build_mosaic(serve(Layer(classes())), AREA, path := tmp_path / "out.tif", **OPTIONS, **options)
    with rasterio.open(path) as dataset:
        assert [band.name for band in dataset.colorinterp[:3]] == ["red", "green", "blue"]
