"""An output in which parts have to be replaced holds everything once, and a kill while that happens loses nothing."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from mosaic_async.raster import assembly
from mosaic_async.raster.assembly import Assembly
from mosaic_async.raster.digest import DIGEST, UNSIGNED
from mosaic_async.raster.tiff import read_images
from tests.raster.assembling import stitched_parts
from tests.raster.test_stitch import encoding_of, seal_parts
from tests.raster.test_stitch_resume import (
    ENCODING,
    GRID,
    LABEL,
    LEVEL_9,
    Killed,
    copy_of,
    finish,
    flip,
    grow,
    killed_at,
    parts_in,
    reference,
    refuse,
    sealed,
    unfinished_in,
)

__all__ = ["reference", "sealed"]  # fixtures
CHANGED, LOST = 4, 1
"""Numbers of parts, of those that have data."""


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> dict[tuple[int, int], Path]:
    """The parts as they are when the server sends other tiles: other bytes, of another size."""
    encoding = encoding_of("deflate", "uint8", 3, "internal", creation_options=LEVEL_9)
    return seal_parts(GRID, encoding, tmp_path_factory.mktemp("changed") / "parts")


@pytest.fixture(scope="module")
def mended(sealed, changed, tmp_path_factory) -> bytes:
    """The output that is made at once with a changed part."""
    folder = copy_of(sealed, tmp_path_factory.mktemp("mended"))
    shutil.copy(changed[place_of(sealed, CHANGED)], folder)
    return finish(folder).read_bytes()


def place_of(sealed: Path, number: int) -> tuple[int, int]:
    return sorted(parts_in(sealed))[number]


def published(folder: Path) -> Path:
    return folder.parent / "out.tif"


def whole(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def stitch(sealed: Path, folder: Path, *, keep_parts: bool = False) -> None:
    """Leave a folder in which all parts are stitched."""
    made = grow(copy_of(sealed, folder), keep_parts=keep_parts)
    if keep_parts:
        made.replace(published(folder / "work"))  # as a run does


def lose(sealed: Path, folder: Path, number: int) -> None:
    """Damage a stitched part, which is then fetched again."""
    output, place = unfinished_in(folder), place_of(sealed, number)
    row, col = (index * GRID.part_blocks for index in place)
    offsets = read_images(output)[0].offsets[row : row + 2, col : col + 2]
    flip(output, int(offsets.max()) + 9)
    assert place not in stitched_parts(GRID, ENCODING, folder, LABEL)
    shutil.copy(sealed / "{}-{}.tif".format(*place), folder)


def prepare(how: str, sealed: Path, changed: dict[tuple[int, int], Path], tmp_path: Path) -> Path:
    """Return a folder in which the output is whole but for parts that came again."""
    stitch(sealed, tmp_path, keep_parts=how == "a hole that is filled")
    folder, place = tmp_path / "work", place_of(sealed, CHANGED)
    if how == "a changed part and a damaged one":
        lose(sealed, folder, LOST)
    shutil.copy(changed[place], folder)
    return folder


HOWS = ("a changed part", "a hole that is filled", "a changed part and a damaged one")


def disk_of(folder: Path) -> int:
    """Return the bytes of a folder, but for the parts' smallest levels; a file with two names counts once."""
    files = {
        stat.st_ino: stat.st_size for path in folder.glob("*.tif") if "top" not in path.name for stat in [path.stat()]
    }
    return sum(files.values())


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("can", [True, False], ids=["grown", "at the end"])
def test_a_kill_while_parts_are_replaced_changes_no_byte(sealed, changed, mended, tmp_path, monkeypatch, how, can):
    if not can:
        monkeypatch.setattr(assembly, "can_insert", lambda _: False)
    folder = prepare(how, sealed, changed, tmp_path)
    with killed_at(0, monkeypatch) as calls:
        assert finish(folder).read_bytes() == mended
    assert ("link" in calls, calls.count("truncate") > 3) == ((True, False) if "hole" in how else (False, True))
    for point in range(len(calls), 0, -(23 if can else 71)):
        folder = prepare(how, sealed, changed, tmp_path)
        before = whole(published(folder))
        with killed_at(point, monkeypatch), pytest.raises(Killed):
            finish(folder)
        assert finish(folder).read_bytes() == mended, point
        assert whole(published(folder)) == before


