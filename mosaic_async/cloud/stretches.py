"""How an object is put together of stretches: which bytes pass this machine, and which the store copies by itself.

A store copies only ranges of at least 5 MiB, in at most 10,000 steps; only the last step may be smaller. So small
stretches are gathered here, and before a large one its first bytes are borrowed until the step is large enough.
It knows nothing of servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

LEAST = 5 * 2**20
"""Bytes of a step, of all but the last."""
_MOST = 5 * 2**30
"""Bytes that the store copies in one step."""
_USUAL = 256 * 2**20
"""Bytes of a large step: several of them run at once."""
_SENT = 16 * 2**20
"""Bytes that are in memory to be sent in one step, and a gathered step is not larger than this and `LEAST`."""
MOST_STRETCHES = 3000
"""Of one object: with the steps that these are divided into they stay far below the 10,000 that a store takes."""


@dataclass(frozen=True)
class Kept:
    """An object in the bucket, in the version that was put there."""

    key: str
    e_tag: str


@dataclass(frozen=True)
class Stretch:
    """Bytes of a file on this machine, or of an object in the bucket."""

    source: Path | Kept
    start: int
    length: int

    def cut(self, size: int) -> tuple[Stretch, Stretch]:
        """Return the first `size` bytes, and the rest."""
        return replace(self, length=size), replace(self, start=self.start + size, length=self.length - size)

    @property
    def is_kept(self) -> bool:
        """Whether the store has it."""
        return isinstance(self.source, Kept)


Step = Sequence[Stretch]
"""What is sent at once; or a single stretch of at least `LEAST` bytes that the store copies."""


def is_copied(step: Step) -> bool:
    """Return whether the store does the step by itself."""
    return len(step) == 1 and step[0].is_kept and step[0].length >= LEAST


def total(stretches: Iterable[Stretch]) -> int:
    """Return the bytes of all stretches."""
    return sum(stretch.length for stretch in stretches)


def steps_of(stretches: Sequence[Stretch]) -> list[Step]:
    """Return the steps that put an object together; only the last one has fewer bytes than `LEAST`."""
    usual = min(_MOST, max(_USUAL, -(-total(stretches) // MOST_STRETCHES)))
    steps: list[Step] = []
    gathered: list[Stretch] = []
    for stretch in stretches:
        rest = stretch
        while rest.length:
            lacking = max(0, LEAST - total(gathered)) if gathered else 0
            if rest.is_kept and rest.length - lacking >= LEAST:
                borrowed, rest = rest.cut(lacking)
                gathered += [borrowed] if lacking else []
                if gathered:
                    steps.append(gathered)
                    gathered = []
                steps += _copies(rest, usual)
                break
            taken, rest = rest.cut(min(rest.length, _SENT - total(gathered)))
            gathered.append(taken)
            if total(gathered) == _SENT:
                steps.append(gathered)
                gathered = []
    return [*steps, gathered] if gathered else steps


def groups_of(stretches: Sequence[Stretch], most: int = MOST_STRETCHES) -> Iterator[list[Stretch]]:
    """Divide stretches into groups of at most this number: each is an object first, where all are too many for one."""
    for start in range(0, len(stretches), most):
        yield list(stretches[start : start + most])


def _copies(stretch: Stretch, usual: int) -> Iterator[Step]:
    """Divide a stretch into steps of about the same size."""
    number = -(-stretch.length // usual)
    for left in range(number, 0, -1):
        first, stretch = stretch.cut(-(-stretch.length // left))
        yield [first]
