"""The embedded tiler and the demo, against rio-tiler called directly: no HTTP, none of the package's code."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import aiohttp
import mercantile
import numpy as np
import psutil
import pytest
import rasterio
import rasterio.transform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rio_cogeo.cogeo import cog_validate
from rio_tiler.errors import EmptyMosaicError, TileOutsideBounds
from rio_tiler.io import STACReader
from rio_tiler.models import ImageData
from rio_tiler.mosaic.methods import PixelSelectionMethod
from rio_tiler.mosaic.reader import mosaic_reader

from mosaic_async import MosaicError, ResourceError, SourceError, UsageError, build_mosaic
from mosaic_async.tiler import Rendering, local_tiler, open_mosaic
from mosaic_async.tiler import serve as serve_mosaic
from tests.conftest import COLORADO, PARANA
from tests.effort import examples
from tests.pairwise import quick_only
from tests.test_api import left_behind

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),  # of the pictures
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),  # rio-tiler: missing
]

with_forked_tilers = pytest.mark.usefixtures("forked_tilers")
PLACE = (-54.9, -25.45, -54.75, -25.3)
RARER_SELECTIONS = ("highest", "lowest", "mean", "stdev", "count")


def scenes_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.json")) if path.name != "collection.json"]


def render_directly(
    scenes, tile, *, assets, expression=None, selection="first", size=512, rescale=(), formula=None, slivers=True
):
    """Read one tile with rio-tiler's mosaic reader; None where no scene has data."""

    def read(scene, x, y, z) -> ImageData:
        with STACReader(scene) as reader:
            if not slivers:  # as TiTiler does, which drops a tile that a scene reaches by a few pixels
                return reader.tile(
                    x, y, z, assets=assets, expression=expression, tilesize=size, padding=2,
                    resampling_method="bilinear", reproject_method="bilinear",
                )  # fmt: skip
            west, south, east, north = reader.item.bbox
            box = mercantile.bounds(x, y, z)
            if not (west - 0.001 < box.east and box.west < east + 0.001):
                raise TileOutsideBounds
            if not (south - 0.001 < box.north and box.south < north + 0.001):
                raise TileOutsideBounds
            return reader.part(
                mercantile.xy_bounds(x, y, z), bounds_crs="EPSG:3857", dst_crs="EPSG:3857", width=size, height=size,
                assets=assets, expression=expression, padding=2, resampling_method="bilinear",
                reproject_method="bilinear",
            )  # fmt: skip

    try:
        image, _ = mosaic_reader(
            scenes, read, tile.x, tile.y, tile.z, pixel_selection=PixelSelectionMethod[selection].value, threads=1,
            allowed_exceptions=(TileOutsideBounds,),
        )  # fmt: skip
    except EmptyMosaicError:
        return None
    if rescale:
        image.rescale(rescale)
    if formula:
        image.apply_color_formula(formula)
    return image


def mosaic_directly(area, zoom, **options) -> tuple[np.ndarray, np.ndarray]:
    """Put tiles rendered directly side by side: pixels and validity."""
    tiles = list(mercantile.tiles(*area, zooms=[zoom]))
    left, top = min(tile.x for tile in tiles), min(tile.y for tile in tiles)
    columns, rows = max(tile.x for tile in tiles) - left + 1, max(tile.y for tile in tiles) - top + 1
    images = {tile: render_directly(tile=tile, **options) for tile in tiles}
    first = next(image for image in images.values() if image is not None)
    count, size = first.data.shape[:2]
    pixels = np.zeros((count, rows * size, columns * size), first.data.dtype)
    valid = np.zeros((rows * size, columns * size), bool)
    for tile, image in images.items():
        if image is not None:
            row, col = (tile.y - top) * size, (tile.x - left) * size
            pixels[:, row : row + size, col : col + size] = image.data
            valid[row : row + size, col : col + size] = image.mask > 0
    return pixels, valid


def assert_holds(path: Path, pixels: np.ndarray, valid: np.ndarray) -> None:
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(dataset.read()[:, valid], pixels[:, valid])


