"""The libraries of the extra `cloud`, imported when an object is named; the error names what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mosaic_async.errors import UsageError


def imported(module: str) -> Any:
    """Return a module of the extra.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"objects in a bucket require the extra `cloud` ({error})", hint="pip install 'mosaic-async[cloud]'"
        ) from error
