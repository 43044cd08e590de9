"""A collection is the one-file output in parts: the same pixels through every door, each part a COG, and never half."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mercantile
import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
import tifffile
from aiohttp import web
from cogeo_mosaic.backends import MosaicBackend
from pystac.extensions.projection import ProjectionExtension
from rasterio.enums import ColorInterp
from rasterio.warp import transform
from rio_cogeo import cog_validate
from rio_tiler.io import Reader
from shapely.geometry import shape

from mosaic_async import UsageError, WorkFolderError, build_mosaic, verify_mosaic
from mosaic_async.build import run
from mosaic_async.stac import collection
from mosaic_async.tiler import local_tiler
from tests.build.test_unlike_tiles import LAYERS, OPTIONS, TILES, Layer, begin_with
from tests.fake_tiler import Pattern
from tests.loopback import running
from tests.test_api import AREA, ZOOM, left_behind

SMALL = {"creation_options": {"BLOCKSIZE": "128"}, "part_size": 256}
ODD = (-2.7, 41.3, 2.111, 44.7)


def area_of(columns: range, rows: range, zoom: int) -> tuple[float, float, float, float]:
    """Return bounds a little inside of these tiles."""
    first = mercantile.bounds(columns[0], rows[0], zoom)
    last = mercantile.bounds(columns[-1], rows[-1], zoom)
    return first.west + 0.01, last.south + 0.01, last.east - 0.01, first.north - 0.01


def parts_of(folder: Path) -> list[Path]:
    return sorted((folder / "parts").rglob("*.tif"))


def pixels_and_mask(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(path) as dataset:
        valid = dataset.dataset_mask() > 0
        return np.where(valid, dataset.read(), 0), valid


def assert_same_pixels(one: Path, folder: Path, monkeypatch) -> None:
    """Read the collection through GDAL's index and part by part, from another working directory."""
    pixels, valid = pixels_and_mask(one)
    monkeypatch.chdir("/")
    found, found_valid = pixels_and_mask(folder / "index.gti.gpkg")
    assert np.array_equal(found_valid, valid)
    assert np.array_equal(found, pixels, equal_nan=pixels.dtype.kind == "f")
    with rasterio.open(one) as whole, rasterio.open(folder / "index.gti.gpkg") as index:
        assert index.driver == "GTI"
        assert index.transform == whole.transform
        assert (index.crs, index.dtypes, index.count) == (whole.crs, whole.dtypes, whole.count)
        assert index.colorinterp == whole.colorinterp
        covered = np.zeros(valid.shape, bool)
        for path in parts_of(folder):
            with rasterio.open(path) as part:
                left, top = ~whole.transform @ (part.transform.c, part.transform.f)
            rows, cols = slice(round(top), round(top) + part.height), slice(round(left), round(left) + part.width)
            part_pixels, part_valid = pixels_and_mask(path)
            assert np.array_equal(part_valid, valid[rows, cols]), path
            assert np.array_equal(part_pixels, pixels[:, rows, cols], equal_nan=pixels.dtype.kind == "f"), path
            assert not covered[rows, cols].any(), "parts overlap"
            covered[rows, cols] = True
    assert not (valid & ~covered).any()


def assert_valid_cogs(folder: Path) -> None:
    for path in parts_of(folder):
        is_valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
        assert is_valid, (path, errors, warnings)


def outermost(valid: np.ndarray) -> np.ndarray:
    """Return where nothing valid lies on one side of a pixel, and every 37th row."""
    found = np.zeros_like(valid)
    for axis in (0, 1):
        for turned, target in ((valid, found), (np.flip(valid, axis), np.flip(found, axis))):
            target[np.cumsum(turned, axis=axis) == 1] = True
    found[::37] = True
    return found


