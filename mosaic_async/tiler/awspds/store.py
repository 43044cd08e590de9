"""Mosaics that clients create: files that the processes of one tiler share.

A mosaic appears whole: it is written to a temporary name, then renamed. It knows nothing of HTTP.
"""

from __future__ import annotations

import gzip
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from mosaic_async.errors import UsageError
from mosaic_async.raster import whole_file

_ID = re.compile(r"[0-9a-f]{56}")
_KEPT = 64
_MAX_MOSAICS = 1_000
"""Maximum mosaics in a folder, which lies on the disk while the server runs."""


class MosaicStore:
    """MosaicJSONs in a folder, by id."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which the first `put` creates."""
        self._folder = folder
        self._load = lru_cache(maxsize=_KEPT)(self._read)

    def put(self, name: str, document: dict[str, Any]) -> None:
        """Save a mosaic; it replaces one of the same name.

        Raises:
            UsageError: the folder is full.
        """
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if sum(1 for _ in path.parent.iterdir()) >= _MAX_MOSAICS:
            raise UsageError(f"{_MAX_MOSAICS:,} mosaics exist already: the limit of this server")
        whole_file.write(path, gzip.compress(json.dumps(document).encode(), 1))

    def get(self, name: str) -> dict[str, Any]:
        """Return a mosaic.

        Raises:
            KeyError: a mosaic of that name does not exist.
        """
        return self._load(name)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads(gzip.decompress(self._path(name).read_bytes()))
        except FileNotFoundError as error:
            raise KeyError(name) from error
        return document

    def _path(self, name: str) -> Path:
        if not _ID.fullmatch(name):
            raise KeyError(name)
        return self._folder / f"{name}.json.gz"
