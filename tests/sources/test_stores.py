"""Tiles that no tile server serves: folders, MBTiles and PMTiles give the pixels that they hold, and nothing else."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mercantile
import pytest
from aiohttp import web
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from mosaic_async import (
    IncompleteError,
    RefusedError,
    SourceError,
    StoppedError,
    TileFetched,
    TileRetried,
    UsageError,
    build_mosaic,
    plan_mosaic,
    verify_mosaic,
)
from mosaic_async.errors import MosaicError
from mosaic_async.sources.stores.found import is_store
from tests.cli.test_main import run
from tests.loopback import free_port, running, wait_for
from tests.map_server import AREA, ZOOM, assert_is_the_map, map_body

pytestmark = [
    pytest.mark.usefixtures("unblocked_loop"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]

WIDE = (0.0, 44.0, 6.0, 49.0)
"""More than `AREA`, so that neighbours are there to be mistaken for it."""
TILES = [*mercantile.tiles(*WIDE, zooms=[ZOOM - 1, ZOOM])]
TILE_MAP = '<TileMap><SRS>{}</SRS><TileSets profile="{}"></TileSets></TileMap>'


def body_of(tile: mercantile.Tile, ext: str = "png") -> bytes:
    return map_body(tile.x * 256, tile.y * 256, 256, ext)


def write_folder(folder: Path, *, ext: str = "png", south_up: bool = False) -> Path:
    for tile in TILES:
        row = 2**tile.z - 1 - tile.y if south_up else tile.y
        path = folder / str(tile.z) / str(tile.x) / f"{row}.{ext}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body_of(tile))
    return folder


def write_mbtiles(path: Path, *, south_up: bool = True, **metadata: str) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE metadata (name text, value text)")
        database.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
        database.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
        rows = [(tile.z, tile.x, 2**tile.z - 1 - tile.y if south_up else tile.y, body_of(tile)) for tile in TILES]
        database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    database.close()
    return path


def write_pmtiles(path: Path, *, kind: TileType = TileType.PNG, packed: bool = False, spread: int = 0) -> Path:
    """Write an archive; with `spread` also that many tiles of another zoom, so that directories have leaves."""
    with path.open("wb") as file:
        writer = Writer(file)
        bodies = {zxy_to_tileid(tile.z, tile.x, tile.y): body_of(tile) for tile in TILES}
        bodies |= {zxy_to_tileid(15, i * 7919 % 32768, i * 104729 % 32768): bytes(i % 97 + 1) for i in range(spread)}
        for number in sorted(bodies):
            writer.write_tile(number, gzip.compress(bodies[number]) if packed else bodies[number])
        west, south, east, north = (round(degrees * 1e7) for degrees in WIDE)
        header = {
            "tile_type": kind, "tile_compression": Compression.GZIP if packed else Compression.NONE,
            "min_lon_e7": west, "min_lat_e7": south, "max_lon_e7": east, "max_lat_e7": north,
            "center_zoom": ZOOM, "center_lon_e7": west, "center_lat_e7": south,
        }  # fmt: skip
        writer.finalize(header, {})
    return path


class Bucket:
    """Serves one file by ranges, as an object store does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.etag = '"1"'
        self.ranges: list[str] = []
        self.headers: list[str | None] = []
        self.moods: list[Callable[[], web.Response]] = []
        self.app = web.Application()
        self.app.router.add_get("/a.pmtiles", self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        self.ranges.append(request.headers["Range"])
        self.headers.append(request.headers.get("X-Key") or request.query.get("key"))
        if self.moods and len(self.ranges) > 3:
            return self.moods.pop()()
        data = self.path.read_bytes()
        first, last = (int(text) for text in request.headers["Range"].removeprefix("bytes=").split("-"))
        span = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": self.etag}
        return web.Response(status=206, body=data[first : last + 1], headers=span)


async def test_tiles_on_the_disk_become_the_same_exact_mosaic_whatever_holds_them(tmp_path):
    south_up = write_folder(tmp_path / "tms", south_up=True)
    (south_up / "tilemapresource.xml").write_text(TILE_MAP.format("EPSG:900913", "mercator"))
    places = [
        write_folder(tmp_path / "xyz"),
        south_up,
        f"{tmp_path}/tms/{{z}}/{{x}}/{{-y}}.png",
        f"file://{tmp_path}/xyz/{{z}}/{{x}}/{{y}}.png",
        write_mbtiles(tmp_path / "plain.mbtiles", format="png", bounds="0,44,6,49", minzoom="7", maxzoom="8"),
        write_mbtiles(tmp_path / "bare.MBTILES"),
        write_pmtiles(tmp_path / "a.pmtiles"),
        write_pmtiles(tmp_path / "packed.pmtiles", packed=True, spread=9_000),
    ]
    for number, place in enumerate(places):
        zoom = ZOOM if number > 6 else None
        report = await build_mosaic(place, AREA, tmp_path / f"{number}.tif", zoom=zoom)
        assert_is_the_map(tmp_path / f"{number}.tif")
        assert (report.zoom, report.tiles_placed, report.requests) == (ZOOM, 4, 4), place


async def test_tiles_of_a_folder_are_found_whatever_the_case_of_their_extensions(tmp_path):
    folder = write_folder(tmp_path / "xyz")
    ends = (".PNG", ".jpg", ".JPEG", ".png")
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        path.rename(path.with_suffix(ends[number % 4]))
    report = await build_mosaic(folder, AREA, tmp_path / "out.tif")
    assert_is_the_map(tmp_path / "out.tif")
    assert report.tiles_placed == 4


async def test_a_missing_image_of_an_mbtiles_is_a_tile_without_data_and_a_text_is_not(tmp_path):
    path = write_mbtiles(tmp_path / "a.mbtiles")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE tiles SET tile_data = NULL WHERE tile_column % 2")
    report = await build_mosaic(path, AREA, tmp_path / "out.tif")
    assert (report.tiles_placed, report.tiles_empty) == (2, 2)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE tiles SET tile_data = 'none'")
    database.close()
    with pytest.raises(MosaicError, match="has a str instead of an image"):
        await build_mosaic(path, AREA, tmp_path / "other.tif", attempts=1)


async def test_an_archive_behind_a_url_is_read_by_ranges_with_headers_or_parameters(tmp_path):
    bucket = Bucket(write_pmtiles(tmp_path / "a.pmtiles", spread=9_000))
    with running(bucket.app) as url:
        await build_mosaic(f"{url}/a.pmtiles", AREA, tmp_path / "out.tif", zoom=ZOOM, headers={"X-Key": "open-sesame"})
        assert_is_the_map(tmp_path / "out.tif")
        assert set(bucket.headers) == {"open-sesame"}
        assert len(bucket.ranges) == len(set(bucket.ranges)) <= 2 + 2 + 4  # header, root, leaves, tiles
        plan = await plan_mosaic(f"pmtiles://{url}/a.pmtiles", AREA, params={"key": "open-sesame"})
        assert (plan.zoom, plan.assumed, bucket.headers[-1]) == (15, True, "open-sesame")


async def test_a_redirect_of_an_archive_is_followed_to_an_allowed_host_without_headers(tmp_path):
    bucket = Bucket(write_pmtiles(tmp_path / "a.pmtiles"))

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound(str(request.url.with_host("localhost").with_path("/a.pmtiles")))

    bucket.app.router.add_get("/latest.pmtiles", moved)
    with running(bucket.app) as url:
        place, given = f"{url}/latest.pmtiles", {"zoom": ZOOM, "headers": {"X-Key": "open-sesame"}}
        with pytest.raises(SourceError, match="redirected to another host, localhost") as error:
            await plan_mosaic(place, AREA, **given)
        assert "`allow_hosts`" in str(error.value.hint)
        await build_mosaic(place, AREA, tmp_path / "out.tif", allow_hosts=["localhost"], **given)
    assert_is_the_map(tmp_path / "out.tif")
    assert set(bucket.headers) == {None}


async def test_trouble_of_the_server_behind_an_archive_is_the_trouble_of_any_tiler(tmp_path):
    bucket = Bucket(write_pmtiles(tmp_path / "a.pmtiles"))
    bucket.moods = [lambda: web.Response(status=503, headers={"Retry-After": "0"}, text="slow down")]
    events = []
    with running(bucket.app) as url:
        await build_mosaic(f"{url}/a.pmtiles", AREA, tmp_path / "out.tif", on_event=events.append)
    assert_is_the_map(tmp_path / "out.tif")
    assert [event.reason for event in events if isinstance(event, TileRetried)] == [
        "HTTP 503 Service Unavailable: HTTP 503 Service Unavailable: slow down"
    ]


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=206, body=b"x", headers={"Content-Range": "bytes 0-0/9"}), "another range"),
        (lambda: web.Response(status=404), "HTTP 404 Not Found"),
        (lambda: web.Response(status=200, body=b"all of it"), "whole files only"),
    ],
)
async def test_an_archive_that_fails_later_has_no_empty_tiles(tmp_path, answer, words):
    bucket = Bucket(write_pmtiles(tmp_path / "a.pmtiles"))
    with running(bucket.app) as url:
        bucket.moods = [answer] * 20
        with pytest.raises(IncompleteError) as error:
            await build_mosaic(f"{url}/a.pmtiles", AREA, tmp_path / "out.tif", attempts=1)
    assert all(words in failure.reason for failure in error.value.report.failed)
    assert not (tmp_path / "out.tif").exists()


