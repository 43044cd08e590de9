"""One damage at a time to a COG: blocks swapped, zeroed, stale or from elsewhere; by tifffile and bytes alone."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tifffile


@dataclass(frozen=True)
class Table:
    """The block tables of one image."""

    offsets: list[int]
    counts: list[int]
    offsets_at: int
    offset_format: str
    counts_at: int
    count_format: str


def tables(path: Path) -> list[Table]:
    found = []
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            offsets, counts = page.tags[324], page.tags[325]
            found.append(
                Table(
                    list(page.dataoffsets), list(page.databytecounts), offsets.valueoffset,
                    {4: "<I", 16: "<Q"}[int(offsets.dtype)], counts.valueoffset,
                    {3: "<H", 4: "<I", 16: "<Q"}[int(counts.dtype)],
                )
            )  # fmt: skip
    return found


class Damage:
    """Damages one copy of a file; `other` is a file of the same layout with other pixels."""

    def __init__(self, path: Path, other: Path, rng: random.Random) -> None:
        self.path, self.other, self.rng = path, other, rng
        self.data = bytearray(path.read_bytes())
        self.tables = tables(path)

    def any_block(self) -> tuple[Table, int]:
        table = self.rng.choice([one for one in self.tables if any(one.counts)])
        return table, self.rng.choice([index for index, count in enumerate(table.counts) if count])

    def block(self, table: Table, index: int) -> bytes:
        return bytes(self.data[table.offsets[index] : table.offsets[index] + table.counts[index]])

    def point(self, table: Table, index: int, offset: int, count: int) -> None:
        for at, form, value in (
            (table.offsets_at, table.offset_format, offset), (table.counts_at, table.count_format, count),
        ):  # fmt: skip
            struct.pack_into(form, self.data, at + index * struct.calcsize(form), value)

    def swapped(self) -> bool:
        table, first = self.any_block()
        second = self.rng.randrange(len(table.counts))
        if self.block(table, first) == self.block(table, second):
            return False
        places = [(table.offsets[index], table.counts[index]) for index in (first, second)]
        self.point(table, first, *places[1])
        self.point(table, second, *places[0])
        return True

    def zeroed(self) -> bool:
        table, index = self.any_block()
        start, count = table.offsets[index], table.counts[index]
        was = self.block(table, index)
        self.data[start : start + count] = bytes(count)
        return any(was)

    def left_out(self) -> bool:
        self.point(*self.any_block(), 0, 0)
        return True

    def flipped(self) -> bool:
        table, index = self.any_block()
        place = table.offsets[index] + self.rng.randrange(table.counts[index])
        self.data[place] ^= 1 << self.rng.randrange(8)
        return True

    def from_elsewhere(self) -> bool:
        """A block of the same image of another output."""
        table, index = self.any_block()
        number = self.tables.index(table)
        return self._replace(table, index, number)

    def stale(self) -> bool:
        """A whole level of another output."""
        number = self.rng.randrange(len(self.tables))
        table = self.tables[number]
        changed = [self._replace(table, index, number) for index in range(len(table.counts))]
        return any(changed)

    def repeated(self) -> bool:
        """A block in the place of its neighbour."""
        table, index = self.any_block()
        source = (index + 1) % len(table.counts)
        if self.block(table, index) == self.block(table, source):
            return False
        self.point(table, index, table.offsets[source], table.counts[source])
        return True

    def cut(self) -> bool:
        del self.data[-self.rng.randrange(1, 2000) :]
        return True

    def _replace(self, table: Table, index: int, number: int) -> bool:
        there = tables(self.other)[number]
        with self.other.open("rb") as file:
            file.seek(there.offsets[index])
            block = file.read(there.counts[index])
        if block == self.block(table, index):
            return False
        self.point(table, index, len(self.data) if block else 0, len(block))
        self.data += block
        return True


KINDS: dict[str, Callable[[Damage], bool]] = {
    "swapped": Damage.swapped,
    "zeroed": Damage.zeroed,
    "left out": Damage.left_out,
    "flipped": Damage.flipped,
    "from elsewhere": Damage.from_elsewhere,
    "stale": Damage.stale,
    "repeated": Damage.repeated,
    "cut": Damage.cut,
}


def damaged(path: Path, other: Path, kind: str, seed: int, target: Path) -> bool:
    """Write a damaged copy; False if the draw changes nothing."""
    damage = Damage(path, other, random.Random(f"{kind} {seed}"))
    has_changed = KINDS[kind](damage)
    target.write_bytes(damage.data)
    return has_changed


def without_digest(path: Path, target: Path) -> Path:
    """Copy a file as if it had been written before digests were recorded."""
    data = path.read_bytes()
    at = data.index(b"MOSAIC_DIGEST")
    target.write_bytes(data[:at] + b"mosaic_digest" + data[at + 13 :])
    return target
