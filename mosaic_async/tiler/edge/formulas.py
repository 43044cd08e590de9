"""Checks of texts that are computed with: expressions, colour formulas, colour maps. Nothing is evaluated here.

Each check takes time in proportion to the text, and the text has a maximum length.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mosaic_async.errors import UsageError

_MAX_LENGTH = 4_000
_MAX_FORMULAS = 64
_MAX_OPERATIONS = 500
_MAX_DEPTH = 40
_MAX_BAND = 512
_MAX_EXPONENT = 64
_MAX_INTEGER = 10**18
_MAX_COLOUR_OPERATIONS = 16
_MAX_BRACKETS = 4
_MAX_COLORMAP_LENGTH = 32_768
_BAND = re.compile(r"\bb(\d+)\b", re.IGNORECASE)
_OPERATIONS = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Call)


@dataclass(frozen=True)
class Formula:
    """The price of an expression."""

    terms: int
    """Formulas, one per band of the result."""
    operations: int
    """Operations of all formulas together."""
    bands: tuple[int, ...]
    """Numbers of the bands that the formulas name, without duplicates."""


def check_expression(text: str, *, separator: str = ";") -> Formula:
    """Check that an expression is cheap and safe to evaluate, and return its price.

    Args:
        text: formulas over b1, b2, ...
        separator: what separates formulas.

    Raises:
        UsageError: the expression is too long, too deep or too dear, or has an operand that could stop the process.
    """
    _at_most(len(text), _MAX_LENGTH, "characters in an expression")
    formulas = [part for part in _split(text, separator) if part.strip()]
    _at_most(len(formulas), _MAX_FORMULAS, "formulas in an expression")
    bands = tuple(dict.fromkeys(_band_numbers(text)))
    operations = sum(_operations_of(formula.strip()) for formula in formulas)
    _at_most(operations, _MAX_OPERATIONS, "operations in an expression")
    return Formula(len(formulas), operations, bands)


def check_colours(text: str) -> int:
    """Check a colour formula, and return the number of its operations.

    Raises:
        UsageError: the formula is too long.
    """
    _at_most(len(text), _MAX_LENGTH, "characters in a colour formula")
    operations = len([part for part in text.split(",") if part.strip()])
    _at_most(operations, _MAX_COLOUR_OPERATIONS, "operations in a colour formula")
    return operations


def check_colormap(text: str) -> None:
    """Check a colour map in JSON.

    Raises:
        UsageError: the map is too long, or nested too deep.
    """
    _at_most(len(text), _MAX_COLORMAP_LENGTH, "characters in a colour map")
    _at_most(_brackets(text), _MAX_BRACKETS, "levels of brackets in a colour map")


def _at_most(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise UsageError(f"{number:,} {what} are too many: the limit is {limit:,}")


def _split(text: str, separator: str) -> Iterator[str]:
    """Split at separators outside of brackets."""
    depth = start = 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == separator and depth <= 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]


def _band_numbers(text: str) -> Iterator[int]:
    for digits in _BAND.findall(text):
        if len(digits) > 6 or not 1 <= int(digits) <= _MAX_BAND:
            raise UsageError(f"band b{digits[:12]} is out of range: bands are b1 to b{_MAX_BAND}")
        yield int(digits)


def _operations_of(formula: str) -> int:
    """Count the operations of one formula; a formula that is not one is left to the evaluation, which refuses it."""
    _at_most(_brackets(formula), _MAX_DEPTH, "levels of brackets in an expression")
    try:
        tree = ast.parse(formula, mode="eval")
    except (SyntaxError, ValueError):
        return 0
    except (RecursionError, MemoryError) as error:
        raise UsageError(f"the expression is nested too deep: the limit is {_MAX_DEPTH} levels") from error
    operations = 0
    for node, depth in _walk(tree.body):
        _at_most(depth, _MAX_DEPTH, "levels of nesting in an expression")
        _check_node(node)
        operations += isinstance(node, _OPERATIONS)
    return operations


def _walk(root: ast.AST) -> Iterator[tuple[ast.AST, int]]:
    """Yield the nodes of a tree with their depth, without recursion.

    A chain such as `b1+b2+b3` is a tree that leans to the left: its depth counts once.
    """
    waiting = [(root, 0)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        for name, value in ast.iter_fields(node):
            is_chain = isinstance(node, ast.BinOp) and name == "left" and isinstance(value, ast.BinOp)
            children: Sequence[object] = value if isinstance(value, list) else [value]
            waiting += [(child, depth + (not is_chain)) for child in children if isinstance(child, ast.AST)]


def _check_node(node: ast.AST) -> None:
    if isinstance(node, ast.Constant):
        _check_constant(node.value)
    if not isinstance(node, ast.BinOp):
        return
    if isinstance(node.op, ast.Pow):
        _check_power(node)
    if isinstance(node.op, (ast.FloorDiv, ast.Mod)):
        # in integers, the least number divided by -1 is a signal that ends the process
        divisor = _number(node.right)
        if divisor is None or divisor <= 0:
            raise UsageError(
                "the right side of `//` and `%` must be a positive number", hint="use `/` for other divisors"
            )
    if isinstance(node.op, (ast.LShift, ast.RShift)):
        raise UsageError("an expression cannot use `<<` and `>>`", hint="use `*` and `/`")


def _check_constant(value: object) -> None:
    if isinstance(value, int) and abs(value) > _MAX_INTEGER:
        raise UsageError(f"an integer in an expression is too large: the limit is {_MAX_INTEGER:,}")
    if not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError("a constant in an expression must be a finite number")


def _check_power(node: ast.BinOp) -> None:
    """Python computes powers of numbers exactly, however long that takes: `9**9**9` never ends."""
    if not _has_name(node.left) and not _has_name(node.right) and _number(node.left) is None:
        raise UsageError("an expression cannot raise a power of numbers to a power", hint="write the number itself")
    exponent = _number(node.right)
    if exponent is None and not _has_name(node.right):
        raise UsageError("an exponent must be a number or have a band", hint="write the number itself")
    if exponent is not None and abs(exponent) > _MAX_EXPONENT:
        raise UsageError(f"an exponent is too large: the limit is {_MAX_EXPONENT}")


def _has_name(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Name) and _BAND.fullmatch(part.id) for part in ast.walk(node))


def _number(node: ast.AST) -> float | None:
    """Return the value of a literal with or without a sign; None for anything else."""
    sign = 1.0
    while isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        sign, node = (-sign if isinstance(node.op, ast.USub) else sign), node.operand
    if not isinstance(node, ast.Constant) or not isinstance(node.value, (int, float)):
        return None
    return sign * min(max(node.value, -1e300), 1e300)


def _brackets(text: str) -> int:
    """Return how deep brackets are nested."""
    depth = deepest = 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        deepest = max(deepest, depth)
    return deepest
