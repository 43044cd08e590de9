"""How large, wide and open the code may be, so that a reader can hold each piece in mind: measured on its syntax trees.

What ruff holds already (complexity, private members of other objects) is not repeated here, but for names that one
module imports from another.
"""

from __future__ import annotations

import ast
import inspect
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import mosaic_async
from mosaic_async import stac, tiler
from mosaic_async.cli.main import main

ROOT = Path(mosaic_async.__file__).parent
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
MAX_LINES = 400
MAX_FUNCTION_LINES = 26
"""Of 95 functions in 100."""
MAX_PARAMETERS = 8
MAX_SUPPRESSIONS = 22
"""`noqa` and `type: ignore`: lower it when one goes, find another way before one comes."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}:{node.name}", node


def parameters(function: Function) -> list[ast.arg]:
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [each for each in every if each is not None and each.arg not in ("self", "cls")]


def public_names() -> set[str]:
    """Name the functions that users call: those of the public packages, their methods, and the commands."""
    found = {command.callback.__name__ for command in main.commands.values() if isinstance(command, click.Command)}
    for package in (mosaic_async, stac, tiler):
        found |= {name for name in package.__all__ if inspect.isfunction(getattr(package, name))}
    return found


def test_no_module_is_longer_than_four_hundred_lines():
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in TREES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_95_functions_in_100_fit_on_half_a_screen():
    lengths = [function.end_lineno - function.lineno + 1 for _, function in functions()]
    assert statistics.quantiles(lengths, n=20, method="inclusive")[-1] <= MAX_FUNCTION_LINES


def test_every_function_is_annotated():
    bare = [
        name
        for name, function in functions()
        if function.returns is None or any(each.annotation is None for each in parameters(function))
    ]
    assert bare == []


def test_only_public_functions_and_commands_take_more_than_eight_parameters():
    wide = {name for name, function in functions() if len(parameters(function)) > MAX_PARAMETERS}
    public = public_names()
    assert {name for name in wide if name.partition(":")[2] not in public} == set()


def test_no_module_imports_a_private_name_of_another():
    private = [
        f"{name}: {node.module}.{alias.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("mosaic_async.")
        for alias in node.names
        if re.search(r"\._(?!_)", f"{node.module}.{alias.name}")
    ]
    assert private == []


def test_no_suppression_is_added():
    sources = "\n".join((ROOT / name).read_text() for name in TREES)
    assert len(re.findall(r"#\s*(?:noqa|type:\s*ignore)", sources)) <= MAX_SUPPRESSIONS


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "examples"])
def test_nothing_is_suppressed_beside_the_package(folder):
    found = [
        path.name
        for path in sorted((ROOT.parent / folder).rglob("*.py"))
        if re.search(r"#\s*(?:noqa|type:\s*ignore)\b", path.read_text())
    ]
    assert found == []
