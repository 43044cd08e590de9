"""JSON that others wrote: whatever is wrong with it is a ValueError, and what is packed has an end.

It knows nothing of what the documents mean.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

_MAX_UNPACKED = 2**30
"""Bytes: a MosaicJSON of a continent has 60 MB, and a bomb of 1 MB a GB."""


def parse(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none, or is nested so deeply that Python gives up.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read(path: Path) -> Any:
    """Read a file of JSON, gzipped if its name ends so; it blocks.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or not packed as its name says, or has more than 1 GiB.
    """
    return parse(read_text(path))


def read_text(path: Path) -> str:
    """Read a file of text, gzipped if its name ends so; it blocks.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or not packed as its name says, or has more than 1 GiB.
    """
    if path.suffix != ".gz":
        return path.read_bytes().decode()
    try:
        with gzip.open(path) as file:
            data = file.read(_MAX_UNPACKED + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"it is not gzipped as its name says: {error}") from error
    if len(data) > _MAX_UNPACKED:
        raise ValueError(f"it has more than {_MAX_UNPACKED:,} bytes unpacked")
    return data.decode()
