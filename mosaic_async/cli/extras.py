"""The rooms that need an extra, imported when a command uses them; the error names what to install."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from mosaic_async.errors import UsageError
from mosaic_async.sources.extras import required

_OF_TILER = ("cogeo_mosaic", "rio_tiler", "titiler.mosaic", "uvicorn")
"""What the tiler's own processes import, and this one does not."""


def tiler() -> Any:
    """Return `mosaic_async.tiler`.

    Raises:
        UsageError: the extra `tiler` is not installed.
    """
    try:
        from mosaic_async import tiler as room  # noqa: PLC0415 - the extra may be missing

        if missing := [name for name in _OF_TILER if find_spec(name) is None]:
            raise ModuleNotFoundError(f"No module named {missing[0]!r}")
    except ImportError as error:
        raise UsageError(
            f"scenes on disk require the extra `tiler` ({error})", hint="pip install 'mosaic-async[tiler]'"
        ) from error
    return room


def vector() -> Any:
    """Return `mosaic_async.cli.vector_file`.

    Raises:
        UsageError: the extra `vector` is not installed.
    """
    try:
        from mosaic_async.cli import vector_file as module  # noqa: PLC0415 - the extra may be missing
    except ImportError as error:
        raise UsageError(
            f"areas in other files than GeoJSON require the extra `vector` ({error})",
            hint="pip install 'mosaic-async[vector]', or write the area as GeoJSON",
        ) from error
    return module


def cluster() -> Any:
    """Return `mosaic_async.cluster`.

    Raises:
        UsageError: the extra `dask` is not installed.
    """
    return required("mosaic_async.cluster", extra="dask", what="--dask")


def stac() -> Any:
    """Return `mosaic_async.stac`.

    Raises:
        UsageError: the extra `stac` is not installed.
    """
    return required("mosaic_async.stac", extra="stac", what="a search for scenes")