async def test_an_archive_that_changes_is_another_job_and_ends_a_run(tmp_path):
    bucket = Bucket(write_pmtiles(tmp_path / "a.pmtiles"))

    with running(bucket.app) as url:

        def on_event(event: object) -> None:
            bucket.etag = '"2"'

        with pytest.raises(MosaicError) as error:
            await build_mosaic(f"{url}/a.pmtiles", AREA, tmp_path / "out.tif", on_event=on_event, concurrency=1)
        assert error.value.exit_code == 3
        with pytest.raises(MosaicError) as error:
            await build_mosaic(f"{url}/a.pmtiles", AREA, tmp_path / "out.tif")
        assert error.value.exit_code == 7


@pytest.mark.quick(4)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda at: write_mbtiles(at / "v.mbtiles", format="pbf"), "vectors"),
        (lambda at: write_pmtiles(at / "v.pmtiles", kind=TileType.MVT), "vectors"),
        (lambda at: write_mbtiles(at / "n.mbtiles", south_up=False, bounds="0,44,6,49"), "its rows from the north"),
        (lambda at: at / "none.pmtiles", "No such file"),
        (lambda at: at / "none.mbtiles", "cannot be read as MBTiles"),
        (lambda at: at / "none" / "{z}" / "{x}" / "{y}.png", "is not a folder"),
        (lambda at: Path(__file__).with_suffix("") / "{z}" / "{x}.png", "no {y}"),
        (lambda at: geodetic(at, "EPSG:4326", "geodetic"), "geodetic profile as the grid"),
        (lambda at: geodetic(at, "EPSG:3857", "raster"), "raster profile as the grid"),
        (lambda at: broken(at / "b.pmtiles", b"PMTiles\x02"), "not a PMTiles archive of version 3"),
        (lambda at: broken(at / "b.pmtiles", b"GIF89a"), "not a PMTiles archive"),
        (lambda at: broken(at / "b.mbtiles", b"no database"), "cannot be read as MBTiles"),
        (lambda at: renamed(at, "{}@2x.png"), "write other names as a template, such as .*@2x.png"),
        (lambda at: renamed(at, "{:0>5}.png"), "without leading zeros"),
        (lambda at: renamed(at, "{}.png", zoom="08"), "without leading zeros"),
        (lambda at: renamed(at, "{}.png", zoom="\u0668"), "without leading zeros"),
    ],
)
async def test_a_store_that_cannot_be_used_is_refused_with_the_reason(tmp_path, make, words):
    with pytest.raises(MosaicError, match=words):
        await plan_mosaic(make(tmp_path), AREA, zoom=ZOOM)


