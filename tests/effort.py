"""How many examples hypothesis tries: a third in quick tests, all of them in `make test-all`."""

from __future__ import annotations

import pytest

QUICK = "not slow"
"""What `make test` selects; `pyproject.toml` has it."""
_selected = [QUICK]


def select(config: pytest.Config) -> None:
    """Remember which tests are selected, before any of them is imported."""
    _selected[:] = [config.option.markexpr]


def examples(number: int) -> int:
    """Return how many examples to try of those that a thorough test tries."""
    return -(-number // 3) if _selected == [QUICK] else number
