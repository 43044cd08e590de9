"""A stitch that is killed anywhere ends, when it is run again, with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rasterio

from mosaic_async.errors import ResourceError, StitchError
from mosaic_async.raster import stitch
from mosaic_async.raster.assembly import assemble, stitched_parts
from mosaic_async.raster.digest import DIGEST, UNSIGNED, recorded_digest
from mosaic_async.raster.tiff import read_images
from tests.pyramid_reader import assert_same_levels
from tests.raster.test_stitch import build, encoding_of, grid_of, seal_parts

LABEL = "a job"
GRID = grid_of(7, 6, part_blocks=2)
ENCODING = encoding_of("deflate", "uint8", 3, "internal")
CALLS = (
    *((os, name) for name in ("open", "fsync", "ftruncate", "pwrite")),
    *((Path, name) for name in ("replace", "unlink", "mkdir", "write_bytes")),
)
"""What changes the disk. What GDAL writes lies aside until it is renamed."""


class Killed(BaseException):
    """No code of the package catches this."""


@contextmanager
def killed_at(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kill at the call of this number; a write is torn, half of it is done."""
    calls: list[str] = []

    def counting(owner, name):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == count:
                if name == "pwrite":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                raise Killed
            if len(calls) > count > 0:  # the process is dead, so nothing that cleans up runs
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, counting(owner, name))
        yield calls


@pytest.fixture(scope="module")
def sealed(tmp_path_factory) -> Path:
    """Parts that are sealed and not yet stitched."""
    folder = tmp_path_factory.mktemp("sealed") / "parts"
    seal_parts(GRID, ENCODING, folder)
    return folder


@pytest.fixture(scope="module")
def reference(sealed, tmp_path_factory) -> bytes:
    return finish(copy_of(sealed, tmp_path_factory.mktemp("reference"))).read_bytes()


def copy_of(sealed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sealed, folder)
    return folder


def finish(folder: Path, **options) -> Path:
    tops = folder.glob("*-*.top.tif")
    parts = {
        tuple(map(int, top.name.partition(".")[0].split("-"))): folder / top.name.replace(".top", "") for top in tops
    }
    return assemble(GRID, ENCODING, folder, parts, {DIGEST: UNSIGNED}, label=LABEL, **options)


