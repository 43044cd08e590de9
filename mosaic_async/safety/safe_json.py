"""JSON from strangers: every fault in it is a ValueError, and its unpacked size has a limit.

It knows nothing of what the documents mean.
"""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

_TEXT = "utf-8-sig"
"""UTF-8; some editors begin a file with a mark of the byte order."""
_MAX_UNPACKED = 2**30
"""Bytes: a MosaicJSON of a continent has 60 MB, and a bomb of 1 MB unpacks to 1 GB."""


def parse(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply for Python.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def read(path: Path) -> Any:
    """Read a JSON file, gzipped if its name ends in .gz; blocks.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not JSON, not gzipped although named .gz, or larger than 1 GiB.
    """
    return parse(read_text(path))


def read_text(path: Path) -> str:
    """Read a text file, gzipped if its name ends in .gz; blocks.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8, not gzipped although named .gz, or larger than 1 GiB.
    """
    if path.suffix != ".gz":
        return path.read_bytes().decode(_TEXT)
    try:
        with gzip.open(path) as file:
            data = file.read(_MAX_UNPACKED + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"the file is named .gz but is not gzipped: {error}") from error
    if len(data) > _MAX_UNPACKED:
        raise ValueError(f"the file has more than {_MAX_UNPACKED:,} bytes unpacked")
    return data.decode(_TEXT)