def renamed(folder: Path, row: str, *, zoom: str = "8") -> Path:
    path = folder / zoom / "129" / row.format(90)
    path.parent.mkdir(parents=True)
    path.write_bytes(body_of(mercantile.Tile(129, 90, 8)))
    return folder


def geodetic(folder: Path, system: str, profile: str) -> Path:
    write_folder(folder)
    (folder / "tilemapresource.xml").write_text(TILE_MAP.format(system, profile))
    return folder


def broken(path: Path, body: bytes) -> Path:
    path.write_bytes(body + bytes(200))
    return path


async def test_a_store_says_before_any_work_what_it_does_not_have(tmp_path):
    archive = write_pmtiles(tmp_path / "a.pmtiles")
    with pytest.raises(UsageError, match="zoom 9 is above the source's highest, 8"):
        await plan_mosaic(archive, AREA, zoom=9)
    with pytest.raises(RefusedError, match="outside of what the source covers") as error:
        await plan_mosaic(archive, (46, 2, 47, 3.5))
    assert "swapped" in str(error.value.hint)
    with pytest.raises(SourceError, match="none of the 4 tiles has data"):
        await build_mosaic(write_folder(tmp_path / "xyz"), (60, 40, 61, 41), tmp_path / "out.tif", zoom=8)


