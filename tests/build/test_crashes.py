"""The real command killed, stopped, without room or rights: what is left is whole, and the same command resumes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import mercantile
import numpy as np
import pytest
import rasterio
import tifffile
from aiohttp import web
from rio_cogeo import cog_validate

from mosaic_async import ResourceError, build_mosaic
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.readback import check_blocks
from mosaic_async.raster.tile import TileFormat
from tests.build.spool_reader import spooled
from tests.cli.test_main import BOUNDS, command, run, run_afresh
from tests.fake_tiler import Pattern
from tests.forks import server
from tests.moods import at, status
from tests.test_api import AREA, BAD, ZOOM, assert_is_the_world, left_behind

WIDE = (-15.0, 20.0, 25.0, 50.0)
WIDE_BOUNDS = tuple(map(str, WIDE))
PART_TILES = 4
"""Width of a part of 1024 pixels, in tiles."""


def started(*args):
    return server().start(args)


def safe_tiles(work, left, top):
    """List the tiles whose bodies are in the folder, or whose part is finished."""
    safe = set(spooled(work))
    for record in (work / "parts").rglob("*.json"):
        row, col = map(int, record.stem.split("-"))
        rows, cols = (range(start * PART_TILES, (start + 1) * PART_TILES) for start in (row, col))
        safe |= {(ZOOM, left + x, top + y) for x in cols for y in rows}
    return safe


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_kills_lose_nothing_that_was_safe_and_change_no_pixel(serve, tmp_path):
    tiler = serve(pattern=Pattern(count=1), latency=0.15)
    tiles = list(mercantile.tiles(*WIDE, zooms=[ZOOM]))
    left, top = min(tile.x for tile in tiles), min(tile.y for tile in tiles)
    output, chance = tmp_path / "out.tif", random.Random(7)
    work = tmp_path / "out.tif.work"
    args = ("build", tiler.template, output, "--bounds", *WIDE_BOUNDS, "-z", ZOOM, "-c", 3, "--part-size", 1024)
    kills = 0
    while kills < 20:
        safe, before = safe_tiles(work, left, top), tiler.hits.copy()
        with started(*args) as process:
            while tiler.requests == before.total() and process.poll() is None:  # so that each run gets somewhere
                time.sleep(0.002)
            time.sleep(chance.random() * 0.4)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        kills += 1
        time.sleep(0.16)  # let the server finish what it was asked
        assert [tile for tile in safe if tiler.hits[tile] > before[tile]] == []
    tiler.latency = 0
    safe, before = safe_tiles(work, left, top), tiler.hits.copy()
    assert 5 < len(safe) < len(tiles)
    run(*args)
    assert [tile for tile in safe if tiler.hits[tile] > before[tile]] == []
    assert tiler.requests <= len(tiles) + kills * 3
    assert_is_the_world(output, tiler, WIDE, ZOOM)
    assert left_behind(tmp_path) == ["out.tif"]


def test_sigterm_lets_arrive_what_is_under_way(serve, tmp_path):
    tiler = serve(pattern=Pattern(count=1), latency=0.3)
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *WIDE_BOUNDS, "-z", ZOOM, "-c", 4, "--json")
    with started(*args) as process:
        while tiler.requests < 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "terminated: stopped with" in stderr
    report = json.loads(stdout)
    asked = tiler.requests
    assert asked - 1 <= report["tiles_placed"] <= asked
    tiler.latency = 0
    run(*args)
    assert set(tiler.hits.values()) == {1}  # not one was requested twice


def test_a_second_signal_ends_it_at_once(serve, tmp_path):
    tiler = serve()
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM)

    async def quick_probe(tile, hit):
        if tiler.requests > 1:
            await asyncio.sleep(30)

    tiler.mood = quick_probe
    with started(*args) as process:
        while tiler.requests < 10:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None  # it waits for those under way
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        process.communicate(timeout=20)
    assert time.monotonic() - sent < 3
    assert process.returncode == 130
    assert left_behind(tmp_path) == ["out.tif.work"]


@contextmanager
def small_disk(folder, size, *options):
    """Mount a small file system, where that is allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs rights that this process has not")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("check", ["--disk-check", "--no-disk-check"])
