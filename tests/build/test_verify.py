"""`verify`: it finds every damage, and none in a sound file; the damages are made with tifffile and bytes alone."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from aiohttp import web
from rasterio.io import MemoryFile

from mosaic_async import SourceError, UsageError, VerifyReport, build_mosaic_sync, verify_mosaic
from mosaic_async.build.verify import verify_file
from mosaic_async.cli.terminal import verify_text
from mosaic_async.raster.tiff import read_images
from tests.cli.test_main import run
from tests.conftest import PARANA
from tests.damage import KINDS, damaged, without_digest
from tests.fake_tiler import FakeTiler, Pattern
from tests.pairwise import quick_only, quick_values

AREA = (-4, 44, 1, 47)
"""Four by four tiles of zoom 8, on whose edges no part lies."""
POLYGON = {"type": "Polygon", "coordinates": [[[-4, 44], [1, 44.2], [0.5, 47], [-2, 45.5], [-4, 44]]]}


@dataclass(frozen=True)
class Form:
    """How an output is stored."""

    profile: str = "deflate"
    dtype: str = "uint8"
    count: int = 3
    mask: str = "auto"
    resampling: str = "average"
    nodata: float | None = None
    options: tuple[tuple[str, str], ...] = ()
    clip: bool = False
    smooth: bool = False
    parts: int | None = 512

    def build(self, template: str, output: Path, area=AREA, **given) -> Path:
        build_mosaic_sync(
            template, area, output, zoom=8, profile=self.profile, mask=self.mask, nodata=self.nodata,
            overview_resampling=self.resampling, creation_options={"BLOCKSIZE": "128", **dict(self.options)},
            part_size=self.parts, clip=self.clip, **given,
        )  # fmt: skip
        return output

    def pattern(self, *, other: bool = False) -> Pattern:
        return Pattern(count=self.count, dtype=self.dtype, masked=self.mask != "none", smooth=self.smooth != other)


LOSSLESS = (
    Form(),
    Form("zstd", "float32", 1),
    Form("lzw", "int16", 2, mask="nodata", nodata=-32768, resampling="mode", parts=None),
    Form("lerc", "uint16", 1, resampling="nearest"),
    Form("raw", "uint8", 4, mask="none", resampling="rms"),
)
LOSSY = (
    Form("jpeg", smooth=True),
    Form("webp", smooth=True, parts=None),
    Form("lerc_deflate", "float32", 2, options=(("MAX_Z_ERROR", "0.5"),)),
)
Make = Callable[[Form], tuple[Path, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Make:
    """Build an output and another of the same layout with other pixels, each once."""
    folder = tmp_path_factory.mktemp("verify")
    known: dict[Form, tuple[Path, Path]] = {}

    def make(form: Form) -> tuple[Path, Path]:
        if form not in known:
            paths = folder / f"{len(known)}.tif", folder / f"{len(known)}-other.tif"
            for path, other in zip(paths, (False, True), strict=True):
                with FakeTiler(pattern=form.pattern(other=other)).running() as tiler:
                    form.build(tiler.template, path)
            known[form] = paths
        return known[form]

    return make


def assert_sound(report: VerifyReport) -> None:
    assert report.is_sound, (report.digest, report.block_faults[:3], report.header_fault, report.tile_faults[:3])


# Damages -------------------------------------------------------------------------------------------------------------


@pytest.mark.quick(3)
@pytest.mark.parametrize(("form", "kind"), quick_values(product([LOSSLESS[0], LOSSY[0], LOSSY[1]], KINDS)))
def test_each_kind_of_damage_is_found(made, tmp_path, form, kind):
    path, other = made(form)
    seed = next(seed for seed in range(100) if damaged(path, other, kind, seed, tmp_path / "bad.tif"))
    report = verify_file(tmp_path / "bad.tif")
    assert not report.is_sound, seed


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_each_of_a_thousand_damages_is_found(made, tmp_path):
    forms = (*LOSSLESS, *LOSSY)
    found, seed = 0, 0
    while found < 1000:
        form, kind = forms[seed % len(forms)], list(KINDS)[seed // len(forms) % len(KINDS)]
        if damaged(*made(form), kind, seed, tmp_path / "bad.tif"):
            assert not verify_file(tmp_path / "bad.tif").is_sound, (form, kind, seed)
            found += 1
        seed += 1


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("form", "kind"),
    quick_values(product(LOSSLESS[:3], ["swapped", "zeroed", "stale", "from elsewhere", "repeated", "cut"])),
)
def test_without_a_digest_the_pyramid_proves_a_lossless_file(made, tmp_path, form, kind):
    path, other = made(form)
    old = without_digest(path, tmp_path / "old.tif")
    assert_sound(verify_file(old))
    seed = next(seed for seed in range(100) if damaged(old, other, kind, seed, tmp_path / "bad.tif"))
    report = verify_file(tmp_path / "bad.tif")
    assert report.digest == "absent"
    assert report.block_faults or report.header_fault, seed


def test_the_environment_hides_no_damage(made, tmp_path, gdal_variable):
    gdal_variable("GTIFF_IGNORE_READ_ERRORS", "YES")
    path, other = made(LOSSLESS[0])
    old = without_digest(path, tmp_path / "old.tif")
    assert damaged(old, other, "zeroed", 1, tmp_path / "bad.tif")
    assert verify_file(tmp_path / "bad.tif").block_faults


def test_without_a_digest_a_level_of_other_pixels_is_found_in_a_jpeg_too(made, tmp_path):
    path, other = made(LOSSY[0])
    old = without_digest(path, tmp_path / "old.tif")
    assert_sound(verify_file(old))
    seeds = [seed for seed in range(40) if damaged(old, other, "stale", seed, tmp_path / "bad.tif")]
    found = 0
    for seed in seeds[:8]:
        damaged(old, other, "stale", seed, tmp_path / "bad.tif")
        found += not verify_file(tmp_path / "bad.tif").is_sound
    assert found == len(seeds[:8])


def test_the_report_names_the_block_that_is_damaged(made, tmp_path):
    path, _ = made(LOSSLESS[0])
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
        size = int(dataset.get_tag_item("BLOCK_SIZE_2_1", "TIFF", bidx=1))
    data[offset : offset + size] = bytes(size)
    (tmp_path / "bad.tif").write_bytes(data)
    report = verify_file(tmp_path / "bad.tif")
    assert report.digest == "differs"
    assert (0, 1, 2) in {(fault.level, fault.row, fault.col) for fault in report.block_faults}


def test_a_mask_that_no_reader_can_decode_is_found(made, tmp_path):
    """GDAL takes it for "all valid", and a strict validation passes."""
    path, _ = made(LOSSLESS[0])
    old = without_digest(path, tmp_path / "old.tif")
    with rasterio.open(old) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    import tifffile

    with tifffile.TiffFile(old) as tiff:
        mask = next(page for page in tiff.pages if page.subfiletype == 4)
        index = int(np.argmax(mask.databytecounts))
        offset, size = mask.dataoffsets[index], mask.databytecounts[index]
    data = bytearray(old.read_bytes())
    data[offset : offset + size] = b"\xff" * size
    (tmp_path / "bad.tif").write_bytes(data)
    report = verify_file(tmp_path / "bad.tif")
    assert any("mask cannot be decoded" in fault.reason for fault in report.block_faults)


@pytest.mark.parametrize("content", [b"", b"II*\0", b"nothing of the kind", b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 99])
def test_what_is_not_a_geotiff_differs(tmp_path, content):
    (tmp_path / "bad.tif").write_bytes(content)
    report = verify_file(tmp_path / "bad.tif")
    assert not report.is_sound
    assert report.header_fault


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiled": False}, "a TIFF with strips instead of tiles"),
        ({"tiled": True, "ENDIANNESS": "BIG"}, "a big-endian TIFF"),
        ({"driver": "PNG"}, "no TIFF by its first bytes"),
    ],
)
def test_a_sound_file_of_another_kind_is_not_called_damaged(tmp_path, options, words):
    given = {"driver": "GTiff", "width": 512, "height": 512, "count": 1, "dtype": "uint8", **options}
    with rasterio.open(tmp_path / "foreign.tif", "w", **given) as dataset:
        dataset.write(np.ones((1, 512, 512), "uint8"))
    report = verify_file(tmp_path / "foreign.tif")
    assert words in report.header_fault
    assert "damaged" not in report.header_fault
    assert "DIFFERS" not in verify_text(report)
    assert not report.is_sound


# rasterio's handler of GDAL's messages fails where they quote damaged bytes, which Python then reports as unraisable.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_any_damage_of_the_header_is_a_report_and_no_traceback(made, tmp_path):
    path, _ = made(LOSSLESS[0])
    rng = random.Random(1)
    for _ in range(60):
        data = bytearray(path.read_bytes())
        data[rng.randrange(16, 2000)] = rng.randrange(256)
        (tmp_path / "bad.tif").write_bytes(data)
        assert isinstance(verify_file(tmp_path / "bad.tif"), VerifyReport)


# Sound files ---------------------------------------------------------------------------------------------------------


def all_forms() -> list[Form]:
    """A hundred forms: every profile with every type and mask that it holds, and every resampling."""
    forms: list[Form] = []
    rng = random.Random(7)
    resamplings = ["average", "nearest", "mode", "rms"]
    for profile in ("deflate", "zstd", "lzw", "lzma", "raw", "lerc", "lerc_deflate", "lerc_zstd", "jpeg", "webp"):
        picture = profile in ("jpeg", "webp")
        for dtype in ("uint8",) if picture else ("uint8", "uint16", "int16", "int32", "float32", "float64"):
            for mask in (
                ("internal", "nodata", "alpha", "none") if profile != "jpeg" else ("internal", "nodata", "none")
            ):
                if mask == "alpha" and dtype not in ("uint8", "uint16"):
                    continue
                for resampling in resamplings if picture else [rng.choice(resamplings)]:
                    count = 3 if profile == "webp" else rng.choice([1, 3, 4] if profile == "jpeg" else [1, 2, 3])
                    forms.append(
                        Form(
                            profile,
                            dtype,
                            count,
                            mask=mask,
                            resampling=resampling,
                            clip=rng.random() < 0.3,
                            nodata=0 if mask == "nodata" else None,
                            smooth=rng.random() < 0.5,
                            parts=rng.choice([None, 256, 512]),
                        )
                    )
    rng.shuffle(forms)
    return forms[:110]


def assert_form_is_sound(form: Form, folder: Path) -> None:
    area = POLYGON if form.clip else AREA
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, folder / "out.tif", area, overwrite=True)
    report = verify_file(path)
    assert_sound(report)
    assert report.digest == "equal"
    assert report.overviews_checked
    assert_sound(verify_file(without_digest(path, folder / "old.tif")))


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "form",
    quick_only([*LOSSLESS, *LOSSY], LOSSLESS[1], LOSSLESS[2], LOSSY[0], LOSSY[2]),
    ids=lambda form: f"{form.profile}-{form.dtype}",
)
def test_nothing_is_found_in_a_sound_file(made, tmp_path, form):
    for path in made(form):
        report = verify_file(path)
        assert_sound(report)
        assert report.digest == "equal"
        assert_sound(verify_file(without_digest(path, tmp_path / "old.tif")))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_nothing_is_found_in_a_hundred_sound_files_of_every_profile(tmp_path):
    forms = all_forms()
    assert len(forms) >= 100
    for form in forms:
        assert_form_is_sound(form, tmp_path)


def test_edited_metadata_leave_the_digest_as_it_is(made, tmp_path):
    path, _ = made(LOSSLESS[0])
    copy = tmp_path / "copy.tif"
    copy.write_bytes(path.read_bytes())
    with rasterio.open(copy, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(AUTHOR="somebody", TIFFTAG_IMAGEDESCRIPTION="a long text" * 100)
    report = verify_file(copy)
    assert_sound(report)
    assert report.digest == "equal"


def test_a_cog_of_somebody_else_is_decoded_and_nothing_else_is_claimed(tmp_path):
    with MemoryFile(ext=".tif") as memory:
        profile = {"width": 600, "height": 500, "count": 1, "dtype": "uint8", "crs": "EPSG:4326"}
        with memory.open(driver="GTiff", transform=rasterio.Affine(0.1, 0, 0, 0, -0.1, 0), **profile) as dataset:
            dataset.write(np.arange(300_000, dtype=np.uint32).astype(np.uint8).reshape(1, 500, 600))
        rasterio.shutil.copy(memory.name, tmp_path / "cog.tif", driver="COG", BLOCKSIZE=256)
    report = verify_file(tmp_path / "cog.tif")
    assert_sound(report)
    assert (report.digest, report.overviews_checked) == ("absent", False)


# Against the source --------------------------------------------------------------------------------------------------


async def compared(path: Path, tiler: FakeTiler, **options) -> VerifyReport:
    return await verify_mosaic(path, source=tiler.template, seed=1, **options)


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    "form",
    [
        Form(),
        Form("zstd", "float32", 2, resampling="nearest"),
        Form("lzw", "int16", 1, mask="nodata", nodata=-32768),
        Form("deflate", "uint16", 1, mask="alpha"),
        Form("raw", mask="none"),
        Form("webp", smooth=True),
        Form("jpeg", smooth=True),
        Form("lerc", "float32", 1, options=(("MAX_Z_ERROR", "0.5"),)),
        Form(clip=True),
    ],
    ids=lambda form: f"{form.profile}-{form.mask}-{form.dtype}" + "-clip" * form.clip,
)
async def test_a_sound_output_has_the_pixels_of_its_source_and_not_those_of_another(tmp_path, form):
    area = POLYGON if form.clip else AREA
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, tmp_path / "out.tif", area)
        before = tiler.requests
        report = await compared(path, tiler)
        assert_sound(report)
        assert report.tiles_compared == tiler.requests - before > 5
    with FakeTiler(pattern=form.pattern(other=True)).running() as tiler:
        report = await compared(path, tiler)
    assert len(report.tile_faults) == report.tiles_compared > 5
    assert not report.is_sound


async def test_the_one_tile_that_the_source_has_changed_is_named(tmp_path):
    form = Form()
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, tmp_path / "out.tif")
        changed = sorted(tiler.hits)[5]
        body = tiler.body((changed[0], changed[1], changed[2] + 1))

        async def mood(tile, count):
            return web.Response(body=strip(body, tiler, tile), content_type="image/tiff") if tile == changed else None

        tiler.mood = mood
        report = await compared(path, tiler)
    assert [(fault.tile.z, fault.tile.x, fault.tile.y) for fault in report.tile_faults] == [changed]


def strip(body: bytes, tiler: FakeTiler, tile) -> bytes:
    """Georeference a body to another tile."""
    from tests.fake_tiler import HALF_WORLD, encode

    with MemoryFile(body) as memory, memory.open() as dataset:
        pixels = dataset.read()
    z, x, y = tile
    side = 2 * HALF_WORLD / 2**z
    west, north = -HALF_WORLD + x * side, HALF_WORLD - y * side
    return encode(pixels[:-1], pixels[-1] > 0, "tif", (west, north - side, west + side, north))


async def test_holes_empty_tiles_and_tiles_that_fail_are_told_apart(tmp_path):
    form = Form()
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        gone = set()

        async def mood(tile, count):
            return web.Response(status=404) if tile in gone else None

        tiler.mood = mood
        gone.add((8, 126, 90))
        path = form.build(tiler.template, tmp_path / "out.tif")
        assert (8, 126, 90) in tiler.hits
        assert_sound(await compared(path, tiler))
        gone.clear()
        report = await compared(path, tiler)
        assert [fault.tile.x for fault in report.tile_faults] == [126]
        gone |= {(8, 127, 90)}
        report = await compared(path, tiler)
        assert {fault.reason for fault in report.tile_faults} >= {"the source has no data here"}

        async def broken(tile, count):
            return web.Response(status=500) if tile == (8, 126, 91) else None

        tiler.mood = broken
        report = await compared(path, tiler, attempts=1)
        assert any("cannot be fetched: HTTP 500" in fault.reason for fault in report.tile_faults)


async def test_a_sample_is_repeatable_and_takes_the_edges_too(tmp_path):
    form = Form()
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, tmp_path / "out.tif", (-4, 40, 4, 45))
        tiler.hits.clear()
        assert_sound(await compared(path, tiler, sample=3))
        first = set(tiler.hits)
        tiler.hits.clear()
        await compared(path, tiler, sample=3)
        assert set(tiler.hits) == first
        assert 3 <= len(first) <= 6
        columns, rows = {x for _, x, _ in first}, {y for _, _, y in first}
    with rasterio.open(path) as dataset:
        assert len(first) < dataset.width * dataset.height // 256**2
    assert columns
    assert rows


async def test_an_output_across_the_antimeridian_is_compared(tmp_path):
    form = Form()
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, tmp_path / "out.tif", (178, 10, -178, 12))
        report = await compared(path, tiler)
    assert_sound(report)
    assert {x for _, x, _ in tiler.hits} == {0, 1, 254, 255}
    assert report.tiles_compared == len(tiler.hits)


async def test_tiles_outside_of_a_polygon_were_not_requested_and_are_no_holes(tmp_path):
    form = Form()
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, tmp_path / "out.tif", POLYGON)
        built = set(tiler.hits)
        tiler.hits.clear()
        report = await compared(path, tiler)
        assert set(tiler.hits) <= built
    assert_sound(report)


@pytest.mark.quick(2)
@pytest.mark.parametrize("mask", ["nodata", "alpha", "auto"])
async def test_a_damaged_output_of_a_polygon_is_a_report_when_it_is_compared_too(tmp_path, mask):
    """Whether a place has data is read from the bands themselves where they hold the mask."""
    form = Form(mask=mask, nodata=0 if mask == "nodata" else None, count=1)
    with FakeTiler(pattern=form.pattern()).running() as tiler:
        path = form.build(tiler.template, tmp_path / "out.tif", POLYGON)
        full = next(image for image in read_images(path) if image.level == 0 and not image.is_mask)
        data = bytearray(path.read_bytes())
        for start, count in zip(full.offsets.flat, full.counts.flat, strict=True):
            data[start : start + count] = b"\xff" * count
        path.write_bytes(data)
        report = await compared(path, tiler)
    assert report.block_faults
    assert all("cannot be read" in fault.reason for fault in report.tile_faults)
    assert report.tiles_compared == len(report.tile_faults) > 0


async def test_a_converted_dtype_is_compared_as_it_was_stored(tmp_path):
    with FakeTiler(pattern=Pattern(count=1, dtype="float32")).running() as tiler:
        path = Form(count=1).build(tiler.template, tmp_path / "out.tif", dtype="uint8")
        assert_sound(await compared(path, tiler))


async def test_what_cannot_be_compared_says_why(tmp_path, made):
    path, _ = made(LOSSLESS[0])
    with pytest.raises(UsageError, match="not found"):
        await verify_mosaic(tmp_path / "nothing.tif")
    with pytest.raises(UsageError, match="sample"):
        await verify_mosaic(path, sample=0)
    with pytest.raises(SourceError):
        await verify_mosaic(path, source="http://127.0.0.1:9/{z}/{x}/{y}.tif", attempts=1, max_outage=0.1)
    bare = tmp_path / "bare.tif"
    with rasterio.open(path) as source:
        rasterio.shutil.copy(source, bare, driver="COG", COPY_SRC_MDD="NO")
    with pytest.raises(UsageError, match="does not record the zoom"):
        await verify_mosaic(bare, source="http://127.0.0.1:9/{z}/{x}/{y}.tif")


@pytest.mark.parametrize("zoom", ["2000", "-1", "31", "many"])
async def test_a_zoom_that_no_tile_has_is_not_believed(tmp_path, made, zoom):
    path = shutil.copy(made(LOSSLESS[0])[0], tmp_path / "edited.tif")
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        dataset.update_tags(MOSAIC_ZOOM=zoom)
    with pytest.raises(UsageError, match="does not record the zoom"):
        await verify_mosaic(path, source="http://127.0.0.1:9/{z}/{x}/{y}.tif")


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_exits_with_0_or_3_and_lists_what_differs(made, tmp_path):
    path, other = made(LOSSLESS[0])
    stdout, _ = run("verify", path)
    assert "sound" in stdout
    assert damaged(path, other, "stale", 0, tmp_path / "bad.tif")
    stdout, _ = run("verify", tmp_path / "bad.tif", code=3)
    assert "DIFFERS" in stdout
    stdout, _ = run("verify", tmp_path / "bad.tif", "--json", code=3)
    assert json.loads(stdout)["digest"] == "differs"
    _, stderr = run("verify", tmp_path / "nothing.tif", code=2)
    assert "not found" in stderr


def test_the_command_compares_with_a_tile_url_and_lists_the_tiles(tmp_path, serve):
    tiler = serve()
    path = Form().build(tiler.template, tmp_path / "out.tif")
    stdout, _ = run("verify", path, "--source", tiler.template, "--sample", "5", "--seed", "1")
    assert "compared, 0 differ" in stdout
    other = serve(pattern=Pattern(smooth=True))
    stdout, _ = run("verify", path, "--source", other.template, "--sample", "5", "--json", code=3)
    faults = json.loads(stdout)["tile_faults"]
    assert len(faults) >= 5
    assert faults[0]["tile"].startswith("8/")


def test_the_command_compares_with_scenes_on_disk(tmp_path):
    bounds = ("--bounds", "-54.9", "-25.45", "-54.75", "-25.3", "-z", "10", "--bands", "B4")
    run("build", PARANA, tmp_path / "out.tif", *bounds)
    stdout, _ = run("verify", tmp_path / "out.tif", "--source", PARANA, "--bands", "B4", "--sample", "2")
    assert "compared, 0 differ" in stdout
    run("verify", tmp_path / "out.tif", "--source", PARANA, "--bands", "B3", "--sample", "2", code=3)
