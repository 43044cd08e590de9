"""From part COGs to the output: one file that grows with every part, validated, under its final name.

It blocks, so it is called in a thread. It does not know tiles or servers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rio_cogeo.cogeo import cog_validate

from mosaic_async.errors import ResourceError, StitchError, UsageError
from mosaic_async.geo.grid import Grid, Part
from mosaic_async.raster import whole_file
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.environment import Setting, pinned
from mosaic_async.raster.insertion import can_insert
from mosaic_async.raster.journal import Place
from mosaic_async.raster.pattern import Pattern, size_of
from mosaic_async.raster.readback import check_places
from mosaic_async.raster.stitch import Front
from mosaic_async.raster.unfinished import Run, Unfinished

OnProgress = Callable[[int, int], None]
"""Called with the bytes that the output holds, and the bytes that it will hold."""


def ignore_progress(done: int, total: int) -> None:
    """Ignore the progress."""


class Assembly:
    """The output of a grid, in a folder, while its parts are made.

    Finished parts are appended in their order, and each file is deleted as soon as the disk holds its blocks. So when
    the last part is there, only that part and the front are left to write.

    Args:
        grid: the output.
        encoding: as for the parts.
        folder: where files may be made.
        label: the job's; what a killed run of the same label stitched is not copied again.

    Raises:
        ResourceError: the folder cannot be read or written.
    """

    def __init__(self, grid: Grid, encoding: Encoding, folder: Path, label: str) -> None:
        self._grid = grid
        self._folder = folder
        self._waiting: dict[Place, Path | None] = {}
        with self._writing():
            self._pattern = Pattern(grid, encoding, folder / "upper")
            self._output = Unfinished.find(folder, label, self._layout)
            self._can_insert = can_insert(folder)
        last = max(self.stitched, default=(-1, -1))
        self._rest = iter([place for part in grid.parts() if (place := (part.row, part.col)) > last])
        self._due = next(self._rest, None)

    def use(self, encoding: Encoding) -> None:
        """Set how parts are encoded from now on; what is stitched already in another way cannot stay.

        Raises:
            ResourceError: the folder cannot be written.
        """
        if encoding != self.encoding:
            with self._writing():
                self._pattern = Pattern(self._grid, encoding, self._folder / "upper")

    @property
    def encoding(self) -> Encoding:
        """How parts are encoded."""
        return self._pattern.encoding

    @property
    def is_foreign(self) -> bool:
        """Whether what is stitched is encoded in another way than parts are now."""
        return bool(self._output.segments) and self._output.model != self._pattern.name

    @property
    def stitched(self) -> set[Place]:
        """The parts whose blocks are in the output; their files may be gone."""
        return set(self._output.segments)

    def resume(self, parts: Mapping[Place, Path | None]) -> None:
        """Take over finished parts of an earlier run; arguments and errors as for `add`."""
        with self._writing():
            for place, path in parts.items():
                if path is None or place not in self._output.segments or path.exists():
                    self._take(place, path)

    def add(self, place: Place, path: Path | None) -> None:
        """Take a finished part, and append all that are next in their order.

        Args:
            place: of the part.
            path: its COG, which is deleted once its blocks are in the output; None for a part without data.

        Raises:
            StitchError: the part does not fit to the others.
            ResourceError: the disk is full.
        """
        with self._writing():
            self._take(place, path)
            while self._grows and self._due in self._waiting:
                path = self._waiting.pop(self._due)
                if path is not None:
                    if not self._output.segments:
                        self._output.begin(0, self._pattern.name)
                    runs = self._runs(self._pattern.blocks_in(self._due, path), is_first=not self._output.segments)
                    self._output.append(self._due, runs, spent=path)
                self._due = next(self._rest, None)

    def drop(self, place: Place) -> None:
        """Do without a part that was made again in another encoding.

        Raises:
            ResourceError: the journal cannot be written.
        """
        self._waiting.pop(place, None)
        with self._writing():
            if place in self._output.segments:
                self._output.drop(place)

    def withdraw(self, place: Place) -> None:
        """Forget a part whose file is about to be deleted; it comes again, and may be as it was.

        Raises:
            ResourceError: the journal cannot be written.
        """
        self._waiting.pop(place, None)
        if self.is_foreign:
            self.drop(place)

    def can_extract(self, place: Place, encoding: Encoding) -> bool:
        """Return whether the output holds a part in this encoding."""
        with self._writing():
            return place in self._output.segments and self._output.model == self._pattern.name_of(encoding)

    def extract(self, part: Part, encoding: Encoding, path: Path) -> None:
        """Write the full image of a stitched part as a file of its own.

        Raises:
            StitchError: the output is cut short.
            ResourceError: the disk is full.
        """
        with self._writing():
            self._pattern.write_part(part, self._output.blocks_of((part.row, part.col)), encoding, path)

    def finish(
        self,
        parts: Mapping[Place, Path],
        tags: Mapping[str, str],
        *,
        keep_parts: bool = False,
        on_progress: OnProgress = ignore_progress,
    ) -> Path:
        """Complete the output and return its path.

        Args:
            parts: the COGs of the parts that have data, by row and column; beside each lies its lossless smallest
                level. A file that is missing must be one of those `stitched`.
            tags: GDAL metadata of the output.
            keep_parts: whether what is left of the parts is kept, for another output; then this one is a copy.
            on_progress: called with the bytes that the output holds, and with its size.

        Raises:
            StitchError: the parts do not fit together, or a part is missing.
            ResourceError: the disk is full.
        """
        with self._writing():
            made = self._complete(parts, tags, on_progress, keep=keep_parts)
        check_places(made, self.encoding.images(self._grid.levels))
        return made

    def _complete(
        self, parts: Mapping[Place, Path], tags: Mapping[str, str], on_progress: OnProgress, *, keep: bool
    ) -> Path:
        order = sorted(parts)
        output = self._output
        there = [] if self.is_foreign else list(output.segments)
        is_copy = keep or (bool(there) and (output.is_mixed or there != order[: len(there)]))
        if is_copy:
            there = []
        rest = {place: self._source(place, parts[place]) for place in order[len(there) :]}
        runs = {place: self._runs(run, is_first=place == order[0]) for place, run in rest.items()}
        body = sum(output.segments[place].size for place in there) + sum(map(size_of, runs.values()))
        tops = {place: path.with_suffix(".top.tif") for place, path in parts.items()}
        front = self._pattern.front(tops, tags, body)
        progress = _Progress(front.size + body, on_progress)
        if is_copy:
            output = output.beside()
        if not there:
            output.begin(front.size, self._pattern.name)
        progress.add(output.size)
        for place, run in runs.items():
            output.append(place, run, spent=None if is_copy else parts[place], on_copy=progress.add)
        output.flush()
        return self._put(front, output, progress)

    def _put(self, front: Front, output: Unfinished, progress: _Progress) -> Path:
        """Write the front before the parts; copy them where it has no room, and none can be made."""
        if output.base == 0:
            with suppress(OSError):
                output.insert_front(front.size)
        if output.base != front.size:
            parts, output = output, output.beside()
            output.begin(front.size, self._pattern.name)
            for place in parts.segments:
                output.append(place, [parts.blocks_of(place)])
        with output.front() as file:
            front.write(file, output.segments.values(), progress.add)
        return output.path

    def _take(self, place: Place, path: Path | None) -> None:
        """Note a finished part; one that comes again may no longer be what the output holds."""
        is_past = self._due is None or place < self._due
        if place in self._output.segments:
            if path is None or self.is_foreign:
                self._output.drop(place)
            else:
                self._output.replace(place, self._pattern.blocks_in(place, path))
        elif not is_past:
            self._waiting[place] = path
        elif path is not None:
            self._output.is_mixed = True

    def _source(self, place: Place, path: Path) -> Run:
        """Return where the blocks of a part are: in its file, or, if that is gone, in the unfinished output."""
        if path.exists():
            return self._pattern.blocks_in(place, path)
        if place not in self._output.segments or self.is_foreign:
            raise StitchError(f"{path} is missing", hint="re-run to fetch its tiles again")
        path, blocks = self._output.blocks_of(place)
        return path, blocks[~blocks["is_empty"]]

    def _runs(self, run: Run, *, is_first: bool) -> list[Run]:
        return self._pattern.with_empties(run) if is_first else [run]

    @property
    def _layout(self) -> str:
        """A name for what decides which parts there are, and where their blocks are."""
        grid = self._grid
        sizes = (grid.width, grid.height, grid.levels, grid.block_size, grid.part_blocks)
        return hashlib.sha256(f"{sizes}".encode()).hexdigest()

    @property
    def _grows(self) -> bool:
        """Whether parts can be appended now."""
        return self._can_insert and not (self._output.is_mixed or self.is_foreign)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ResourceError(
                f"{self._folder} cannot be written: {error.strerror}", hint="make room and re-run the same command"
            ) from error


class _Progress:
    """Reports each per cent once."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._total = total
        self._done = 0
        self._told = 0
        self._on_progress = on_progress

    def add(self, size: int) -> None:
        self._done += size
        if self._done - self._told >= self._total / 100 or self._done == self._total:
            self._told = self._done
            self._on_progress(self._done, self._total)


