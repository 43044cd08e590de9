"""How the command line reads its arguments, bounds, sizes, pairs, and writes small files.

It knows nothing of what they are for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import click

from mosaic_async.errors import ResourceError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_BOUNDS_OPTIONS = ("--bounds", "--bbox")


class BoundsCommand(click.Command):
    """A command whose `--bounds` takes four numbers with spaces or commas between them, negative ones too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split `--bounds=-5,47,-1,49`, `--bounds -5,47,-1,49` and `--bounds -5, 47, -1, 49` into four numbers."""
        spread: list[str] = []
        wanted = 0
        for arg in args:
            name, _, value = arg.partition("=")
            if name in _BOUNDS_OPTIONS:
                found = split_list(value)
                spread += [name, *found]
                wanted = 4 - len(found)
            elif wanted > 0:
                found = split_list(arg)
                spread += found
                wanted -= len(found)
            else:
                spread.append(arg)
        return super().parse_args(ctx, spread)


def split_list(value: str) -> list[str]:
    """Split at commas and blanks."""
    return [part for part in re.split(r"[,\s]+", value) if part]


def size(value: str) -> int:
    """Read bytes, with or without a unit: 800MB, 1GiB, 1073741824."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?i?)b?", value.strip().lower())
    if not match or match[2] not in _UNITS:
        raise click.BadParameter(f"{value!r} is no size, write 800MB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def pair(separator: str) -> Callable[[str], tuple[str, str]]:
    """Make a reader of NAME and VALUE with a separator between them."""

    def read(value: str) -> tuple[str, str]:
        name, found, content = value.partition(separator)
        if not found or not name.strip():
            raise click.BadParameter(f"{value!r} is not of the form NAME{separator}VALUE")
        return name.strip(), content.strip()

    return read


def numbers(value: str) -> tuple[float, float]:
    """Read LOW,HIGH."""
    try:
        low, high = (float(number) for number in split_list(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not two numbers LOW,HIGH") from error
    return low, high


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        ResourceError: what the disk says.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        aside.write_text(text)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ResourceError(f"{path} cannot be written: {error.strerror}") from error
