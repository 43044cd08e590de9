"""What a disk, or a hand, can do to a file that nobody looks at."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

BLOCK = 4096
"""Bytes that a disk loses at once."""


def delete(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    """Leave half."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_a_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def append(path: Path) -> None:
    """Add what was never written."""
    with path.open("ab") as file:
        file.write(bytes(100))


def zero(path: Path) -> None:
    """Lose a block in the middle."""
    data = bytearray(path.read_bytes())
    start = max(0, len(data) // 2 - BLOCK // 2)
    data[start : start + BLOCK] = bytes(len(data[start : start + BLOCK]))
    path.write_bytes(data)


def flip_at(share: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        if data:
            data[int(share * (len(data) - 1))] ^= 0x10
        path.write_bytes(data)

    return flip


def swap(path: Path) -> None:
    """Change places with the next file that looks alike, in this folder or in one beside it."""
    alike = sorted(other for other in path.parent.parent.rglob(f"*{path.suffix}") if other.is_file())
    twin = alike[(alike.index(path) + 1) % len(alike)]
    aside = path.with_name("aside")
    path.rename(aside)
    if twin != path:
        twin.rename(path)
        aside.rename(twin)
    else:
        aside.rename(path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": delete,
    "cut in half": cut,
    "cut by a byte": cut_a_byte,
    "emptied": empty,
    "longer": append,
    "a block of zeros": zero,
    "a bit of its begin": flip_at(0.02),
    "a bit of its middle": flip_at(0.5),
    "a bit of its end": flip_at(0.97),
    "swapped with its twin": swap,
}


def files_in(folder: Path) -> list[Path]:
    """List what can be damaged, in the same order each time."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def restore(kept: Path, folder: Path) -> None:
    """Make a folder what a copy of it is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(kept, folder)
