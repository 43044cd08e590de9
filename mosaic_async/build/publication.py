"""What tells, after a kill, that the output is in its place already: a record beside it until the work folder is gone.

It is written before the output gets its name, and it names the very file; it is the last that is deleted. So between
these two moments the same command finds the output, and ends what the killed one began.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mosaic_async.build.proof import NotProvenError, Proof, Record, read_record
from mosaic_async.raster import whole_file

_WHAT = "publication"


def publication_path(folder: Path) -> Path:
    """Name the record that lies beside a work folder."""
    return folder.with_name(folder.name + ".done")


def announce(folder: Path, made: Path, proof: Proof, report: dict[str, Any]) -> None:
    """Record that a file is about to become the output; it blocks.

    Args:
        folder: the work folder.
        made: the file, whole.
        proof: of the job.
        report: of the run, as JSON types.
    """
    content = {"file": _identity(made), "report": report}
    inside = folder / "publication.json"  # half of it is left in the folder and not beside the output
    whole_file.write(inside, proof.seal(_WHAT, content), durable=True)
    inside.replace(publication_path(folder))
    whole_file.flush(folder.parent)


def find(folder: Path, output: Path) -> Record | None:
    """Return the record if the output is the file that it announces; delete one that announces another; it blocks."""
    path = publication_path(folder)
    try:
        record = read_record(path)
        if record.what == _WHAT and record.content["file"] == _identity(output):
            return record
    except (FileNotFoundError, NotProvenError):
        pass
    path.unlink(missing_ok=True)
    return None


def _identity(path: Path) -> list[int]:
    """Return what no other file has, nor this one before a change: inode, size, and time of the last change."""
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]
