"""What OUTPUT may be: nothing but a regular file of a GeoTIFF is ever replaced."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from mosaic_async import UsageError, build_mosaic
from mosaic_async.build.output_path import output_path
from tests.test_api import AREA, ZOOM, assert_is_the_world, left_behind


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices are root's to make")


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def make_link_to_a_pipe(path: Path) -> None:
    make_pipe(path.with_name("pipe"))
    path.symlink_to("pipe")


def make_circle(path: Path) -> None:
    path.symlink_to(path.name)


MAKERS = [Path.mkdir, make_pipe, make_socket, make_device, make_link_to_a_device, make_link_to_a_pipe, make_circle]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("overwrite", [False, True])
async def test_what_is_not_a_regular_file_is_refused_and_left_alone(serve, tmp_path, monkeypatch, make, overwrite):
    monkeypatch.chdir(tmp_path)  # a socket's name has at most 107 bytes
    output = Path("out.tif")
    make(output)
    before = os.lstat(output)
    tiler = serve()
    with pytest.raises(UsageError, match=r"is a (folder|pipe|socket|device)|cannot be the output"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, overwrite=overwrite)
    assert tiler.requests == 0
    assert os.path.samestat(os.lstat(output), before)
    assert not list(tmp_path.glob("*.work"))


NAMES = ["o.png", "o.gpkg", "o.mbtiles", "o.pmtiles", "o.vrt", "o.zarr", "o.JPG", "o.tif.png", "o.nc", "o.geojson"]
ELSEWHERE = ["-", "gs://b/o.tif", "az://b/o.tif", "https://h/o.tif", "file:///tmp/o.tif", "/vsis3/b/o.tif", "o/"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_of_another_format_is_refused_with_what_to_do(serve, tmp_path, name):
    tiler = serve()
    with pytest.raises(UsageError, match="names another format") as error:
        await build_mosaic(tiler.template, AREA, tmp_path / name, zoom=ZOOM)
    assert "name the output o" in error.value.hint
    assert ".tif" in error.value.hint
    assert tiler.requests == 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("kind", [str, Path])
async def test_a_name_that_is_not_of_a_local_file_is_refused(serve, tmp_path, monkeypatch, name, kind):
    if kind is Path and name == "o/":
        pytest.skip("a Path has no slash at its end")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"stdout|not a file on this machine|name of a folder"):
        await build_mosaic(serve().template, AREA, kind(name), zoom=ZOOM)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["o.tif", "o.TIFF", "o", "o.cog", "o.2026", "o.v1.tif", "png.tif", "a b.tif", "s3.tif"]
)
def test_other_names_are_taken_as_they_are(tmp_path, name):
    assert output_path(tmp_path / name, overwrite=False) == tmp_path / name


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "zero\0.tif"])
def test_a_name_that_no_file_can_have_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be the output"):
        output_path(tmp_path / name, overwrite=True)


@pytest.mark.parametrize("state", ["there", "dangling", "through another link"])
async def test_of_a_symlink_the_target_is_replaced_and_not_the_link(serve, tmp_path, state):
    tiler = serve()
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "real.tif", tmp_path / "out.tif"
    if state == "through another link":
        (tmp_path / "store" / "second").symlink_to("real.tif")
        link.symlink_to("store/second")
    else:
        link.symlink_to("store/real.tif")
    if state != "dangling":
        target.write_text("older")
        with pytest.raises(UsageError, match="exists"):
            await build_mosaic(tiler.template, AREA, link, zoom=ZOOM)
    await build_mosaic(tiler.template, AREA, link, zoom=ZOOM, overwrite=state != "dangling")
    assert link.is_symlink()
    assert not target.is_symlink()
    assert_is_the_world(target, tiler, AREA, ZOOM)
    assert left_behind(tmp_path) == ["out.tif", "store"]
