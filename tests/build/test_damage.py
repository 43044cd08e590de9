"""Whatever happens to a work folder between two runs, the second one makes the very file that an undisturbed run makes.

One run that lacks a tile, and one that is stopped, are made once; each test damages a copy of what they left.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mosaic_async import IncompleteError, PieceDropped, StoppedError, TileFetched, UsageError, build_mosaic
from mosaic_async.build import part_writer
from mosaic_async.build.proof import Proof
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.raster import assembly
from tests.build.spool_reader import spooled
from tests.fake_tiler import FakeTiler
from tests.moods import at, status
from tests.pyramid_reader import assert_same_levels
from tests.test_api import AREA, BAD, ZOOM, left_behind

OPTIONS = {"zoom": ZOOM, "part_size": 512, "concurrency": 2}
ONE_PART = {"part_size": 1024}
"""Of the run that was stopped: so all its tiles are in the spool."""


@dataclass
class Left:
    """What two runs left: one that lacks a tile, one that was stopped; and what an undisturbed run makes."""

    tiler: FakeTiler
    folder: Path
    reference: Path

    def copy(self, kind: str, to: Path) -> Path:
        """Put a copy of a work folder where a run finds it, and return the output that it belongs to."""
        shutil.copytree(self.folder / kind / "out.tif.work", to / "out.tif.work")
        return to / "out.tif"


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    folder = tmp_path_factory.mktemp("left")
    with FakeTiler().running() as tiler:
        for kind in ("lacking", "stopped", "whole"):
            (folder / kind).mkdir()
        asyncio.run(build_mosaic(tiler.template, AREA, folder / "whole" / "out.tif", **OPTIONS))
        tiler.mood = at(tiler, BAD, status(422), times=99)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(assembly, "can_insert", lambda _: False)  # so that the parts stay in their files
            with pytest.raises(IncompleteError):
                asyncio.run(build_mosaic(tiler.template, AREA, folder / "lacking" / "out.tif", **OPTIONS))
        tiler.mood = None
        with pytest.raises(StoppedError):
            asyncio.run(stopped(tiler, folder / "stopped" / "out.tif"))
        yield Left(tiler, folder, folder / "whole" / "out.tif")


async def stopped(tiler, output):
    stop, fetched = asyncio.Event(), []

    def listen(event):
        fetched.extend([event] * isinstance(event, TileFetched))
        if len(fetched) == 7:
            stop.set()

    await build_mosaic(tiler.template, AREA, output, stop=stop, on_event=listen, **{**OPTIONS, **ONE_PART})


@dataclass
class Outcome:
    """What a run did."""

    hits: Counter = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)


async def finished(left, output, **options) -> Outcome:
    """Run the job again, and insist on every pixel of every level."""
    outcome = Outcome()

    def listen(event):
        outcome.dropped.extend([event.name] if isinstance(event, PieceDropped) else [])

    left.tiler.hits.clear()
    await build_mosaic(left.tiler.template, AREA, output, on_event=listen, **{**OPTIONS, **options})
    outcome.hits.update(left.tiler.hits)
    assert_same_levels(output, left.reference)
    assert left_behind(output.parent) == ["out.tif"]
    return outcome


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def zero_a_block(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3)
        file.write(bytes(min(4096, path.stat().st_size // 3)))


DAMAGES = {
    "flipped": flip,
    "zeroed": zero_a_block,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
}


def files(output, pattern):
    found = sorted(output.with_name("out.tif.work").rglob(pattern))
    assert found
    return found


def cogs(output):
    return [path for path in files(output, "parts/*/*.tif") if path.name.count(".") == 1]


async def test_a_sound_folder_costs_one_request(left, tmp_path):
    outcome = await finished(left, left.copy("lacking", tmp_path))
    assert outcome == Outcome(Counter({BAD: 1}))


async def test_a_part_that_lacks_a_tile_decodes_nothing_but_that_tile(left, tmp_path, monkeypatch):
    decoded, decode = [], part_writer.read
    monkeypatch.setattr(part_writer, "read", lambda *args: decoded.append(args) or decode(*args))
    await finished(left, left.copy("lacking", tmp_path))
    assert len(decoded) == 1


async def test_a_sweep_decodes_nothing_but_the_parked_tiles(left, tmp_path, monkeypatch):
    decoded, decode = [], part_writer.read
    monkeypatch.setattr(part_writer, "read", lambda *args: decoded.append(args) or decode(*args))
    left.tiler.mood = at(left.tiler, BAD, status(503), times=1)
    outcome = await finished(left, tmp_path / "out.tif", attempts=1)
    left.tiler.mood = None
    assert outcome.hits[BAD] == 2
    assert len(decoded) == outcome.hits.total() - 1 == 16


def some(*kinds):
    """Cross kinds of files with damages; the quick tests see each of both."""
    return [
        pytest.param(kind, damage, marks=[] if (row + column) % 2 == 0 else [pytest.mark.slow])
        for row, kind in enumerate(kinds)
        for column, damage in enumerate(DAMAGES)
    ]


@pytest.mark.quick(4)
@pytest.mark.parametrize(("kind", "damage"), some("cog", "*.top.tif", "*.canvas.tif", "0-0.json"))
async def test_a_damaged_piece_of_a_part_is_told_and_the_part_made_again(left, tmp_path, kind, damage):
    output = left.copy("lacking", tmp_path)
    path = (cogs(output) if kind == "cog" else files(output, kind))[0]
    DAMAGES[damage](path)
    outcome = await finished(left, output)
    assert outcome.hits.total() == (4 if "canvas" in kind else 5)
    is_told = (kind, damage) != ("0-0.json", "gone")
    assert outcome.dropped == [f"part {path.name.split('.')[0]}"] * is_told


@pytest.mark.quick(2)
@pytest.mark.parametrize("suffixes", [[".tif"], [".top.tif"], [".json"], [".tif", ".top.tif", ".json"]])
async def test_two_parts_that_were_swapped_are_made_again(left, tmp_path, suffixes):
    output = left.copy("lacking", tmp_path)
    one, other = cogs(output)[:2]
    for suffix in suffixes:
        swap(one.with_suffix(suffix), other.with_suffix(suffix))
    outcome = await finished(left, output)
    assert outcome.hits.total() == 9
    assert len(outcome.dropped) == 2


def swap(one, other):
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def swapped_bodies(output):
    """Swap the bodies of two tiles; the parts of the one and the other keep all else."""
    (_, one), (_, other) = list(spooled(output.with_name("out.tif.work")).items())[:2]
    bodies = [place.path.read_bytes()[place.start : place.start + place.length] for place in (one, other)]
    for place, body in ((one, bodies[1]), (other, bodies[0])):
        with place.path.open("r+b") as file:
            file.seek(place.start)
            file.write(body[: place.length].ljust(place.length, b"\0"))


def swapped_places(output):
    """Let the heads of two records name each other's tile, with the checksums that these heads should have."""
    (_, one), (_, other) = list(spooled(output.with_name("out.tif.work")).items())[:2]
    heads = []
    for place in (one, other):
        with place.path.open("rb") as file:
            file.seek(place.start - 33)
            heads.append(bytearray(file.read(33)))
    for place, own, foreign in ((one, heads[0], heads[1]), (other, heads[1], heads[0])):
        head = bytes(own[4:8] + foreign[8:17] + own[17:])
        with place.path.open("r+b") as file:
            file.seek(place.start - 33)
            file.write(zlib.crc32(own[4:8] + head[4:]).to_bytes(4, "little") + own[4:8] + head[4:])


