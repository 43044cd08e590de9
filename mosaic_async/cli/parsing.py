"""How the command line reads its arguments, bounds, sizes, pairs, and writes small files.

It knows nothing of what they are for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import click

from mosaic_async.errors import ResourceError
from mosaic_async.raster import whole_file

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
HEADERS_VARIABLE = "MOSAIC_ASYNC_HEADERS"
PARAMS_VARIABLE = "MOSAIC_ASYNC_PARAMS"
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
            # The value is not repeated: it may well be a secret with its name forgotten.
            raise click.BadParameter(f"not of the form NAME{separator}VALUE")
        return name.strip(), content.strip()

    return read


def pairs_in_file(separator: str) -> Callable[[str], list[tuple[str, str]]]:
    """Make a reader of a file with NAME and VALUE on each line; so secrets stay out of the list of processes."""

    def read(path: str) -> list[tuple[str, str]]:
        try:
            return _pairs(Path(path).read_text(encoding="utf-8"), separator, path)
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{path} cannot be read: {type(error).__name__}") from error

    return read


def pairs_in_environment(variable: str, separator: str) -> list[tuple[str, str]]:
    """Read NAME and VALUE, a pair a line, from a variable of the environment; without it there are none."""
    return _pairs(os.environ.get(variable, ""), separator, f"${variable}")


def _pairs(text: str, separator: str, place: str) -> list[tuple[str, str]]:
    """Read a pair a line; a line that is none is not repeated in the message, it may hold a secret."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        name, there, value = line.partition(separator)
        if there and name.strip():
            found.append((name.strip(), value.strip()))
        elif line.strip():
            raise click.BadParameter(f"line {number} of {place} is not of the form NAME{separator}VALUE")
    return found


def concurrency(value: str) -> int | Literal["auto"]:
    """Read a number above 0, or auto."""
    if value == "auto":
        return "auto"
    if not value.isdecimal() or not int(value):
        raise click.BadParameter(f"{value!r} is neither a number above 0 nor auto")
    return int(value)


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
    try:
        whole_file.write(path, text)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}") from error