@pytest.mark.slow
@with_forked_tilers
async def test_the_demo_s_true_colour_median_is_rio_tiler_s(tmp_path):
    sys.path.insert(0, str(PARANA.parents[1]))
    import demo

    output = tmp_path / "out.tif"
    async with local_tiler(PARANA, **demo.TRUE_COLOR, group_by="none") as source:
        await build_mosaic(source, PLACE, output, zoom=11)
    pixels, valid = mosaic_directly(
        PLACE, 11, scenes=scenes_of(PARANA), assets=["B4", "B3", "B2"], selection="median",
        rescale=demo.TRUE_COLOR["rescale"], formula=demo.TRUE_COLOR["color_formula"],
    )  # fmt: skip
    assert_holds(output, pixels, valid)


@pytest.mark.slow
@with_forked_tilers
async def test_the_demo_s_highest_ndvi_is_rio_tiler_s(tmp_path):
    sys.path.insert(0, str(PARANA.parents[1]))
    import demo

    output = tmp_path / "out.tif"
    async with local_tiler(COLORADO, **demo.HIGHEST_NDVI) as source:
        await build_mosaic(source, demo.COLORADO_AREA, output, zoom=14, dtype="int16")
    pixels, valid = mosaic_directly(
        demo.COLORADO_AREA, 14, scenes=scenes_of(COLORADO), assets=["b5", "b4", "b3"], selection="lastbandhigh",
        expression="b1;b2;b3;where((b3>100)&(b2>1500)&(b1>500),(b2-b3)/(b2+b3),-1)",
    )  # fmt: skip
    assert_holds(output, np.rint(pixels).astype("int16"), valid)


@pytest.mark.parametrize(
    "selection",
    ["median", *(pytest.param(name, marks=pytest.mark.slow) for name in ("first", *RARER_SELECTIONS))],
)
@with_forked_tilers
async def test_selections_that_rio_tiler_has_are_rio_tiler_s(tmp_path, selection):
    """Those by a last band are not, on purpose: rio-tiler's put pixels together from several scenes."""
    options = {"pixel_selection": selection, "group_by": "none", "tile_size": 256, "workers": 1}
    async with local_tiler(PARANA, bands=["B3", "B2"], **options) as source:
        await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
    pixels, valid = mosaic_directly(
        PLACE, 10, scenes=scenes_of(PARANA), assets=["B3", "B2"], selection=selection, size=256
    )
    assert_holds(tmp_path / "out.tif", pixels, valid)


@pytest.mark.parametrize(
    ("tile_format", "size"),
    [
        pytest.param("tif", 1024, marks=pytest.mark.slow),
        pytest.param("npy", 128, marks=pytest.mark.slow),
        ("png", 256),
        pytest.param("webp", 512, marks=pytest.mark.slow),
    ],
)
@with_forked_tilers
async def test_every_format_and_size_of_tile_can_be_asked_for(tmp_path, tile_format, size):
    options = {"bands": ["B4", "B3", "B2"], "rescale": [(5000, 15000)]}
    async with local_tiler(PARANA, **options, tile_format=tile_format, tile_size=size, workers=1) as source:
        report = await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
    assert report.tile_size == size
    pixels, valid = mosaic_directly(
        PLACE, 10, scenes=scenes_of(PARANA), assets=["B4", "B3", "B2"], size=size, rescale=[(5000, 15000)]
    )
    if tile_format == "webp":  # TiTiler's is lossy
        with rasterio.open(tmp_path / "out.tif") as dataset:
            assert np.abs(dataset.read()[:, valid].astype(int) - pixels[:, valid]).mean() < 8
    else:
        assert_holds(tmp_path / "out.tif", pixels, valid)


@with_forked_tilers
async def test_a_folder_of_plain_cogs_is_served_by_band_number(tmp_path):
    folder = tmp_path / "cogs"
    folder.mkdir()
    for path in PARANA.rglob("*_B3.tif"):
        shutil.copy(path, folder)
    async with local_tiler(folder, expression="b1*2;b1", tile_size=256, workers=1) as source:
        await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        twice, once = dataset.read()
        valid = dataset.dataset_mask() > 0
    assert valid.any()
    np.testing.assert_array_equal(twice[valid], 2 * once[valid].astype(twice.dtype))


