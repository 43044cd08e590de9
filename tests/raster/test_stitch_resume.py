"""A stitch that is killed anywhere ends, when it is run again, with the bytes of one that was not."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from mosaic_async.errors import ResourceError, StitchError
from mosaic_async.raster import unfinished
from mosaic_async.raster.assembly import Assembly
from mosaic_async.raster.digest import DIGEST, UNSIGNED, digest_of, recorded_digest
from mosaic_async.raster.insertion import can_insert
from mosaic_async.raster.tiff import read_images
from tests.pairwise import quick_only
from tests.pyramid_reader import assert_same_levels
from tests.raster.assembling import assemble, stitched_parts
from tests.raster.test_stitch import build, encoding_of, grid_of, seal_parts, source_pixels

LABEL = "a job"
GRID = grid_of(7, 6, part_blocks=2)
ENCODING = encoding_of("deflate", "uint8", 3, "internal")
CALLS = (
    *((os, name) for name in ("open", "fsync", "ftruncate", "truncate", "link", "pwrite")),
    *((Path, name) for name in ("replace", "unlink", "mkdir", "write_bytes")),
    (unfinished, "insert_at_start"),
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


def parts_in(folder: Path) -> dict[tuple[int, int], Path]:
    """Return the COG of each part that has data, whether its file is there or not."""
    tops = folder.glob("*-*.top.tif")
    return {
        tuple(map(int, top.name.partition(".")[0].split("-"))): folder / top.name.replace(".top", "") for top in tops
    }


def finish(folder: Path, **options) -> Path:
    """Stitch when all parts are there."""
    return assemble(GRID, ENCODING, folder, parts_in(folder), {DIGEST: UNSIGNED}, label=LABEL, **options)


def grow(folder: Path, *, seed: int | None = None, **options) -> Path:
    """Stitch while parts come, in their order or in another one; those of an earlier run are there already."""
    assembly, parts = Assembly(GRID, ENCODING, folder, LABEL), parts_in(folder)
    assembly.resume({place: path for place, path in parts.items() if not path.exists()})
    coming = [place for part in GRID.parts() if (place := (part.row, part.col)) not in parts or parts[place].exists()]
    if seed is not None:
        random.Random(seed).shuffle(coming)
    for place in coming:
        assembly.add(place, parts.get(place))
    return assembly.finish(parts, {DIGEST: UNSIGNED}, **options)


WAYS = {"at the end": finish, "as they come": grow, "in another order": partial(grow, seed=1)}


def kill_half_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill when the third part was deleted."""
    deleted: list[Path] = []
    unlink = Path.unlink

    def call(path, **options):
        if re.fullmatch(r"\d-\d\.tif", path.name):
            if len(deleted) == 3:
                raise Killed
            deleted.append(path)
        unlink(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", call)
        with pytest.raises(Killed):
            finish(folder)
    assert len(stitched_parts(GRID, ENCODING, folder, LABEL)) == 4


def unfinished_in(folder: Path) -> Path:
    (path,) = (path for path in folder.glob("stitch-*.tif") if not {".", "aside"} & {*path.stem, *path.stem.split("-")})
    return path


def count_of_calls(sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way) -> int:
    with killed_at(0, monkeypatch) as calls:
        way(copy_of(sealed, tmp_path))
    assert ("insert_at_start" in calls[3:]) == (way is not finish and can_insert(tmp_path))
    return len(calls)


def kill_and_resume(sealed: Path, tmp_path: Path, point: int, monkeypatch: pytest.MonkeyPatch, way) -> bytes:
    folder = copy_of(sealed, tmp_path)
    with killed_at(point, monkeypatch), pytest.raises(Killed):
        way(folder)
    left = {path.name for path in folder.glob("*-*.tif") if "top" not in path.name and "stitch" not in path.name}
    gone = {(int(name[0]), int(name[2])) for name in {path.name for path in sealed.glob("?-?.tif")} - left}
    assert gone <= stitched_parts(GRID, ENCODING, folder, LABEL)
    return way(folder).read_bytes()


def test_a_kill_between_the_signature_and_publishing_loses_nothing(sealed, reference, tmp_path):
    for way in WAYS.values():
        folder = copy_of(sealed, tmp_path)
        output = way(folder)
        assert recorded_digest(read_images(output)) == digest_of(output, read_images(output))
        assert output.read_bytes() == reference
        assert stitched_parts(GRID, ENCODING, folder, LABEL) == set(parts_in(folder))
        assert way(folder).read_bytes() == reference
        assert finish(folder).read_bytes() == reference


@pytest.mark.parametrize("way", quick_only(WAYS.values(), WAYS["in another order"]), ids=WAYS)
def test_a_kill_at_any_tenth_call_changes_no_byte(sealed, reference, tmp_path, monkeypatch, way):
    calls = count_of_calls(sealed, tmp_path, monkeypatch, way)
    assert calls > 60
    for point in range(1, calls + 1, 10):
        assert kill_and_resume(sealed, tmp_path, point, monkeypatch, way) == reference, point


@pytest.mark.parametrize("way", quick_only(WAYS.values(), WAYS["as they come"]), ids=WAYS)
def test_a_kill_at_each_of_the_last_calls_changes_no_byte(sealed, reference, tmp_path, monkeypatch, way):
    """Among them are those before and after the front is inserted."""
    calls = count_of_calls(sealed, tmp_path, monkeypatch, way)
    for point in range(calls - 9, calls + 1):
        assert kill_and_resume(sealed, tmp_path, point, monkeypatch, way) == reference, point


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_kill_at_any_call_changes_no_byte(sealed, reference, tmp_path, monkeypatch, way):
    for point in range(1, count_of_calls(sealed, tmp_path, monkeypatch, way) + 1):
        assert kill_and_resume(sealed, tmp_path, point, monkeypatch, way) == reference, point


def test_a_front_that_cannot_be_inserted_after_all_costs_a_copy(sealed, reference, tmp_path, monkeypatch):
    """As when the work folder was copied to another disk between two runs."""
    folder = copy_of(sealed, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Assembly, "_complete", killed)
        with pytest.raises(Killed):
            grow(folder)
    assert len(list(folder.glob("?-?.tif"))) <= 1
    monkeypatch.setattr(unfinished, "insert_at_start", refuse)
    assert finish(folder).read_bytes() == reference
    assert stitched_parts(GRID, ENCODING, folder, LABEL) == set(parts_in(folder))


def killed(*_: object, **__: object) -> None:
    raise Killed


def refuse(*_: object) -> None:
    raise OSError(95, "Operation not supported")


def test_parts_that_are_made_again_are_taken_if_they_are_the_same(sealed, reference, tmp_path):
    folder = copy_of(sealed, tmp_path)
    assembly, parts = Assembly(GRID, ENCODING, folder, LABEL), parts_in(folder)
    places = [(part.row, part.col) for part in GRID.parts()]
    for place in places[:6]:
        assembly.add(place, parts.get(place))
    assembly.add(places[8], parts[places[8]])
    for place in (places[1], places[4], places[8]):
        assembly.withdraw(place)
        shutil.copy(sealed / parts[place].name, folder)
    for place in (places[4], places[1], *places[6:]):
        assembly.add(place, parts.get(place))
    made = assembly.finish(parts, {DIGEST: UNSIGNED})
    assert "copy" not in made.name
    assert made.read_bytes() == reference
    assert not list(folder.glob("?-?.tif"))


@pytest.mark.quick(2)
@pytest.mark.parametrize("is_killed", [False, True])
@pytest.mark.parametrize("index", [1, 4, 5])
def test_a_part_that_is_made_again_with_other_bytes_is_the_one_in_the_output(sealed, tmp_path, index, is_killed):
    folder = copy_of(sealed, tmp_path)
    changed = seal_parts(GRID, encoding_of("deflate", "uint8", 3, "internal", creation_options=LEVEL_9), tmp_path / "9")
    assembly, parts = Assembly(GRID, ENCODING, folder, LABEL), parts_in(folder)
    places = [(part.row, part.col) for part in GRID.parts()]
    for place in places[:6]:
        assembly.add(place, parts.get(place))
    shutil.copy(changed[places[index]], folder)
    assembly.add(places[index], parts[places[index]])
    if is_killed:
        assembly = Assembly(GRID, ENCODING, folder, LABEL)
        assembly.resume({place: parts.get(place) for place in places[:6]})
    for place in places[6:]:
        assembly.add(place, parts.get(place))
    found = assembly.finish(parts, {DIGEST: UNSIGNED})
    fresh = copy_of(sealed, tmp_path / "fresh")
    shutil.copy(changed[places[index]], fresh)
    assert found.read_bytes() == finish(fresh).read_bytes()


def test_what_is_stitched_is_the_same_with_and_without_deleting_the_parts(sealed, reference, tmp_path):
    folder = copy_of(sealed, tmp_path)
    made = finish(folder, keep_parts=True)
    assert made.read_bytes() == reference
    assert made.samefile(unfinished_in(folder))
    assert stitched_parts(GRID, ENCODING, folder, LABEL) == set(parts_in(folder))


def test_parts_are_deleted_as_soon_as_the_output_holds_them(sealed, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "BATCH", 1)
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
    original = unfinished.copy_blocks
    monkeypatch.setattr(unfinished, "copy_blocks", lambda path, *rest: (read.append(path), original(path, *rest))[1])
    assert finish(folder).read_bytes() == reference
    gone = {path.name for path in sealed.glob("?-?.tif")} - {path.name for path in read}
    assert len(gone) == 4


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def zero(path: Path, offset: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:offset] + bytes(min(4096, len(data) - offset)) + data[offset + 4096 :])


