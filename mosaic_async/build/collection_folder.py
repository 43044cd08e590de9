"""The folder of a collection: gathered from the parts, checked, and put in its place as a whole.

It replaces no folder that holds anything else than a collection, whatever the user allows. It knows nothing of what
describes the parts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mosaic_async.errors import UsageError
from mosaic_async.raster import whole_file
from mosaic_async.raster.assembly import validate

PARTS = "parts"
"""Name of the folder of the parts and their items."""
_OURS = re.compile(
    r"(collection\.json|mosaic\.json|index\.gti\.gpkg|parts/\d+-\d+/\d+-\d+\.(tif|json))(\.aux\.xml|-journal|-wal|-shm)?"
)
"""Paths of a collection's files, and of those that GIS programs leave beside them."""


def gather(folder: Path, parts: Path, cogs: Iterable[Path]) -> None:
    """Make the folder with the COGs of all parts, under second names where the disk has these, each validated.

    Args:
        folder: what an earlier run left there is replaced.
        parts: the folder that the COGs are in, at any depth.
        cogs: the files.

    Raises:
        StitchError: one is not a valid Cloud Optimized GeoTIFF.
        OSError: the folder cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for cog in cogs:
        target = folder / PARTS / cog.relative_to(parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        validate(cog)
        try:
            os.link(cog, target)
        except OSError:  # not every file system has second names
            shutil.copyfile(cog, target)


def cogs_in(folder: Path) -> list[Path]:
    """Return the COGs of a collection, in the order of their names; it blocks."""
    return sorted((folder / PARTS).rglob("*.tif"))


def publish_folder(made: Path, output: Path, *, overwrite: bool) -> None:
    """Rename the folder to its final name, after the disk has all of it.

    Args:
        made: the folder; one that it replaces is beside it until the new one is in place.
        output: the final name.
        overwrite: whether a collection there may be replaced.

    Raises:
        UsageError: something is there that must not be replaced.
        OSError: the disk does not take it.
    """
    for path in (*made.rglob("*"), made):
        whole_file.flush(path)
    replaced = made.with_name(f"{made.name}.replaced")
    if output.exists():
        if not overwrite:
            raise UsageError(f"{output} appeared during the run", hint="move it away, or re-run with ``overwrite``")
        check_replaceable(output)
        shutil.rmtree(replaced, ignore_errors=True)
        output.rename(replaced)
    try:
        made.rename(output)
    except OSError:
        with suppress(OSError):
            replaced.rename(output)
        raise
    whole_file.flush(output.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def check_replaceable(output: Path) -> None:
    """Check that a folder holds a collection, or nothing; it blocks.

    Raises:
        UsageError: it holds anything else.
    """
    names = (path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
    foreign = next((name for name in names if not _OURS.fullmatch(name)), None)
    if foreign is not None:
        raise UsageError(
            f"{output} holds {foreign}, which is not of a collection", hint="choose another folder, or move it away"
        )
