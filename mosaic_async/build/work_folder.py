"""What survives a crash: `OUTPUT.work` and its life, from the lock to the moment when the output has taken its place.

Every piece proves itself: by a digest that covers the job, what the piece is, and its bytes. What does not is dropped,
reported and made again. The folder is renamed before it is deleted, so nothing ever finds half of it. It knows nothing
of what is in the files. The event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from mosaic_async.build.arrivals import Arrivals
from mosaic_async.build.folder_lock import take_lock
from mosaic_async.build.part_files import PartFiles
from mosaic_async.build.proof import NotProvenError, OnDrop, Proof, read_record
from mosaic_async.build.publication import announce, find, publication_path
from mosaic_async.build.spool import Spool
from mosaic_async.errors import WorkFolderError
from mosaic_async.raster import whole_file

JOB, LAYOUT, SAMPLE, PARTS = "job.json", "layout.json", "sample.json", "parts"
SCENES, VALUES = "scenes.json", "values.json"
"""Names in the folder."""


def belongs_to_another(folder: Path) -> WorkFolderError:
    """Return the error of a folder that another job's run has made."""
    return WorkFolderError(
        f"{folder} belongs to another job: source, area, zoom or output options differ",
        hint="finish that job, choose another output, or drop it with ``resume=False``",
    )


def work_path(output: Path) -> Path:
    """Name the folder that belongs to an output."""
    return output.with_name(output.name + ".work")


def failed_path(folder: Path) -> Path:
    """Name the list of the tiles that failed."""
    return folder / "failed.geojson"


