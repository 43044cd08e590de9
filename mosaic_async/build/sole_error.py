"""The one error that leaves a run: ours before others, the disk's in our words, and never a group."""

from __future__ import annotations

import errno
from pathlib import Path

from mosaic_async.build.layout import TooWideError
from mosaic_async.build.preflight import room_hint
from mosaic_async.errors import MosaicError, ResourceError


def sole_error(error: BaseException, output: Path, needed: int | None) -> BaseException:
    """Return the one error that ended a run.

    Args:
        error: what came out of the run.
        output: the file that it makes.
        needed: bytes that it needs, estimated; None when not known.
    """
    leaves: list[BaseException] = []
    pending = [error]
    while pending:
        first = pending.pop(0)
        if isinstance(first, BaseExceptionGroup):
            pending += first.exceptions
        else:
            leaves.append(first)
    leaf = next((leaf for leaf in leaves if isinstance(leaf, MosaicError)), leaves[0])
    if isinstance(leaf, ResourceError) and not isinstance(leaf, TooWideError) and needed is not None:
        return ResourceError(leaf.message, hint=room_hint(output.parent, needed))
    if not isinstance(leaf, OSError):
        return leaf
    is_full = leaf.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    hint = room_hint(output.parent, needed) if is_full else "check the permissions of the folder"
    return ResourceError(f"{leaf.filename or output}: {leaf.strerror or leaf}", hint=hint)
