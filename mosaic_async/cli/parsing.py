"""How the command line reads bounds, sizes, pairs and JSON, and writes small files.

It knows nothing of what they are for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import click

from mosaic_async.errors import ResourceError, UsageError
from mosaic_async.raster import whole_file
from mosaic_async.safety.safe_json import parse

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
HEADERS_VARIABLE = "MOSAIC_ASYNC_HEADERS"
PARAMS_VARIABLE = "MOSAIC_ASYNC_PARAMS"
SECRETS_VARIABLE = "MOSAIC_ASYNC_SECRETS"
SHARD_VARIABLE = "MOSAIC_ASYNC_SHARD"
_BOUNDS_OPTIONS = ("--bounds", "--bbox")


class BoundsCommand(click.Command):
    """A command whose `--bounds` takes four numbers separated by spaces or commas; they may be negative."""

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
    """Split a text at commas and blanks."""
    return [part for part in re.split(r"[,\s]+", value) if part]


def size(value: str) -> int:
    """Return a number of bytes from a text such as 800MB, 1GiB or 1073741824."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?i?)b?", value.strip().lower())
    if not match or match[2] not in _UNITS:
        raise click.BadParameter(f"{value!r} is not a size, write 800MB or 1GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def pair(separator: str) -> Callable[[str], tuple[str, str]]:
    """Return a reader of NAME and VALUE with a separator between them."""

    def read(value: str) -> tuple[str, str]:
        name, found, content = value.partition(separator)
        if not found or not name.strip():
            # The message does not repeat the value: it may be a secret without its name.
            raise click.BadParameter(f"not of the form NAME{separator}VALUE")
        return name.strip(), content.strip()

    return read


def pairs_in_file(separator: str) -> Callable[[str], list[tuple[str, str]]]:
    """Return a reader of a file with NAME and VALUE on each line, which keeps secrets out of the process list."""

    def read(path: str) -> list[tuple[str, str]]:
        try:
            return _pairs(Path(path).read_text(encoding="utf-8"), separator, path)
        except (OSError, UnicodeDecodeError) as error:
            raise click.BadParameter(f"{path} cannot be read: {type(error).__name__}") from error

    return read


def pairs_of(options: dict[str, Any], name: str, variable: str, separator: str) -> dict[str, str]:
    """Take an option and its files out of the options, and merge them with an environment variable; the last one wins.

    Args:
        options: by name; `{name}s` has pairs, and `{name}_files` lists of them.
        name: of the option.
        variable: of the environment, with one pair per line.
        separator: between name and value there.
    """
    first = _pairs(os.environ.get(variable, ""), separator, f"${variable}")
    in_files = [pair for file in options.pop(f"{name}_files") for pair in file]
    return dict([*first, *in_files, *options.pop(f"{name}s")])


def _pairs(text: str, separator: str, place: str) -> list[tuple[str, str]]:
    """Return one pair per line; the message does not repeat a bad line, since it may hold a secret."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        name, there, value = line.partition(separator)
        if there and name.strip():
            found.append((name.strip(), value.strip()))
        elif line.strip():
            raise click.BadParameter(f"line {number} of {place} is not of the form NAME{separator}VALUE")
    return found


def concurrency(value: str) -> int | Literal["auto"]:
    """Return a number above 0, or auto."""
    if value == "auto":
        return "auto"
    if not value.isdecimal() or not int(value):
        raise click.BadParameter(f"{value!r} is neither a number above 0 nor auto")
    return int(value)


def numbers(value: str) -> tuple[float, float]:
    """Return the numbers LOW and HIGH."""
    try:
        low, high = (float(number) for number in split_list(value))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not two numbers LOW,HIGH") from error
    return low, high


def json_object(file: IO[str]) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UsageError: the file holds anything else.
    """
    try:
        found = parse(file.read())
    except ValueError as error:
        raise UsageError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file.name} is not a JSON object")
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        ResourceError: the file cannot be written.
    """
    try:
        whole_file.write(path, text)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}") from error
