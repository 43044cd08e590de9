"""Packages of extras, imported when a source needs them; the error names what to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mosaic_async.errors import UsageError


def required(module: str, *, extra: str, what: str) -> Any:
    """Return a module of an extra.

    Args:
        module: its full name.
        extra: the extra of this package that brings it.
        what: needs it, for the message.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{what} requires the extra `{extra}` ({error})", hint=f"pip install 'mosaic-async[{extra}]'"
        ) from error
