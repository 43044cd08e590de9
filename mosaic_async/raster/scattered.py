"""An output whose parts are kept elsewhere, each as one object with its blocks in the order of the output.

The parts never come back: what is made here at the end is the front, and the list of pieces that follow it. The bytes
are those of an output that grows on the disk. It blocks, so it is called in a thread. It does not know tiles, or where
the parts are kept.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from mosaic_async.errors import ResourceError, StitchError
from mosaic_async.geo.grid import Grid, Part
from mosaic_async.raster.assembly import OnProgress, ignore_progress
from mosaic_async.raster.blocks import BLOCK, Blocks, digests_in, no_digests
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.journal import Place
from mosaic_async.raster.pattern import Pattern
from mosaic_async.raster.readback import check_places
from mosaic_async.raster.tiff import read_images
from mosaic_async.raster.unfinished import Segment, copied

Facts = Mapping[str, Any]
"""Of JSON types."""


class Shelf(Protocol):
    """Where parts are kept."""

    def known(self) -> Mapping[Place, Facts]:
        """Return what was put of each part that is there; without facts, a part has no data."""

    def put(self, place: Place, body: Path | None, facts: Facts) -> None:
        """Keep a part: its body, and the facts after it.

        Raises:
            MosaicError: it cannot be kept.
        """

    def fetch(self, place: Place, path: Path) -> None:
        """Write the body of a part to a file.

        Raises:
            MosaicError: it is not there.
        """

    def drop(self, place: Place) -> None:
        """Forget a part."""


class Piece(NamedTuple):
    """Bytes of the output."""

    source: Path | Place
    """A file on this machine, or the part whose body has them."""
    start: int
    length: int


class Sample(NamedTuple):
    """A block of the output, and its digest."""

    start: int
    length: int
    digest: bytes


@dataclass(frozen=True)
class _Body:
    """The blocks of a part, as they are kept."""

    pattern: str
    """A name for how they are encoded."""
    segment: Segment

    @classmethod
    def from_facts(cls, facts: Facts) -> Self:
        """Return what `facts` returned.

        Raises:
            ValueError: it cannot be read.
            KeyError: a fact is missing.
        """
        blocks = np.frombuffer(base64.b64decode(facts["blocks"], validate=True), BLOCK)
        digests = np.frombuffer(base64.b64decode(facts["digests"], validate=True), np.uint8)
        return cls(facts["pattern"], Segment(0, blocks, digests.reshape(len(blocks), no_digests().shape[1])))

    def facts(self) -> Facts:
        """Return the body without its bytes."""
        encoded = {"blocks": self.segment.blocks.tobytes(), "digests": self.segment.digests.tobytes()}
        return {"pattern": self.pattern, **{name: base64.b64encode(data).decode() for name, data in encoded.items()}}


class Scattered:
    """The output of a grid while its parts are made; the methods of `Assembly`, whose words hold here too.

    Args:
        grid: the output.
        encoding: as for the parts.
        folder: where files may be made.
        shelf: keeps the parts.
        is_proved: returns whether a part can be kept already; one that may have to be withdrawn waits.

    Raises:
        ResourceError: the folder cannot be written.
    """

    def __init__(
        self, grid: Grid, encoding: Encoding, folder: Path, shelf: Shelf, is_proved: Callable[[Place], bool]
    ) -> None:
        self.pieces: list[Piece] = []
        """Of the output, in their order, once it is finished."""
        self._grid = grid
        self._folder = folder
        self.shelf = shelf
        self._is_proved = is_proved
        self._waiting: dict[Place, Path | None] = {}
        self._segments: list[Segment] = []
        self._front_size = 0
        known = shelf.known()
        self._bodies = {place: _Body.from_facts(facts) for place, facts in known.items() if facts}
        self._empty = {place for place, facts in known.items() if not facts}
        with self._writing():
            self._pattern = Pattern(grid, encoding, folder / "upper")

    def use(self, encoding: Encoding) -> None:
        """Set how parts are encoded from now on."""
        if encoding != self.encoding:
            with self._writing():
                self._pattern = Pattern(self._grid, encoding, self._folder / "upper")

    @property
    def encoding(self) -> Encoding:
        """How parts are encoded."""
        return self._pattern.encoding

    @property
    def is_foreign(self) -> bool:
        """Whether what is kept is encoded in another way than parts are now."""
        return any(body.pattern != self._pattern.name for body in self._bodies.values())

    @property
    def stitched(self) -> set[Place]:
        """The parts whose bodies are kept; their files may be gone."""
        return set(self._bodies)

    def resume(self, parts: Mapping[Place, Path | None]) -> None:
        """Take over finished parts of an earlier run."""
        for place, path in parts.items():
            if path is None or path.exists():
                self.add(place, path)

    def add(self, place: Place, path: Path | None) -> None:
        """Take a finished part, and delete its file once it is kept."""
        self._waiting[place] = path
        for waiting in list(self._waiting):
            if self._is_proved(waiting):
                self._take(waiting, self._waiting.pop(waiting))

    def has_stitched(self, place: Place) -> bool:
        """Return whether the body of a part is kept; any thread may call this."""
        return place in self._bodies

    def compare(self, place: Place, path: Path | None) -> None:
        """Do without a part that was made again: it is put again, and its body has the same name if it is the same."""
        del path
        self.drop(place)

    def drop(self, place: Place) -> None:
        """Do without a part that was made again in another encoding."""
        self._waiting.pop(place, None)
        if place in self._bodies or place in self._empty:
            self.shelf.drop(place)
            self._bodies.pop(place, None)
            self._empty.discard(place)

    def withdraw(self, place: Place) -> None:
        """Forget a part whose file is about to be deleted: no other machine may take it for right."""
        self.drop(place)

    def can_extract(self, place: Place, encoding: Encoding) -> bool:
        """Return whether a part is kept in this encoding."""
        with self._writing():
            return place in self._bodies and self._bodies[place].pattern == self._pattern.name_of(encoding)

    def extract(self, part: Part, encoding: Encoding, path: Path) -> None:
        """Write the full image of a part as a file of its own."""
        place = (part.row, part.col)
        fetched = path.with_name(f"{path.name}.body")
        try:
            self.shelf.fetch(place, fetched)
            with self._writing():
                self._pattern.write_part(part, (fetched, self._bodies[place].segment.blocks), encoding, path)
        finally:
            fetched.unlink(missing_ok=True)

    def finish(
        self,
        parts: Mapping[Place, Path],
        tags: Mapping[str, str],
        *,
        keep_parts: bool = False,
        on_progress: OnProgress = ignore_progress,
    ) -> Path:
        """Make the front, and return a file with holes where the parts belong.

        Args:
            parts: the COGs of the parts that have data; a file that is missing must be one of those `stitched`.
            tags: GDAL metadata of the output.
            keep_parts: whether the files of the parts stay.
            on_progress: told of the front: what takes time is to put the pieces together.
        """
        for place, path in parts.items():
            if path.exists():
                self._keep(place, path)
                if not keep_parts:
                    path.unlink()
            if place not in self._bodies or self._bodies[place].pattern != self._pattern.name:
                raise StitchError(f"{path} is missing", hint="re-run to fetch its tiles again")
        order = sorted(parts)
        self._segments, pieces = [], []
        start = 0
        for place in order:
            segment, own = self._placed(place, start, is_first=place == order[0])
            self._segments.append(segment)
            pieces += own
            start += segment.size
        made = self._made
        with self._writing():
            self._write_front(made, {place: path.with_suffix(".top.tif") for place, path in parts.items()}, tags)
        check_places(made, self.encoding.images(self._grid.levels))
        self.pieces = [Piece(made, 0, self._front_size), *pieces]
        on_progress(self._front_size, self._front_size + start)
        return made

    def blocks_with_data(self) -> int:
        """Return how many blocks of the full image hold data: at least what `readback.blocks_with_data` counts."""
        full = {image.is_mask: image for image in read_images(self._made) if image.level == 0}
        if True not in full:
            return int(np.count_nonzero(full[False].counts))
        return sum(map(_masks_with_data, self._segments))

    def samples(self, number: int) -> Iterator[Sample]:
        """Yield blocks of as many parts, evenly spaced, to be compared with what the output has in their places."""
        step = max(1, len(self._segments) // number)
        for segment in self._segments[::step]:
            last = len(segment.blocks) - 1
            for index in sorted({0, last // 2, last} if last >= 0 else ()):
                block = segment.blocks[index]
                start = self._front_size + int(block["start"])
                yield Sample(start, int(block["count"]), segment.digests[index].tobytes())

    def _take(self, place: Place, path: Path | None) -> None:
        if path is not None:
            self._keep(place, path)
            with self._writing():
                path.unlink()
        elif place not in self._empty:
            self.drop(place)
            self.shelf.put(place, None, {})
            self._empty.add(place)

    def _keep(self, place: Place, path: Path) -> None:
        body = path.with_name(f"{path.name}.body")
        with self._writing():
            try:
                made = self._write_body(place, path, body)
                known = self._bodies.get(place)
                if known is None or known.facts() != made.facts():
                    self.drop(place)
                    self.shelf.put(place, body, made.facts())
                    self._bodies[place] = made
            finally:
                body.unlink(missing_ok=True)

    def _write_body(self, place: Place, path: Path, body: Path) -> _Body:
        file = os.open(body, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            segment = copied([self._pattern.blocks_in(place, path)], file, 0, 0, lambda _: None)
        finally:
            os.close(file)
        return _Body(self._pattern.name, segment)

    def _placed(self, place: Place, start: int, *, is_first: bool) -> tuple[Segment, list[Piece]]:
        """Return what the output holds of a part, from `start` on, and the pieces that it is made of."""
        kept = self._bodies[place].segment
        elsewhere = Path()
        runs = self._pattern.with_empties((elsewhere, kept.blocks)) if is_first else [(elsewhere, kept.blocks)]
        digests = []
        pieces: list[Piece] = []
        for source, blocks in runs:
            if source == elsewhere:
                digests.append(kept.digests[np.isin(kept.blocks["start"], blocks["start"])])
                pieces += _pieces(place, blocks)
            else:
                digests.append(digests_in(source, blocks))
                pieces += _pieces(source, blocks)
        placed = np.concatenate([blocks for _, blocks in runs])
        placed["start"] = start + np.cumsum(placed["count"], dtype=np.uint64) - placed["count"]
        return Segment(start, placed, np.concatenate(digests)), pieces

    def _write_front(self, made: Path, tops: Mapping[Place, Path], tags: Mapping[str, str]) -> None:
        body = sum(segment.size for segment in self._segments)
        front = self._pattern.front(tops, tags, body)
        self._front_size = front.size
        file = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.ftruncate(file, front.size + body)
            front.write(file, self._segments, lambda _: None)
        finally:
            os.close(file)

    @property
    def _made(self) -> Path:
        return self._folder / "front.tif"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"{self._folder} cannot be written: {error.strerror}", hint="make room and re-run the same command"
            ) from error


def _masks_with_data(segment: Segment) -> int:
    blocks = segment.blocks
    return int(np.count_nonzero((blocks["level"] == 0) & blocks["is_mask"] & ~blocks["is_empty"]))


def _pieces(source: Path | Place, blocks: Blocks) -> list[Piece]:
    """Return blocks as pieces, those that follow each other directly as one."""
    pieces: list[Piece] = []
    for start, length in zip(blocks["start"].tolist(), blocks["count"].tolist(), strict=True):
        if pieces and pieces[-1].start + pieces[-1].length == start:
            pieces[-1] = pieces[-1]._replace(length=pieces[-1].length + length)
        else:
            pieces.append(Piece(source, start, length))
    return pieces