@pytest.mark.parametrize("name", quick_only(["mosaic.json", "mosaic.json.gz"], "mosaic.json.gz"))
@with_forked_tilers
async def test_a_mosaicjson_with_relative_paths_is_served(tmp_path, name):
    document = open_mosaic(PARANA).document
    shutil.copytree(PARANA, tmp_path / "scenes")
    for key, scenes in document["tiles"].items():
        document["tiles"][key] = [str(Path("scenes") / Path(scene).relative_to(PARANA)) for scene in scenes]
    data = json.dumps(document).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    async with local_tiler(tmp_path / name, bands=["B4"], tile_size=256, workers=1) as source:
        report = await build_mosaic(source, PLACE, tmp_path / "out.tif", zoom=10)
    assert report.tiles_placed > 0


def test_a_collection_is_followed_to_its_items():
    by_collection, by_folder = open_mosaic(PARANA / "collection.json"), open_mosaic(PARANA)
    assert by_collection.document["tiles"].keys() == by_folder.document["tiles"].keys()
    assert by_collection.assets == by_folder.assets == ("B2", "B3", "B4")
    assert by_folder.digest == open_mosaic(str(PARANA)).digest


@pytest.mark.parametrize(
    "text", ["{}", "[]", "not json", '{"mosaicjson": "0.0.3"}', '{"mosaicjson": "0.0.3", "tiles": {"1": [3]}}']
)
def test_what_is_no_mosaic_is_a_source_error(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(SourceError):
        open_mosaic(tmp_path / "bad.json")
    with pytest.raises(SourceError, match="not found"):
        open_mosaic(tmp_path / "nothing.json")


def test_an_empty_folder_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="neither STAC items nor GeoTIFFs"):
        open_mosaic(tmp_path)


def test_names_in_an_expression_become_places_all_at_once():
    """Colorado's bands are called b3 and b4, which TiTiler would take for the third and the fourth."""
    query = Rendering(expression="(b4-b3)/(b4+b3);b5").query(open_mosaic(COLORADO))
    assert query.startswith("assets=b4&assets=b3&assets=b5&expression=%28b1-b2%29%2F%28b1%2Bb2%29%3Bb3&")


@pytest.mark.parametrize(
    "options",
    [
        {"bands": ["B9"]},
        {"bands": ["B4"], "expression": "B4"},
        {"expression": "x+1"},
        {"bands": ["B4"], "pixel_selection": "bdix"},
        {},
    ],
)
def test_rendering_that_cannot_be_is_a_usage_error(options):
    with pytest.raises(UsageError):
        Rendering(**options).query(open_mosaic(PARANA))


async def test_the_tiler_ends_with_its_block(tmp_path):
    before = set(psutil.Process().children(recursive=True))  # servers of other tests
    async with local_tiler(PARANA, bands=["B4"], workers=2):
        running = set(psutil.Process().children(recursive=True)) - before
        assert len(running) == 2
    assert not any(process.is_running() for process in running)


