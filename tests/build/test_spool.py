"""A body that leaves the spool is the one that entered, of that tile and that job; damage costs only what it hit."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_async.build.arrivals import Arrivals
from mosaic_async.build.proof import Proof
from mosaic_async.build.spool import Spool
from mosaic_async.geo.cover import Tile
from tests.effort import examples

PROOF = Proof("a job")
TILES = [Tile(x, 7, 5) for x in range(6)]
BODIES = [bytes([65 + index]) * (40 + 13 * index) for index in range(6)]


@contextmanager
def opened(folder, proof=PROOF):
    arrivals = Arrivals(folder.with_name("arrivals.log"), proof)
    spool = Spool(folder, proof, lambda name, reason: spool.dropped.append(name), arrivals)
    spool.dropped = []
    spool.damaged = spool.scan()
    try:
        yield spool
    finally:
        spool.close()


async def fill(folder, *, file="0-0"):
    with opened(folder) as spool:
        for tile, body in zip(TILES, BODIES, strict=True):
            await spool.write(tile, body, file=file)


async def there(folder, proof=PROOF):
    """Return what a later run gets of each tile, and the files that it calls damaged."""
    with opened(folder, proof) as spool:
        return {tile: await spool.read(tile) for tile in TILES if tile in spool}, spool.damaged


def length_of(index):
    return 41 + len(BODIES[index])


def start_of(index):
    return sum(map(length_of, range(index)))


async def test_bodies_are_there_again_after_a_crash(tmp_path):
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        await spool.write(Tile(0, 0, 0), b"", file="0-1")
    assert await there(tmp_path) == (dict(zip(TILES, BODIES, strict=True)), [])
    assert (tmp_path / "0-0").stat().st_size == start_of(6)
    with opened(tmp_path) as spool:
        assert Tile(0, 0, 0) in spool
        assert not spool.has_body(Tile(0, 0, 0))
        assert spool.has_body(TILES[0])
        assert await spool.read(Tile(0, 0, 0)) == b""


async def test_tiles_that_arrive_together_are_kept_together(tmp_path):
    tiles = [Tile(x, y, 9) for x in range(30) for y in range(30)]
    with opened(tmp_path) as spool:
        await asyncio.gather(*(spool.write(tile, repr(tile).encode(), file=str(tile.x % 3)) for tile in tiles))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    with opened(tmp_path) as spool:
        assert [await spool.read(tile) for tile in tiles] == [repr(tile).encode() for tile in tiles]


async def test_a_later_body_replaces_an_earlier_one(tmp_path):
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        await spool.write(TILES[2], b"new", file="0-0")
        assert await spool.read(TILES[2]) == b"new"
    assert (await there(tmp_path))[0][TILES[2]] == b"new"


async def test_a_file_goes_with_the_last_of_its_tiles(tmp_path):
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        await spool.write(Tile(9, 9, 9), b"other", file="0-1")
        await spool.drop(TILES[:5])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0", "0-1"]
        assert list(spool) == [TILES[5], Tile(9, 9, 9)]
        await spool.drop([TILES[5], Tile(1, 1, 1)])
        assert [path.name for path in tmp_path.iterdir()] == ["0-1"]


async def test_bodies_of_another_job_are_none(tmp_path):
    await fill(tmp_path)
    assert await there(tmp_path, Proof("another job")) == ({}, ["0-0"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 20, 40, 44, 45, 60])
async def test_a_torn_record_at_the_end_is_cut_off_and_is_no_damage(tmp_path, cut):
    await fill(tmp_path)
    os.truncate(tmp_path / "0-0", start_of(5) + cut)
    assert await there(tmp_path) == (dict(zip(TILES[:5], BODIES, strict=False)), [])
    assert (tmp_path / "0-0").stat().st_size == start_of(5)
    with opened(tmp_path) as spool:
        await spool.write(TILES[5], b"again", file="0-0")
    assert (await there(tmp_path))[0][TILES[5]] == b"again"


@pytest.mark.parametrize("at", [0, 7, 8, 11, 12, 16, 20, 28, 44, 60])
async def test_a_flipped_bit_costs_one_body_and_is_told(tmp_path, at):
    await fill(tmp_path)
    data = bytearray((tmp_path / "0-0").read_bytes())
    data[start_of(2) + at] ^= 4
    (tmp_path / "0-0").write_bytes(data)
    found, damaged = await there(tmp_path)
    assert found.pop(TILES[2], None) is None
    assert found == {tile: body for tile, body in zip(TILES, BODIES, strict=True) if tile != TILES[2]}
    assert damaged == (["0-0"] if at < 41 else [])  # a body is looked at when it is needed


async def test_two_bodies_of_one_size_that_were_swapped_are_both_gone(tmp_path):
    with opened(tmp_path) as spool:
        await spool.write(TILES[0], b"a" * 50, file="0-0")
        await spool.write(TILES[1], b"b" * 50, file="0-0")
    data = (tmp_path / "0-0").read_bytes()
    half = len(data) // 2
    (tmp_path / "0-0").write_bytes(data[: half - 50] + data[-50:] + data[half:-50] + data[half - 50 : half])
    assert (await there(tmp_path))[0] == {TILES[0]: None, TILES[1]: None}


async def test_records_and_files_that_were_swapped_still_are_the_tiles_that_they_are(tmp_path):
    await fill(tmp_path)
    data = (tmp_path / "0-0").read_bytes()
    (tmp_path / "3-3").write_bytes(data[start_of(3) :])
    (tmp_path / "0-0").write_bytes(data[start_of(1) : start_of(3)] + data[: start_of(1)])
    assert await there(tmp_path) == (dict(zip(TILES, BODIES, strict=True)), [])


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"notes of mine"])
async def test_a_file_without_records_is_deleted(tmp_path, content):
    (tmp_path / "0-0").write_bytes(content)
    assert await there(tmp_path) == ({}, ["0-0"] if content else [])
    assert list(tmp_path.iterdir()) == []


async def test_a_body_whose_file_has_gone_is_none(tmp_path):
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        (tmp_path / "0-0").unlink()
        assert await spool.read(TILES[0]) is None
        assert TILES[0] not in spool
        assert spool.dropped == ["tile 5/0/7"]


async def test_a_full_disk_loses_nothing_that_was_written_before(tmp_path, monkeypatch):
    await fill(tmp_path)

    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            self.file.write(data[:20])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    open_file = Path.open
    with opened(tmp_path) as spool:
        monkeypatch.setattr(Path, "open", lambda path, mode: Full(open_file(path, mode)))
        results = await asyncio.gather(
            *(spool.write(Tile(x, 8, 8), b"more", file="0-0") for x in range(3)), return_exceptions=True
        )
        assert [result.errno for result in results] == [errno.ENOSPC] * 3
        monkeypatch.undo()
        assert Tile(0, 8, 8) not in spool
        await spool.write(Tile(3, 8, 8), b"with room", file="0-0")
        assert await spool.read(Tile(3, 8, 8)) == b"with room"
    assert await there(tmp_path) == (dict(zip(TILES, BODIES, strict=True)), [])


DAMAGES = {
    "flipped": lambda data, at, size: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
    "zeroed": lambda data, at, size: data[:at] + bytes(len(data[at : at + size])) + data[at + size :],
    "cut out": lambda data, at, size: data[:at] + data[at + size :],
    "cut short": lambda data, at, size: data[:at],
    "repeated": lambda data, at, size: data[: at + size] + data[at:],
    "moved": lambda data, at, size: data[:at] + data[at + size :] + data[at : at + size],
}


@given(
    damage=st.sampled_from(sorted(DAMAGES)),
    at=st.integers(0, start_of(6) - 1),
    size=st.integers(1, 200),
)
@settings(max_examples=examples(150), deadline=None)
def test_whatever_happens_to_a_file_no_body_is_wrong_and_all_others_are_there(damage, at, size):
    async def check(folder):
        await fill(folder)
        data = (folder / "0-0").read_bytes()
        changed = DAMAGES[damage](data, at, size)
        (folder / "0-0").write_bytes(changed)
        found, _ = await there(folder)
        for index, (tile, body) in enumerate(zip(TILES, BODIES, strict=True)):
            assert found.get(tile) in (None, body)
            if data[start_of(index) : start_of(index + 1)] in changed:
                assert found[tile] == body
        assert {tile for tile, body in found.items() if body} == {
            tile for tile, body in (await there(folder))[0].items() if body
        }

    with TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


async def test_a_body_that_another_part_has_just_dropped_is_none_and_no_damage(tmp_path):
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        await spool.drop(TILES[:1])
        assert await spool.read(TILES[0]) is None
        assert spool.dropped == []


async def test_a_body_that_was_withdrawn_is_not_there_again_in_a_later_run(tmp_path):
    """To drop it is not enough: its record stays in the file as long as others need that."""
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        await spool.write(Tile(0, 0, 0), b"other", file="0-1")
        await spool.withdraw(TILES[:1], files=())
        assert set(spool) == {Tile(0, 0, 0)}
    assert await there(tmp_path) == ({}, [])


async def test_a_body_whose_writing_was_cancelled_is_withdrawn_too(tmp_path):
    with opened(tmp_path) as spool:
        writing = asyncio.create_task(spool.write(TILES[0], BODIES[0], file="0-0"))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        await spool.withdraw(TILES[:1], files=["0-0"])
    assert await there(tmp_path) == ({}, [])


async def test_a_folder_among_the_files_is_let_be(tmp_path):
    await fill(tmp_path)
    (tmp_path / "0").mkdir()
    with opened(tmp_path) as spool:
        assert spool.has_own()
        assert set(spool) == set(TILES)


async def test_a_read_that_is_cancelled_leaves_no_file_open(tmp_path):
    await fill(tmp_path)
    with opened(tmp_path) as spool:
        for _ in range(20):
            reading = asyncio.create_task(spool.read(TILES[0]))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
    gc.collect()
    assert not [file for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]