def is_output(grid: Grid) -> bool:
    """Return whether the only part of a grid is the output as it is."""
    step = 1 << grid.levels
    return grid.is_single and grid.width % step == 0 and grid.height % step == 0


def validate(made: Path | str, **settings: Setting) -> None:
    """Check that a COG is valid by its headers, which is all that this reads.

    Args:
        made: the file, or a name of GDAL's for an object.
        settings: of GDAL, by which it opens objects.

    Raises:
        StitchError: it is not a valid Cloud Optimized GeoTIFF.
    """
    try:
        with pinned(**settings):
            is_valid, errors, warnings = cog_validate(made, strict=True, quiet=True)
    except (RasterioError, CPLE_BaseError) as error:
        raise StitchError(f"{made} cannot be read back: {error}") from error
    if not is_valid:
        raise StitchError(f"{made} is not a valid COG: {'; '.join(errors + warnings)}")


def publish(made: Path, output: Path, *, overwrite: bool) -> int:
    """Validate a COG, rename it to its final name, and return its size in bytes.

    Raises:
        StitchError: it is not a valid Cloud Optimized GeoTIFF.
        UsageError: the output has appeared meanwhile and must not be replaced.
    """
    validate(made)
    if output.exists() and not overwrite:
        raise UsageError(f"{output} appeared during the run", hint="move it away, or re-run with ``overwrite``")
    whole_file.flush(made)
    made.replace(output)
    whole_file.flush(output.parent)
    return output.stat().st_size
