"""What all parts of an output have in common: how they are encoded, and where their blocks go.

It does not know where the output is put together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mosaic_async.geo.grid import Grid, Part
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.journal import Place
from mosaic_async.raster.plates import Model, Plate
from mosaic_async.raster.pyramid import build_upper_levels
from mosaic_async.raster.statistics import Statistics
from mosaic_async.raster.stitch import Front, Shape, with_empties, write_image
from mosaic_async.raster.unfinished import Run

_BIGTIFF = {"YES": True, "NO": False}
"""Other values of the creation option leave it to the size."""


class Pattern:
    """How the parts of a grid are encoded.

    Args:
        grid: the output.
        encoding: of the parts.
        folder: where files may be made.

    Raises:
        OSError: the folder cannot be written.
    """

    def __init__(self, grid: Grid, encoding: Encoding, folder: Path) -> None:
        self.grid = grid
        self.encoding = encoding
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._model = self._read_model("blank", encoding, {})
        self.name = _name(encoding, self._model)
        """Only parts have it that are encoded, and whose overviews are made, in one way."""

    def name_of(self, encoding: Encoding) -> str:
        """Return the name for parts of another encoding."""
        return _name(encoding, self._read_model("narrow", encoding, {}))

    def blocks_in(self, place: Place, path: Path) -> Run:
        """Return the blocks of a part that its COG holds.

        Raises:
            StitchError: the part does not fit to the others.
        """
        plate = Plate(path, level=0, row=place[0] * self.grid.part_blocks, col=place[1] * self.grid.part_blocks)
        return path, self._model.blocks_of(plate, width=self.grid.width, height=self.grid.height)

    def with_empties(self, run: Run) -> list[Run]:
        """Return what the output holds of its first part: its blocks, and the empty block of each image."""
        return with_empties(*run, self._model, self.grid.part_levels)

    def front(self, tops: Mapping[Place, Path], tags: Mapping[str, str], body: int) -> Front:
        """Return what comes before the parts.

        Args:
            tops: the lossless smallest level of each part that has data.
            tags: GDAL metadata of the output.
            body: bytes of all parts in the output.
        """
        grid = self.grid
        statistics = Statistics(self.encoding.count)
        plates = build_upper_levels(grid, tops, self.encoding, self._folder, statistics=statistics)
        # Indices of colours have no statistics.
        of_bands = [] if self.encoding.palette is not None else statistics.tags(is_exact=False)
        model = self._read_model("headers", self.encoding, tags, of_bands)
        shape = Shape(width=grid.width, height=grid.height, levels=grid.levels, is_sparse=self.encoding.is_sparse)
        bigtiff = _BIGTIFF.get(self.encoding.options.get("BIGTIFF", "").upper())
        return Front(model, shape, plates, part_levels=grid.part_levels, body=body, bigtiff=bigtiff)

    def write_part(self, part: Part, run: Run, encoding: Encoding, path: Path) -> None:
        """Write the full image of a part as a file of its own.

        Args:
            part: the part.
            run: where its blocks are.
            encoding: that they have.
            path: the file.
        """
        shape = Shape(width=part.width, height=part.height, levels=0, is_sparse=True)
        row, col = part.row * self.grid.part_blocks, part.col * self.grid.part_blocks
        write_image(run, self._read_model("narrow", encoding, {}), shape, path, row=row, col=col)

    def _read_model(
        self, name: str, encoding: Encoding, tags: Mapping[str, str], of_bands: Sequence[Mapping[str, str]] = ()
    ) -> Model:
        """Seal a COG without data, and read what it has in common with all others of an encoding."""
        path, grid, side = self._folder / f"{name}.tif", self.grid, 2 * self.grid.block_size
        with Canvas(side, side, 1, grid.transform(), encoding.dense(), crs=grid.crs) as canvas:
            canvas.seal(path, tags=tags, of_bands=of_bands)
        return Model.read(path)


def size_of(runs: Sequence[Run]) -> int:
    """Return the bytes of all blocks."""
    return sum(int(blocks["count"].sum()) for _, blocks in runs)


def _name(encoding: Encoding, model: Model) -> str:
    options = dict(sorted(encoding.options.items()))
    return hashlib.sha256(f"{model.digest} {replace(encoding, options=options)!r}".encode()).hexdigest()
