"""From part COGs to the output: the levels above the parts, one file, validated, under its final name.

It blocks, so it is called in a thread. It does not know tiles or servers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from mosaic_async.errors import ResourceError, StitchError, UsageError
from mosaic_async.geo.grid import Grid
from mosaic_async.raster import whole_file
from mosaic_async.raster.blocks import Blocks
from mosaic_async.raster.canvas import Canvas
from mosaic_async.raster.cog_rules import cog_validate
from mosaic_async.raster.digest import sign
from mosaic_async.raster.encoding import Encoding
from mosaic_async.raster.environment import pinned
from mosaic_async.raster.journal import Place
from mosaic_async.raster.plates import Model, Plate
from mosaic_async.raster.pyramid import build_upper_levels
from mosaic_async.raster.readback import check_blocks
from mosaic_async.raster.stitch import OnProgress, Plan, Source, ignore_progress, lay_out
from mosaic_async.raster.unfinished import Unfinished, discard, unfinished_path

_BIGTIFF = {"YES": True, "NO": False}
"""Other values of the creation option leave it to the size."""


def stitched_parts(grid: Grid, folder: Path, label: str) -> set[Place]:
    """Return the parts that a killed run has stitched already, proved by their bytes; their files may be gone.

    Args:
        grid: the output.
        folder: as for `assemble`.
        label: as for `assemble`.

    Raises:
        ResourceError: an unfinished output cannot be read.
    """
    try:
        return {
            part
            for unfinished in Unfinished.find(folder, label)
            for part in unfinished.journal.parts
            if unfinished.holds(part, grid.part_blocks, grid.part_levels)
        }
    except OSError as error:
        raise ResourceError(f"{folder} cannot be read: {error.strerror}") from error


def assemble(
    grid: Grid,
    encoding: Encoding,
    folder: Path,
    parts: Mapping[Place, Path],
    tags: Mapping[str, str],
    *,
    label: str = "",
    keep_parts: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Make one file of the parts and return its path; the only part of a small output is that file already.

    Args:
        grid: the output.
        encoding: as for the parts.
        folder: where files may be made.
        parts: the COGs of the parts that have data, by row and column; beside each lies its lossless smallest level.
            A file that is missing must be one of `stitched_parts`.
        tags: GDAL metadata of the output.
        label: the job's; what a killed run of the same label stitched is not copied again.
        keep_parts: whether the COGs are kept; otherwise each is deleted as soon as the disk holds its blocks.
        on_progress: called with the bytes that the output holds, and with its size.

    Raises:
        StitchError: the parts do not fit together, or a part is missing.
        ResourceError: the disk is full.
    """
    step = 1 << grid.levels
    if grid.is_single and grid.width % step == 0 and grid.height % step == 0:
        return parts[0, 0]
    upper = folder / "upper"
    try:
        upper.mkdir(exist_ok=True)
        tops = {place: path.with_suffix(".top.tif") for place, path in parts.items()}
        plates = build_upper_levels(grid, tops, encoding, upper)
        model = _model(grid, encoding, upper / "blank.tif", tags)
        sources = [
            *_part_sources(grid, parts, model, Unfinished.find(folder, label), keep=keep_parts),
            *(Source(path=plate.path, blocks=_blocks_of(plate, model, grid)) for plate in plates),
        ]
        plan = _plan(grid, encoding, model, sources)
        output = unfinished_path(folder, plan.digest)
        discard(folder, {output, *(source.path for source in sources)})
        plan.write(output, label, on_progress)
        sign(output)
        discard(folder, {output})
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written: {error.strerror}", hint="make room and re-run the same command"
        ) from error
    check_blocks(output, encoding.images(grid.levels))
    return output


def _model(grid: Grid, encoding: Encoding, path: Path, tags: Mapping[str, str]) -> Model:
    side = 2 * grid.block_size
    with Canvas(side, side, 1, grid.transform(), encoding, crs=grid.crs) as canvas:
        canvas.seal(path, tags=tags)
    return Model.read(path)


def _part_sources(
    grid: Grid, parts: Mapping[Place, Path], model: Model, earlier: Sequence[Unfinished], *, keep: bool
) -> Iterator[Source]:
    """Yield where the blocks of each part are: in its file, or, if that is gone, in an unfinished output."""
    for place, path in sorted(parts.items()):
        noted = None if keep else place
        if path.exists():
            plate = Plate(path, level=0, row=place[0] * grid.part_blocks, col=place[1] * grid.part_blocks)
            yield Source(path=path, blocks=_blocks_of(plate, model, grid), part=noted, is_spent=not keep)
            continue
        holder = next((one for one in earlier if one.holds(place, grid.part_blocks, grid.part_levels)), None)
        if holder is None:
            raise StitchError(f"{path} is missing", hint="re-run to fetch its tiles again")
        blocks = holder.blocks_of(place, grid.part_blocks, grid.part_levels)
        yield Source(path=holder.path, blocks=blocks, part=noted)


def _blocks_of(plate: Plate, model: Model, grid: Grid) -> list[Blocks]:
    return model.blocks_of(plate, width=grid.width, height=grid.height)


def _plan(grid: Grid, encoding: Encoding, model: Model, sources: Sequence[Source]) -> Plan:
    bigtiff = _BIGTIFF.get(encoding.options.get("BIGTIFF", "").upper())
    return lay_out(sources, model, width=grid.width, height=grid.height, levels=grid.levels, bigtiff=bigtiff)


def publish(made: Path, output: Path, *, overwrite: bool) -> int:
    """Validate a COG, rename it to its final name, and return its size in bytes.

    Raises:
        StitchError: it is not a valid Cloud Optimized GeoTIFF.
        UsageError: the output has appeared meanwhile and must not be replaced.
    """
    try:
        with pinned():
            is_valid, errors, warnings = cog_validate(made)
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
