"""How much quick tests try: some sets of parameters, and a third of hypothesis' examples; `make test-all` tries all."""

from __future__ import annotations

import pytest

QUICK = "not slow"
"""What `make test` selects; `pyproject.toml` has it."""
_selected = [QUICK]


def select(config: pytest.Config) -> None:
    """Remember which tests are selected, before any of them is imported."""
    _selected[:] = [config.option.markexpr]


def is_quick() -> bool:
    """Return whether `make test` runs."""
    return _selected == [QUICK]


def examples(number: int) -> int:
    """Return how many examples to try of those that a thorough test tries."""
    return -(-number // 3) if is_quick() else number


def thinned(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests to run and those to leave out: of a test that is marked `quick(n)`, n sets of its parameters.

    They are spread evenly, and the same in every run.
    """
    sets: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("quick") and not item.get_closest_marker("slow"):
            sets.setdefault(item.nodeid.split("[")[0], []).append(item)
    left_out = []
    for members in sets.values():
        number = next(iter(members)).get_closest_marker("quick").args[0]
        kept = {round(index * len(members) / number) for index in range(number)}
        left_out += [item for place, item in enumerate(members) if place not in kept]
    ids = {item.nodeid for item in left_out}
    return [item for item in items if item.nodeid not in ids], left_out
