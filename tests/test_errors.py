"""Hints: what the library calls a parameter, and what the command line calls it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mosaic_async
import mosaic_async.stac
import mosaic_async.tiler
from mosaic_async.errors import MosaicError, UsageError

ROOT = Path(mosaic_async.__file__).parent
MARKED = re.compile(r"``([^`]*)``")
ONCE = re.compile(r"(?<!`)`(\w+)`(?!`)")


def parameters() -> set[str]:
    """Every parameter of every public function and class."""
    public = [getattr(module, name) for module in (mosaic_async, mosaic_async.stac, mosaic_async.tiler)
              for name in module.__all__]  # fmt: skip
    return {name for made in public if callable(made) for name in inspect.signature(made).parameters}


def hints() -> Iterator[tuple[str, str]]:
    """Where each hint stands and its text; what is filled in later reads `{}`."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                yield f"{path.relative_to(ROOT)}:{node.value.lineno}", text_of(node.value)


def text_of(node: ast.expr) -> str:
    pieces = [piece for piece in ast.walk(node) if isinstance(piece, ast.JoinedStr | ast.Constant)]
    joined = [piece for piece in pieces if isinstance(piece, ast.JoinedStr)]
    inside = {id(part) for whole in joined for part in whole.values}
    written = ["".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in whole.values)
               for whole in joined]  # fmt: skip
    written += [str(piece.value) for piece in pieces if isinstance(piece, ast.Constant) and id(piece) not in inside]
    return " ".join(written)


def test_every_name_that_a_hint_marks_is_a_parameter_of_a_public_function():
    marked = {(place, name) for place, text in hints() for name in MARKED.findall(text)}
    assert len(marked) > 30
    known = parameters()
    assert [(place, name) for place, name in sorted(marked) if name != "{}" and name.split("=")[0] not in known] == []


def test_a_hint_never_forgets_to_mark_a_parameter():
    known = parameters() - {"tiles"}  # a member of a TileJSON
    of_the_library = [(place, text) for place, text in hints() if not place.startswith(("tiler/awspds", "tiler/edge"))]
    assert [(place, name) for place, text in of_the_library for name in ONCE.findall(text) if name in known] == []


@pytest.mark.parametrize(
    ("hint", "library", "command_line"),
    [
        ("raise ``max_tiles``", "raise `max_tiles`", "raise --max-tiles"),
        ("drop it with ``resume=False``", "drop it with `resume=False`", "drop it with --fresh"),
        ("check the URL", "check the URL", "check the URL"),
        ("a JSON object whose `tiles` lists URL templates",) * 3,
        ("lower ``padding``", "lower `padding`", "lower `padding`"),
        ("set ``a`` or ``b=1``, not `c`", "set `a` or `b=1`, not `c`", "set -a or -b, not `c`"),
    ],
)  # fmt: skip
def test_a_hint_names_parameters_as_its_reader_knows_them(hint, library, command_line):
    flags = {"max_tiles": "--max-tiles", "resume=False": "--fresh", "tiles": "--tiles", "a": "-a", "b=1": "-b"}
    error = UsageError("too many", hint=hint)
    assert error.hint == library
    assert str(error) == f"too many ({library})"
    assert error.hint_in(flags) == command_line


def test_without_a_hint_the_message_stands_alone():
    error = MosaicError("too many")
    assert (error.hint, error.hint_in({"a": "-a"}), str(error)) == (None, None, "too many")
