"""The bands of a mosaic, told from what people write: lists of names, and formulas over them.

A name counts if any scene has it; scenes that lack it are left out of the tiles. It knows nothing of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile

from mosaic_async.errors import UsageError
from mosaic_async.sources.rendering import split_formulas
from mosaic_async.tiler.scenes.naming import Place, has_bands
from mosaic_async.tiler.scenes.scene import open_scene

_MAX_SCENES = 1_000
"""Scenes that a name is searched in."""
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w|\s*\()")
"""A word that is not called as a function."""
_MARK = "\0"
"""Stands around the position of a band, until all names are replaced."""
_PLACES = re.compile(f"{_MARK}(\\d+){_MARK}")
_PLAIN = re.compile(r"[A-Za-z_]\w*")


class Known:
    """The names that scenes have."""

    def __init__(self, scenes: Sequence[str], assets: Sequence[str]) -> None:
        """Look at no scene yet.

        Args:
            scenes: STAC items, in order.
            assets: asset names of the first.
        """
        self._scenes = scenes[:_MAX_SCENES]
        self.assets = assets
        self._found: dict[str, bool] = dict.fromkeys(assets, True)

    def __contains__(self, name: str) -> bool:
        """Return whether a scene has a band of this name."""
        if name not in self._found:
            self._found[name] = bool(name) and any(_has(scene, name) for scene in self._scenes)
        return self._found[name]

    def read(self, bands: Sequence[str]) -> list[Place]:
        """Read names such as `red`, `B4,B3` and `image:1,3`; a name may hold commas and blanks itself.

        Raises:
            UsageError: no scene has one of them.
        """
        if all(band in self for band in bands):
            return [(band, ()) for band in bands]
        parts = [part.strip() for part in ",".join(bands).split(",") if part.strip()]
        places: list[Place] = []
        while parts:
            place, count = self._first(parts)
            places += place
            parts = parts[count:]
        return places

    def split(self, expression: str) -> tuple[list[str], str]:
        """Split formulas into the bands that they name and formulas over their positions, separated by `;`.

        Raises:
            UsageError: the formulas name no band, or one that no scene has.
        """
        used: list[str] = []

        def place(name: str) -> str:
            if name not in used:
                used.append(name)
            return f"{_MARK}{used.index(name) + 1}{_MARK}"

        text = expression
        for name in sorted((name for name in self.assets if not _PLAIN.fullmatch(name)), key=len, reverse=True):
            text = re.sub(rf"(?<![\w.]){re.escape(name)}(?!\w)", lambda match: place(match[0]), text)
        if unknown := [word for word in _WORD.findall(text) if word not in self]:
            raise UsageError(f"{unknown[0]} names no band of the scenes", hint=self._hint)
        text = _WORD.sub(lambda match: place(match[0]), text)
        if not used:
            raise UsageError(f"the expression {expression!r} names no band", hint=self._hint)
        return used, ";".join(_PLACES.sub(r"b\1", one) for one in split_formulas(text))

    def _first(self, parts: Sequence[str]) -> tuple[list[Place], int]:
        """Read the longest name at the beginning, and return the number of parts that it takes."""
        for count in range(len(parts), 0, -1):
            for joint in (",", ", "):
                text = joint.join(parts[:count])
                if text in self:
                    return [(text, ())], count
                name, mark, number = text.rpartition(":")
                if mark and number.isdecimal() and name in self:
                    more = list(takewhile(str.isdecimal, parts[count:]))
                    return [(name, (int(number), *map(int, more)))], count + len(more)
        words = parts[0].split()
        if len(words) > 1 and all(word in self for word in words):
            return [(word, ()) for word in words], 1
        raise self._unknown(parts[0])

    def _unknown(self, name: str) -> UsageError:
        return UsageError(f"the scenes have no band {name}", hint=self._hint)

    @property
    def _hint(self) -> str:
        return f"they have {', '.join(self.assets)}"


def _has(scene: str, name: str) -> bool:
    with suppress(Exception):  # of the disk, the HTTP client, the parser; the tile tells the reason
        return has_bands(open_scene(scene, is_item=True), name)
    return False