@pytest.mark.parametrize("change", [swapped_bodies, swapped_places])
async def test_two_spooled_tiles_that_were_swapped_are_requested_again(left, tmp_path, change):
    output = left.copy("stopped", tmp_path)
    kept = len(spooled(output.with_name("out.tif.work")))
    change(output)
    outcome = await finished(left, output, **ONE_PART)
    assert outcome.hits.total() == 16 - kept + 2
    assert len(outcome.dropped) == 2


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_spool_costs_no_more_than_its_tiles(left, tmp_path, damage):
    output = left.copy("stopped", tmp_path)
    path = max(files(output, "spool/*"), key=lambda path: path.stat().st_size)
    DAMAGES[damage](path)
    outcome = await finished(left, output, **ONE_PART)
    assert max(outcome.hits.values()) == 1


@pytest.mark.quick(2)
@pytest.mark.parametrize(("kind", "damage"), some("lacking", "stopped"))
async def test_a_damaged_job_file_costs_one_tile_and_a_word(left, tmp_path, kind, damage):
    output = left.copy(kind, tmp_path)
    DAMAGES[damage](output.with_name("out.tif.work") / "job.json")
    outcome = await finished(left, output, **(ONE_PART if kind == "stopped" else {}))
    assert outcome.dropped == ["job.json"]
    assert outcome.hits.total() <= (2 if kind == "lacking" else 12)


EDITS = [
    {"part_blocks": 2},
    {"disk": 10**15},
    {"tile": {"size": 512}},
    {"tile": {"count": 2}},
    {"tile": {"dtype": "uint16"}},
    {"tile": {"driver": "PNG"}},
    {"tile": {"nodata": 7.0}},
    {"tile": {"mask_band": False}},
    {"tile": {"colorinterp": ["blue", "green", "red"]}},
]
NONSENSE = [
    {"part_blocks": 0},
    {"part_blocks": 3},
    {"part_blocks": "1"},
    {"part_blocks": None},
    {"disk": -1},
    {"tile": None},
    {"tile": {"size": 100}},
    {"tile": {"count": True}},
    {"tile": {"dtype": "object"}},
]