@pytest.mark.parametrize("how", HOWS)
def test_replacing_parts_takes_the_disk_once(sealed, changed, mended, tmp_path, monkeypatch, how):
    folder, seen, pwrite = prepare(how, sealed, changed, tmp_path), [], os.pwrite
    published_size = len(whole(published(folder)))
    largest = max(path.stat().st_size for path in sealed.glob("?-?.tif"))

    def counting(*args):
        seen.append(disk_of(folder))
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", counting)
    assert finish(folder).read_bytes() == mended
    assert len(seen) > 12
    assert max(seen) - published_size <= 1.0625 * len(mended) + 2 * largest
    assert not list(folder.glob("?-?.tif"))
    assert not list(folder.glob("*aside*"))


def test_an_output_with_holes_takes_the_disk_once_and_is_never_changed(sealed, changed, reference, mended, tmp_path):
    """The published file and the one in the work folder are one file, until the output is made anew."""
    stitch(sealed, tmp_path, keep_parts=True)
    folder, output = tmp_path / "work", published(tmp_path / "work")
    assert output.samefile(unfinished_in(folder))
    assert not list(folder.glob("?-?.tif"))
    place = place_of(sealed, CHANGED)
    for keep_parts in (True, False):
        shutil.copy(changed[place], folder)
        made = finish(folder, keep_parts=keep_parts)
        assert (output.read_bytes(), made.read_bytes()) == (reference, mended)
    assert not made.samefile(output)


def test_a_file_system_without_links_gets_a_copy(sealed, reference, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", refuse)
    stitch(sealed, tmp_path, keep_parts=True)
    folder = tmp_path / "work"
    assert published(folder).read_bytes() == reference
    assert stitched_parts(GRID, ENCODING, folder, LABEL) == set(parts_in(folder))
    assert finish(folder).read_bytes() == reference


def test_an_output_that_was_edited_after_it_was_published_is_not_believed(sealed, reference, tmp_path):
    stitch(sealed, tmp_path, keep_parts=True)
    folder, place = tmp_path / "work", place_of(sealed, LOST)
    lose(sealed, folder, LOST)
    with published(folder).open("ab") as file:
        file.write(b"what another program appends")
    edited = published(folder).read_bytes()
    assert stitched_parts(GRID, ENCODING, folder, LABEL) == set(parts_in(folder)) - {place}
    assert finish(folder).read_bytes() == reference
    assert published(folder).read_bytes() == edited


def test_a_part_without_data_any_more_leaves_the_output(sealed, tmp_path):
    stitch(sealed, tmp_path)
    folder, place = tmp_path / "work", place_of(sealed, CHANGED)
    stitcher, parts = Assembly(GRID, ENCODING, folder, LABEL), parts_in(folder)
    stitcher.compare(place, None)
    del parts[place]
    found = stitcher.finish(parts, {DIGEST: UNSIGNED}).read_bytes()
    fresh = copy_of(sealed, tmp_path / "fresh")
    for suffix in (".tif", ".top.tif"):
        (fresh / "{}-{}{}".format(*place, suffix)).unlink()
    assert found == finish(fresh).read_bytes()


def test_a_file_that_a_backup_has_linked_while_parts_are_put_aside_is_not_changed(
    sealed, changed, mended, tmp_path, monkeypatch
):
    folder = prepare("a changed part", sealed, changed, tmp_path)
    with killed_at(55, monkeypatch), pytest.raises(Killed):
        finish(folder)
    output, backup = unfinished_in(folder), tmp_path / "backup.tif"
    assert len(list(folder.glob("*aside.tif"))) == 1
    os.link(output, backup)
    before = backup.read_bytes()
    assert finish(folder).read_bytes() == mended
    assert backup.read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", HOWS)
def test_a_kill_at_any_call_while_parts_are_replaced_changes_no_byte(
    sealed, changed, mended, tmp_path, monkeypatch, how
):
    with killed_at(0, monkeypatch) as calls:
        finish(prepare(how, sealed, changed, tmp_path))
    for point in range(1, len(calls) + 1):
        folder = prepare(how, sealed, changed, tmp_path)
        with killed_at(point, monkeypatch), suppress(Killed):
            finish(folder)
        assert finish(folder).read_bytes() == mended, point
