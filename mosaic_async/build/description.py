"""Files that describe an output: inside a collection, or beside a file, where they follow the output into its place.

It knows nothing of what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

from mosaic_async.events import MosaicReport
from mosaic_async.geo.grid import Grid
from mosaic_async.raster import whole_file
from mosaic_async.sources.extras import required

Describe = Callable[[Path, Grid, MosaicReport], Iterator[tuple[str, bytes]]]
"""Yields name and content of each file, from an output under its working name; it blocks."""

_BESIDE = "beside"
"""The folder of what is not in its place yet, in the work folder."""


def description_of(*, is_collection: bool, has_item: bool) -> Describe | None:
    """Return what describes an output, from the room of the extra `stac`; None if nothing is requested.

    Raises:
        UsageError: the extra is not installed.
    """
    if is_collection:
        module = required("mosaic_async.stac.collection", extra="stac", what="a collection")
        return cast("Describe", module.describe_collection)
    if has_item:
        module = required("mosaic_async.stac.item", extra="stac", what="a STAC Item")
        return cast("Describe", module.describe_file)
    return None


def describe_inside(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the files into the folder of a collection; it blocks.

    Raises:
        OSError: one cannot be written.
    """
    for name, content in files:
        whole_file.write(folder / name, content)


def describe_beside(work: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Keep the files in the work folder until the output is in its place; it blocks.

    Raises:
        OSError: one cannot be written.
    """
    (work / _BESIDE).mkdir(exist_ok=True)
    for name, content in files:
        whole_file.write(work / _BESIDE / name, content, durable=True)


def place_beside(work: Path, output: Path) -> None:
    """Move what is kept for the output to its folder, also after a killed run; it blocks.

    Raises:
        OSError: a file cannot be moved.
    """
    for path in (work / _BESIDE).glob("*"):
        path.replace(output.with_name(path.name))