@pytest.mark.parametrize("size", ["3m", "4400k"])
def test_a_small_disk_ends_with_5_and_with_room_the_same_command_finishes(serve, tmp_path, check, size):
    """3 MB hold the bodies of half of the tiles, 4.4 MB all bodies but not the part."""
    tiler = serve()
    with small_disk(tmp_path / "disk", size) as disk:
        args = ("build", tiler.template, disk / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM, check)
        _, stderr = run(*args, code=5)
        assert "Traceback" not in stderr
        assert "needed" in stderr
        assert "out.tif" not in left_behind(disk)
        asked = tiler.hits.copy()
        kept = spooled(disk / "out.tif.work")
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        run(*args)
        assert left_behind(disk) == ["out.tif"]
        assert all(tiler.hits[tile] == asked[tile] for tile in kept)
        assert_is_the_world(disk / "out.tif", tiler, AREA, ZOOM)
        assert cog_validate(disk / "out.tif", strict=True, quiet=True)[0]


def test_a_folder_that_cannot_be_written_to_ends_with_5(serve, tmp_path):
    tiler = serve()
    with small_disk(tmp_path / "disk", "1m", "ro") as disk:
        _, stderr = run("build", tiler.template, disk / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM, code=5)
    assert "Read-only file system" in stderr
    assert tiler.requests == 0


def is_whole(path):
    try:
        check_blocks(path, images=4)
    except ResourceError:
        return False
    return True


