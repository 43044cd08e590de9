"""Files that appear whole or not at all: written under another name beside the target, then renamed.

Each writer has a name of its own, so writers of one target never share a file; the last rename wins. A killed writer
leaves a file that ends in `SUFFIX`, which no reader opens. It does not know what the files hold.
"""

from __future__ import annotations

import os
import secrets
import shutil
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


def create(path: Path, data: bytes | str) -> bool:
    """Write a whole file if nothing has its name yet, and return whether it was written; of many, one does.

    This needs a second name for a file (a hard link), or else that a name can be made exclusively.

    Raises:
        OSError: the file cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    try:
        partial.write_bytes(content)
        flush(partial)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError:
            return _create_here(path, content)
    finally:
        partial.unlink(missing_ok=True)
    flush(path.parent)
    return True


def _create_here(path: Path, content: bytes) -> bool:
    """Write a file under its name at once; a reader that comes too early finds it damaged."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def copy(source: Path, target: Path) -> None:
    """Copy a file, as a second name for it where the file system has those; the copy survives a power cut.

    Raises:
        OSError: the file cannot be read or written.
    """
    with aside(target, durable=True) as partial:
        try:
            os.link(source, partial)
        except OSError:  # another file system, or one without second names
            shutil.copyfile(source, partial)


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
