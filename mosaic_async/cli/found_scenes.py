"""SOURCE as a search: the scenes that it finds, kept on this machine for the length of a block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.parsing import json_object
from mosaic_async.cli.search_options import OF_TILERS, searched
from mosaic_async.errors import UsageError
from mosaic_async.raster import whole_file


@contextmanager
def found(source: str, given: JobArguments) -> Iterator[str | Path]:
    """Yield the MosaicJSON of a search whose scenes are found with --api or --items; any other source unchanged.

    Raises:
        UsageError: options of a search are set without --api and --items, or the source is not a search.
        SourceError: the scenes cannot be read, or none matches.
    """
    if given.tiler or not {"api", "items"} & given.search.keys():
        _check_unused(given)
        yield source
        return
    search = _read(source)
    with TemporaryDirectory(prefix="mosaic-async-search-") as name:
        folder = Path(name)
        options = {"headers": given.access["headers"], "max_bad_scenes": given.max_bad_scenes}
        created = searched(search, {**given.search, **options, "keep_items": folder / "items"})
        whole_file.write(folder / "mosaic.json", json.dumps(created.document))
        yield folder / "mosaic.json"


def _read(source: str) -> dict[str, Any]:
    try:
        with click.open_file(source) as file:
            return json_object(file)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}", hint="SOURCE is the file of a search") from error


def _check_unused(given: JobArguments) -> None:
    unused = [name for name in given.search if not (given.tiler and name in OF_TILERS)]
    if unused:
        flags = ", ".join(
            "--" + name.replace("_", "-").removesuffix("s" if name == "collections" else "") for name in unused
        )
        hint = "a tiler of --tiler searches by itself" if given.tiler else "set --api or --items, where to search"
        raise UsageError(f"{flags} cannot be used with this source", hint=hint)