def assert_outline_holds_data(item: dict, path: Path) -> None:
    """Compare with the corners of the first and last valid pixels of all rows and columns, and of some others."""
    outline = shape(item["geometry"])
    with rasterio.open(path) as dataset:
        valid = dataset.dataset_mask() > 0
        share = 100 * np.count_nonzero(valid) / valid.size
        rows, cols = np.nonzero(valid & outermost(valid))
        corners = [(cols + dx, rows + dy) for dx in (0.02, 0.98) for dy in (0.02, 0.98)]
        xs, ys = (np.concatenate(values) for values in zip(*corners, strict=True))
        lon, lat = transform(dataset.crs, "OGC:CRS84", *(dataset.transform @ (xs, ys)))
    assert shapely.contains_xy(outline, (np.array(lon) + 180) % 360 - 180, np.array(lat)).all()
    assert shapely.get_num_coordinates(outline) <= 200
    for band in item["assets"]["data"]["bands"]:
        assert band["statistics"]["valid_percent"] == pytest.approx(share)


def assert_valid_stac(folder: Path) -> None:
    """Validate with pystac against the schemas that it brings, follow every link, and compare with rasterio."""
    found = pystac.Collection.from_file(str(folder / "collection.json"))
    assert all(not Path(link.href).is_absolute() for link in found.links if link.rel == "item")
    items = list(found.get_items())
    assert len(items) == len(parts_of(folder)) > 0
    for thing in (found, items[-1]):
        thing.stac_extensions, kept = [], thing.stac_extensions
        thing.validate()  # the core alone: extensions' schemas are not in the package
        thing.stac_extensions = kept
    for item in items:
        path = Path(item.assets["data"].get_absolute_href())
        assert path in parts_of(folder)
        assert Path(item.get_collection().self_href) == folder / "collection.json"
        projection = ProjectionExtension.ext(item)
        with rasterio.open(path) as dataset:
            assert projection.code == ":".join(dataset.crs.to_authority())
            assert projection.shape == [dataset.height, dataset.width]
            assert projection.transform == list(dataset.transform)[:6]
            assert projection.bbox == list(dataset.bounds)
            bands = item.to_dict()["assets"]["data"]["bands"]
            assert [band["data_type"] for band in bands] == list(dataset.dtypes)
        assert_outline_holds_data(json.loads(path.with_suffix(".json").read_text()), path)
    assert {asset.get_absolute_href() for asset in found.assets.values()} == {
        str(folder / "mosaic.json"),
        str(folder / "index.gti.gpkg"),
    }


def assert_one_mosaic_for_rio_tiler(one: Path, folder: Path, tiles: list[mercantile.Tile], size: int = 256) -> None:
    with MosaicBackend(str(folder / "mosaic.json")) as mosaic, Reader(str(one)) as whole:
        assert mosaic.maxzoom == mosaic.mosaic_def.maxzoom >= tiles[0].z
        for tile in tiles:
            got, _ = mosaic.tile(tile.x, tile.y, tile.z, tilesize=size)
            want = whole.tile(tile.x, tile.y, tile.z, tilesize=size)
            assert np.array_equal(got.mask, want.mask), tile
            assert np.array_equal(np.where(got.mask, got.data, 0), np.where(want.mask, want.data, 0)), tile


async def test_a_collection_is_the_file_through_every_door(serve, tmp_path, monkeypatch):
    tiler = serve()
    one, folder = tmp_path / "one.tif", tmp_path / "many"
    await build_mosaic(tiler.template, AREA, one, zoom=ZOOM, **SMALL)
    before = tiler.requests
    report = await build_mosaic(tiler.template, AREA, folder, zoom=ZOOM, collection=True, **SMALL)
    assert tiler.requests - before == report.requests == report.tiles_total == 16
    assert left_behind(tmp_path) == ["many", "one.tif"]
    assert report.output == folder
    assert report.bytes_written == sum(path.stat().st_size for path in parts_of(folder))
    assert_valid_cogs(folder)
    assert_valid_stac(folder)
    assert_same_pixels(one, folder, monkeypatch)
    assert_one_mosaic_for_rio_tiler(one, folder, list(mercantile.tiles(*AREA, zooms=[ZOOM]))[::5])
    blocks = set(pages_of(one)[0])
    for path in parts_of(folder):
        assert set(pages_of(path)[0]) <= blocks, "they are those of the file, byte for byte"
    checked = await verify_mosaic(parts_of(folder)[5], source=tiler.template)
    assert checked.is_sound


