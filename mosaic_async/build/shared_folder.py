"""`OUTPUT.work` as several processes, or machines, use it at once: they share the layout and the finished parts.

Each of them makes its parts in a folder of its own. What it relies on here: a rename replaces a file as a whole, and of
several that link the same new name only one succeeds. Locks of files are a hint only. It implements `Publication`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

from mosaic_async.build.folder_lock import take_lock
from mosaic_async.build.part_files import PartFiles
from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.proof import NotProvenError, Proof, read_record
from mosaic_async.build.to_its_end import to_its_end
from mosaic_async.build.work_folder import JOB, LAYOUT, PARTS, SAMPLE, belongs_to_another, work_path
from mosaic_async.errors import WorkFolderError
from mosaic_async.geo.grid import Part
from mosaic_async.raster import whole_file


class SharedFolder:
    """`OUTPUT.work`, held under a lock that others may share."""

    def __init__(self, output: Path, label: str) -> None:
        self.path = work_path(output)
        self._proof = Proof(label)
        self._parts = PartFiles(self.path / PARTS, self._proof)
        self._lock: TextIO | None = None

    @classmethod
    async def open(cls, output: Path, label: str) -> Self:
        """Open the folder that belongs to `output`, or make it.

        Raises:
            WorkFolderError: a run that does not share it uses it, or it belongs to another job.
        """
        folder = cls(output, label)
        folder._lock = await asyncio.to_thread(take_lock, folder.path, is_shared=True)
        try:
            await folder.read_state()
        except BaseException:
            folder.close()
            raise
        return folder

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()

    async def read_state(self) -> dict[str, Any]:
        """Return what the first one that used the folder learnt; nothing as long as none did.

        Raises:
            WorkFolderError: the folder belongs to another job, or nothing tells whose it is.
        """
        return await asyncio.to_thread(self._read_state)

    async def share_state(self, state: Mapping[str, Any], sample: Mapping[str, Any]) -> dict[str, Any]:
        """Have all others use this state, unless one of them was first; return the one that all use.

        Args:
            state: as `WorkFolder.save_state` takes it.
            sample: as `WorkFolder.save_sample` takes it.

        Raises:
            WorkFolderError: the first one is of another job.
        """
        return await to_its_end(self._share_state, dict(state), dict(sample))

    async def read_sample(self) -> dict[str, Any]:
        """Return the tile that the first one kept; nothing if it is damaged."""
        try:
            return dict(await asyncio.to_thread(self._proof.unseal, "sample", self.path / SAMPLE))
        except (FileNotFoundError, NotProvenError):
            return {}

    def place_of(self, name: str) -> Path:
        """Name the folder that a process of this machine works in; those of the same name elsewhere have another."""
        host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())
        return self.path / "shards" / f"{name}-{host}"

    def divide(self, layout: str) -> None:
        """Set the name for how the output is divided into parts."""
        self._parts = PartFiles(self.path / PARTS, self._proof, layout)

    async def find(self, part: Part) -> PartRecord | None:
        """Return the record of a part that is published whole and undamaged; None for any other."""
        try:
            return await asyncio.to_thread(self._parts.verified, part)
        except NotProvenError:
            return None

    async def publish(self, part: Part, record: PartRecord, tallies: Mapping[str, Any], made: PartFiles) -> None:
        """Publish a part: its files, each whole or not at all, and after them its record."""
        await to_its_end(self._parts.take_over, part, record, made, tallies=tallies)

    async def fetch(self, part: Part, record: PartRecord, into: PartFiles) -> None:
        """Copy the files of a published part that lacks tiles, and declare it there, so that it can be finished."""
        await to_its_end(into.take_over, part, record, self._parts)

    def _read_state(self) -> dict[str, Any]:
        return self._unsealed("job", JOB) or self._unsealed("layout", LAYOUT)

    def _unsealed(self, what: str, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return dict(self._proof.unseal(what, path))
        except FileNotFoundError:
            return {}
        except NotProvenError as error:
            if _owner(path) not in (None, self._proof.label):
                raise belongs_to_another(self.path) from error
            raise WorkFolderError(f"{path} is damaged", hint="re-run without ``shard``, which repairs it") from error

    def _share_state(self, state: dict[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
        whole_file.write(self.path / SAMPLE, self._proof.seal("sample", sample), durable=True)
        whole_file.create(self.path / LAYOUT, self._proof.seal("layout", state))
        return self._read_state()


def _owner(path: Path) -> str | None:
    try:
        return read_record(path).label
    except (FileNotFoundError, NotProvenError):
        return None
