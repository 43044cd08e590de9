"""An output made at once of parts that are all there, as a run makes it while they arrive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mosaic_async.geo.grid import Grid
from mosaic_async.raster.assembly import Assembly, is_output
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.journal import Place


def stitched_parts(grid: Grid, encoding: Encoding, folder: Path, label: str) -> set[Place]:
    """Return the parts that a killed run has stitched already, proved by their bytes; their files may be gone."""
    return Assembly(grid, encoding, folder, label).stitched


def assemble(
    grid: Grid,
    encoding: Encoding,
    folder: Path,
    parts: Mapping[Place, Path],
    tags: Mapping[str, str],
    *,
    label: str = "",
    **options,
) -> Path:
    """Make one file; the only part of a small output is that file already."""
    if is_output(grid):
        return parts[0, 0]
    assembly = Assembly(grid, encoding, folder, label)
    assembly.resume(parts)
    return assembly.finish(parts, tags, **options)