def pages_of(path: Path) -> list[list[bytes]]:
    """Return the encoded blocks of each image, as tifffile reads them."""
    with tifffile.TiffFile(path) as file:
        handle = file.filehandle
        found = []
        for page in file.pages:
            blocks = []
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                handle.seek(offset)
                blocks.append(handle.read(count))
            found.append(blocks)
        return found


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        (Pattern(), {**SMALL, "clip": True}),
        (Pattern(count=1, dtype="float32"), {**SMALL, "clip": True, "nodata": -9999.0, "profile": "zstd"}),
        (Pattern(smooth=True), {**SMALL, "clip": True, "profile": "jpeg"}),
        (Pattern(smooth=True), {**SMALL, "profile": "webp"}),
        (Pattern(count=2, dtype="uint16", masked=False), {**SMALL, "mask": "none"}),
    ],
    ids=["odd", "float nodata", "jpeg", "alpha", "no mask"],
)
async def test_parts_of_any_size_and_kind_hold_the_pixels_of_the_file(serve, tmp_path, monkeypatch, pattern, options):
    tiler, one, folder = serve(pattern=pattern), tmp_path / "one.tif", tmp_path / "many"
    await build_mosaic(tiler.template, ODD, one, zoom=ZOOM, **options)
    await build_mosaic(tiler.template, ODD, folder, zoom=ZOOM, collection=True, **options)
    assert_valid_cogs(folder)
    assert_valid_stac(folder)
    assert_same_pixels(one, folder, monkeypatch)
    with rasterio.open(parts_of(folder)[-1]) as last:
        assert (last.width % 2 == last.height % 2 == 1) is options.get("clip", False), "halves do not fit these parts"
    if pattern.masked and options.get("profile") == "webp":
        with rasterio.open(parts_of(folder)[0]) as part:
            assert part.colorinterp[-1] == ColorInterp.alpha


async def test_a_last_column_too_narrow_for_a_cog_belongs_to_its_neighbour(serve, tmp_path, monkeypatch):
    """A part of 512 x 1024 pixels in blocks of 512 is no tiled file for rio-cogeo."""
    tiler, one, folder = serve(tile_size=512), tmp_path / "one.tif", tmp_path / "many"
    area = area_of(range(64, 67), range(40, 43), 7)
    options = {"creation_options": {"BLOCKSIZE": "512"}, "part_size": 1024}
    await build_mosaic(tiler.template, area, one, zoom=7, **options)
    report = await build_mosaic(tiler.template, area, folder, zoom=7, collection=True, **options)
    assert report.tiles_placed == 9
    assert [path.stem for path in parts_of(folder)] == ["0-0", "1-0"]
    assert_valid_cogs(folder)
    assert_same_pixels(one, folder, monkeypatch)


async def test_parts_without_data_have_no_item_and_the_mosaic_keeps_its_size(serve, tmp_path, monkeypatch):
    async def empty_north(tile, _):
        return web.Response(status=204) if tile[2] < 48 else None

    tiler, one, folder = serve(mood=empty_north), tmp_path / "one.tif", tmp_path / "many"
    await build_mosaic(tiler.template, AREA, one, zoom=ZOOM, **SMALL)
    report = await build_mosaic(tiler.template, AREA, folder, zoom=ZOOM, collection=True, **SMALL)
    assert 0 < report.tiles_placed < 16
    assert len(parts_of(folder)) == report.tiles_placed
    assert_same_pixels(one, folder, monkeypatch)
    assert_valid_stac(folder)


async def test_outlines_across_the_antimeridian_are_cut_there(serve, tmp_path, monkeypatch):
    tiler, one, folder = serve(), tmp_path / "one.tif", tmp_path / "many"
    area = (178.0, -20.0, -178.0, -15.0)
    await build_mosaic(tiler.template, area, one, zoom=6, **SMALL)
    await build_mosaic(tiler.template, area, folder, zoom=6, collection=True, **SMALL)
    assert_valid_stac(folder)
    assert_same_pixels(one, folder, monkeypatch)
    boxes = [json.loads(path.with_suffix(".json").read_text())["bbox"] for path in parts_of(folder)]
    assert all(-180 <= west <= 180 and -180 <= east <= 180 for west, _, east, _ in boxes)
    assert all(east - west < 10 for west, _, east, _ in boxes)


