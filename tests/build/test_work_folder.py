"""What is in the work folder is whole, belongs to one job, and is used by one process at a time."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from mercantile import Tile

from mosaic_async.build.ledger import PartRecord
from mosaic_async.build.work_folder import WorkFolder, label_of
from mosaic_async.errors import WorkFolderError
from mosaic_async.geo.grid import Part

LABEL = label_of({"source": "a", "zoom": 3})
PART = Part(row=0, col=1, row_off=0, col_off=512, height=512, width=512)
TILE = Tile(3, 4, 5)
RECORD = PartRecord(fates="ppep", holes=0, nbytes=0)


async def opened(tmp_path, label=LABEL, **options) -> WorkFolder:
    return await WorkFolder.open(tmp_path / "out.tif", label, **options)


def test_a_label_does_not_depend_on_the_order_of_keys():
    assert label_of({"zoom": 3, "source": "a"}) == LABEL
    assert label_of({"zoom": 4, "source": "a"}) != LABEL


async def test_tiles_parts_and_state_are_there_again_after_a_crash(tmp_path, unblocked_loop):
    work = await opened(tmp_path)
    assert work.is_new
    await work.save_state({"tile": {"size": 256}})
    assert not work.is_new
    await work.write_tile(TILE, b"body")
    await work.write_tile(Tile(4, 4, 5), b"")
    await work.finish_part(PART, RECORD)
    work.close()

    again = await opened(tmp_path)
    assert again.state["tile"] == {"size": 256}
    assert again.has_body(TILE)
    assert await again.read_tile(TILE) == b"body"
    assert again.has_tile(Tile(4, 4, 5))
    assert not again.has_body(Tile(4, 4, 5))
    assert not again.has_tile(Tile(9, 9, 9))
    assert await again.finished_parts() == {"0-1": RECORD}
    again.close()


async def test_what_a_crash_left_half_written_is_swept_away(tmp_path):
    work = await opened(tmp_path)
    work.close()
    (work.path / "tiles" / "5-3-4.partial").write_bytes(b"ha")
    again = await opened(tmp_path)
    assert not again.has_tile(TILE)
    assert list((work.path / "tiles").iterdir()) == []
    again.close()


async def test_a_folder_of_another_job_is_refused_and_kept(tmp_path):
    work = await opened(tmp_path)
    await work.write_tile(TILE, b"precious")
    work.close()
    with pytest.raises(WorkFolderError, match="another job"):
        await opened(tmp_path, label_of({"zoom": 9}))
    again = await opened(tmp_path)
    assert again.has_body(TILE)
    again.close()


async def test_a_fresh_start_drops_everything(tmp_path):
    work = await opened(tmp_path)
    await work.write_tile(TILE, b"old")
    await work.finish_part(PART, RECORD)
    work.close()
    fresh = await opened(tmp_path, label_of({"zoom": 9}), resume=False)
    assert not fresh.has_tile(TILE)
    assert await fresh.finished_parts() == {}
    fresh.close()


@pytest.mark.parametrize("left", [None, b"", b"pix", b"pixels and more"])
async def test_a_part_whose_file_has_not_its_size_is_not_finished(tmp_path, left):
    work = await opened(tmp_path)
    work.part_path(PART).write_bytes(b"pixels")
    await work.finish_part(PART, replace(RECORD, nbytes=6))
    assert list(await work.finished_parts()) == ["0-1"]
    work.part_path(PART).unlink()
    if left is not None:
        work.part_path(PART).write_bytes(left)
    assert await work.finished_parts() == {}
    work.close()


@pytest.mark.parametrize("name", ["placed", "empty", "failed", "nbytes"])
@pytest.mark.parametrize("value", ["3", 1.5, None, True, [], {}])
async def test_a_record_with_anything_but_whole_numbers_is_none(tmp_path, name, value):
    work = await opened(tmp_path)
    await work.finish_part(PART, RECORD)
    (work.parts / "0-1.json").write_text(json.dumps({**asdict(RECORD), name: value}))
    assert await work.finished_parts() == {}
    work.close()


@pytest.mark.skipif(sys.platform != "linux", reason="names what is flushed by /proc")
async def test_the_disk_holds_a_part_before_its_record_says_so(tmp_path, monkeypatch):
    work = await opened(tmp_path)
    work.part_path(PART).write_bytes(b"pixels")
    work.top_path(PART).write_bytes(b"top")
    flushed = []
    flush = os.fsync

    def note(descriptor):
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (work.parts / "0-1.json").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    await work.finish_part(PART, replace(RECORD, nbytes=6))
    assert flushed == [("0-1.tif", False), ("0-1.top.tif", False), ("0-1.json.partial", False)]
    await work.save_state({})
    assert flushed[-1][0] == "job.json.partial"
    work.close()


async def test_two_runs_cannot_share_a_folder(tmp_path):
    work = await opened(tmp_path)
    with pytest.raises(WorkFolderError, match="in use"):
        await opened(tmp_path)
    work.close()
    (await opened(tmp_path)).close()


async def test_a_job_file_that_is_no_json_says_what_to_do(tmp_path):
    work = await opened(tmp_path)
    work.close()
    (work.path / "job.json").write_text("{")
    with pytest.raises(WorkFolderError, match="resume=False"):
        await opened(tmp_path)
    (await opened(tmp_path, resume=False)).close()


async def test_dropped_tiles_are_gone_and_removing_leaves_nothing(tmp_path):
    work = await opened(tmp_path)
    await work.write_tile(TILE, b"body")
    await work.drop_tiles([TILE, Tile(9, 9, 9)])
    assert not work.has_tile(TILE)
    await work.remove()
    work.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"",
        lambda data: bytes(len(data)),
    ],
)
@pytest.mark.parametrize("body", [b"body", b""])
async def test_a_body_that_is_not_what_was_written_is_gone(tmp_path, damage, body):
    work = await opened(tmp_path)
    await work.write_tile(TILE, body)
    path = work.path / "tiles" / "5-3-4"
    path.write_bytes(damage(path.read_bytes()))
    work.close()
    again = await opened(tmp_path)
    if again.has_tile(TILE):
        assert await again.read_tile(TILE) is None
    assert not again.has_tile(TILE)
    assert list((work.path / "tiles").iterdir()) == []
    again.close()