def test_a_killed_run_takes_its_tilers_along(tmp_path):
    command = [sys.executable, "-m", "mosaic_async", "serve", str(PARANA), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        tilers = psutil.Process(process.pid).children(recursive=True)
        assert len(tilers) == 2
        process.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(tilers, timeout=10)
    assert not alive
    assert len(gone) == 2


@with_forked_tilers
async def test_a_run_over_local_scenes_goes_on_although_the_port_changed(tmp_path):
    options = {"bands": ["B4"], "tile_size": 256, "workers": 1}
    area = (-55.0, -25.5, -54.3, -25.0)
    async with local_tiler(PARANA, **options) as source:
        task = asyncio.ensure_future(
            build_mosaic(source, area, tmp_path / "out.tif", zoom=11, concurrency=2, part_size=512)
        )
        while not list(tmp_path.glob("out.tif.work/parts/*/*.json")):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with local_tiler(PARANA, **options) as source:
        report = await build_mosaic(source, area, tmp_path / "out.tif", zoom=11, part_size=512)
    assert report.parts_resumed > 0
    assert left_behind(tmp_path) == ["out.tif"]


async def test_a_port_that_is_taken_is_a_resource_error(serve):
    taken = serve().port
    with pytest.raises(ResourceError, match="cannot listen"):
        async with serve_mosaic(open_mosaic(PARANA), host="127.0.0.1", port=taken):
            pass


@with_forked_tilers
async def test_a_run_s_tiler_answers_only_who_knows_its_secret():
    async with local_tiler(PARANA, bands=["B4"], workers=1) as source:
        url = source.url(mercantile.tile(-54.8, -25.4, 10))
        assert source.identity is not None
        secret = url.rpartition("access_token=")[2]
        assert len(secret) > 16
        assert secret not in source.identity
        async with aiohttp.ClientSession() as session:
            statuses = []
            for asked in (
                url,
                f"{url}&url=/etc/hostname",  # nobody chooses what is opened
                url.replace(secret, "guess"),
                url.partition("&access_token")[0],
                url[: url.index("/tiles")],
            ):
                async with session.get(asked) as response:
                    statuses.append(response.status)
    assert statuses == [200, 422, 403, 403, 403]


VRT = (
    '<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:3857</SRS><GeoTransform>0,100,0,0,0,-100</GeoTransform>'
    '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>/etc/hostname</SourceFilename>'
    "</SimpleSource></VRTRasterBand></VRTDataset>"
)


def test_a_vrt_is_no_scene_whatever_its_name(tmp_path):
    (tmp_path / "scene.tif").write_text(VRT)
    with pytest.raises(SourceError, match=r"scene\.tif"):
        open_mosaic(tmp_path)


def test_a_vrt_behind_an_item_is_not_read(tmp_path):
    from mosaic_async.tiler.pixels.raster_facts import facts_of

    (tmp_path / "asset.tif").write_text(VRT)
    with pytest.raises(rasterio.errors.RasterioIOError):
        facts_of(str(tmp_path / "asset.tif"))


def test_hosts_that_scenes_are_read_from_are_told_without_users(tmp_path):
    path = scene(tmp_path)
    document = json.loads(path.read_text())
    document["assets"]["far"] = {"href": "https://me:secret@far.example/b.tif"}
    path.write_text(json.dumps(document))
    assert open_mosaic(tmp_path / "scenes").hosts == ("far.example",)
    assert open_mosaic(PARANA).hosts == ()


@pytest.mark.slow  # a port that is taken by anybody is the short form
async def test_two_tilers_do_not_share_a_port(unused_tcp_port):
    options = {"host": "127.0.0.1", "port": unused_tcp_port, "workers": 1}
    async with serve_mosaic(open_mosaic(PARANA), **options):
        with pytest.raises(ResourceError, match="cannot listen"):
            async with serve_mosaic(open_mosaic(COLORADO), **options):
                pass


def scene(tmp_path, **changes) -> Path:
    """Copy a Paraná scene and change its item."""
    path = next(path for path in sorted(PARANA.rglob("*.json")) if path.name != "collection.json")
    folder = tmp_path / "scenes" / path.parent.name
    shutil.copytree(path.parent, folder)
    document = json.loads(path.read_text())
    document.update(changes)
    (folder / path.name).write_text(json.dumps({key: value for key, value in document.items() if value != "absent"}))
    return folder / path.name


def test_items_that_do_not_know_their_projection_get_the_zoom_of_their_files(tmp_path):
    path = scene(tmp_path)
    document = json.loads(path.read_text())
    for holder in (document["properties"], *document["assets"].values()):
        for name in [name for name in holder if name.startswith("proj:")]:
            del holder[name]
    path.write_text(json.dumps(document))
    assert open_mosaic(tmp_path / "scenes").document["maxzoom"] == open_mosaic(PARANA).document["maxzoom"]


@pytest.mark.parametrize(
    "changes", [{"geometry": None}, {"properties": "absent"}, {"geometry": {"type": "Polygon"}}, {"assets": []}]
)
def test_a_malformed_scene_is_a_source_error_that_names_it(tmp_path, changes):
    path = scene(tmp_path, **changes)
    with pytest.raises(SourceError, match=path.name):
        open_mosaic(tmp_path / "scenes")


def test_a_cog_without_a_reference_system_is_a_source_error_that_names_it(tmp_path):
    with rasterio.open(
        tmp_path / "plain.tif", "w", driver="GTiff", width=64, height=64, count=1, dtype="uint8"
    ) as file:
        file.write(np.ones((1, 64, 64), "uint8"))
    with pytest.raises(SourceError, match=r"plain\.tif.*reference system"):
        open_mosaic(tmp_path)


def test_a_catalogue_that_links_to_itself_is_read_once(tmp_path):
    path = scene(tmp_path)
    links = [{"rel": "child", "href": "./catalog.json"}, {"rel": "item", "href": str(path.relative_to(tmp_path))}]
    catalog = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "", "links": links * 2}
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    document = open_mosaic(tmp_path / "catalog.json").document
    assert {name for names in document["tiles"].values() for name in names} == {str(path)}
    assert all(len(names) == 1 for names in document["tiles"].values())


