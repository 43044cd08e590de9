"""The journal of a stitch: which parts the unfinished output holds, and the checksum of what was copied for each.

One line of JSON per fact, appended and flushed after the disk holds what it says. A line that is torn or damaged is
dropped, and a wrong line proves nothing, because the checksums are compared with the output.
It does not know the TIFF format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mosaic_async.raster import whole_file
from mosaic_async.safe_json import parse

SUFFIX = ".journal"

Place = tuple[int, int]
"""(row, column) of a part in the grid of parts."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What is known of one unfinished output; the file lies beside it."""

    path: Path
    label: str
    """The job's; an output of another job is not adopted."""
    head: str
    """SHA-256 of the output's head, in hexadecimal: the layout of all blocks."""
    head_size: int
    """Bytes."""
    empties: tuple[int, ...]
    """Offsets of the empty blocks, which the parts share."""
    parts: dict[Place, int] = field(default_factory=dict)
    """CRC-32 of the bytes copied from each part that the output holds. It costs a third of SHA-256."""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a journal; None if it is missing or its first line is damaged.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            first, *lines = path.read_bytes().splitlines()
            journal = cls(path=path, **_checked(parse(first)))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        for line in lines:
            journal.parts.update(_part_in(line))
        return journal

    def begin(self) -> None:
        """Write a journal without parts.

        Raises:
            OSError: the file cannot be written.
        """
        first = {"label": self.label, "head": self.head, "head_size": self.head_size, "empties": self.empties}
        whole_file.write(self.path, json.dumps(first), durable=True)

    def add(self, parts: Mapping[Place, int]) -> None:
        """Append parts, with their checksums, after the disk holds their blocks.

        Raises:
            OSError: the file cannot be written.
        """
        # The line break comes first, so that what a torn line left cannot damage the next one.
        lines = "".join(f"\n{json.dumps({'part': place, 'crc32': checksum})}" for place, checksum in parts.items())
        with self.path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())
        self.parts.update(parts)


def _checked(first: Any) -> dict[str, Any]:
    """Return the fields of a first line.

    Raises:
        ValueError: a value has another type.
        TypeError: the line is not an object, or lacks a value that is iterated.
        KeyError: a field is missing.
    """
    fields = {name: first[name] for name in ("label", "head", "head_size", "empties")}
    if type(fields["head_size"]) is not int or not 0 <= fields["head_size"] < 2**40:
        raise ValueError("head_size")
    fields["empties"] = tuple(int(offset) for offset in fields["empties"])
    return fields


def _part_in(line: bytes) -> dict[Place, int]:
    """Return the part that a line names; nothing if the line is damaged."""
    try:
        fields = parse(line)
        row, column = fields["part"]
        return {(int(row), int(column)): int(fields["crc32"])}
    except (ValueError, TypeError, KeyError):
        return {}
