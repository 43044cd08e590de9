"""Whether nothing got lost on the way: what a run counted, what its parts hold, and what is in the output agree.

Checked before the output gets its name. A difference is a fault of this program, whatever caused it: the output is not
made, and the work folder is kept. It knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mosaic_async.build.ledger import Ledger
from mosaic_async.errors import StitchError
from mosaic_async.geo.grid import Grid
from mosaic_async.raster.readback import blocks_with_data

_HINT = "this is a bug: report it with the command; the work folder is kept"


def check_tiles(grid: Grid, ledger: Ledger) -> None:
    """Check that every tile of the output is counted once, in total and in the records of the parts.

    Raises:
        StitchError: the numbers do not add up.
    """
    placed, empty, failed = ledger.placed, ledger.empty, len(ledger.failed)
    if placed + empty + failed != grid.cover.count:
        raise StitchError(
            f"{placed:,} placed, {empty:,} empty and {failed:,} failed tiles are not all {grid.cover.count:,}",
            hint=_HINT,
        )
    records = [ledger.records[part.name] for part in grid.parts() if part.name in ledger.records]
    if len(records) != grid.part_count:
        raise StitchError(f"only {len(records):,} of {grid.part_count:,} parts are finished", hint=_HINT)
    in_parts = (
        sum(record.placed for record in records),
        sum(record.empty for record in records),
        sum(record.failed for record in records),
    )
    if in_parts != (placed, empty, failed):
        raise StitchError(
            f"the parts hold {in_parts[0]:,} placed, {in_parts[1]:,} empty and {in_parts[2]:,} failed tiles, "
            f"the run counted {placed:,}, {empty:,} and {failed:,}",
            hint=_HINT,
        )


def check_blocks(made: Path, files: Iterable[Path], ledger: Ledger, *, count: Callable[[], int] | None = None) -> None:
    """Check that the output has all blocks with data that its parts have; it blocks.

    Args:
        made: the output.
        files: its COGs: itself, or those of a collection.
        ledger: of the run.
        count: counts the blocks of an output whose files are elsewhere.

    Raises:
        StitchError: some are missing.
        ResourceError: the file cannot be read.
    """
    expected = sum(record.blocks for record in ledger.records.values())
    found = sum(map(blocks_with_data, files)) if count is None else count()
    if found < expected:
        raise StitchError(f"{made} has {found:,} blocks with data, its parts have {expected:,}", hint=_HINT)
