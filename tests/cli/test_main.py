"""The command as users type it: a real process, its streams and its exit codes."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time

import click
import pytest
import rasterio
from aiohttp import web
from rio_cogeo import cog_validate

from mosaic_async.cli.main import main
from mosaic_async.cli.options import flags_of
from tests.conftest import PARANA
from tests.forks import FLAGS, server
from tests.moods import at, status
from tests.test_api import BAD, failing

BOUNDS = ("-4", "38", "4", "44")


def command(*args):
    return [sys.executable, *FLAGS, "-m", "mosaic_async", *map(str, args)]


def run(*args, code=0, **options):
    """Run it and expect an exit code; gives stdout and stderr."""
    with server().start(args, **options) as running:
        stdout, stderr = running.communicate(timeout=100)
    assert running.returncode == code, stderr
    return stdout, stderr


def run_afresh(*args, code=0, **options):
    """Run it as a shell does, imports and all; gives stdout and stderr."""
    done = subprocess.run(command(*args), capture_output=True, text=True, timeout=100, **options)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_build_works_exactly_as_the_readme_says(serve, tmp_path):
    tiler, output = serve(), tmp_path / "OUT.tif"
    stdout, stderr = run_afresh(
        "build", tiler.template, output, "--bounds", *BOUNDS, "--zoom", 7, "-c", 4, "-p", "zstd", "--json"
    )  # fmt: skip
    report = json.loads(stdout)
    assert stderr == ""
    assert (report["output"], report["tiles_placed"], report["requests"]) == (str(output), 16, 16)
    assert tiler.peak_in_flight <= 4
    assert cog_validate(output, strict=True, quiet=True)[0]
    with rasterio.open(output) as dataset:
        assert dataset.profile["compress"] == "zstd"


@pytest.mark.parametrize(
    "bounds",
    [
        ["--bounds", "-4,38,4,44"],
        ["--bounds=-4,38,4,44"],
        ["--bbox", "-4", "38", "4", "44"],
        ["--bbox", "-4,", "38,", "4,", "44"],
        ["--bbox=-4 38 4 44"],
    ],
)
def test_bounds_are_understood_with_spaces_and_commas_and_minus_signs(serve, bounds):
    stdout, _ = run("plan", serve().template, *bounds, "-z", 7, "--json")
    assert json.loads(stdout)["tiles"] == 16


def test_without_json_people_get_text(serve, tmp_path):
    stdout, _ = run("build", serve().template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", 7)
    assert "16 tiles placed, 0 empty, 0 failed" in stdout
    stdout, _ = run("plan", serve().template, "--bounds", *BOUNDS, "-z", 7)
    assert "tiles       16" in stdout
    assert "1,024 x 1,024 pixels, 3 x uint8, mask: internal" in stdout


def test_the_area_can_be_a_geojson_file_or_stdin(serve, tmp_path):
    triangle = {"type": "Polygon", "coordinates": [[[-4, 38], [4, 38], [-4, 44], [-4, 38]]]}
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps(triangle))
    tiler = serve()
    by_file, _ = run("plan", tiler.template, "--area", path, "-z", 8, "--json")
    by_stdin, _ = run("plan", tiler.template, "--area", "-", "-z", 8, "--json", stdin=json.dumps(triangle))
    assert json.loads(by_file)["tiles"] == json.loads(by_stdin)["tiles"] < 36


def test_headers_parameters_and_creation_options_are_passed_on(serve, tmp_path):
    tiler, output = serve(), tmp_path / "out.tif"
    request = ("--header", "X-Key: a:b", "--param", "bands=4,3,2")
    storage = ("--co", "BLOCKSIZE=256", "--co", "predictor=2", "--overview-resampling", "nearest")
    run("build", tiler.template, output, "--bounds", *BOUNDS, "-z", 7, *request, *storage, "--memory", "800MB")
    assert tiler.headers_seen[0]["X-Key"] == "a:b"
    assert tiler.queries_seen[0] == "bands=4%2C3%2C2"
    with rasterio.open(output) as dataset:
        assert dataset.block_shapes[0] == (256, 256)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--bounds", *BOUNDS], 2, "--zoom"),
        (["-z", "7"], 2, "--bounds W S E N"),
        (["--bounds", *BOUNDS, "-z", "22"], 6, "--max-tiles"),
        (["--bounds", "0", "10", "1", "5", "-z", "7"], 6, "not below"),
        (["--bounds", "0", "ten", "1", "5", "-z", "7"], 2, "ten"),
        (["--bounds", "0", "10", "-z", "7"], 2, "--bounds"),
        (["--bounds", *BOUNDS, "-z", "7", "-p", "gif"], 2, "gif"),
        (["--bounds", *BOUNDS, "-z", "7", "--co", "SPEED=9"], 2, "SPEED"),
        (["--bounds", *BOUNDS, "-z", "7", "--memory", "lots"], 2, "lots"),
        (["--bounds", *BOUNDS, "-z", "7", "--memory", "50MB"], 5, "--memory"),
        (["--bounds", *BOUNDS, "-z", "7", "--header", "secret"], 2, "NAME:VALUE"),
        (["--bounds", *BOUNDS, "-z", "7", "--bands", "B4"], 2, "--param"),
        (["--bounds", *BOUNDS, "-z", "7", "--area", "-"], 2, "--area"),
    ],
)
def test_what_cannot_work_exits_with_its_code_and_says_what_to_try(serve, tmp_path, args, code, says):
    _, stderr = run("build", serve().template, tmp_path / "out.tif", *args, code=code, stdin="{}")
    assert says in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["nowhere", "http://127.0.0.1:9/{z}/{x}/{y}.tif", "http://127.0.0.1:9/t.json"])
def test_a_source_that_is_not_there_says_so(tmp_path, source):
    code = 2 if source == "nowhere" else 4
    _, stderr = run("build", source, tmp_path / "o.tif", "--bounds", *BOUNDS, "-z", 3, "--attempts", 1, code=code)
    assert stderr.startswith("error: ")
    assert "hint: " in stderr


def test_failed_tiles_exit_with_3_and_a_report_and_the_same_command_resumes(serve, tmp_path):
    tiler = serve(mood=failing)
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", 7, "--json")
    stdout, stderr = run(*args, code=3)
    report = json.loads(stdout)
    assert report["tiles_failed"] == 1
    assert report["failed"][0]["status"] == 422
    assert "1 of 16 tiles failed" in stderr
    assert f"failed: {'/'.join(map(str, BAD))}: HTTP 422" in stderr
    tiler.mood = None
    tiler.hits.clear()
    stdout, _ = run(*args)
    assert json.loads(stdout)["requests"] == tiler.requests == 1


def test_another_job_s_folder_exits_with_7(serve, tmp_path):
    tiler = serve(mood=failing)
    args = ["build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", 7]
    run(*args, code=3)
    _, stderr = run(*args, "--clip", code=7)
    assert "--fresh" in stderr
    tiler.mood = None
    run(*args, "--clip", "--fresh")


def test_retries_are_said_only_when_asked(serve, tmp_path):
    async def moody(tile, hit):
        return web.Response(status=503) if tile == BAD and hit == 1 else None

    args = ["--bounds", *BOUNDS, "-z", 7]
    _, quiet = run("build", serve(mood=moody).template, tmp_path / "a.tif", *args)
    _, loud = run("build", serve(mood=moody).template + "?token=hunter2", tmp_path / "b.tif", *args, "-v")
    assert quiet == ""
    assert "retry 1 in" in loud
    assert "HTTP 503" in loud
    assert "hunter2" not in loud


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_its_code_and_nothing_is_lost(serve, tmp_path, number, code):
    tiler, output = serve(latency=0.1), tmp_path / "out.tif"
    args = ["build", tiler.template, output, "--bounds", "-15", "20", "25", "50", "-z", "7", "-c", "4", "--json"]
    with server().start(args) as process:
        while tiler.requests < 20:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert "hint: re-run the same command to resume" in stderr
    assert "Traceback" not in stderr
    assert not output.exists()
    asked = tiler.requests
    tiler.latency = 0
    tiler.hits.clear()
    stdout, _ = run(*args)
    assert json.loads(stdout)["requests"] <= json.loads(stdout)["tiles_total"] - asked + 4 + 16


def test_a_bar_is_drawn_on_a_terminal_with_rate_and_what_is_left(serve, tmp_path):
    import pty
    import termios

    tiler = serve(latency=0.05)
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 120))
    args = command("build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", 7, "-c", 2)
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=side) as process:
        os.close(side)
        drawn = b""
        while True:
            try:
                piece = os.read(main, 4096)
            except OSError:  # the terminal is gone with the process
                break
            drawn += piece
        process.communicate(timeout=30)
    os.close(main)
    assert process.returncode == 0
    assert b"16/16" in drawn
    assert b"tile/s" in drawn
    assert b"MB/s" in drawn


def test_scenes_on_disk_are_served_and_mosaicked_in_one_command(tmp_path):
    output = tmp_path / "out.tif"
    stdout, _ = run(
        "build", PARANA, output, "--bounds", "-54.9", "-25.45", "-54.6", "-25.25", "--bands", "B4,B3", "--bands", "B2",
        "--pixel-selection", "median", "--rescale", "5000,12000", "--json",
    )  # fmt: skip
    report = json.loads(stdout)
    assert report["zoom"] == 10  # 60 m pixels, tiles of 512
    with rasterio.open(output) as dataset:
        assert dataset.dtypes == ("uint8",) * 3
        assert dataset.dataset_mask().any()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "B2, B3, B4"),
        (["--bands", "B9"], "no band B9"),
        (["--bands", "B4", "--expression", "B4/B3"], "not both"),
        (["--expression", "b5/b4"], "names no band"),
        (["--bands", "B4", "--pixel-selection", "best"], "best"),
    ],
)
def test_rendering_that_cannot_be_is_refused_before_a_tile_is_asked_for(tmp_path, args, says):
    _, stderr = run("plan", PARANA, "--bounds", *BOUNDS, *args, code=2)
    assert says in stderr


def test_serve_prints_a_tilejson_that_can_be_built_from(tmp_path, unused_tcp_port):
    args = command("serve", PARANA, "--port", unused_tcp_port, "--workers", 1)
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            bounds = ("-54.9", "-25.45", "-54.6", "-25.25")
            stdout, _ = run("build", url + "&tile_format=tif", tmp_path / "out.tif", "--bounds", *bounds, "--json")
        finally:
            process.send_signal(signal.SIGINT)
    assert json.loads(stdout)["tiles_placed"] > 0
    assert process.returncode == 130


def test_scenes_on_disk_without_the_extra_say_what_to_install(tmp_path):
    code = "import sys; sys.modules['rio_tiler'] = None; from mosaic_async.cli.main import main; main()"
    arguments = ["build", str(PARANA), str(tmp_path / "out.tif"), "--bounds", *BOUNDS, "--bands", "B4"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "pip install 'mosaic-async[tiler]'" in done.stderr


@pytest.mark.parametrize("limit", [100_000, 300_000])
def test_a_disk_that_is_full_exits_with_5_and_with_room_the_same_command_finishes(serve, tmp_path, limit):
    """Files may not grow beyond a limit that a tile's body (263 kB), or the COG of a part, does not fit into."""

    tiler = serve()
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", *BOUNDS, "-z", 7)
    _, stderr = run(*args, code=5, limits={resource.RLIMIT_FSIZE: limit})
    assert "\nerror: " in "\n" + stderr  # libtiff has its own words before
    assert "free some" in stderr
    assert (" are needed in all, " in stderr) == (limit > 263_000)  # nothing is known before the first body is there
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.tif").exists()
    run(*args)
    assert cog_validate(tmp_path / "out.tif", strict=True, quiet=True)[0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


def test_help_names_every_command_and_describes_every_option():
    stdout, _ = run("--help")
    assert len(main.commands) >= 4
    assert all(name in stdout for name in main.commands)
    for command in main.commands.values():
        assert [param.name for param in command.params if isinstance(param, click.Option) and not param.help] == []
    run("--version")


def test_a_member_of_a_tilejson_in_a_hint_is_not_taken_for_an_option(serve):
    tiler = serve(documents={"/tilejson.json": {"tiles": "none"}})
    _, stderr = run("plan", f"{tiler.url}/tilejson.json", "--bounds", *BOUNDS, code=4)
    assert "hint: a TileJSON is a JSON object whose `tiles` lists URL templates" in stderr


def test_hints_name_the_flags_of_their_command():
    flags = flags_of(main.get_command(click.Context(main), "build"))
    assert (flags["allow_hosts"], flags["memory"], flags["concurrency"]) == (
        "--allow-host",
        "--memory",
        "--concurrency",
    )
    assert (flags["check_disk=False"], flags["resume=False"]) == ("--no-disk-check", "--fresh")
    assert "resume=False" not in flags_of(main.get_command(click.Context(main), "plan"))
    assert flags_of(None) == {}


@pytest.mark.parametrize("way", ["option", "file", "environment"])
def test_a_secret_of_the_path_is_given_by_name_and_never_printed(serve, tmp_path, way):
    tiler = serve()
    words = json.dumps({"detail": "no tile below /s3cr3t-2026/"}).encode()
    tiler.mood = at(tiler, (7, 64, 49), status(422, words, Content_Type="application/json"), times=99)
    url = tiler.url + "/{pass}/{z}/{x}/{y}.tif"
    args, options = {
        "option": (["--secret", "pass=s3cr3t-2026"], {}),
        "file": (["--secret-file", tmp_path / "secrets"], {}),
        "environment": ([], {"env": {**os.environ, "MOSAIC_ASYNC_SECRETS": "pass=s3cr3t-2026"}}),
    }[way]
    (tmp_path / "secrets").write_text("pass=s3cr3t-2026\n")
    bounds = ("--bounds", -4, 38, 4, 44, "-z", 7)
    out = run("build", url, tmp_path / "out.tif", *bounds, *args, "-v", "--json", code=3, **options)
    assert {path.split("/")[1] for path in tiler.paths_seen} == {"s3cr3t-2026"}
    assert "s3cr3t" not in "".join(out)


def test_tiles_that_are_not_found_are_counted_apart_or_fail(serve, tmp_path):
    tiler = serve()
    tiler.mood = at(tiler, (7, 64, 49), status(404), times=99)
    args = ("build", tiler.template, tmp_path / "out.tif", "--bounds", -4, 38, 4, 44, "-z", 7)
    stdout, _ = run(*args, "--not-found", "fail", code=3)
    stdout, _ = run(*args)
    assert "15 tiles placed, 1 empty (1 of them not found, HTTP 404), 0 failed" in stdout
