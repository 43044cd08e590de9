"""What a tile shows, in one spelling for all tilers: bands or expression, selection, stretch, colours.

It knows nothing of the parameters of any tiler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mosaic_async.errors import UsageError

_OLDER_SELECTIONS = {"lastband": "lastbandhigh", "lastbandhight": "lastbandhigh"}
"""By their names in rio-tiler-mosaic, and in rio-tiler from 6.0 to 9.0.3, where it is misspelt."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What a tile shows; None and empty values leave it to the tiler."""

    bands: Sequence[str] = ()
    """Asset names of STAC items, or band numbers of plain files."""
    expression: str | None = None
    """Formulas over the same names (b1, b2 of plain files), one per band of the output, separated by `;` or `,`."""
    pixel_selection: str | None = None
    """How overlapping scenes become one: first, highest, lowest, mean, median, stdev, lastbandlow, lastbandhigh (or
    lastband), count."""
    rescale: Sequence[tuple[float, float]] = ()
    """(lowest, highest) to stretch to 0 to 255, one for all bands or one per band."""
    color_formula: str | None = None
    """rio-color operations such as `gamma RGB 3.5, saturation 1.7`; applied after `rescale`."""
    resampling: str | None = None
    """nearest, bilinear, cubic, ..."""

    def __post_init__(self) -> None:
        if self.bands and self.expression:
            raise UsageError("set bands or an expression, not both")

    @property
    def selection(self) -> str | None:
        """The pixel selection by its current name."""
        return None if self.pixel_selection is None else selection_today(self.pixel_selection)

    @property
    def formulas(self) -> list[str]:
        """The formulas of the expression."""
        return split_formulas(self.expression or "")

    def names(self) -> list[str]:
        """Return the words of the expression that may be bands, each once: all that are not called as functions."""
        text = self.expression or ""
        words = (match[0] for match in _NAME.finditer(text) if not text[match.end() :].lstrip().startswith("("))
        return list(dict.fromkeys(words))


def selection_today(name: str) -> str:
    """Return the current name of a pixel selection; `lastband` is called `lastbandhigh` today."""
    return _OLDER_SELECTIONS.get(name, name)


def split_formulas(expression: str) -> list[str]:
    """Split an expression at `;`, and at `,` outside of brackets: `where(a, b, c)` is one formula."""
    parts, depth = [""], 0
    for letter in expression:
        depth += (letter == "(") - (letter == ")")
        if letter == ";" or (letter == "," and depth == 0):
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def renamed(formula: str, names: dict[str, str]) -> str:
    """Replace names in a formula, all at once."""
    return _NAME.sub(lambda match: names.get(match[0], match[0]), formula)