def cut(path: Path, offset: int) -> None:
    os.truncate(path, offset)


@pytest.mark.quick(6)
@pytest.mark.parametrize("damage", [flip, zero, cut])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.75, 0.97])
def test_a_damaged_output_is_never_trusted_and_can_be_completed(
    sealed, reference, tmp_path, monkeypatch, damage, share
):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    output = unfinished_in(folder)
    damage(output, int(output.stat().st_size * share))
    proved = stitched_parts(GRID, ENCODING, folder, LABEL)
    for path in sealed.glob("?-?.tif"):  # the caller makes the parts again that are not proved
        row, col = int(path.name[0]), int(path.name[2])
        if (row, col) not in proved and not (folder / path.name).exists():
            shutil.copy(path, folder)
    assert finish(folder).read_bytes() == reference


def test_a_flipped_bit_in_any_block_of_a_stitched_part_is_found(sealed, reference, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    output, whole = unfinished_in(folder), stitched_parts(GRID, ENCODING, folder, LABEL)
    with MemoryFile(reference) as memory, memory.open() as dataset:
        place = int(dataset.get_tag_item("BLOCK_OFFSET_3_1", "TIFF", bidx=1))
    flip(output, place + 5)
    assert stitched_parts(GRID, ENCODING, folder, LABEL) == whole - {(0, 1)} != whole


@pytest.mark.quick(3)
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
    proved = stitched_parts(GRID, ENCODING, folder, LABEL)
    assert len(proved) < 4
    for path in sealed.glob("?-?.tif"):
        if (int(path.name[0]), int(path.name[2])) not in proved and not (folder / path.name).exists():
            shutil.copy(path, folder)
    assert finish(folder).read_bytes() == reference


def test_an_output_of_another_job_is_not_adopted(sealed, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    assert not stitched_parts(GRID, ENCODING, folder, "another job")


def test_a_part_that_is_neither_a_file_nor_stitched_is_an_error(sealed, tmp_path):
    folder = copy_of(sealed, tmp_path)
    (folder / "2-2.tif").unlink()
    with pytest.raises(StitchError, match=r"2-2\.tif is missing"):
        finish(folder)


@pytest.mark.parametrize("is_killed_again", [False, True])
def test_a_part_that_comes_back_with_other_bytes_moves_the_blocks(sealed, tmp_path, monkeypatch, is_killed_again):
    """Its tiles changed on the server, say: the layout is another, and what is stitched is copied."""
    folder = copy_of(sealed, tmp_path)
    kill_half_way(folder, monkeypatch)
    gone = {path.name for path in sealed.glob("?-?.tif")} - {path.name for path in folder.glob("?-?.tif")}
    name = min(gone)
    changed = seal_parts(GRID, encoding_of("deflate", "uint8", 3, "internal", creation_options=LEVEL_9), tmp_path / "9")
    place = (int(name[0]), int(name[2]))
    assert changed[place].stat().st_size != (sealed / name).stat().st_size
    shutil.copy(changed[place], folder)
    if is_killed_again:
        with killed_at(30, monkeypatch), pytest.raises(Killed):
            finish(folder)
    found = finish(folder)
    assert found in folder.glob("stitch-*.tif")
    expected = build(GRID, ENCODING, tmp_path / "expected")
    assert_same_levels(found, expected)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "kind",
    [
        ("deflate", "uint8", 3, "internal"),
        ("zstd", "int16", 2, "nodata"),
        ("lzw", "uint16", 1, "none"),
        ("deflate", "uint8", 3, "alpha"),
    ],
    ids=str,
)
def test_a_stitched_part_can_be_written_out_again(tmp_path, kind):
    encoding, folder = encoding_of(*kind), tmp_path / "parts"
    parts, (pixels, mask) = seal_parts(GRID, encoding, folder), source_pixels(GRID, encoding)
    assembly = Assembly(GRID, encoding, folder, LABEL)
    for part in GRID.parts():
        assembly.add((part.row, part.col), parts.get((part.row, part.col)))
    for part in GRID.parts():
        if (part.row, part.col) in assembly.stitched:
            assembly.extract(part, encoding, tmp_path / "part.tif")
            rows = slice(part.row_off, part.row_off + part.height)
            cols = slice(part.col_off, part.col_off + part.width)
            expected = np.full_like(mask, 255)[rows, cols] if encoding.mask == "none" else mask[rows, cols]
            with rasterio.open(tmp_path / "part.tif") as dataset:
                np.testing.assert_array_equal(dataset.dataset_mask(), expected)
                found = dataset.read(range(1, encoding.count + 1))
                np.testing.assert_array_equal(found[:, expected > 0], pixels[:, rows, cols][:, expected > 0])
    if can_insert(tmp_path):
        assert len(assembly.stitched) == len(parts)


LEVEL_9 = {"BLOCKSIZE": "128", "LEVEL": "9"}


def test_a_full_disk_in_mid_copy_is_an_error_of_the_disk_and_resumes(sealed, reference, tmp_path, monkeypatch):
    folder = copy_of(sealed, tmp_path)
    pwrite, calls = os.pwrite, []

    def full(*args):
        calls.append(args)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        return pwrite(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match="No space left"):
            finish(folder)
    assert finish(folder).read_bytes() == reference