def test_a_cog_whose_blocks_did_not_all_arrive_is_found_before_it_counts(tmp_path):
    path = tmp_path / "part.tif"
    pattern = Pattern(count=2)
    pixels, mask = pattern.expected(0, 0, 1024, 1024)
    with Canvas(
        1024,
        1024,
        1,
        rasterio.Affine(2, 0, 0, 0, -2, 0),
        Encoding.of(TileFormat(size=256, count=2, dtype="uint8")),
    ) as canvas:
        canvas.place(pixels, mask.astype(np.uint8) * 255, rasterio.windows.Window(0, 0, 1024, 1024))
        canvas.seal(path)
    assert is_whole(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    with tifffile.TiffFile(path) as tiff:
        second = tiff.pages[1].offset
    damaged = {
        "cut short": whole[:-1000],
        "cut in half": whole[:middle],
        "a hole to the end": whole[:middle] + bytes(len(whole) - middle),
        "a hole in the middle": whole[:middle] + bytes(300_000) + whole[middle + 300_000 :],
        "a directory without its entries": whole[:second] + bytes(200) + whole[second + 200 :],
        "nothing": b"",
    }
    for name, data in damaged.items():
        path.write_bytes(data)
        assert not is_whole(path), name


async def test_a_part_that_the_disk_has_lost_a_piece_of_does_not_count(serve, tmp_path, monkeypatch):
    """As GDAL leaves it when its writing thread meets a full disk: no error, and a hole."""
    copy = rasterio.shutil.copy

    def lossy(source, target, **options):
        copy(source, target, **options)
        if "parts" in target.parts:  # and not what the first tile is tried on
            with target.open("r+b") as file:
                file.seek(target.stat().st_size // 2)
                file.write(bytes(100_000))

    monkeypatch.setattr("rasterio.shutil.copy", lossy)
    tiler = serve()
    with pytest.raises(ResourceError, match="was not written as a whole"):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, check_disk=False)
    assert left_behind(tmp_path) == ["out.tif.work"]
    assert [path for path in (tmp_path / "out.tif.work" / "parts").rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert tiler.requests == 16
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


TOKEN = "hunter2hunter2hunter2"


@pytest.mark.parametrize("way", ["header", "header file", "environment", "user", "param", "param file", "template"])
def test_a_token_is_found_nowhere_however_it_is_given(serve, tmp_path, way):
    async def echo(tile, hit):
        asked = dict(tiler.headers_seen[-1]), tiler.queries_seen[-1]
        words = {"detail": f"you sent {asked}"}
        return web.json_response(words, status=422) if tile == BAD else None

    tiler = serve(mood=echo)
    template, options, environment = tiler.template, [], dict(os.environ, PYTHONASYNCIODEBUG="1", CPL_DEBUG="ON")
    if way == "header":
        options = ["--header", f"Authorization: Bearer {TOKEN}"]
    elif way == "header file":
        (tmp_path / "headers").write_text(f"X-API-Key: {TOKEN}\n")
        options = ["--header-file", tmp_path / "headers"]
    elif way == "environment":
        environment["MOSAIC_ASYNC_HEADERS"] = f"X-API-Key: {TOKEN}"
    elif way == "user":
        template = template.replace("http://", f"http://me:{TOKEN}@")
    elif way == "param":
        options = ["--param", f"access_token={TOKEN}"]
    elif way == "param file":
        (tmp_path / "params").write_text(f"api_key={TOKEN}")
        options = ["--param-file", tmp_path / "params"]
    else:
        template += f"?url=https%3A%2F%2Fs3%2Fx.tif%3Fsig%3D{TOKEN}"
    folder = tmp_path / "out"
    folder.mkdir()
    args = ["build", template, folder / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM, *options, "-v", "--json"]
    for accept in ([], ["--max-failures", "1"]):
        before = [["tests.forks:log_everything"]]
        stdout, stderr = run(*args, *accept, code=0 if accept else 3, env=environment, before=before)
        assert "you sent" in stderr
        assert "DEBUG:" in stderr
        assert TOKEN not in stdout + stderr
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) > 1
        assert [path.name for path in files if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN in str(tiler.headers_seen) + str(tiler.queries_seen) or way == "user"


def test_the_tiles_that_failed_can_be_built_alone(serve, tmp_path):
    tiler = serve()
    tiler.mood = at(tiler, BAD, status(422), times=99)
    run("build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM, code=3)
    tiler.mood = None
    tiler.hits.clear()
    lists = [tmp_path / "out.tif.work" / "failed.geojson", tmp_path / "out.tif.report.json", tmp_path / "list.txt"]
    lists[2].write_text("# what was wrong\n7/64/49\n\n")
    for path in lists:
        run("build", tiler.template, tmp_path / "patch.tif", "--tiles", path, "--overwrite")
        assert_is_the_world(tmp_path / "patch.tif", tiler, mercantile_centre(64, 49), ZOOM)
    assert dict(tiler.hits) == {BAD: 3}


@pytest.mark.parametrize("name", ["out.tif.report.json", "out.tif.work/failed.geojson"])
def test_the_tiles_that_an_output_lacks_do_not_take_its_place(serve, tmp_path, name):
    tiler = serve()
    tiler.mood = at(tiler, BAD, status(422), times=99)
    args = ("build", tiler.template, tmp_path / "out.tif", "-z", ZOOM, "--overwrite")
    _, stderr = run(*args, "--bounds", *BOUNDS, "--max-failures", 1)
    assert "out.tif.work is kept: re-run the same command with --overwrite" in stderr
    tiler.mood = None
    tiler.hits.clear()
    _, stderr = run(*args, "--tiles", tmp_path / name, code=2)
    assert "they alone would replace it" in stderr
    assert "with --overwrite: only they are requested" in stderr
    assert tiler.requests == 0
    run(*args, "--bounds", *BOUNDS)
    assert dict(tiler.hits) == {BAD: 1}
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert left_behind(tmp_path) == ["out.tif"]


def mercantile_centre(x, y):
    west, south, east, north = mercantile.bounds(x, y, ZOOM)
    return (west + 0.1, south + 0.1, east - 0.1, north - 0.1)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"features": 3}', "7/64", "7/64/999", "99/0/0", "1/0/0\n2/0/0", "[]"])
def test_a_list_of_tiles_that_is_none_says_so(serve, tmp_path, text):
    (tmp_path / "list").write_text(text)
    _, stderr = run("plan", serve().template, "--tiles", tmp_path / "list", code=2)
    assert "list" in stderr
    assert "Traceback" not in stderr


def test_a_process_that_may_open_few_files_says_so_and_goes_on_with_fewer_requests(serve, tmp_path):
    limits = {resource.RLIMIT_NOFILE: 64}
    tiler = serve(pattern=Pattern(count=1))
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *WIDE_BOUNDS, "-z", ZOOM)
    _, stderr = run(*args, "-c", 100, code=5, limits=limits)
    assert "may open 64 files; 140 are needed" in stderr
    assert "--concurrency" in stderr
    assert tiler.requests == 0
    run(*args, "-c", 8, limits=limits)
    assert_is_the_world(tmp_path / "out.tif", tiler, WIDE, ZOOM)


def test_a_hundred_failed_tiles_are_counted_and_not_a_hundred_lines(serve, tmp_path):
    async def mostly(tile, hit):
        return web.Response(status=422) if tile[1] % 8 else None

    tiler = serve(pattern=Pattern(count=1), mood=mostly)
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *WIDE_BOUNDS, "-z", ZOOM, "--json")
    stdout, stderr = run(*args, code=3)
    assert json.loads(stdout)["tiles_failed"] > 100
    assert len(stderr.splitlines()) < 15
    assert "further lines are hidden" in stderr
    _, stderr = run(*args, "--verbose", code=3)
    assert len(stderr.splitlines()) > 100


