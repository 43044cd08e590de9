"""Settings of GDAL in the environment, which are common in this field, change no byte and no pixel."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from mosaic_async.errors import TileError
from mosaic_async.raster.environment import undecided
from mosaic_async.raster.tile import decode, learn
from tests.fake_tiler import FakeTiler
from tests.pyramid_reader import assert_same_levels
from tests.raster.test_stitch import build, encoding_of, grid_of

SETTINGS = {
    "COMPRESS_OVERVIEW": "JPEG",
    "CPL_DEBUG": "ON",
    "CPL_TMPDIR": "/nonexistent",
    "GDAL_CACHEMAX": "0",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_FORCE_CACHING": "YES",
    "GDAL_GEOREF_SOURCES": "NONE",
    "GDAL_IGNORE_ERRORS": "ALL",
    "GDAL_JPEG_TO_RGB": "NO",
    "GDAL_NUM_THREADS": "ALL_CPUS",
    "GDAL_OVR_CHUNK_MAX_SIZE": "1000",
    "GDAL_OVR_PROPAGATE_NODATA": "YES",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_PAM_MODE": "AUX",
    "GDAL_TIFF_DEFLATE_SUBCODEC": "DEFLATE",
    "GDAL_TIFF_ENDIANNESS": "BIG",
    "GDAL_TIFF_INTERNAL_MASK": "NO",
    "GDAL_TIFF_INTERNAL_MASK_TO_8BIT": "NO",
    "GDAL_TIFF_OVR_BLOCKSIZE": "64",
    "GTIFF_DIRECT_IO": "YES",
    "GTIFF_DONT_WRITE_BLOCKS": "YES",
    "GTIFF_IGNORE_READ_ERRORS": "YES",
    "GTIFF_POINT_GEO_IGNORE": "YES",
    "GTIFF_SRS_SOURCE": "GEOKEYS",
    "GTIFF_VIRTUAL_MEM_IO": "YES",
    "GTIFF_WRITE_ICC_PROFILE": "YES",
    "INTERLEAVE_OVERVIEW": "BAND",
    "OSR_DEFAULT_AXIS_MAPPING_STRATEGY": "AUTHORITY_COMPLIANT",
    "PHOTOMETRIC_OVERVIEW": "YCBCR",
    "PREDICTOR_OVERVIEW": "2",
    "PROJ_NETWORK": "ON",
    "SPARSE_OK_OVERVIEW": "YES",
    "TIFF_USE_OVR": "YES",
    "USE_RRD": "YES",
    "VSI_CACHE": "YES",
}
FORMATS = ["tif", "png", "jpg", "webp", "jp2", "npy"]


def digests(folder: Path, tiles: Path) -> Iterator[tuple[str, str]]:
    """Yield a digest of each kind of output, and of each format of tile as it is decoded."""
    for part_blocks, method, mask in ((1, "average", "internal"), (1, "average", "nodata"), (16, "mode", "nodata")):
        encoding = encoding_of("deflate", "int16", 2, mask, overview_resampling=method)
        name = f"{part_blocks}-{method}-{mask}"
        made = build(grid_of(3, 2, part_blocks), encoding, folder / name)
        yield name, hashlib.sha256(made.read_bytes()).hexdigest()
    for path in sorted(tiles.iterdir()):
        body = path.read_bytes()
        pixels, mask = decode(body, learn(body))
        shown = pixels.tobytes() + (b"" if mask is None else np.ascontiguousarray(mask).tobytes())
        yield path.name, hashlib.sha256(shown).hexdigest()


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for extension in FORMATS:
            (folder / extension).write_bytes(FakeTiler(ext=extension, tile_size=128).body((7, 64, 49)))
        profile = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "dtype": "uint8", "compress": "lzw"}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as file:
            with file.open(**profile) as dataset:
                dataset.write(np.arange(4096, dtype=np.uint16).reshape(1, 64, 64).astype(np.uint8))
                dataset.write_mask(np.tri(64, dtype=np.uint8) * 255)
            (folder / "internal mask").write_bytes(file.read())
    return folder


@pytest.fixture(scope="module")
def expected(tiles, tmp_path_factory) -> dict[str, str]:
    return dict(digests(tmp_path_factory.mktemp("without"), tiles))


@pytest.mark.quick(12)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_in_the_environment_changes_nothing(tmp_path, tiles, gdal_variable, expected, name):
    gdal_variable(name, SETTINGS[name])
    assert dict(digests(tmp_path, tiles)) == expected


def run_demo(folder: Path, settings: dict[str, str]) -> list[Path]:
    code = "import asyncio, sys; from pathlib import Path; from examples.demo import highest_ndvi, true_color;"
    code += "[asyncio.run(make(Path(sys.argv[1]))) for make in (highest_ndvi, true_color)]"
    args = [sys.executable, "-c", code, folder]
    subprocess.run(args, env={**os.environ, **settings}, check=True, capture_output=True)
    return sorted(folder.glob("*.tif"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> list[Path]:
    return run_demo(tmp_path_factory.mktemp("demo"), {})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "names",
    [["GDAL_CACHEMAX"], ["GDAL_DISABLE_READDIR_ON_OPEN"], ["GDAL_PAM_ENABLED"], SETTINGS],
    ids=lambda names: names[0] if len(names) == 1 else "all",
)
def test_the_demo_has_the_same_pixels_under_any_setting(tmp_path, demo, names):
    made = run_demo(tmp_path, {name: SETTINGS[name] for name in names})
    assert [path.name for path in made] == [path.name for path in demo]
    assert len(made) == 2
    for path, expected in zip(made, demo, strict=True):
        assert_same_levels(path, expected)


def test_processes_that_render_tiles_get_no_setting_that_changes_pixels():
    harmless = {"GDAL_HTTP_MAX_RETRY": "7", "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", "HOME": "/home"}
    assert undecided({**SETTINGS, **harmless}).items() >= harmless.items()
    assert not undecided(SETTINGS).keys() & {"GDAL_CACHEMAX", "GTIFF_DONT_WRITE_BLOCKS", "GDAL_GEOREF_SOURCES"}


def test_a_damaged_tile_is_refused_where_errors_are_to_be_ignored(tiles, gdal_variable):
    body = (tiles / "internal mask").read_bytes()
    tile_format, middle = learn(body), len(body) // 2
    damaged = body[: middle - 40] + bytes(80) + body[middle + 40 :]
    gdal_variable("GTIFF_IGNORE_READ_ERRORS", "YES")
    with pytest.raises(TileError):
        decode(damaged, tile_format)


@pytest.mark.quick(2)
@pytest.mark.parametrize("settings", [{"GDAL_SKIP": "PNG"}, {"GDAL_CACHEMAX": "5%"}, SETTINGS])
def test_settings_that_are_read_at_the_start_change_nothing(tmp_path, tiles, expected, settings):
    code = "import sys; from pathlib import Path; from tests.raster.test_environment import digests;"
    code += "print(dict(digests(*map(Path, sys.argv[1:]))))"
    environment, args = {**os.environ, **settings}, [sys.executable, "-c", code, tmp_path, tiles]
    found = subprocess.run(args, env=environment, capture_output=True, check=False)
    assert found.stdout.decode().strip() == str(expected), found.stderr.decode()[-2000:]