async def test_a_run_that_dies_before_the_folder_is_in_place_resumes_without_a_request(serve, tmp_path, monkeypatch):
    tiler, folder = serve(), tmp_path / "many"
    rename = run.publish_folder

    def killed(*_, **__):
        raise OSError(28, "No space left on device")

    for name, module in (("publish_folder", run), ("tile_index", collection)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, killed)
            with pytest.raises(Exception, match="No space left"):
                await build_mosaic(tiler.template, AREA, folder, zoom=ZOOM, collection=True, **SMALL)
        assert left_behind(tmp_path) == ["many.work"]
    assert tiler.requests == 16
    with monkeypatch.context() as patch:  # as if killed right after the folder got its name
        patch.setattr(run, "publish_folder", lambda *args, **options: (rename(*args, **options), killed()))
        patch.setattr(run.WorkFolder, "withdraw", lambda _: _nothing())
        with pytest.raises(Exception, match="No space left"):
            await build_mosaic(tiler.template, AREA, folder, zoom=ZOOM, collection=True, **SMALL)
    report = await build_mosaic(tiler.template, AREA, folder, zoom=ZOOM, collection=True, **SMALL)
    assert (report.tiles_placed, report.requests, tiler.requests) == (16, 0, 16)
    assert left_behind(tmp_path) == ["many"]
    assert_valid_stac(folder)


async def _nothing():
    pass


async def test_a_folder_is_replaced_only_if_it_is_a_collection_and_the_user_says_so(serve, tmp_path):
    tiler, folder = serve(), tmp_path / "many"
    build = {"zoom": ZOOM, "collection": True, **SMALL}
    await build_mosaic(tiler.template, AREA, folder, **build)
    with pytest.raises(UsageError, match="exists"):
        await build_mosaic(tiler.template, AREA, folder, **build)
    (folder / "index.gti.gpkg.aux.xml").write_text("")
    smaller = (-1.0, 40.0, 1.0, 42.0)
    report = await build_mosaic(tiler.template, smaller, folder, overwrite=True, **build)
    assert len(parts_of(folder)) == report.parts_total < 16
    (folder / "parts" / "thesis.docx").write_text("all my work")
    with pytest.raises(UsageError, match=r"thesis\.docx"):
        await build_mosaic(tiler.template, AREA, folder, overwrite=True, **build)
    assert (folder / "parts" / "thesis.docx").read_text() == "all my work"
    for name, match in (("out.tif", "name of a file"), ("-", "stdout"), ("none/many", "not found")):
        with pytest.raises(UsageError, match=match):
            await build_mosaic(tiler.template, AREA, tmp_path / name if name != "-" else name, **build)
    assert left_behind(tmp_path) == ["many"]


async def test_a_collection_and_a_file_are_different_jobs(serve, tmp_path):
    async def broken(tile, _):
        return web.Response(status=500) if tile == (7, 63, 48) else None

    tiler = serve(mood=broken)
    output = tmp_path / "many"
    options = {"zoom": ZOOM, "attempts": 1, **SMALL}
    with pytest.raises(Exception, match="1 of 16 tiles failed"):
        await build_mosaic(tiler.template, AREA, output, collection=True, **options)
    with pytest.raises(WorkFolderError):
        await build_mosaic(tiler.template, AREA, output, **options)
    report = await build_mosaic(tiler.template, AREA, output, collection=True, max_failures=1, **options)
    assert report.tiles_failed == 1
    tiler.mood = None
    report = await build_mosaic(tiler.template, AREA, output, collection=True, overwrite=True, **options)
    assert (report.tiles_failed, report.requests) == (0, 1)
    assert_valid_stac(output)


