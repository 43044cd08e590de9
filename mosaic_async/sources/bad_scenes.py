"""The scenes that cannot be used: left out and listed, up to a limit.

It knows nothing of why.
"""

from __future__ import annotations

import re

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.safety.redaction import scrub

DEFAULT = "10"
"""Scenes that may be left out by default."""
_SHOWN = 5
"""Scenes that a note names."""


class BadScenes:
    """Counts and lists scenes that cannot be used.

    Args:
        limit: maximum number of such scenes, or their maximum share of all scenes, such as `5%`.

    Raises:
        UsageError: the limit is neither.
    """

    def __init__(self, limit: int | str = DEFAULT) -> None:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)%|(\d+)", str(limit).strip())
        if found is None:
            raise UsageError(
                f"the limit of bad scenes is {limit!r}", hint="set ``max_bad_scenes`` to a number or a share such as 5%"
            )
        self._share = float(found[1]) / 100 if found[1] else None
        self._most = int(found[2]) if found[2] else None
        self.reasons: dict[str, str] = {}
        """Why each scene is left out, by its path or name."""
        self._first: SourceError | None = None

    def add(self, name: str, error: SourceError) -> None:
        """Leave a scene out.

        Raises:
            SourceError: the limit is a number, and exceeded.
        """
        self._first = self._first or error
        self.reasons.setdefault(scrub(name), scrub(str(error)))
        if self._most is not None and len(self.reasons) > self._most:
            raise self._too_many(f"more than {self._most:,} scenes", error)

    def check(self, used: int) -> None:
        """Check the limit once all scenes are known.

        Args:
            used: number of scenes that can be used.

        Raises:
            SourceError: no scene can be used, or the share of those that cannot is above the limit.
        """
        if self._first is None:
            return
        if not used:
            raise self._first
        bad = len(self.reasons)
        if self._share is not None and bad > self._share * (used + bad):
            raise self._too_many(f"{bad:,} of {used + bad:,} scenes", self._first)

    def _too_many(self, count: str, error: SourceError) -> SourceError:
        if self._most == 0:
            return error
        told = SourceError(f"{count} cannot be used: {error}", hint="fix them, or raise ``max_bad_scenes``")
        told.__cause__ = error
        return told

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out and why, in words for people; one note per scene, of the first few."""
        notes = [f"left out {name}: {reason}" for name, reason in list(self.reasons.items())[:_SHOWN]]
        rest = len(self.reasons) - len(notes)
        return (*notes, f"left out {rest:,} more scenes that cannot be used") if rest else tuple(notes)
