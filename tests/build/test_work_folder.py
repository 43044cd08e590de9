"""What is in the work folder proves itself, belongs to one job, and is used by one process at a time."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mosaic_async.build import folder_lock
from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.errors import WorkFolderError
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part

LABEL, OTHER = "3" * 64, "4" * 64
PART = Part(row=0, col=1, row_off=0, col_off=512, height=512, width=512)
TWIN = Part(row=0, col=2, row_off=0, col_off=1024, height=512, width=512)
TILE = Tile(3, 4, 5)
RECORD = PartRecord(fates="ppep", nbytes=0)
STATE = {"tile": {"size": 256}, "part_blocks": 8}
REPORT = {"tiles_failed": 0, "zoom": 7}


class Folder:
    """A work folder, and what it dropped when it was opened or later."""

    def __init__(self, tmp_path):
        self.output = tmp_path / "out.tif"
        self.dropped = []

    async def open(self, label=LABEL, layout="8", **options) -> WorkFolder:
        self.dropped.clear()
        work = await WorkFolder.open(self.output, label, on_drop=lambda *piece: self.dropped.append(piece), **options)
        if not work.is_new:
            await work.save_state(work.state, layout=layout)
        return work

    async def adopted(self, *parts, **options):
        work = await self.open(**options)
        try:
            return await work.parts.adopt(parts or (PART, TWIN), work_drop(self))
        finally:
            await work.close()


def work_drop(folder):
    return lambda *piece: folder.dropped.append(piece)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


async def finish(work, part, *, pixels=b"pixels", top=b"top", record=RECORD):
    work.parts.make_room(part)
    work.parts.cog(part).write_bytes(pixels)
    if top is not None:
        work.parts.top(part).write_bytes(top)
    await asyncio.to_thread(work.parts.declare, part, replace(record, nbytes=len(pixels)))


async def left(folder, *, label=LABEL):
    """Leave a folder as a killed run does: with its state, a tile, and two parts."""
    work = await folder.open(label)
    await work.save_state(STATE, layout="8")
    await work.spool.write(TILE, b"body", file="0-1")
    await finish(work, PART, pixels=b"pixels 1", top=b"top 1")
    await finish(work, TWIN, pixels=b"pixels 2", top=b"top 2", record=PartRecord(fates="pe", nbytes=0))
    await work.save_tallies({"tiles": 3}, {})
    await work.close()
    return work


async def test_tiles_parts_state_and_scenes_are_there_again_after_a_crash(folder, unblocked_loop):
    work = await folder.open()
    assert work.is_new
    await work.save_state(STATE, layout="8")
    assert not work.is_new
    await work.spool.write(TILE, b"body", file="0-1")
    await work.spool.write(Tile(4, 4, 5), b"", file="0-1")
    await asyncio.to_thread(work.parts.declare, PART, RECORD)
    await work.save_tallies({"used": {"a": [None, 3]}}, {})
    await work.close()

    again = await folder.open()
    assert again.state == STATE
    assert await again.spool.read(TILE) == b"body"
    assert again.spool.has_body(TILE)
    assert not again.spool.has_body(Tile(4, 4, 5))
    assert await again.parts.adopt([PART, TWIN], work_drop(folder)) == {"0-1": RECORD}
    assert await again.read_scenes() == {"used": {"a": [None, 3]}}
    assert folder.dropped == []
    await again.close()


async def test_what_a_crash_left_half_written_is_swept_away(folder):
    work = await left(folder)
    half = [work.path / "job.json.12345678.partial", work.parts.cog(PART).with_name("0-1.tif.12345678.partial")]
    for path in half:
        path.write_bytes(b"ha")
    assert len(await folder.adopted()) == 2
    assert not any(path.exists() for path in half)


async def test_a_folder_of_another_job_is_refused_and_kept(folder):
    await left(folder)
    with pytest.raises(WorkFolderError, match="another job"):
        await folder.open(OTHER)
    assert len(await folder.adopted()) == 2
    assert folder.dropped == []


async def test_a_fresh_start_drops_everything(folder):
    work = await left(folder)
    fresh = await folder.open(OTHER, resume=False)
    assert fresh.is_new
    assert TILE not in fresh.spool
    assert await fresh.parts.adopt([PART, TWIN], work_drop(folder)) == {}
    assert await fresh.read_scenes() == {}
    assert sorted(path.name for path in work.path.iterdir()) == ["job.json", "lock", "spool"]
    assert folder.dropped == []
    await fresh.close()


async def test_two_runs_cannot_share_a_folder(folder):
    work = await folder.open()
    with pytest.raises(WorkFolderError, match="in use"):
        await folder.open()
    await work.close()
    await (await folder.open()).close()


async def test_a_run_does_not_take_the_lock_of_a_folder_that_has_been_deleted(folder, monkeypatch):
    first = await folder.open()
    lock = folder_lock.fcntl.flock

    def delete_then_lock(file, how):
        monkeypatch.undo()
        first._remove()
        first._close()
        lock(file, how)

    monkeypatch.setattr(folder_lock.fcntl, "flock", delete_then_lock)
    second = await folder.open()
    assert os.path.samestat((second.path / "lock").stat(), os.fstat(second._lock.fileno()))
    await second.close()


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = {
    "flipped": flipped,
    "zeroed": zeroed,
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("suffix", [".tif", ".top.tif", ".json"])
async def test_a_damaged_part_is_dropped_alone_and_told(folder, suffix, damage):
    work = await left(folder)
    if suffix == ".json" and damage == DAMAGES["longer"]:
        pytest.skip("white space at the end of a record is no damage")
    damage(work.parts.cog(PART).with_name(f"0-1{suffix}"))
    assert list(await folder.adopted()) == ["0-2"]
    assert [name for name, _ in folder.dropped] == ([] if suffix == ".json" and damage == Path.unlink else ["part 0-1"])
    files = [path.name for path in work.parts.folder.rglob("0-1*") if path.is_file()]
    assert files == []


async def test_whatever_bit_of_a_record_flips_the_part_is_not_taken_for_another(folder):
    work = await left(folder)
    path = work.parts.cog(PART).with_name("0-1.json")
    whole = path.read_bytes()
    for index in range(len(whole)):
        flip = 1 << index % 8
        path.write_bytes(whole[:index] + bytes([whole[index] ^ flip]) + whole[index + 1 :])
        found = work.parts.verified
        try:
            record = found(PART)
        except ValueError:
            continue
        assert record == replace(RECORD, nbytes=8)  # only white space has changed


def swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.mark.parametrize(
    "suffixes", [[".tif"], [".top.tif"], [".json"], [".tif", ".top.tif"], [".tif", ".top.tif", ".json"]]
)
async def test_parts_that_were_swapped_are_both_dropped(folder, suffixes):
    work = await left(folder)
    for suffix in suffixes:
        swap(*(work.parts.cog(part).with_name(part.name + suffix) for part in (PART, TWIN)))
    assert await folder.adopted() == {}
    assert sorted(name for name, _ in folder.dropped) == ["part 0-1", "part 0-2"]


async def test_a_part_under_the_name_of_its_own_top_is_dropped(folder):
    work = await left(folder)
    swap(work.parts.cog(PART), work.parts.top(PART))
    assert list(await folder.adopted()) == ["0-2"]


async def test_parts_of_another_layout_are_dropped(folder):
    await left(folder)
    assert await folder.adopted(layout="4") == {}
    assert len(folder.dropped) == 2


async def test_a_part_of_another_place_or_size_is_dropped(folder):
    await left(folder)
    moved = [replace(PART, col_off=256), replace(TWIN, height=256)]
    assert await folder.adopted(*moved) == {}


async def test_a_part_of_another_job_is_dropped(folder, tmp_path):
    work = await left(folder)
    other = Folder(tmp_path / "other")
    other.output.parent.mkdir()
    theirs = await left(other, label=OTHER)
    shutil.copytree(theirs.parts.folder, work.parts.folder, dirs_exist_ok=True)
    assert await folder.adopted() == {}
    assert {reason for _, reason in folder.dropped} == {"it belongs to another job"}


async def test_a_part_that_lacks_tiles_keeps_its_canvas_and_not_its_cog(folder):
    work = await left(folder)
    work.parts.canvas(PART).write_bytes(b"canvas")
    record = replace(RECORD, missing=(TILE, Tile(9, 9, 9)), nbytes=8)
    await asyncio.to_thread(work.parts.declare, PART, record)
    assert (await folder.adopted())["0-1"] == record
    assert not work.parts.cog(PART).exists()
    flipped(work.parts.canvas(PART))
    assert list(await folder.adopted()) == ["0-2"]
    assert not work.parts.canvas(PART).exists()


async def test_a_part_that_has_all_its_tiles_at_last_needs_no_canvas(folder):
    work = await left(folder)
    work.parts.canvas(PART).write_bytes(b"canvas")
    await finish(work, PART)
    assert not work.parts.canvas(PART).exists()
    assert len(await folder.adopted()) == 2


async def test_files_that_are_no_parts_are_let_be(folder):
    work = await left(folder)
    for name in (".DS_Store", "notes.txt"):
        (work.parts.folder / name).write_text("mine")
    await folder.adopted()
    assert sorted(path.name for path in work.parts.folder.iterdir()) == [".DS_Store", "0-0", "notes.txt"]


async def test_no_folder_gets_crowded(folder):
    work = await folder.open()
    parts = [
        Part(row=row, col=col, row_off=0, col_off=0, height=1, width=1) for row in range(256) for col in range(256)
    ]
    folders = {work.parts.cog(part).parent for part in parts}
    assert len(folders) == 256
    assert len({work.parts.cog(part) for part in parts}) == len(parts)
    await work.close()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_job_file_costs_the_state_and_nothing_else(folder, damage):
    work = await left(folder)
    if damage in (DAMAGES["a folder"], DAMAGES["longer"]):
        pytest.skip("not a file any more, or not damaged")
    damage(work.path / "job.json")
    again = await folder.open()
    assert folder.dropped
    assert folder.dropped[0][0] == "job.json"
    assert again.state == {}
    assert not again.is_new
    assert await again.spool.read(TILE) == b"body"
    await again.save_state(STATE, layout="8")
    assert len(await again.parts.adopt([PART, TWIN], work_drop(folder))) == 2
    await again.close()
    with pytest.raises(WorkFolderError, match="another job"):
        await folder.open(OTHER)


@pytest.mark.parametrize("damage", [flipped, zeroed, Path.unlink])
@pytest.mark.parametrize("spare", ["spool", "parts"])
async def test_a_folder_without_a_job_file_is_not_taken_from_its_job(folder, damage, spare):
    work = await left(folder)
    shutil.rmtree(work.path / ("parts" if spare == "spool" else "spool"))
    damage(work.path / "job.json")
    with pytest.raises(WorkFolderError, match="another job"):
        await folder.open(OTHER)
    again = await folder.open()
    assert not again.is_new
    await again.close()


async def test_a_number_in_the_job_file_that_was_changed_is_not_believed(folder):
    work = await left(folder)
    record = json.loads((work.path / "job.json").read_text())
    record["content"]["part_blocks"] = 4
    (work.path / "job.json").write_text(json.dumps(record))
    again = await folder.open()
    assert again.state == {}
    assert folder.dropped == [("job.json", "it is damaged")]
    await again.close()


async def test_an_empty_folder_whose_job_file_is_damaged_is_anyones(folder):
    work = await folder.open()
    await work.close()
    (work.path / "job.json").write_text("{")
    again = await folder.open(OTHER)
    assert again.is_new
    assert folder.dropped == [("job.json", "it is damaged")]
    await again.close()


@pytest.mark.parametrize("damage", [flipped, zeroed, DAMAGES["cut"], DAMAGES["empty"], Path.unlink])
async def test_damaged_scenes_are_counted_anew(folder, damage):
    work = await left(folder)
    damage(work.path / "scenes.json")
    again = await folder.open()
    assert await again.read_scenes() == {}
    assert folder.dropped == ([] if damage == Path.unlink else [("scenes.json", "it is damaged")])
    await again.close()


async def test_records_of_two_kinds_are_not_taken_for_each_other(folder):
    work = await left(folder)
    shutil.copy(work.path / "job.json", work.path / "scenes.json")
    again = await folder.open()
    assert await again.read_scenes() == {}
    assert folder.dropped == [("scenes.json", "it is a record of job")]
    await again.close()


async def test_scenes_that_are_saved_together_are_all_saved(folder):
    work = await folder.open()
    await asyncio.gather(*(work.save_tallies({"tiles": count}, {}) for count in range(20)))
    assert await work.read_scenes() == {"tiles": 19}
    assert [path.name for path in work.path.glob("*.partial")] == []
    await work.close()


@pytest.mark.skipif(sys.platform != "linux", reason="names what is flushed by /proc")
async def test_the_disk_holds_a_part_before_its_record_says_so(folder, monkeypatch):
    work = await folder.open()
    flushed = []
    flush = os.fsync

    def note(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        flushed.append((name.split(".json")[0], work.parts.cog(PART).with_name("0-1.json").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await finish(work, PART)
    assert flushed == [("0-1.tif", False), ("0-1.top.tif", False), ("0-1", False), ("0-0", True)]
    await work.save_state({}, layout="")
    assert [name for name, _ in flushed[-2:]] == ["job", "out.tif.work"]
    await work.close()


async def published(folder, report=REPORT, **options):
    """Leave a folder as a run does that is killed right after its output got its name."""
    work = await left(folder, **options)
    again = await folder.open(options.get("label", LABEL))
    made = work.parts.cog(PART)
    await again.announce(made, report)
    await again.close()
    made.replace(folder.output)
    return work


def everything_in(folder):
    return sorted(path.name for path in folder.output.parent.iterdir())


async def test_an_output_that_has_its_place_is_found_by_the_same_job(folder):
    await published(folder)
    work = await folder.open()
    assert work.published == REPORT
    await work.remove()
    await work.close()
    assert everything_in(folder) == ["out.tif"]


async def test_it_is_found_as_long_as_anything_is_left_of_the_work(folder, monkeypatch):
    """The removal is interrupted at each of its calls in turn."""
    await published(folder)
    for stop in range(100):
        work = await folder.open()
        assert work.published == REPORT
        calls = iter(range(stop))

        def interrupt(call, calls=calls):
            def interrupted(*args, **kwargs):
                if next(calls, None) is None:
                    raise KeyboardInterrupt
                return call(*args, **kwargs)

            return interrupted

        with monkeypatch.context() as patch:
            for name in ("unlink", "rmdir", "rename"):
                patch.setattr(os, name, interrupt(getattr(os, name)))
            try:
                work._remove()
            except KeyboardInterrupt:
                continue
            finally:
                await work.close()
        break
    assert stop > 5
    assert everything_in(folder) == ["out.tif"]


async def test_an_output_that_was_changed_or_replaced_since_is_not_taken_for_it(folder):
    await published(folder)
    aside = folder.output.read_bytes()
    folder.output.unlink()
    folder.output.write_bytes(aside + b"!")
    work = await folder.open()
    assert work.published is None
    await work.close()
    assert everything_in(folder) == ["out.tif", "out.tif.work"]


@pytest.mark.parametrize("damage", [flipped, zeroed, DAMAGES["cut"], DAMAGES["empty"]])
async def test_a_damaged_publication_is_none(folder, damage):
    await published(folder)
    damage(folder.output.with_name("out.tif.work.done"))
    work = await folder.open()
    assert work.published is None
    await work.close()


async def test_a_kill_before_the_output_gets_its_name_announces_nothing(folder):
    work = await left(folder)
    again = await folder.open()
    await again.announce(work.parts.cog(PART), REPORT)
    await again.close()
    again = await folder.open()
    assert again.published is None
    await again.close()
    assert len(await folder.adopted()) == 2
    assert everything_in(folder) == ["out.tif.work"]


async def test_a_kill_while_an_output_is_announced_leaves_nothing_beside_it(folder, monkeypatch):
    work = await left(folder)
    again = await folder.open()
    written, write = [], Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: written.append(path.parent) or write(path, data))
    await again.announce(work.parts.cog(PART), REPORT)
    monkeypatch.undo()
    await again.close()
    assert written == [work.path]
    assert everything_in(folder) == ["out.tif.work", "out.tif.work.done"]


async def test_another_job_neither_takes_a_published_output_for_its_own_nor_is_stopped_by_the_rest_of_its_work(folder):
    await published(folder)
    other = await folder.open(OTHER)
    assert other.published is None
    assert other.is_new
    assert TILE not in other.spool
    assert await other.parts.adopt([PART, TWIN], work_drop(folder)) == {}
    await other.close()


async def test_another_job_leaves_the_work_of_an_output_with_holes_alone(folder):
    await published(folder, {**REPORT, "tiles_failed": 1})
    with pytest.raises(WorkFolderError, match="another job"):
        await folder.open(OTHER)
    work = await folder.open()
    assert work.published["tiles_failed"] == 1
    await work.close()


@pytest.mark.parametrize("deleted", range(1, 12))
async def test_another_job_adopts_nothing_of_a_folder_whose_removal_was_interrupted(folder, deleted):
    work = await left(folder)
    work.path.rename(folder.output.with_name("out.tif.work.old"))
    for path in sorted(folder.output.with_name("out.tif.work.old").rglob("*"))[:deleted]:
        if path.is_file():
            path.unlink()
    other = await folder.open(OTHER)
    assert other.is_new
    assert folder.dropped == []
    assert await other.parts.adopt([PART, TWIN], work_drop(folder)) == {}
    await other.remove()
    await other.close()
    assert everything_in(folder) == []
