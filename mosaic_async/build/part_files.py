"""Parts on the disk: the files of each, and a record that proves them, which is written last.

A part that has all its tiles keeps its COG, and its smallest level without loss. A part that lacks tiles keeps its
canvas, so that only those tiles are needed to finish it. It knows nothing of what is in the files.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from mosaic_async.build.part_record import PartRecord
from mosaic_async.build.proof import NotProvenError, OnDrop, Proof
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.grid import Part
from mosaic_async.raster import whole_file
from mosaic_async.raster.form import TileFormat

_SQUARE = 16
"""Parts per side whose files share a folder: at most 1,024 files, and few folders."""
_BATCH = 512
"""Parts that are examined before anything else has a turn."""
_Proved = tuple[PartRecord, Mapping[str, Any]]
"""The record of a part, and what is kept beside it."""
_OURS = re.compile(r"\d+-\d+\.(json|tif|top\.tif|canvas\.tif)(\..*)?")


class PartFiles:
    """The folder of the parts.

    Args:
        folder: for the files.
        proof: of the job.
        layout: a name for how the output is divided; parts of another layout never pass for parts of this one.
    """

    def __init__(self, folder: Path, proof: Proof, layout: str = "") -> None:
        self.folder = folder
        self._proof = proof
        self._layout = layout

    def cog(self, part: Part) -> Path:
        """Name a part's COG."""
        return self._path(part, ".tif")

    def top(self, part: Part) -> Path:
        """Name the lossless copy of a part's smallest level."""
        return self._path(part, ".top.tif")

    def canvas(self, part: Part) -> Path:
        """Name the pixels of a part that lacks tiles."""
        return self._path(part, ".canvas.tif")

    def record(self, part: Part) -> Path:
        """Name the record of a part."""
        return self._path(part, ".json")

    def make_room(self, part: Part) -> None:
        """Make the folder that a part's files go into; it blocks."""
        self.cog(part).parent.mkdir(parents=True, exist_ok=True)

    def files(self, part: Part) -> tuple[Path, Path, Path]:
        """Name all files of a part but its record; not all of them are there."""
        return self.cog(part), self.top(part), self.canvas(part)

    def take_over(
        self, part: Part, record: PartRecord, made: PartFiles, *, tallies: Mapping[str, Any] | None = None
    ) -> None:
        """Copy the files of a part from another folder, each whole or not at all, and then declare it; it blocks.

        Args:
            part: the part; what is here of it already is replaced.
            record: what became of it.
            made: has its files.
            tallies: what else is known of it, to be kept beside the record.
        """
        self.make_room(part)
        for source, target in zip(made.files(part), self.files(part), strict=True):
            if source.exists():
                whole_file.copy(source, target)
        self.declare(part, record, tallies=tallies)

    def declare(self, part: Part, record: PartRecord, *, tallies: Mapping[str, Any] | None = None) -> None:
        """Declare what became of a part, after its files are in place; it blocks until the disk holds all of it."""
        self.make_room(part)
        kept = [path for path in self._kept(part, record) if path.exists()]
        digests = {path.name: self._digest(part, path) for path in kept}
        for path in kept:
            whole_file.flush(path)
        content = {**asdict(record), "files": digests, **({"tallies": dict(tallies)} if tallies else {})}
        whole_file.write(self.record(part), self._proof.seal(self._what(part), content), durable=True)
        if not record.missing:
            self.canvas(part).unlink(missing_ok=True)

    def revoke(self, part: Part) -> None:
        """Delete a part's record, and then its files, since the part has to be made again; it blocks."""
        for path in (self.record(part), self.cog(part), self.top(part), self.canvas(part)):
            path.unlink(missing_ok=True)

    async def adopt(
        self,
        parts: Iterable[Part],
        on_drop: OnDrop,
        *,
        stitched: Collection[str] = (),
        on_tallies: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> dict[str, PartRecord]:
        """Return the record of each part that an earlier run left whole, by name; drop all other files.

        Args:
            parts: of the output.
            on_drop: told of damaged parts.
            stitched: names of the parts that an unfinished output holds, so that their COGs may be gone.
            on_tallies: called with what is kept beside the record of a part.
        """
        records: dict[str, PartRecord] = {}
        kept: set[Path] = set()
        left = iter(parts)
        while batch := list(islice(left, _BATCH)):
            found = await asyncio.to_thread(self._examined, batch, stitched)
            for part, proof in zip(batch, found, strict=True):
                if isinstance(proof, NotProvenError):
                    on_drop(f"part {part.name}", str(proof))
                elif proof is not None:
                    record, tallies = proof
                    on_tallies(tallies)
                    records[part.name] = record
                    kept |= {self.record(part), *self._kept(part, record)}
        await asyncio.to_thread(self._sweep, kept)
        return records

    def records(self) -> Iterator[Path]:
        """Yield the records of all parts, whatever they say; it blocks."""
        return self.folder.rglob("*.json")

    def _examined(self, parts: Sequence[Part], stitched: Collection[str]) -> list[_Proved | NotProvenError | None]:
        """Read and check many parts at once, with all cores: most of it is reading and hashing."""

        def examine(part: Part) -> _Proved | NotProvenError | None:
            try:
                return self._verified(part, is_stitched=part.name in stitched)
            except NotProvenError as error:
                return error

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(examine, parts))

    def verified(self, part: Part) -> PartRecord | None:
        """Read a part's record, and require that its files are those that it was written for; it blocks.

        Raises:
            NotProvenError: they are not.
        """
        found = self._verified(part, is_stitched=False)
        return found and found[0]

    def _verified(self, part: Part, *, is_stitched: bool) -> _Proved | None:
        """Return what `verified` does, with what is kept beside the record.

        Raises:
            NotProvenError: they are not.
        """
        try:
            content = self._proof.unseal(self._what(part), self.record(part))
        except FileNotFoundError:
            return None
        digests = content.pop("files")
        tallies = content.pop("tallies", {})
        for name, digest in digests.items():
            path = self.record(part).with_name(name)
            if is_stitched and path == self.cog(part) and not path.exists():
                continue
            try:
                is_same = self._digest(part, path) == digest
            except OSError as error:
                raise NotProvenError(f"{name} cannot be read: {error.strerror}") from error
            if not is_same:
                raise NotProvenError(f"{name} is damaged")
        missing = tuple(Tile(*tile) for tile in content.pop("missing"))
        form = content.pop("form")
        record = PartRecord(**content, missing=missing, form=form and TileFormat.from_dict(form))
        return record, tallies

    def _kept(self, part: Part, record: PartRecord) -> Collection[Path]:
        """List the files that a part may need later."""
        return [self.canvas(part)] if record.missing else [self.cog(part), self.top(part)]

    def _sweep(self, kept: Collection[Path]) -> None:
        """Delete the files of parts that no record vouches for."""
        for path in list(self.folder.rglob("*")):
            if path not in kept and path.is_file() and _OURS.fullmatch(path.name):
                path.unlink()

    def _digest(self, part: Part, path: Path) -> str:
        return self._proof.file_digest(f"{self._what(part)} {path.name}", path)

    def _what(self, part: Part) -> str:
        return f"part {part.name} {part.row_off},{part.col_off} {part.height}x{part.width} {self._layout}"

    def _path(self, part: Part, suffix: str) -> Path:
        square = f"{part.row // _SQUARE}-{part.col // _SQUARE}"
        return self.folder / square / f"{part.name}{suffix}"
