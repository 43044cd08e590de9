"""Bytes inserted at the start of a file without moving the others: `fallocate` does it on ext4 and XFS.

Elsewhere the caller copies. It does not know what the files hold.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from contextlib import suppress
from pathlib import Path

STEP = 4096
"""Bytes: only multiples of a file system's block can be inserted, and this is nearly everyone's."""
_INSERT_RANGE = 0x20


def insert_at_start(file: int, size: int) -> None:
    """Insert a multiple of `STEP` zeros at the start of an open file.

    Raises:
        OSError: the file system cannot.
    """
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError) as error:  # another system than Linux
        raise OSError("bytes cannot be inserted here") from error
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    if fallocate(file, _INSERT_RANGE, 0, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def can_insert(folder: Path) -> bool:
    """Return whether the file system of a folder can insert bytes; this tries it on a file without a name."""
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(STEP))
        file.flush()
        insert_at_start(file.fileno(), STEP)
        return os.fstat(file.fileno()).st_size == 2 * STEP
    return False
