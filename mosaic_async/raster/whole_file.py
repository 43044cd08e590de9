"""Files that appear whole or not at all: written under another name beside the target, then renamed.

Each writer has a name of its own, so writers of one target never share a file; the last rename wins. A killed writer
leaves a file that ends in `SUFFIX`, which no reader opens. It does not know what the files hold.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".partial"
"""What the name of a file ends with until it is whole."""


@contextmanager
def aside(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield the name to write under; rename it to `path` at the end of the block, or delete it after an error.

    Args:
        path: the target, which is replaced.
        durable: whether the file and its name also survive a power cut; this waits for the disk.

    Raises:
        OSError: the file cannot be flushed or renamed.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    try:
        yield partial
        if durable:
            flush(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        flush(path.parent)


def write(path: Path, data: bytes | str, *, durable: bool = False) -> None:
    """Write bytes, or text in UTF-8, as a whole file.

    Raises:
        OSError: the file cannot be written.
    """
    with aside(path, durable=durable) as partial:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)


def flush(path: Path) -> None:
    """Wait until the disk holds what a file, or a folder, says.

    Raises:
        OSError: the disk does not take it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