def test_scenes_and_other_places_are_no_stores(tmp_path):
    (tmp_path / "scenes" / "2020").mkdir(parents=True)
    (tmp_path / "scenes" / "2020" / "a.tif").touch()
    for place in (str(tmp_path / "scenes"), "https://h/{z}/{x}/{y}.pmtiles", "ftp://h/{z}/{x}/{y}", "https://h/a.json"):
        assert not is_store(place)
    assert is_store("https://h/A.PMTILES?sig=abc")


def test_the_command_takes_a_folder_of_tiles_and_says_how_it_reads_the_rows(tmp_path):
    folder = write_folder(tmp_path / "xyz", ext="JPG")
    bounds = ("--bounds", *map(str, AREA))
    _, stderr = run("build", folder, tmp_path / "out.tif", *bounds, "-q")
    assert_is_the_map(tmp_path / "out.tif")
    assert f"{folder} are read from the north (XYZ)" in stderr
    assert f"write {folder}/{{z}}/{{x}}/{{-y}}.JPG" in stderr


async def test_a_folder_behind_python_s_own_server_is_a_tiler_like_any_other(tmp_path):
    folder, port = write_folder(tmp_path / "xyz"), free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    log = tmp_path / "log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/", server, log)
            template = f"http://127.0.0.1:{port}/{{z}}/{{x}}/{{y}}.png"
            await build_mosaic(template, AREA, tmp_path / "out.tif", zoom=ZOOM)
        finally:
            server.terminate()
    assert_is_the_map(tmp_path / "out.tif")


async def test_a_run_over_a_store_resumes_though_its_server_has_another_port(tmp_path):
    stop = asyncio.Event()
    archive = write_pmtiles(tmp_path / "a.pmtiles")

    def stop_after_the_first(event: object) -> None:
        if isinstance(event, TileFetched):
            stop.set()

    with pytest.raises(StoppedError):
        await build_mosaic(archive, AREA, tmp_path / "out.tif", stop=stop, on_event=stop_after_the_first, concurrency=1)
    report = await build_mosaic(archive, AREA, tmp_path / "out.tif")
    assert report.requests < 4
    assert_is_the_map(tmp_path / "out.tif")
    checked = await verify_mosaic(tmp_path / "out.tif", source=archive)
    assert (checked.is_sound, checked.tiles_compared) == (True, 4)
