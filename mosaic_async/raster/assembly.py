"""From part COGs to the output: the levels above the parts, one file, validated, under its final name.

It blocks, so it is called in a thread; it knows nothing of tiles and servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rio_cogeo.cogeo import cog_validate

from mosaic_async.errors import ResourceError, StitchError, UsageError
from mosaic_async.geo.grid import Grid
from mosaic_async.raster import whole_file
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.pyramid import build_upper_levels
from mosaic_async.raster.stitch import Plate, stitch

_BIGTIFF = {"YES": True, "NO": False}
"""Other values of the creation option leave it to the size."""


def assemble(
    grid: Grid, encoding: Encoding, folder: Path, parts: Mapping[tuple[int, int], Path], tags: Mapping[str, str]
) -> Path:
    """Make one file of the parts and return its path; the only part of a small output is that file already.

    Args:
        grid: the output.
        encoding: as for the parts.
        folder: where files may be made.
        parts: the COGs of the parts that have data, by row and column; beside each lies its lossless smallest level.
        tags: GDAL metadata of the output.

    Raises:
        StitchError: the parts do not fit together.
        ResourceError: the disk is full.
    """
    step = 1 << grid.levels
    if grid.is_single and grid.width % step == 0 and grid.height % step == 0:
        return parts[0, 0]
    upper = folder / "upper"
    upper.mkdir(exist_ok=True)
    tops = {place: path.with_suffix(".top.tif") for place, path in parts.items()}
    plates = [
        Plate(path, level=0, row=row * grid.part_blocks, col=col * grid.part_blocks)
        for (row, col), path in parts.items()
    ]
    plates += build_upper_levels(grid, tops, encoding, upper)
    blank = upper / "blank.tif"
    side = 2 * grid.block_size
    with Canvas(side, side, 1, grid.transform(), encoding) as canvas:
        canvas.seal(blank, tags=tags)
    output = folder / "mosaic.tif"
    bigtiff = _BIGTIFF.get(encoding.options.get("BIGTIFF", "").upper())
    try:
        stitch(plates, blank, output, width=grid.width, height=grid.height, levels=grid.levels, bigtiff=bigtiff)
    except OSError as error:
        raise ResourceError(
            f"{output} cannot be written: {error.strerror}", hint="make room and re-run the same command"
        ) from error
    return output


def publish(made: Path, output: Path, *, overwrite: bool) -> int:
    """Validate a COG, rename it to its final name, and return its size in bytes.

    Raises:
        StitchError: it is not a valid Cloud Optimized GeoTIFF.
        UsageError: the output has appeared meanwhile and must not be replaced.
    """
    try:
        is_valid, errors, warnings = cog_validate(made, strict=True, quiet=True)
    except (RasterioError, CPLE_BaseError) as error:
        raise StitchError(f"{made} cannot be read back: {error}") from error
    if not is_valid:
        raise StitchError(f"{made} is not a valid COG: {'; '.join(errors + warnings)}")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} appeared during the run", hint="move it away, or re-run with ``overwrite``")
    whole_file.flush(made)
    made.replace(output)
    whole_file.flush(output.parent)
    return output.stat().st_size
