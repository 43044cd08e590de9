"""Pixel selections: how scenes that overlap are combined, scene by scene.

It takes scenes in order and stops as soon as further scenes cannot change the result. It knows nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from mosaic_async.errors import UsageError
from mosaic_async.sources.rendering import selection_today
from mosaic_async.tiler.pixels import stacks
from mosaic_async.tiler.pixels.acquisitions import GROUPINGS
from mosaic_async.tiler.pixels.pixels import Pixels

Read = Callable[[Window | None], Pixels | None]
"""Reads a window of one scene (None: the whole tile); returns None if the scene does not reach it."""

_STACKED: dict[str, Callable[[Sequence[Pixels]], Pixels]] = {
    "mean": stacks.mean,
    "median": stacks.median,
    "stdev": stacks.deviation,
    "count": stacks.count,
    "medoid": stacks.medoid,
    "geomedian": stacks.geometric_median,
}
_OWN_DTYPE = ("stdev", "count", "medoid")
"""Selections whose results are not cast to the scenes' dtype: it differs by nature, or is the same already."""
_DATED = {"newest": True, "oldest": False}
_PLAIN = ("first", "highest", "lowest", "lastbandhigh", "lastbandlow", *_STACKED, *_DATED)
_PERCENTILE = re.compile(r"percentile:(\d+(?:\.\d+)?)")

PIXEL_SELECTIONS: tuple[str, ...] = (*_PLAIN, "percentile:N")
"""Names of the selections; N is 0 to 100. `lastband` is awspds-mosaic's name for lastbandhigh."""


@dataclass(frozen=True)
class Selection:
    """How the values of a pixel are combined."""

    name: str
    share: float | None = None
    """The percentile, 0 to 100; None for other selections."""
    rounding: bool = False
    """Whether means of integers are rounded (half to even); otherwise they are truncated, as in rio-tiler."""
    group_by: str = GROUPINGS[0]
    """One of `GROUPINGS`: which scenes count once where all count."""

    @classmethod
    def parse(cls, text: str, *, rounding: bool = False, group_by: str = GROUPINGS[0]) -> Selection:
        """Read a name, such as `median` or `percentile:25`.

        Raises:
            UsageError: the selection or the grouping is not known.
        """
        name = selection_today(text)
        if group_by not in GROUPINGS:
            raise UsageError(f"scenes cannot be grouped by {group_by!r}", hint=f"use one of {', '.join(GROUPINGS)}")
        if name in _PLAIN:
            return cls(name, rounding=rounding, group_by=group_by)
        found = _PERCENTILE.fullmatch(name)
        if not found or not 0 <= float(found[1]) <= 100:
            raise UsageError(f"pixel selection {text!r} is not known", hint=f"use one of {', '.join(PIXEL_SELECTIONS)}")
        return cls("percentile", float(found[1]), rounding, group_by)

    @property
    def newest_first(self) -> bool | None:
        """True: newest scenes first; False: oldest first; None: the mosaic's order."""
        return _DATED.get(self.name)

    @property
    def drops_last_band(self) -> bool:
        """Whether the last band only decides and is not kept."""
        return self.name.startswith("lastband")

    @property
    def holds_all(self) -> bool:
        """Whether the selection needs the pixels of all scenes at once."""
        return self.name in _STACKED or self.share is not None

    @property
    def keeps_values(self) -> bool:
        """Whether every value of the result is that of a scene, so that classes stay classes."""
        return self.can_end_early or self.name in ("highest", "lowest", "medoid")

    @property
    def can_end_early(self) -> bool:
        """Whether later scenes cannot change a full tile."""
        return self.name == "first" or self.name in _DATED

    def compose(self, scenes: Iterable[Read]) -> Pixels | None:
        """Combine scenes into one image; None if no scene reaches the tile."""
        if self.can_end_early:
            return _first(scenes)
        found = (pixels for read in scenes if (pixels := read(None)) is not None)
        if self.name in ("highest", "lowest"):
            return _extreme(found, np.greater if self.name == "highest" else np.less)
        if self.drops_last_band:
            return _by_last_band(found, np.greater if self.name == "lastbandhigh" else np.less)
        if not (stack := list(found)):
            return None
        dtype = np.result_type(*{scene.data.dtype for scene in stack})
        if self.share is not None:
            return self._cast(stacks.percentile(stack, self.share), dtype)
        made = _STACKED[self.name](stack)
        return made if self.name in _OWN_DTYPE else self._cast(made, dtype)

    def _cast(self, pixels: Pixels, dtype: np.dtype[np.generic]) -> Pixels:
        data = np.where(pixels.valid, pixels.data, 0)
        if np.issubdtype(dtype, np.integer) and (self.rounding or self.name == "geomedian"):
            data = np.rint(data)  # an iteration ends slightly above or below: truncation would lose a whole count
        return Pixels(data.astype(dtype), pixels.valid)


def _first(scenes: Iterable[Read]) -> Pixels | None:
    """Fill each band from the first scene that has it; later scenes are read only where pixels are missing."""
    made: Pixels | None = None
    window: Window | None = None
    for read in scenes:
        pixels = read(window)
        if pixels is None:
            continue
        if made is None:
            made = Pixels(pixels.data.copy(), pixels.valid.copy())
        else:
            assert window is not None
            made = _holding(made, pixels)
            place = (slice(None), *window.toslices())
            fill = pixels.valid & ~made.valid[place]
            made.data[place][fill] = pixels.data[fill]
            made.valid[place] |= fill
        window = _around(~made.whole)
        if window is None:
            break
    return made


def _around(missing: NDArray[np.bool_]) -> Window | None:
    rows, columns = np.flatnonzero(missing.any(axis=1)), np.flatnonzero(missing.any(axis=0))
    if not len(rows):
        return None
    return Window(int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1))


def _extreme(scenes: Iterable[Pixels], exceeds: np.ufunc) -> Pixels | None:
    """Take the highest (or lowest) value of each band, from any scene."""
    made: Pixels | None = None
    for pixels in scenes:
        if made is None:
            made = Pixels(pixels.data.copy(), pixels.valid.copy())
            continue
        made = _holding(made, pixels)
        better = pixels.valid & (exceeds(pixels.data, made.data) | ~made.valid)
        np.copyto(made.data, pixels.data, where=better)
        made.valid[better] = True
    return made


def _by_last_band(scenes: Iterable[Pixels], exceeds: np.ufunc) -> Pixels | None:
    """Take all bands of the scene whose last band is highest (or lowest), among scenes that have all bands.

    So no pixel mixes two scenes.

    Raises:
        UsageError: the scenes have one band only, which would not be kept.
    """
    made: Pixels | None = None
    for pixels in scenes:
        if len(pixels.data) == 1:
            raise UsageError(
                "a selection by the last band keeps only the bands before it, and there is one band",
                hint="add a band or formula that decides, or use the pixel selection highest or lowest",
            )
        whole = pixels.whole
        if made is None:
            made = Pixels(pixels.data.copy(), np.broadcast_to(whole, pixels.valid.shape).copy())
            continue
        made = _holding(made, pixels)
        better = whole & (exceeds(pixels.data[-1], made.data[-1]) | ~made.valid[-1])
        np.copyto(made.data, pixels.data, where=better)
        made.valid[:, better] = True
    return None if made is None else Pixels(made.data[:-1], made.valid[:-1])


def _holding(made: Pixels, pixels: Pixels) -> Pixels:
    """Return what is made so far in a data type that holds the values of a further scene too."""
    dtype = np.result_type(made.data, pixels.data)
    return made if dtype == made.data.dtype else Pixels(made.data.astype(dtype), made.valid)