@pytest.mark.filterwarnings("ignore:The dataset has no Overviews")
@pytest.mark.parametrize("limit", [1_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_scene_as_large_as_a_continent_is_indexed_coarsely(tmp_path, monkeypatch, limit):
    monkeypatch.setattr("mosaic_async.tiler.scenes.mosaic._MAX_CELLS", limit)
    transform = rasterio.transform.from_bounds(-20, 0, 60, 70, 800_000, 700_000)
    options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:4326", "sparse_ok": True, "tiled": True}
    with rasterio.open(tmp_path / "big.tif", "w", width=800_000, height=700_000, transform=transform, **options):
        pass
    assert limit / 8 <= len(open_mosaic(tmp_path).document["tiles"]) <= limit


async def test_a_tiler_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(SourceError, match="does not start"):
        async with local_tiler(PARANA, bands=["B4"]):
            pass


@pytest.mark.slow
@with_forked_tilers
def test_the_recipes_of_the_demo_leave_two_valid_cogs_and_two_pictures(tmp_path, monkeypatch):
    """In a small corner of each area, and with one tiler process."""
    monkeypatch.syspath_prepend(PARANA.parents[1])
    demo = importlib.import_module("demo")
    monkeypatch.setattr(demo, "PARANA_AREA", (-54.7, -25.4, -54.68, -25.38))
    monkeypatch.setattr(demo, "COLORADO_AREA", (-106.915, 40.287, -106.914, 40.288))
    monkeypatch.setattr(demo, "local_tiler", partial(local_tiler, workers=1))
    demo.main(tmp_path)
    assert left_behind(tmp_path) == [
        "colorado-highest-ndvi.png", "colorado-highest-ndvi.tif", "parana-median.png", "parana-median.tif"
    ]  # fmt: skip


@pytest.mark.slow
def test_the_demo_leaves_two_valid_cogs_and_two_pictures(tmp_path):
    script = PARANA.parents[1] / "demo.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=110)
    assert left_behind(tmp_path) == [
        "colorado-highest-ndvi.png", "colorado-highest-ndvi.tif", "parana-median.png", "parana-median.tif"
    ]  # fmt: skip
    for path in tmp_path.glob("*.tif"):
        assert cog_validate(path, strict=True, quiet=True) == (True, [], [])
    for path in tmp_path.glob("*.png"):
        with rasterio.open(path) as picture:
            assert picture.count == 4
            assert picture.read(1).std() > 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 40) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
sound = {
    "mosaicjson": "0.0.3",
    "minzoom": 7,
    "maxzoom": 9,
    "quadkey_zoom": 7,
    "bounds": [-180, -85, 180, 85],
    "center": [0, 0, 7],
    "tiles": {"0300000": ["scene.tif"]},
    "asset_prefix": "file://",
    "asset_type": "COG",
}


@given(st.dictionaries(st.sampled_from(sorted(sound)), json_values, min_size=1, max_size=4))
@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hostile_mosaicjson_is_a_mosaic_or_our_error_and_nothing_else(tmp_path, changes):
    path = tmp_path / "mosaic.json"
    path.write_text(json.dumps({**sound, **changes, "mosaicjson": "0.0.3"}))
    try:
        mosaic = open_mosaic(path)
    except MosaicError:
        return
    assert all(isinstance(name, str) for names in mosaic.document["tiles"].values() for name in names)


def test_formulas_may_be_separated_as_for_other_tilers_and_older_names_of_selections_are_known():
    mosaic = open_mosaic(COLORADO)
    old = Rendering(expression="b4, where(b5>b4,b5,b4)", pixel_selection="lastband")
    new = Rendering(expression="b4;where(b5>b4,b5,b4)", pixel_selection="lastbandhigh")
    assert old.query(mosaic) == new.query(mosaic)
    assert "expression=b1%3Bwhere%28b2%3Eb1%2Cb2%2Cb1%29" in new.query(mosaic)