class WorkFolder:
    """`OUTPUT.work`, held under a lock from `open` to `close`."""

    def __init__(self, output: Path, label: str, on_drop: OnDrop) -> None:
        self.path = work_path(output)
        self.failed = failed_path(self.path)
        """The tiles that failed, for people and for programs; not read again."""
        self.state: dict[str, Any] = {}
        """What `save_state` of an earlier run kept; empty if none did, or if it is damaged."""
        self.is_new = True
        """Whether the folder holds nothing that a later run could use."""
        self._output = output
        self._proof = Proof(label)
        self._on_drop = on_drop
        self._job = self.path / JOB
        self._scenes = self.path / SCENES
        self._sample = self.path / SAMPLE
        self._values = self.path / VALUES
        self._history = self.path / "history.json"
        self._saving_history = asyncio.Lock()
        self._saved: dict[str, Mapping[str, Any]] = {}
        """What this run has written last of each tally."""
        self._saving = asyncio.Lock()
        self._lock: TextIO | None = None
        self._published: dict[str, Any] | None = None
        self.arrivals = Arrivals(self.path / "arrivals.log", self._proof)
        """The answers that their connections have not proved yet."""
        self.spool = Spool(self.path / "spool", self._proof, on_drop, self.arrivals)
        """The tiles of open parts."""
        self.parts = PartFiles(self.path / PARTS, self._proof)

    @classmethod
    async def open(cls, output: Path, label: str, *, resume: bool = True, on_drop: OnDrop) -> WorkFolder:
        """Open the folder that belongs to `output`, or make it.

        Args:
            output: the file that the job makes.
            label: of the job's identity; an earlier run's must be the same.
            resume: keep what an earlier run left; False drops it, whatever its label.
            on_drop: told of each piece that is damaged and therefore dropped.

        Raises:
            WorkFolderError: another process uses it, or it belongs to another job.
        """
        folder = cls(output, label, on_drop)
        for name, reason in await asyncio.to_thread(folder._open, resume=resume):
            on_drop(name, reason)
        return folder

    async def close(self) -> None:
        """Wait for what is being written, and let go of the lock."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.spool.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def label(self) -> str:
        """The job's label."""
        return self._proof.label

    @property
    def published(self) -> dict[str, Any] | None:
        """The report of an earlier run that put this job's output in its place, and was killed while it cleaned up."""
        return self._published

    async def announce(self, made: Path, report: Mapping[str, Any]) -> None:
        """Record that `made` is about to become the output, so that a kill right after that is understood."""
        await asyncio.to_thread(announce, self.path, made, self._proof, dict(report))

    async def withdraw(self) -> None:
        """Delete what `announce` recorded: the file is not the output, or the folder stays to fill its holes."""
        await asyncio.to_thread(publication_path(self.path).unlink, missing_ok=True)

    async def remove(self) -> None:
        """Delete the folder and all that is in it."""
        await asyncio.to_thread(self._remove)

    async def save_state(self, state: Mapping[str, Any], *, layout: str) -> None:
        """Keep what a later run needs to know before its first request.

        Args:
            state: of JSON types.
            layout: a name for how the output is divided into parts.
        """
        self.state, self.is_new = dict(state), False
        self.parts = PartFiles(self.parts.folder, self._proof, layout)
        await asyncio.to_thread(self._write, self._job, "job", self.state, durable=True)

    async def save_tallies(self, scenes: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Keep the scenes that tiles were made of, and the values of their pixels while these are few."""
        async with self._saving:  # so that the last one to call is the last one to write
            for path, what, tally in ((self._scenes, "scenes", scenes), (self._values, "values", values)):
                if self._saved.get(what, {}) != tally:
                    await asyncio.to_thread(self._write, path, what, dict(tally))
                    self._saved[what] = tally

    async def read_scenes(self) -> dict[str, Any]:
        """Return what an earlier run kept of its scenes; nothing if that is damaged."""
        return await self._read("scenes", self._scenes)

    async def read_values(self) -> dict[str, Any]:
        """Return what an earlier run kept of its values; nothing if that is damaged."""
        return await self._read("values", self._values)

    async def save_history(self, history: Mapping[str, Any]) -> None:
        """Keep what happened in all runs so far."""
        async with self._saving_history:  # so that the last one to call is the last one to write
            await asyncio.to_thread(self._write, self._history, "history", dict(history))

    async def read_history(self) -> dict[str, Any]:
        """Return what happened in earlier runs; nothing if that is damaged."""
        return await self._read("history", self._history)

    async def save_sample(self, sample: Mapping[str, Any]) -> None:
        """Keep a tile, by which a later run tells whether the source is still the same."""
        await asyncio.to_thread(self._write, self._sample, "sample", dict(sample))

    async def read_sample(self) -> dict[str, Any]:
        """Return the tile that an earlier run kept; nothing if it is damaged."""
        return await self._read("sample", self._sample)

    async def _read(self, what: str, path: Path) -> dict[str, Any]:
        try:
            return dict(await asyncio.to_thread(self._proof.unseal, what, path))
        except FileNotFoundError:
            return {}
        except NotProvenError as error:
            self._on_drop(path.name, str(error))
            return {}

    def _open(self, *, resume: bool) -> list[tuple[str, str]]:
        """Take the lock, and return what is dropped, each with the reason."""
        self._lock = take_lock(self.path)
        try:
            shutil.rmtree(self._old, ignore_errors=True)
            self._find_publication()
            if not resume:
                self._clear()
            dropped = self._claim()
            dropped += [(f"spool {name}", "it has damaged records") for name in self.spool.scan()]
            if not self.arrivals.scan(self.spool.unproved):
                dropped.append((self.arrivals.path.name, "it has damaged records"))
            self._sweep()
        except BaseException:
            self._close()
            raise
        return dropped

    def _find_publication(self) -> None:
        """Look whether the output is in its place; the work that another job left for such an output is dropped."""
        record = find(self.path, self._output)
        if record is None:
            return
        if record.label == self._proof.label:
            self._published = record.content["report"]
        elif self._owner() == record.label and not record.content["report"]["tiles_failed"]:
            self._clear()

    def _claim(self) -> list[tuple[str, str]]:
        """Check that the folder belongs to this job; without a sound `job.json`, any other piece can prove it.

        Raises:
            WorkFolderError: it belongs to another job, or nothing tells whose it is.
        """
        try:
            self.state = self._proof.unseal("job", self._job) or self._shared_state()
        except FileNotFoundError:
            reason = "it is missing"
        except NotProvenError as error:
            reason = str(error)
        else:
            self.is_new = not self.state
            return []
        if self._owner() not in (None, self._proof.label):
            raise belongs_to_another(self.path)
        has_pieces = self._has_pieces()
        if has_pieces and not self._is_proven():
            raise belongs_to_another(self.path)
        was_there = self._job.exists()
        self.state = self._shared_state()
        self.is_new = not (has_pieces or self.state)
        self._write(self._job, "job", self.state)
        is_lost = was_there or (has_pieces and not self.state)
        return [(self._job.name, reason)] if is_lost else []

    def _shared_state(self) -> dict[str, Any]:
        """Return what the first of several processes learnt that used the folder at once; nothing if none did."""
        try:
            return dict(self._proof.unseal("layout", self.path / LAYOUT))
        except (FileNotFoundError, NotProvenError):
            (self.path / LAYOUT).unlink(missing_ok=True)
            return {}

    def _owner(self) -> str | None:
        """Return the label in `job.json`; None if it is missing or damaged."""
        try:
            return read_record(self._job).label
        except (FileNotFoundError, NotProvenError):
            return None

    def _has_pieces(self) -> bool:
        """Whether there is anything that a run has worked for."""
        folders = (self.spool.folder, self.parts.folder)
        return any(path.is_file() for folder in folders for path in folder.rglob("*"))

    def _is_proven(self) -> bool:
        """Whether any piece in the folder is of this job."""
        return self.spool.has_own() or any(map(self._is_own, self.parts.records()))

    def _is_own(self, record: Path) -> bool:
        try:
            return read_record(record).label == self._proof.label
        except NotProvenError:
            return False

    def _clear(self) -> None:
        """Delete everything but the lock, what tells the owner last."""
        for path in sorted(self.path.iterdir(), key=lambda path: path == self._job):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != "lock":
                path.unlink()

    def _sweep(self) -> None:
        """Delete what a killed run left half-written."""
        for path in self.path.glob(f"*{whole_file.SUFFIX}"):
            path.unlink()

    def _remove(self) -> None:
        shutil.rmtree(self._old, ignore_errors=True)
        self.path.rename(self._old)
        shutil.rmtree(self._old, ignore_errors=True)
        publication_path(self.path).unlink(missing_ok=True)

    def _write(self, path: Path, what: str, content: Mapping[str, Any], *, durable: bool = False) -> None:
        whole_file.write(path, self._proof.seal(what, content), durable=durable)

    @property
    def _old(self) -> Path:
        """The name under which the folder is deleted."""
        return self.path.with_name(self.path.name + ".old")
