"""Whether this machine has room for a run, checked before it starts; and the words for when it has not.

It knows nothing of what is written.
"""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

from mosaic_async.build.budget import OPEN_PARTS
from mosaic_async.errors import ResourceError
from mosaic_async.geo.grid import Grid
from mosaic_async.raster.encoding import Encoding

_MARGIN = 1.1
_STITCHING = 1.35
"""Times the output: a part is deleted only when the disk holds its blocks in the output."""
_SPARE_FILES = 40
"""Files beside connections: the work folder, GDAL with PROJ's database, the loop."""


def bytes_needed(grid: Grid, encoding: Encoding, *, encoded: int, body: int) -> int:
    """Estimate the most bytes that a run has on the disk.

    Args:
        grid: the output.
        encoding: how it is stored.
        encoded: bytes of the output, estimated.
        body: bytes of one tile's body.
    """
    tiles_per_side = grid.part_size // grid.tile_size + 1
    bodies = min(grid.cover.count, OPEN_PARTS * tiles_per_side**2) * body
    if grid.is_single:
        return int(_MARGIN * (encoded + bodies))
    smaller = 4**grid.part_levels
    tops = grid.width * grid.height * encoding.pixel_bytes / smaller
    upper = encoded / 4 / smaller + tops / 3  # the levels above the parts, and what these are made from
    stitching = _STITCHING * encoded + upper
    return int(_MARGIN * (tops + max(encoded + bodies, stitching)))


def scratch_bytes(grid: Grid, needed: int) -> int:
    """Return what of the bytes stays on the disk where finished parts go to a bucket: a few parts, and all tops."""
    parts = min(grid.part_count, OPEN_PARTS + 2)
    return needed * parts // grid.part_count + (8 * needed >> 2 * grid.part_levels)


def check_files(connections: int) -> None:
    """Check that the process may open its connections and files; otherwise any of its libraries may fail.

    Raises:
        ResourceError: it may not.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < connections + _SPARE_FILES:
        raise ResourceError(
            f"the process may open {allowed} files; {connections + _SPARE_FILES} are needed",
            hint="lower ``concurrency``, or raise the limit with `ulimit -n`",
        )


def check_room(folder: Path, needed: int) -> None:
    """Check that the disk has room for what a run still writes; it blocks.

    Args:
        folder: where it writes; what is already there counts as written, unless it has another name beside the folder,
            as an output with holes has, which stays until the next one is made.
        needed: bytes in all.

    Raises:
        ResourceError: the disk has less.
    """
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    there = sum(file.st_size for file in files if file.st_nlink == 1)
    free = shutil.disk_usage(folder).free
    if free + there < needed:
        raise ResourceError(
            f"the disk of {folder.parent} has {size_text(free)} free, about {size_text(needed - there)} are needed",
            hint="make room, choose another folder, or, if the tile in the centre is not typical, "
            "leave the check out with ``check_disk=False``",
        )


def room_hint(folder: Path, needed: int | None) -> str:
    """Return a hint that says how much room is needed, after writing has failed."""
    if needed is None:
        return "free some disk space and re-run the same command"
    free = shutil.disk_usage(folder).free
    return f"about {size_text(needed)} are needed in all, {size_text(free)} are free; free some more and re-run"


def size_text(nbytes: float) -> str:
    """Return bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(nbytes) < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:,.1f} TB"
