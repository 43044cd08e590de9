"""The journal of an unfinished output: which parts it holds, where, and the digest that proves each.

One line of JSON per fact, appended and flushed after the disk holds what it says. A line that is torn or damaged is
dropped, and a wrong line proves nothing, because the digests are compared with the output.
It does not know the TIFF format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from mosaic_async.raster import whole_file
from mosaic_async.safety.safe_json import parse

SUFFIX = ".journal"

Place = tuple[int, int]
"""(row, column) of a part in the grid of parts."""


@dataclass(frozen=True)
class Entry:
    """What the output holds of a part."""

    start: int
    """Bytes from the start of the first part."""
    blocks: str
    """The blocks, packed."""
    proof: str
    """A digest of all this and of the bytes."""


@dataclass(kw_only=True)
class Journal:
    """What is known of one unfinished output; the file lies beside it."""

    path: Path
    label: str
    """The job's; an output of another job is not adopted."""
    layout: str
    """A name for how the output is divided into parts."""
    model: str
    """A name for how these are encoded."""
    base: int
    """Bytes that were kept free for the front when the output was begun."""
    parts: dict[Place, Entry | None] = field(default_factory=dict)
    """In the order of the output; None for an entry that is on the disk and was proved, which nobody needs again."""
    front: int | None = None
    """Bytes that are about to be, or have been, inserted before the first part."""

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
            journal._take(line)
        return journal

    def begin(self) -> None:
        """Write a journal without parts.

        Raises:
            OSError: the file cannot be written.
        """
        self.parts, self.front = {}, None
        first = {"label": self.label, "layout": self.layout, "model": self.model, "base": self.base}
        whole_file.write(self.path, json.dumps(first), durable=True)

    def add(self, parts: Mapping[Place, Entry]) -> None:
        """Append parts, after the disk holds their blocks.

        Raises:
            OSError: the file cannot be written.
        """
        self._append({"part": place, **vars(entry)} for place, entry in parts.items())
        self.parts.update(dict.fromkeys(parts))

    def forget(self) -> None:
        """Free the entries, which a country has 100 MB of; the places stay."""
        self.parts = dict.fromkeys(self.parts)

    def drop(self, place: Place) -> None:
        """Note that the blocks of a part are no longer those of the output.

        Raises:
            OSError: the file cannot be written.
        """
        self._append([{"dropped": place}])
        self.parts.pop(place, None)

    def announce_front(self, size: int) -> None:
        """Note that bytes are about to be inserted before the first part.

        Raises:
            OSError: the file cannot be written.
        """
        self._append([{"front": size}])
        self.front = size

    def _append(self, facts: Iterable[Mapping[str, Any]]) -> None:
        # The line break comes first, so that what a torn line left cannot damage the next one.
        lines = "".join(f"\n{json.dumps(fact)}" for fact in facts)
        with self.path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def _take(self, line: bytes) -> None:
        """Take over what a line says; nothing if it is damaged."""
        try:
            fact = parse(line)
            if "front" in fact:
                self.front = _size(fact["front"])
            elif "dropped" in fact:
                self.parts.pop(_place(fact["dropped"]), None)
            else:
                entry = Entry(_size(fact["start"]), str(fact["blocks"]), str(fact["proof"]))
                self.parts[_place(fact["part"])] = entry
        except (ValueError, TypeError, KeyError):
            pass


def _checked(first: Any) -> dict[str, Any]:
    """Return the fields of a first line.

    Raises:
        ValueError: a value has another type.
        TypeError: the line is not an object.
        KeyError: a field is missing.
    """
    names = {name: str(first[name]) for name in ("label", "layout", "model")}
    return {**names, "base": _size(first["base"])}


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**50:
        raise ValueError(value)
    return value


def _place(value: Any) -> Place:
    row, column = value
    return int(row), int(column)
