"""What earlier runs read of the files of a folder, kept beside neither: an entry counts while its files are unchanged.

The file of a folder lies in the cache of the user. It is an aid and nothing more: where it is missing, damaged, of
another version or cannot be written, everything is read anew. It knows nothing of what is kept.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import rasterio

from mosaic_async.raster import whole_file

_FORMAT = 1
"""Of the entries; increased when the same file has other facts than before."""
_FRESH = 2 * 10**9
"""Nanoseconds in which a file may change twice without a trace: what changed so recently is not kept."""
WORTH = 100
"""Files from which it pays to keep anything: to read 100 takes a third of a second."""
_Stamp = list[int]


class KeptFacts:
    """The facts of files by their path."""

    def __init__(self, file: Path | None, known: Mapping[str, Any]) -> None:
        """Take what a file has; `of` reads it.

        Args:
            file: where to keep facts; None keeps none.
            known: the entries that an earlier run kept.
        """
        self._file = file
        self._known = known
        self._used: dict[str, Any] = {}
        self._started = time.time_ns()

    @classmethod
    def of(cls, folder: Path, cache: Path | None) -> Self:
        """Open what is kept of a folder; it blocks.

        Args:
            folder: the folder with the files.
            cache: folder of what this package keeps for later runs; None keeps nothing.
        """
        if cache is None:
            return cls(None, {})
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        return cls.at(cache / "facts" / f"{name}.json")

    @classmethod
    def at(cls, file: Path) -> Self:
        """Open what a file keeps, if it is there and whole; it blocks."""
        return cls(file, _read(file))

    def get(self, path: Path) -> Any:
        """Return the facts of a file; None if they are not known, or a file that they come from has changed."""
        entry = self._known.get(str(path))
        try:
            if entry is None or any(_stamp(Path(name)) != stamp for name, stamp in entry["files"].items()):
                return None
        except OSError:
            return None
        self._used[str(path)] = entry
        return entry["facts"]

    def put(self, path: Path, facts: Any, others: Sequence[Path] = ()) -> None:
        """Keep facts.

        Args:
            path: the file that they are of.
            facts: JSON types; not None.
            others: further files that they come from.
        """
        with suppress(OSError):
            stamps = {str(one): _stamp(one) for one in (path, *others)}
            if all(max(stamp[1:3]) < self._started - _FRESH for stamp in stamps.values()):
                self._used[str(path)] = {"files": stamps, "facts": facts}

    def save(self, *, least: int | None = None) -> None:
        """Write what was used, if that differs from what was there; it blocks.

        Args:
            least: entries from which that pays; None: `WORTH`.
        """
        if self._file is None or len(self._used) < (WORTH if least is None else least) or self._used == self._known:
            return
        text = json.dumps({"about": _about(), "entries": self._used})
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole_file.write(self._file, f"{_digest(text)}\n{text}")


def _read(file: Path) -> dict[str, Any]:
    """Return the entries of a file; none unless it is whole and of this version."""
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        digest, _, text = file.read_text().partition("\n")
        if digest == _digest(text):
            kept = json.loads(text)
            if kept["about"] == _about():
                entries: dict[str, Any] = kept["entries"]
                return entries
    return {}


def _about() -> list[Any]:
    """Return what decides the facts besides the files."""
    return [_FORMAT, version("mosaic-async"), rasterio.__version__, rasterio.__gdal_version__]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(path: Path) -> _Stamp:
    """Return what changes with a file: size, times of its content and of its record, and which file it is."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]
