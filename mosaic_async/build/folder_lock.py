"""The lock of a folder: a file in it that processes of one machine lock, until they end.

On a network file system it may hold between machines, or not at all: what is written is right without it as well, since
files appear whole or not at all, and prove themselves. The lock keeps people from mistakes.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from mosaic_async.errors import WorkFolderError


def take_lock(folder: Path, *, is_shared: bool = False) -> TextIO:
    """Make a folder and lock it; closing the file lets go of it.

    Args:
        folder: which is deleted as a whole by the last one that holds its lock.
        is_shared: whether others may hold it too, who also share it.

    Raises:
        WorkFolderError: another process holds it.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "lock"
        try:
            lock = path.open("a")
        except FileNotFoundError:  # it has just been deleted by the run that it belonged to
            continue
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise WorkFolderError(f"{folder} is in use by another process", hint="wait for it to end") from error
        if _is_open_under(path, lock):
            return lock
        lock.close()


def _is_open_under(path: Path, file: TextIO) -> bool:
    """Whether the open file still has this name; the run that it belonged to may have deleted it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False