async def test_the_item_of_a_file_lies_beside_it_and_knows_no_secret(serve, tmp_path):
    tiler, output = serve(), tmp_path / "one.tif"
    await build_mosaic(f"{tiler.template}?access_token=hush-hush", AREA, output, zoom=ZOOM, stac=True, **SMALL)
    assert left_behind(tmp_path) == ["one.json", "one.tif"]
    item = pystac.Item.from_file(str(tmp_path / "one.json"))
    kept, item.stac_extensions = item.stac_extensions, []
    item.validate()
    assert any("/projection/" in name for name in kept)
    document = (tmp_path / "one.json").read_text()
    assert "hush" not in document
    assert_outline_holds_data(json.loads(document), output)
    assert Path(item.assets["data"].get_absolute_href()) == output
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="not the item of other"):
        await build_mosaic(tiler.template, AREA, tmp_path / "other.tif", zoom=ZOOM, stac=True, overwrite=True, **SMALL)
    await build_mosaic(tiler.template, ODD, output, zoom=ZOOM, stac=True, overwrite=True, **SMALL)
    assert_outline_holds_data(json.loads((tmp_path / "one.json").read_text()), output)


async def test_without_the_extra_a_collection_says_what_to_install(serve, tmp_path, monkeypatch):
    tiler = serve()
    monkeypatch.setitem(sys.modules, "mosaic_async.stac.collection", None)
    with pytest.raises(UsageError, match="extra `stac`") as caught:
        await build_mosaic(tiler.template, AREA, tmp_path / "many", zoom=ZOOM, collection=True)
    assert "mosaic-async[stac]" in caught.value.hint
    assert tiler.requests == 0
    assert left_behind(tmp_path) == []


async def test_a_projection_without_a_code_and_a_world_in_degrees_are_indexed_too(serve, tmp_path, monkeypatch):
    own = "+proj=laea +lat_0=20 +lon_0=30 +ellps=WGS84 +units=m"
    matrices = [
        {
            "id": "3", "scaleDenominator": 1000 / 0.00028, "cellSize": 1000, "pointOfOrigin": [-700_000, 600_000],
            "tileWidth": 256, "tileHeight": 256, "matrixWidth": 6, "matrixHeight": 5,
        }
    ]  # fmt: skip
    wkt = pyproj.CRS.from_proj4(own).to_json_dict()
    tms = {"id": "own", "crs": {"wkt": wkt}, "orderedAxes": ["E", "N"], "tileMatrices": matrices}
    tiler = serve(ext="npy")
    for name, area, options in (
        ("own", (28, 17, 33, 22), {"zoom": 3, "tms": tms}),
        ("degrees", (170, 60, -170, 90), {"zoom": 3, "tms": "WorldCRS84Quad"}),
    ):
        one, folder = tmp_path / f"{name}.tif", tmp_path / name
        await build_mosaic(tiler.template, area, one, **options, **SMALL)
        await build_mosaic(tiler.template, area, folder, collection=True, **options, **SMALL)
        assert_same_pixels(one, folder, monkeypatch)
        assert_valid_cogs(folder)
        for path in parts_of(folder):
            assert_outline_holds_data(json.loads(path.with_suffix(".json").read_text()), path)
    item = json.loads(parts_of(tmp_path / "own")[0].with_suffix(".json").read_text())
    found = pyproj.CRS.from_wkt(item["properties"]["proj:wkt2"])
    assert found.coordinate_operation.method_name == "Lambert Azimuthal Equal Area"
    assert item["properties"]["proj:code"] is None
    assert json.loads((tmp_path / "own" / "collection.json").read_text()).get("summaries", {}).get("proj:code") is None


async def test_parts_sealed_before_a_wider_tile_become_like_the_others(tmp_path, monkeypatch):
    makers, dtype, _ = (*LAYERS["integers and floats"], 1)
    layer = Layer(*makers)
    with running(layer.app()) as url:
        begin_with(monkeypatch, TILES[0])
        await build_mosaic(f"{url}/{{z}}/{{x}}/{{y}}", AREA, tmp_path / "many", collection=True, **OPTIONS)
    assert_valid_cogs(tmp_path / "many")
    assert len(parts_of(tmp_path / "many")) == 4
    monkeypatch.chdir("/")
    with rasterio.open(tmp_path / "many" / "index.gti.gpkg") as index:
        assert index.dtypes == (dtype,)
        valid = index.dataset_mask() > 0
        assert np.array_equal(valid, layer.valid)
        assert np.array_equal(index.read(1)[valid], layer.pixels[..., 0][valid])


