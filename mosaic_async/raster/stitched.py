"""What is stitched of an output: its file, and a second one for parts that wait until those before them are there.

A part in the middle is replaced as a wagon of a train is: those behind it move to the second file, the last one first,
and come back after it. Each is deleted as soon as the disk holds it in the other file, so the disk holds all once, and
a run that is killed continues from there. It does not know how parts are encoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from mosaic_async.raster.journal import Place
from mosaic_async.raster.unfinished import Run, Spent, Unfinished


class Stitched:
    """The parts that an output holds, in two files.

    Args:
        folder: of the files.
        label: the job's; what a killed run of the same label stitched is found again.
        layout: a name for how the output is divided into parts.

    Raises:
        OSError: a file cannot be read.
    """

    def __init__(self, folder: Path, label: str, layout: str) -> None:
        self.output, self._aside = Unfinished.find(folder, label, layout)
        self._is_mixed = bool(self._aside.segments) or not self.output.is_gapless

    @property
    def places(self) -> set[Place]:
        """The parts."""
        return {place for file in self._files for place in file.segments}

    @property
    def models(self) -> set[str]:
        """The names for how they are encoded."""
        return {file.model for file in self._files if file.segments}

    @property
    def can_grow(self) -> bool:
        """Whether what is there is the begin of the output, so that parts can be appended."""
        return not (self._is_mixed or self.output.is_shared)

    def holder(self, place: Place) -> Unfinished | None:
        """Return the file that holds the blocks of a part."""
        return next((file for file in self._files if place in file.segments), None)

    def source(self, place: Place) -> Run | None:
        """Return where the blocks of a part are, but for the empty blocks that all parts share."""
        if (holder := self.holder(place)) is None:
            return None
        path, blocks = holder.blocks_of(place)
        return path, blocks[~blocks["is_empty"]]

    def mix(self) -> None:
        """Note that a part has come too late to be appended."""
        self._is_mixed = True

    def drop(self, place: Place) -> None:
        """Do without the blocks of a part, if they are here.

        Raises:
            OSError: a file cannot be written.
        """
        if holder := self.holder(place):
            holder.drop(place)
            self._is_mixed = True

    def flush(self) -> None:
        """Wait for the disk, then delete what it now holds twice.

        Raises:
            OSError: the disk does not take it.
        """
        for file in self._files:
            file.flush()

    def begin_anew(self, model: str) -> None:
        """Drop all parts.

        Raises:
            OSError: a file cannot be written.
        """
        self._aside.remove()
        self.output.begin(0, model)

    def put_in_order(self, order: Sequence[Place]) -> None:
        """Leave in the output only the parts that it begins with, and put aside those that come later.

        A file that has another name, as that of an output with holes has, is not changed: all parts are put aside.

        Args:
            order: the parts of the output.

        Raises:
            StitchError: a file ends too early.
            OSError: a file cannot be read or written.
        """
        output = self.output
        if output.is_shared and output.segments:
            if self._aside.segments:
                self._put_aside(output.segments)
            else:
                output.share(self._aside)
            output.begin(0, output.model)
        self._put_aside(list(output.segments)[output.common(order) :])

    def make_room(self, size: int, model: str) -> bool:
        """Make room for the front before the parts.

        Args:
            size: bytes.
            model: a name for how the parts are encoded.

        Returns:
            Whether the parts stay where they are; otherwise they were put aside.

        Raises:
            StitchError: a file ends too early.
            OSError: a file cannot be read or written.
        """
        output = self.output
        if not output.segments:
            output.begin(size, model)
        elif output.base == 0:
            with suppress(OSError):
                output.insert_front(size)
        if output.base == size:
            return True
        self._put_aside(list(output.segments))
        output.begin(size, model)
        return False

    def spend(self, place: Place, path: Path) -> Spent:
        """Return what deletes the second copy of a part: that which was put aside, or its file."""
        if place in self._aside.segments:
            return partial(self._aside.drop, place)
        return partial(path.unlink, missing_ok=True)

    def end(self) -> None:
        """Delete the second file, of which the output has all.

        Raises:
            OSError: it cannot be deleted.
        """
        self._aside.remove()

    def _put_aside(self, places: Iterable[Place]) -> None:
        """Move the last parts of the output to the second file, the last one first."""
        for place in reversed(list(places)):
            self.output.move(place, self._aside)
        self._aside.flush()

    @property
    def _files(self) -> tuple[Unfinished, Unfinished]:
        return self.output, self._aside