def edited(record, change):
    content = record["content"]
    for name, value in change.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return content


@pytest.mark.quick(3)
@pytest.mark.parametrize("change", EDITS, ids=str)
async def test_a_wrong_number_in_the_job_file_makes_no_wrong_pixel(left, tmp_path, change):
    output = left.copy("lacking", tmp_path)
    path = output.with_name("out.tif.work") / "job.json"
    record = json.loads(path.read_text())
    edited(record, change)
    path.write_text(json.dumps(record))
    outcome = await finished(left, output)
    assert outcome.dropped == ["job.json"]
    assert outcome.hits.total() <= 2


@pytest.mark.quick(3)
@pytest.mark.parametrize("change", NONSENSE, ids=str)
async def test_what_no_run_can_have_learnt_is_not_believed_even_from_a_sound_record(left, tmp_path, change):
    output = left.copy("lacking", tmp_path)
    path = output.with_name("out.tif.work") / "job.json"
    record = json.loads(path.read_text())
    path.write_bytes(Proof(record["label"]).seal("job", edited(record, change)))
    outcome = await finished(left, output)
    assert outcome.dropped == ["job.json"]
    assert outcome.hits.total() <= 2


async def published(left, tmp_path, monkeypatch, *, removed):
    """Leave what a kill leaves right after the output got its name, or after a number of calls of the removal."""
    output = left.copy("lacking", tmp_path)

    async def killed(work):
        work.path.rename(work._old)
        for path in sorted(work._old.rglob("*"))[:removed]:
            if path.is_file():
                path.unlink()
        raise KeyboardInterrupt

    async def at_once(work):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "remove", killed if removed else at_once)
        with pytest.raises(KeyboardInterrupt):
            await build_mosaic(left.tiler.template, AREA, output, **OPTIONS)
    assert output.exists()
    return output


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    ("removed", "options"),
    [
        (0, {}),
        (3, {}),
        (99, {}),
        (0, {"overwrite": True}),
        (3, {"resume": False}),
        (0, {"overwrite": True, "resume": False}),
    ],
)
def test_a_kill_after_the_output_got_its_name_is_no_reason_to_say_that_it_exists(
    left, tmp_path, monkeypatch, removed, options
):
    output = asyncio.run(published(left, tmp_path, monkeypatch, removed=removed))
    outcome = asyncio.run(finished(left, output, **options))
    is_anew = options.get("overwrite") and not options.get("resume", True)
    assert outcome == Outcome(left.tiler.hits if is_anew else Counter())
    with pytest.raises(UsageError, match="exists"):
        asyncio.run(build_mosaic(left.tiler.template, AREA, output, **OPTIONS))


@pytest.mark.quick(2)
@pytest.mark.parametrize("removed", [0, 2, 5, 99])
def test_another_job_adopts_nothing_of_a_removal_that_was_interrupted(left, tmp_path, monkeypatch, removed):
    output = asyncio.run(published(left, tmp_path, monkeypatch, removed=removed))
    other = FakeTiler()
    other.pattern = type(other.pattern)(count=other.pattern.count, masked=False)
    with other.running():
        with pytest.raises(UsageError, match="exists"):
            asyncio.run(build_mosaic(other.template, AREA, output, **OPTIONS))
        asyncio.run(build_mosaic(other.template, AREA, output, overwrite=True, **OPTIONS))
        asyncio.run(build_mosaic(other.template, AREA, tmp_path / "other.tif", **OPTIONS))
    assert other.requests == 32
    assert_same_levels(output, tmp_path / "other.tif")
    assert left_behind(tmp_path) == ["other.tif", "out.tif"]


async def test_an_output_with_holes_that_is_killed_right_after_its_rename_is_complete_and_can_be_filled(
    left, tmp_path, monkeypatch
):
    output = left.copy("lacking", tmp_path)
    left.tiler.mood = at(left.tiler, BAD, status(422), times=99)

    async def killed(work):
        raise OSError("killed")

    try:
        with monkeypatch.context() as patch:
            patch.setattr(WorkFolder, "withdraw", killed)
            with pytest.raises(Exception, match="killed"):
                await build_mosaic(left.tiler.template, AREA, output, max_failures=1, **OPTIONS)
        report = await build_mosaic(left.tiler.template, AREA, output, max_failures=1, **OPTIONS)
        assert (report.tiles_failed, report.requests, len(report.failed)) == (1, 0, 1)
        with pytest.raises(UsageError, match="exists"):
            await build_mosaic(left.tiler.template, AREA, output, max_failures=1, **OPTIONS)
    finally:
        left.tiler.mood = None
    outcome = await finished(left, output, overwrite=True)
    assert outcome == Outcome(Counter({BAD: 1}))
