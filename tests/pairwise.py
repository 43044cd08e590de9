"""Of many combinations, the few in which every two values that can meet do meet: quick; all others are slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pytest


def pairs_of(case: tuple[Any, ...]) -> set[Any]:
    return set(combinations(enumerate(case), 2))


def covering(cases: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Choose cases, the one with most new pairs first, until each pair of values is in one."""
    cases, chosen = list(cases), []
    left = set().union(*map(pairs_of, cases))
    while left:
        chosen.append(max(cases, key=lambda case: len(pairs_of(case) & left)))
        left -= pairs_of(chosen[-1])
    return chosen


def quick_pairs(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the cases as parameters of a test."""
    cases = list(cases)
    quick = covering(cases)
    return [pytest.param(*case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases]
