"""From part COGs to the output: one file that grows with every part, validated, under its final name.

It blocks, so it is called in a thread. It does not know tiles or servers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
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
from mosaic_async.raster.stitched import Stitched
from mosaic_async.raster.unfinished import Run

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
            self._stitched = Stitched(folder, label, self._layout)
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
        return not self._stitched.models <= {self._pattern.name}

    @property
    def stitched(self) -> set[Place]:
        """The parts whose blocks are in the output; their files may be gone."""
        return self._stitched.places

    def has_stitched(self, place: Place) -> bool:
        """Return whether a part is stitched; any thread may call this."""
        return self._stitched.holder(place) is not None

    def resume(self, parts: Mapping[Place, Path | None]) -> None:
        """Take over finished parts of an earlier run; arguments and errors as for `add`."""
        with self._writing():
            for place, path in parts.items():
                if path is None or place not in self.stitched or path.exists():
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
                    output = self._stitched.output
                    if not output.segments:
                        output.begin(0, self._pattern.name)
                    runs = self._runs(self._pattern.blocks_in(self._due, path), is_first=not output.segments)
                    output.append(self._due, runs, spent=partial(path.unlink, missing_ok=True))
                self._due = next(self._rest, None)

    def compare(self, place: Place, path: Path | None) -> None:
        """Do without the blocks of a part that was made again, before it is declared, unless they are the same.

        So no part that is declared finished is stitched as it was before.

        Args:
            place: of the part.
            path: its COG; None if it has no data any more, or is encoded in another way.

        Raises:
            StitchError: the part does not fit to the others.
            ResourceError: a file cannot be read, or the journal cannot be written.
        """
        with self._writing():
            self._compare(place, path)

    def drop(self, place: Place) -> None:
        """Do without a part that was made again in another encoding.

        Raises:
            ResourceError: the journal cannot be written.
        """
        self._waiting.pop(place, None)
        with self._writing():
            self._stitched.drop(place)

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
            holder = self._stitched.holder(place)
            return holder is not None and holder.model == self._pattern.name_of(encoding)

    def extract(self, part: Part, encoding: Encoding, path: Path) -> None:
        """Write the full image of a stitched part as a file of its own.

        Raises:
            StitchError: the output is cut short, or lacks the part.
            ResourceError: the disk is full.
        """
        run = self._stitched.source((part.row, part.col))
        if run is None:
            raise StitchError(f"the output lacks part {part.name}", hint="re-run to fetch its tiles again")
        with self._writing():
            self._pattern.write_part(part, run, encoding, path)

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
            keep_parts: whether a later run makes another output of the same parts; then this one shares their bytes.
            on_progress: called with the bytes that the output holds, and with its size.

        Raises:
            StitchError: the parts do not fit together, or a part is missing.
            ResourceError: the disk is full.
        """
        with self._writing():
            made = self._complete(parts, tags, on_progress)
            made = _linked(made) if keep_parts else made
        check_places(made, self.encoding.images(self._grid.levels))
        return made

    def _complete(self, parts: Mapping[Place, Path], tags: Mapping[str, str], on_progress: OnProgress) -> Path:
        order, stitched = sorted(parts), self._stitched
        self._check_stitched(parts)
        stitched.put_in_order(order)
        output, runs = stitched.output, self._missing_runs(order, parts)
        tops = {place: path.with_suffix(".top.tif") for place, path in parts.items()}
        front = self._pattern.front(tops, tags, output.size + sum(map(size_of, runs.values())))
        if not stitched.make_room(front.size, self._pattern.name):
            runs = self._missing_runs(order, parts)
        progress = _Progress(front.size + output.size + sum(map(size_of, runs.values())), on_progress)
        progress.add(output.size)
        for place, run in runs.items():
            output.append(place, run, spent=stitched.spend(place, parts[place]), on_copy=progress.add)
        output.flush()
        with output.front() as file:
            front.write(file, output.segments.values(), progress.add)
        stitched.end()
        return output.path

    def _check_stitched(self, parts: Mapping[Place, Path]) -> None:
        """Do without what is stitched and is no longer in the output, or is there in another form."""
        self._stitched.flush()
        if self.is_foreign:
            self._stitched.begin_anew(self._pattern.name)
        for place in self.stitched:
            if place not in parts or parts[place].exists():
                self._take(place, parts.get(place))
        self._stitched.flush()

    def _missing_runs(self, order: Sequence[Place], parts: Mapping[Place, Path]) -> dict[Place, list[Run]]:
        """Return what is still to be appended."""
        missing = [place for place in order if place not in self._stitched.output.segments]
        sources = {place: self._source(place, parts[place]) for place in missing}
        return {place: self._runs(run, is_first=place == order[0]) for place, run in sources.items()}

    def _take(self, place: Place, path: Path | None) -> None:
        """Note a finished part; one that comes again may no longer be what the output holds."""
        is_past = self._due is None or place < self._due
        self._compare(place, path)
        holder = self._stitched.holder(place)
        if holder is not None and path is not None:
            holder.spend(place, partial(path.unlink, missing_ok=True))
        elif not is_past:
            self._waiting[place] = path
        elif path is not None:
            self._stitched.mix()

    def _compare(self, place: Place, path: Path | None) -> None:
        holder = self._stitched.holder(place)
        if holder and (self.is_foreign or not path or not holder.holds(place, self._pattern.blocks_in(place, path))):
            self._stitched.drop(place)

    def _source(self, place: Place, path: Path) -> Run:
        """Return where the blocks of a part are: in its file, or, if that is gone, in what is stitched."""
        if path.exists():
            return self._pattern.blocks_in(place, path)
        if (run := self._stitched.source(place)) is None:
            raise StitchError(f"{path} is missing", hint="re-run to fetch its tiles again")
        return run

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
        return self._can_insert and self._stitched.can_grow and not self.is_foreign

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


def _linked(made: Path) -> Path:
    """Return another name for a finished file, which can be renamed while the file keeps the first one."""
    other = made.with_suffix(".linked.tif")
    other.unlink(missing_ok=True)
    try:
        os.link(made, other)
    except OSError:  # the file system has one name per file
        shutil.copyfile(made, other)
    return other


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
