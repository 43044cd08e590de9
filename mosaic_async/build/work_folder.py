"""What survives a crash: the job's label, finished parts, and the tiles of parts that are still open.

Presence means whole: a tile is written aside and renamed, and a part counts once its record is there, which is written
last. A kill loses nothing of that. Against a power cut tiles carry a checksum, which costs less than having the disk
hold each of them at once, and parts are flushed. It knows nothing of what is in the files. The event loop never waits
for the disk: bodies go through aiofiles, the rest through a thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import aiofiles
import aiofiles.os

from mosaic_async.build.ledger import PartRecord
from mosaic_async.errors import WorkFolderError
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part
from mosaic_async.safe_json import read

_ASIDE = ".partial"
_SEAL = struct.Struct("<4sI")
"""Behind a tile's body: a sign and the CRC-32. A power cut, or a hand, can leave other bytes than were written."""
_SIGN = b"tile"
_TILE_NAME = re.compile(r"(\d+)-(\d+)-(\d+)")


def work_path(output: Path) -> Path:
    """Name the folder that belongs to an output."""
    return output.with_name(output.name + ".work")


def failed_path(folder: Path) -> Path:
    """Name the list of the tiles that failed."""
    return folder / "failed.geojson"


def label_of(job: Mapping[str, Any]) -> str:
    """Give the digest of everything that decides the output's pixels; it tells nothing of its parts."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()


class WorkFolder:
    """`OUTPUT.work`, held under a lock from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = path / "parts"
        self._tiles = path / "tiles"
        self._job = path / "job.json"
        self._scenes = path / "scenes.json"
        self.failed = failed_path(path)
        """The tiles that failed, for people and for programs; not read again."""
        self._lock: TextIO | None = None
        self._spooled: dict[Tile, int] = {}
        """Bytes of each body that is here."""
        self.state: dict[str, Any] = {}
        """The label, and what `save_state` of an earlier run kept."""

    @property
    def is_new(self) -> bool:
        """Whether no run has got as far as `save_state`."""
        return self.state.keys() <= {"label"}

    @classmethod
    async def open(cls, output: Path, label: str, *, resume: bool = True) -> WorkFolder:
        """Open the folder that belongs to `output`, or make it.

        Args:
            output: the file that the job makes.
            label: from `label_of`; an earlier run's must be the same.
            resume: keep what an earlier run left; False drops it, whatever its label.

        Raises:
            WorkFolderError: another process uses it, or it belongs to another job.
        """
        folder = cls(work_path(output))
        await asyncio.to_thread(folder._open, label, resume=resume)
        return folder

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def remove(self) -> None:
        """Delete the folder and all that is in it."""
        await asyncio.to_thread(shutil.rmtree, self.path)

    async def save_state(self, state: Mapping[str, Any]) -> None:
        """Keep what a later run needs to know before its first request."""
        self.state = {"label": self.state["label"], **state}
        await _write(self._job, json.dumps(self.state, indent=1).encode(), flush=True)

    async def save_scenes(self, tally: Mapping[str, Any]) -> None:
        """Keep what is known of the scenes that tiles were made of."""
        text = await asyncio.to_thread(json.dumps, tally)
        await _write(self._scenes, text.encode())

    async def read_scenes(self) -> dict[str, Any]:
        """Give what an earlier run kept of its scenes; nothing where that is damaged."""
        return await asyncio.to_thread(_object_in, self._scenes)

    def has_tile(self, tile: Tile) -> bool:
        """Tell whether the tile's body is here, be it empty."""
        return tile in self._spooled

    def has_body(self, tile: Tile) -> bool:
        """Tell whether the tile is here and has data."""
        return self._spooled.get(tile, 0) > 0

    async def write_tile(self, tile: Tile, body: bytes) -> None:
        """Keep a body; an empty one stands for a tile without data."""
        await _write(self._tile_path(tile), body, sealed=True)
        self._spooled[tile] = len(body)

    async def read_tile(self, tile: Tile) -> bytes | None:
        """Give back a body that is here; None, and it is gone, where it is not what was written."""
        try:
            async with aiofiles.open(self._tile_path(tile), "rb") as file:
                sealed: bytes = await file.read()
        except FileNotFoundError:
            sealed = b""
        body = sealed[: -_SEAL.size]
        if sealed[-_SEAL.size :] == _SEAL.pack(_SIGN, zlib.crc32(body)):
            return body
        await self.drop_tiles([tile])
        return None

    async def drop_tiles(self, tiles: Iterable[Tile]) -> None:
        """Delete bodies that are no longer needed."""
        there = [tile for tile in tiles if tile in self._spooled]
        for tile in there:
            del self._spooled[tile]
        await asyncio.to_thread(self._unlink, [self._tile_path(tile) for tile in there])

    def part_path(self, part: Part) -> Path:
        """Name a part's COG."""
        return self.parts / f"{part.name}.tif"

    def top_path(self, part: Part) -> Path:
        """Name the lossless copy of a part's smallest level."""
        return self.parts / f"{part.name}.top.tif"

    async def finish_part(self, part: Part, record: PartRecord) -> None:
        """Declare a part finished, after its files are in place."""
        files = [path for path in (self.part_path(part), self.top_path(part)) if record.nbytes]
        await asyncio.to_thread(self._flush, files)
        await _write(self.parts / f"{part.name}.json", json.dumps(asdict(record)).encode(), flush=True)

    async def finished_parts(self) -> dict[str, PartRecord]:
        """Give the record of each part that is finished, without holes and whole, by its name."""
        return await asyncio.to_thread(self._read_records)

    def _open(self, label: str, *, resume: bool) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            if not resume:
                self._clear()
            self.state = self._read_state()
            if self.state and self.state.get("label") != label:
                raise WorkFolderError(
                    f"{self.path} belongs to another job: source, area, zoom or output options differ",
                    hint="finish that job, choose another output, or drop it with ``resume=False``",
                )
            self.parts.mkdir(exist_ok=True)
            self._tiles.mkdir(exist_ok=True)
            self._sweep()
            if not self.state:  # from here on whatever is found in the folder belongs to this job
                self.state = {"label": label}
                aside = self._job.with_name(self._job.name + _ASIDE)
                aside.write_text(json.dumps(self.state))
                aside.replace(self._job)
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> TextIO:
        lock = (self.path / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise WorkFolderError(f"{self.path} is in use by another process", hint="wait for it to end") from error
        return lock

    def _read_state(self) -> dict[str, Any]:
        try:
            state = read(self._job)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise WorkFolderError(f"{self._job} cannot be read", hint="drop it with ``resume=False``") from error
        return state if isinstance(state, dict) else {}

    def _clear(self) -> None:
        for folder in (self.parts, self._tiles, self.path / "upper"):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self._job, self._scenes, self.failed):
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what a killed run left half-written, and list the tiles that are whole."""
        for path in self._tiles.iterdir():
            if path.name.endswith(_ASIDE):
                path.unlink()
            elif match := _TILE_NAME.fullmatch(path.name):  # others, such as a file manager's, are let be
                z, x, y = map(int, match.groups())
                nbytes = path.stat().st_size - _SEAL.size
                if nbytes >= 0:
                    self._spooled[Tile(x, y, z)] = nbytes
                else:
                    path.unlink()

    def _read_records(self) -> dict[str, PartRecord]:
        records = {path.stem: record for path in self.parts.glob("*.json") if (record := _record_in(path))}
        return {name: record for name, record in records.items() if not record.holes and self._is_whole(name, record)}

    def _is_whole(self, name: str, record: PartRecord) -> bool:
        """Whether the part's COG has the size that it was recorded with; a power cut can leave less."""
        path = self.parts / f"{name}.tif"
        return not record.nbytes or (path.exists() and path.stat().st_size == record.nbytes)

    def _tile_path(self, tile: Tile) -> Path:
        return self._tiles / f"{tile.z}-{tile.x}-{tile.y}"

    @staticmethod
    def _unlink(paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    @staticmethod
    def _flush(paths: Iterable[Path]) -> None:
        """Have the disk hold what the files say."""
        for path in paths:
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())


def _object_in(path: Path) -> dict[str, Any]:
    try:
        found = read(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _record_in(path: Path) -> PartRecord | None:
    """Read a part's record; one that is damaged counts as none, and the part is made again."""
    try:
        return PartRecord(**read(path))
    except (ValueError, TypeError):
        return None


def _write_now(path: Path, data: bytes, *, sealed: bool = False, flush: bool = False) -> None:
    """Write aside, then rename; sealed with a checksum, or flushed to the disk."""
    aside = path.with_name(path.name + _ASIDE)
    with aside.open("wb") as file:
        file.write(data)
        if sealed:
            file.write(_SEAL.pack(_SIGN, zlib.crc32(data)))
        if flush:
            file.flush()
            os.fsync(file.fileno())
    aside.replace(path)


_write = aiofiles.os.wrap(_write_now)
"""One hop to a thread for all of it: opening, writing, checksum and renaming one by one are four."""