def test_a_run_under_nohup_outlives_its_terminal(serve, tmp_path):
    tiler = serve(latency=0.1)
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM, "-c", 4)
    with subprocess.Popen(["nohup", *command(*args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while tiler.requests < 4:
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


def test_a_certificate_that_nobody_vouches_for_ends_the_run_at_once(tmp_path):
    _, context = certificate_of(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=shake_hands, args=(server, context), daemon=True).start()
        url = f"https://localhost:{server.getsockname()[1]}/{{z}}/{{x}}/{{y}}"
        _, stderr = run("build", url, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", ZOOM, code=4)
    assert "certificate" in stderr
    assert not (tmp_path / "out.tif.work").exists()


def test_a_redirect_from_https_to_http_is_refused_even_to_a_host_that_is_allowed(serve, tmp_path):
    tiler = serve()
    target = tiler.template.replace("127.0.0.1", "localhost")
    certificate, context = certificate_of(tmp_path, "-addext", "subjectAltName=DNS:localhost")
    answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    environment = dict(os.environ, SSL_CERT_FILE=str(certificate))
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=shake_hands, args=(server, context, answer), daemon=True).start()
        url = f"https://localhost:{server.getsockname()[1]}/{{z}}/{{x}}/{{y}}"
        args = ("plan", url, "--bounds", *BOUNDS, "-z", ZOOM, "--allow-host", "localhost")
        _, stderr = run_afresh(*args, code=4, env=environment)  # certificates are read by imports
    assert "redirected to another host, localhost, without encryption" in stderr
    assert tiler.requests == 0


def certificate_of(folder, *options):
    if not shutil.which("openssl"):
        pytest.skip("making a certificate needs openssl")
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), *options],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def shake_hands(server, context, answer=b""):
    while True:
        try:
            connection, _ = server.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                if answer and secure.recv(65536):
                    secure.sendall(answer)
        except ssl.SSLError:
            continue
        except OSError:
            return


@pytest.mark.parametrize("way", ["header", "param", "header file", "environment"])
def test_a_token_without_its_name_is_a_mistake_that_is_not_repeated(tmp_path, way):
    options, environment = [f"--{way}", TOKEN], dict(os.environ)
    if way == "header file":
        (tmp_path / "headers").write_text(f"X-Fine: yes\n{TOKEN}\n")
        options = ["--header-file", tmp_path / "headers"]
    elif way == "environment":
        options, environment["MOSAIC_ASYNC_HEADERS"] = [], TOKEN
    _, stderr = run("plan", "http://127.0.0.1:9/{z}/{x}/{y}", "--bounds", *BOUNDS, *options, code=2, env=environment)
    assert "not of the form NAME" in stderr
    assert TOKEN not in stderr
