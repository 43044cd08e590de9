"""The parts of an output in a bucket: of each its body, its smallest level, and a card, put last, that proves them.

Bodies and smallest levels are named after their bytes, so two machines that put the same part do no harm. A part that
lacks tiles has no card: it is made again where its tiles are not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mosaic_async.build.bucket_output import READ_BACK, BucketOutput
from mosaic_async.build.layout import Layout
from mosaic_async.build.part_files import PartFiles
from mosaic_async.build.proof import NotProvenError, OnDrop, Proof, read_record
from mosaic_async.build.to_its_end import to_its_end
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.cloud.store import Found, TakenError
from mosaic_async.cloud.stretches import Kept, Stretch
from mosaic_async.errors import ResourceError
from mosaic_async.events import MosaicReport
from mosaic_async.geo.grid import Grid, Part
from mosaic_async.raster import whole_file
from mosaic_async.raster.assembly import OnProgress
from mosaic_async.raster.journal import Place
from mosaic_async.raster.scattered import Facts, Piece, Sample, Scattered

_AT_ONCE = 16
"""Cards that are fetched at the same time."""
_CHUNK = 8 * 2**20


class BucketShelf:
    """Keeps the parts of one output.

    Args:
        output: where they are kept.
        grid: whose parts they are.
        work: the folder in which they are made.
        layout: a name for how the output is divided into parts.
    """

    def __init__(self, output: BucketOutput, grid: Grid, work: WorkFolder, layout: str) -> None:
        self._output = output
        self._store = output.store
        self._parts_of_grid: dict[Place, Part] = {(part.row, part.col): part for part in grid.parts()}
        self._files: PartFiles = work.parts
        self._folder = work.path
        self._proof = Proof(work.label)
        self._layout = layout
        self._facts: dict[Place, Facts] = {}
        self._bodies: dict[Place, Kept] = {}

    def load(self) -> list[tuple[str, str]]:
        """Learn which parts are kept, and fetch what of them a run needs; return what is dropped, and why."""
        objects = self._store.under(self._output.key("parts/"))
        places = [place for place in self._parts_of_grid if self._card_key(place) in objects]
        dropped: list[tuple[str, str]] = []

        def load(place: Place) -> None:
            try:
                self._load(place, objects)
            except NotProvenError as error:
                dropped.append((f"part {self._parts_of_grid[place].name} in the bucket", str(error)))
                self._store.delete([self._card_key(place)])

        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mosaic-bucket") as threads:
            list(threads.map(load, places))
        return dropped

    def known(self) -> Mapping[Place, Facts]:
        """Return what was put of each part that is there."""
        return dict(self._facts)

    def put(self, place: Place, body: Path | None, facts: Facts) -> None:
        """Keep a part, whose record is in the work folder; one that lacks tiles gets no card."""
        part = self._parts_of_grid[place]
        record = self._files.record(part)
        kept = None if body is None else self._put_file(part, "body", body)
        if kept is not None:
            self._bodies[place] = kept
        if read_record(record).content["missing"]:
            return
        top = self._files.top(part)
        content = {
            "record": record.read_text(),
            "facts": dict(facts),
            "body": None if kept is None or body is None else [kept.key, kept.e_tag, body.stat().st_size],
            "top": self._put_file(part, "top", top).key if body is not None else None,
        }
        self._put_card(place, self._proof.seal(self._what(part), content), facts)
        self._facts[place] = facts
        self._output.share(self._folder)

    def fetch(self, place: Place, path: Path) -> None:
        """Write the body of a part to a file."""
        kept = self._bodies[place]
        found = self._store.find(kept.key)
        if found is None or found.e_tag != kept.e_tag:
            raise ResourceError(f"s3://{self._store.bucket}/{kept.key} is gone", hint="re-run the same command")
        with path.open("wb") as file:
            for start in range(0, found.size, _CHUNK):
                file.write(self._store.get_range(kept.key, start, min(_CHUNK, found.size - start)))

    def drop(self, place: Place) -> None:
        """Forget a part: the card is deleted, and with it the proof."""
        self._store.delete([self._card_key(place)])
        self._facts.pop(place, None)
        self._bodies.pop(place, None)

    def stretch(self, piece: Piece) -> Stretch:
        """Return where the bytes of a piece are."""
        source = piece.source
        return Stretch(source if isinstance(source, Path) else self._bodies[source], piece.start, piece.length)

    def _load(self, place: Place, objects: Mapping[str, Found]) -> None:
        part = self._parts_of_grid[place]
        content = self._card(place)
        body, top = content["body"], content["top"]
        if body is not None:
            key, e_tag, size = body
            if (objects[key].e_tag, objects[key].size) != (e_tag, size) if key in objects else True:
                raise NotProvenError("its body is gone, or is not what was put there")
            self._bodies[place] = Kept(key, e_tag)
        self._files.make_room(part)
        record = self._files.record(part)
        if not record.exists() or record.read_text() != content["record"]:
            for path in self._files.files(part):
                path.unlink(missing_ok=True)
            self._fetch_top(part, top)
            whole_file.write(record, content["record"])
        elif not self._files.top(part).exists():
            self._fetch_top(part, top)
        self._facts[place] = content["facts"]

    def _fetch_top(self, part: Part, key: str | None) -> None:
        if key is not None:
            data = self._store.get(key)
            if data is None:
                raise NotProvenError("its smallest level is gone")
            whole_file.write(self._files.top(part), data)

    def _card(self, place: Place) -> Any:
        """Return what a card says.

        Raises:
            NotProvenError: it is gone, damaged, of another job, or of another layout.
        """
        part = self._parts_of_grid[place]
        path = self._folder / f"{part.name}.card{whole_file.SUFFIX}"
        try:
            path.write_bytes(self._store.get(self._card_key(place)) or b"")
            return self._proof.unseal(self._what(part), path)
        finally:
            path.unlink(missing_ok=True)

    def _put_card(self, place: Place, card: bytes, facts: Facts) -> None:
        """Put a card where none is; one with other facts, which are not those of this run, is replaced."""
        key = self._card_key(place)
        try:
            self._store.put(key, card, create=True)
        except TakenError:
            try:
                is_same = self._card(place)["facts"] == facts
            except NotProvenError:
                is_same = False
            if not is_same:
                self._store.put(key, card)

    def _put_file(self, part: Part, what: str, path: Path) -> Kept:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        key = self._output.key(f"parts/{part.name}.{digest}.{what}")
        try:
            return Kept(key, self._store.put(key, path, create=True))
        except TakenError:
            found = self._store.find(key)
            if found is not None and found.size == path.stat().st_size:
                return Kept(key, found.e_tag)
            return Kept(key, self._store.put(key, path))

    def _card_key(self, place: Place) -> str:
        return self._output.key(f"parts/{self._parts_of_grid[place].name}.card.json")

    def _what(self, part: Part) -> str:
        return f"card {part.name} {self._layout}"


async def open_scattered(
    output: BucketOutput, layout: Layout, work: WorkFolder, name: str, on_drop: OnDrop
) -> Scattered:
    """Return an output as far as the bucket has its parts.

    Args:
        output: where its parts are kept.
        layout: where tiles go and how they are stored.
        work: the folder in which parts are made.
        name: of how the output is divided into parts.
        on_drop: told of parts in the bucket that are dropped.
    """
    grid, loop = layout.grid, asyncio.get_running_loop()
    await asyncio.to_thread(output.share, work.path)
    shelf = await asyncio.to_thread(BucketShelf, output, grid, work, name)
    for dropped, reason in await asyncio.to_thread(shelf.load):
        on_drop(dropped, reason)

    async def are_proved(place: Place) -> bool:
        return work.arrivals.are_sure(grid.tiles(grid.part(*place)))

    def is_proved(place: Place) -> bool:
        return asyncio.run_coroutine_threadsafe(are_proved(place), loop).result()

    return await asyncio.to_thread(Scattered, grid, layout.encoding, work.path, shelf, is_proved)


async def publish_in(
    output: BucketOutput,
    made: Path,
    report: MosaicReport,
    assembly: object,
    *,
    overwrite: bool,
    on_progress: OnProgress,
) -> None:
    """Put an output together in its bucket.

    Args:
        output: where.
        made: the file, or the front of it.
        report: of the run.
        assembly: that made it.
        overwrite: whether the output may be replaced.
        on_progress: told of the bytes that are in their place, and of all.
    """
    stretches, samples = [Stretch(made, 0, report.bytes_written)], list[Sample]()
    if isinstance(assembly, Scattered) and isinstance(assembly.shelf, BucketShelf):
        stretches, samples = list(map(assembly.shelf.stretch, assembly.pieces)), list(assembly.samples(READ_BACK))
    publish = partial(output.publish, overwrite=overwrite, on_progress=on_progress)
    await to_its_end(publish, made, stretches, samples, report.as_dict())
