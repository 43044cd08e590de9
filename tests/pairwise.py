"""Of many combinations, the few in which every value occurs, or every two that can meet: the others are slow tests.

Where each of several values takes the same path, one stands for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pytest


def parts_of(case: tuple[Any, ...], size: int) -> set[Any]:
    return set(combinations([(place, repr(value)) for place, value in enumerate(case)], size))


def covering(cases: Iterable[tuple[Any, ...]], size: int = 2) -> list[tuple[Any, ...]]:
    """Choose cases, the one with most that is new first, until each `size` values that can meet are in one."""
    cases, chosen = list(cases), []
    left = set().union(*(parts_of(case, size) for case in cases))
    while left:
        chosen.append(max(cases, key=lambda case: len(parts_of(case, size) & left)))
        left -= parts_of(chosen[-1], size)
    return chosen


def quick_pairs(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the cases as parameters of a test: quick are those in which every two values meet."""
    return _quick(list(cases), 2)


def quick_values(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the cases as parameters of a test: quick are those in which each value occurs."""
    return _quick(list(cases), 1)


def quick_only(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the values as parameters of a test: quick are those that are named."""
    return [pytest.param(value, marks=[] if value in quick else [pytest.mark.slow]) for value in values]


def _quick(cases: list[tuple[Any, ...]], size: int) -> list[Any]:
    quick = covering(cases, size)
    return [pytest.param(*case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases]