def kill_half_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill when the third part was deleted."""
    deleted: list[Path] = []
    unlink = Path.unlink

    def call(path, **options):
        if "-" in path.name and path.parent == folder and path.suffix == ".tif":
            if len(deleted) == 3:
                raise Killed
            deleted.append(path)
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", call)
        with pytest.raises(Killed):
            finish(folder)
    assert len(stitched_parts(GRID, folder, LABEL)) == 4


def unfinished_in(folder: Path) -> Path:
    (path,) = folder.glob("stitch-*.tif")
    return path


def count_of_calls(sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    with killed_at(0, monkeypatch) as calls:
        finish(copy_of(sealed, tmp_path))
    return len(calls)


def kill_and_resume(sealed: Path, tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch) -> bytes:
    folder = copy_of(sealed, tmp_path)
    with killed_at(point, monkeypatch), pytest.raises(Killed):
        finish(folder)
    left = {path.name for path in folder.glob("*-*.tif") if "top" not in path.name and "stitch" not in path.name}
    gone = {(int(name[0]), int(name[2])) for name in {path.name for path in sealed.glob("?-?.tif")} - left}
    assert gone <= stitched_parts(GRID, folder, LABEL)
    return finish(folder).read_bytes()


def test_a_kill_between_the_signature_and_publishing_loses_nothing(sealed, reference, tmp_path):
    folder = copy_of(sealed, tmp_path)
    output = finish(folder)
    assert recorded_digest(read_images(output))
    places = {tuple(map(int, top.name.partition(".")[0].split("-"))) for top in folder.glob("?-?.top.tif")}
    assert stitched_parts(GRID, folder, LABEL) == places
    assert finish(folder).read_bytes() == reference


def test_a_kill_at_any_tenth_call_changes_no_byte(sealed, reference, tmp_path, monkeypatch):
    calls = count_of_calls(sealed, tmp_path, monkeypatch)
    assert calls > 60
    for point in range(1, calls + 1, 10):
        assert kill_and_resume(sealed, tmp_path, point, monkeypatch) == reference, point


@pytest.mark.slow
def test_a_kill_at_any_call_changes_no_byte(sealed, reference, tmp_path, monkeypatch):
    for point in range(1, count_of_calls(sealed, tmp_path, monkeypatch) + 1):
        assert kill_and_resume(sealed, tmp_path, point, monkeypatch) == reference, point


def test_what_is_stitched_is_the_same_with_and_without_deleting_the_parts(sealed, reference, tmp_path):
    folder = copy_of(sealed, tmp_path)
    made = finish(folder, keep_parts=True)
    assert made.read_bytes() == reference
    assert {path.name for path in sealed.iterdir()} <= {path.name for path in folder.iterdir()}
    assert not stitched_parts(GRID, folder, LABEL)


def test_parts_are_deleted_as_soon_as_the_output_holds_them(sealed, tmp_path, monkeypatch):
    monkeypatch.setattr(stitch, "_BATCH", 1)
    folder = copy_of(sealed, tmp_path)
    largest = max(path.stat().st_size for path in folder.glob("?-?.tif"))
    peaks = []

    def measure(done, total):
        peaks.append(done + sum(path.stat().st_size for path in folder.glob("?-?.tif")))

    made = finish(folder, on_progress=measure)
    assert not list(folder.glob("?-?.tif"))
    headers = 4096 * len(list(sealed.glob("?-?.tif")))
    assert max(peaks) <= made.stat().st_size + largest + headers


def test_progress_counts_up_to_the_size_of_the_output(sealed, tmp_path, monkeypatch):
    told: list[tuple[int, int]] = []
    made = finish(copy_of(sealed, tmp_path), on_progress=lambda *numbers: told.append(numbers))
    size = made.stat().st_size
    assert told == sorted(told)
    assert told[-1] == (size, size)
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    told.clear()
    finish(folder, on_progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (size, size)


def test_what_is_stitched_is_not_copied_again(sealed, reference, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    read = []
    original = stitch._copied
    monkeypatch.setattr(
        stitch, "_copied", lambda copy, *rest: (read.append(copy.source.path), original(copy, *rest))[1]
    )
    assert finish(folder).read_bytes() == reference
    gone = {path.name for path in sealed.glob("?-?.tif")} - {path.name for path in read}
    assert len(gone) == 3


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def zero(path: Path, offset: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(min(4096, len(data) - offset)) + data[offset + 4096 :])


def cut(path: Path, offset: int) -> None:
    os.truncate(path, offset)


@pytest.mark.parametrize("damage", [flip, zero, cut])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.75, 0.97])
def test_a_damaged_output_is_never_trusted_and_can_be_completed(
    sealed, reference, tmp_path, monkeypatch, damage, share
):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    output = unfinished_in(folder)
    damage(output, int(output.stat().st_size * share))
    proved = stitched_parts(GRID, folder, LABEL)
    for path in sealed.glob("?-?.tif"):  # the caller makes the parts again that are not proved
        row, col = int(path.name[0]), int(path.name[2])
        if (row, col) not in proved and not (folder / path.name).exists():
            shutil.copy(path, folder)
    assert finish(folder).read_bytes() == reference


def test_a_flipped_bit_in_any_block_of_a_stitched_part_is_found(sealed, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    output, whole = unfinished_in(folder), stitched_parts(GRID, folder, LABEL)
    with rasterio.open(output) as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_3_2", "TIFF", bidx=1))
    flip(output, place + 5)
    assert stitched_parts(GRID, folder, LABEL) == whole - {(1, 1)} if (1, 1) in whole else whole


@pytest.mark.parametrize("damage", [flip, zero, cut, "missing", "empty", "other label", "lines swapped"])
def test_a_damaged_journal_only_costs_time(sealed, reference, tmp_path, monkeypatch, damage):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    journal = unfinished_in(folder).with_suffix(".journal")
    match damage:
        case "missing":
            journal.unlink()
        case "empty":
            journal.write_bytes(b"")
        case "other label":
            journal.write_text(journal.read_text().replace(LABEL, "another job"))
        case "lines swapped":
            first, *lines = journal.read_text().splitlines()
            facts = [json.loads(line) for line in lines]
            facts[0]["part"], facts[1]["part"] = facts[1]["part"], facts[0]["part"]
            journal.write_text("\n".join([first, *map(json.dumps, facts)]))
        case _:
            damage(journal, journal.stat().st_size * 3 // 4)
    proved = stitched_parts(GRID, folder, LABEL)
    assert len(proved) < 4
    for path in sealed.glob("?-?.tif"):
        if (int(path.name[0]), int(path.name[2])) not in proved and not (folder / path.name).exists():
            shutil.copy(path, folder)
    assert finish(folder).read_bytes() == reference


def test_an_output_of_another_job_is_not_adopted(sealed, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    assert not stitched_parts(GRID, folder, "another job")


def test_a_part_that_is_neither_a_file_nor_stitched_is_an_error(sealed, tmp_path):
    folder = copy_of(sealed, tmp_path)
    (folder / "2-2.tif").unlink()
    with pytest.raises(StitchError, match=r"2-2\.tif is missing"):
        finish(folder)


@pytest.mark.parametrize("is_killed_again", [False, True])
def test_a_part_that_comes_back_with_other_bytes_moves_the_blocks(sealed, tmp_path, monkeypatch, is_killed_again):
    """Its tiles changed on the server, say: the layout is another, and what is stitched is copied from the first."""
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    gone = {path.name for path in sealed.glob("?-?.tif")} - {path.name for path in folder.glob("?-?.tif")}
    name = min(gone)
    changed = seal_parts(GRID, encoding_of("deflate", "uint8", 3, "internal", creation_options=LEVEL_9), tmp_path / "9")
    place = (int(name[0]), int(name[2]))
    assert changed[place].stat().st_size != (sealed / name).stat().st_size
    shutil.copy(changed[place], folder)
    if is_killed_again:
        with killed_at(60, monkeypatch), pytest.raises(Killed):
            finish(folder)
    found = finish(folder)
    assert list(folder.glob("stitch-*.tif")) == [found]
    expected = build(GRID, ENCODING, tmp_path / "expected")
    assert_same_levels(found, expected)


LEVEL_9 = {"BLOCKSIZE": "128", "LEVEL": "9"}


def test_a_full_disk_in_mid_copy_is_an_error_of_the_disk_and_resumes(sealed, reference, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    pwrite, calls = os.pwrite, []

    def full(*args):
        calls.append(args)
        if len(calls) > 25:
            raise OSError(28, "No space left on device")
        return pwrite(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match="No space left"):
            finish(folder)
    assert finish(folder).read_bytes() == reference