async def test_an_item_follows_its_file_also_after_a_kill_between_the_two(serve, tmp_path, monkeypatch):
    tiler, output = serve(), tmp_path / "one.tif"

    def killed(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run, "place_beside", killed)
        with pytest.raises(Exception, match="No space left"):
            await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, stac=True, **SMALL)
    assert output.exists()
    assert not output.with_suffix(".json").exists()
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, stac=True, **SMALL)
    assert (report.requests, tiler.requests) == (0, 16)
    assert left_behind(tmp_path) == ["one.json", "one.tif"]


@pytest.mark.parametrize("nodata", [pytest.param(None, marks=pytest.mark.slow), 255.0])
async def test_a_part_of_which_a_polygon_leaves_no_pixel_has_no_item(serve, tmp_path, monkeypatch, nodata):
    """A spike thinner than a pixel reaches into the tile beside: it is fetched, and holds no pixel's centre."""
    tiler, one, folder = serve(), tmp_path / "one.tif", tmp_path / "many"
    spike = [[-2.7, 41.3], [-0.5, 41.3], [-0.5, 42.00001], [2.5, 42.00001], [2.5, 42.00002], [-0.5, 42.00002]]
    area = {"type": "Polygon", "coordinates": [[*spike, [-0.5, 42.9], [-2.7, 42.9], [-2.7, 41.3]]]}
    options = {"zoom": ZOOM, "clip": True, "nodata": nodata, **SMALL}
    await build_mosaic(tiler.template, area, one, **options)
    report = await build_mosaic(tiler.template, area, folder, collection=True, **options)
    assert report.tiles_placed == 2
    assert_same_pixels(one, folder, monkeypatch)
    found = pystac.Collection.from_file(str(folder / "collection.json"))
    assert [item.id for item in found.get_items()] == ["many-0-0"]
    with MosaicBackend(str(folder / "mosaic.json")) as mosaic:
        assert {name for names in mosaic.mosaic_def.tiles.values() for name in names} == {"parts/0-0/0-0.tif"}
    await build_mosaic(tiler.template, area, one, **options, stac=True, overwrite=True)


async def test_scenes_that_a_tiler_names_give_the_days_and_the_links_without_their_signatures(serve, tmp_path):
    scenes = {
        "X-Assets": "https://stac.example/a.json?sig=hush,/scenes/b.json,c",
        "X-Assets-Dates": "2020-05-18,2020-06-03,2020-05-20",
    }
    body = serve().body

    async def named(tile, _):
        return web.Response(body=body(tile), content_type="image/tiff", headers=scenes)

    folder = tmp_path / "many"
    await build_mosaic(serve(mood=named).template, ODD, folder, zoom=ZOOM, collection=True, **SMALL)
    found = pystac.Collection.from_file(str(folder / "collection.json"))
    near, far = sorted(link.href for link in found.links if link.rel == "derived_from")
    assert far.startswith("https://stac.example/a.json")
    assert "hush" not in str(found.to_dict())
    assert (folder / near).resolve() == Path("/scenes/b.json")
    assert [str(day.date()) for day in found.extent.temporal.intervals[0]] == ["2020-05-18", "2020-06-03"]
    item = next(found.get_items())
    assert item.datetime is None
    assert str(item.common_metadata.start_datetime.date()) == "2020-05-18"
    item.stac_extensions = []
    item.validate()


@pytest.mark.slow
async def test_titiler_renders_the_pixels_of_the_file(serve, tmp_path):
    """The short form is rio-tiler's mosaic reader, which TiTiler uses."""
    one, again = tmp_path / "one.tif", tmp_path / "again.tif"
    await build_mosaic(serve().template, AREA, one, zoom=ZOOM, **SMALL)
    await build_mosaic(serve().template, AREA, tmp_path / "many", zoom=ZOOM, collection=True, **SMALL)
    for name in ("mosaic.json", "index.gti.gpkg"):
        async with local_tiler(tmp_path / "many" / name, tile_size=256, resampling="nearest") as tiler:
            await build_mosaic(tiler, AREA, again, zoom=ZOOM, overwrite=True)
        for found, expected in zip(pixels_and_mask(again), pixels_and_mask(one), strict=True):
            assert np.array_equal(found, expected)
