"""The price of a tile: values that are read, computed and combined for it, known from the query and the index alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mosaic_async.errors import UsageError
from mosaic_async.tiler.edge.limits import Limits

_KERNELS = {"nearest": 1, "bilinear": 1}
"""Cost of a value that is resampled; other kernels look at more source pixels."""
_OTHER_KERNEL = 3
_STREAMED = 32
"""Scenes that a selection reads at most, as a rule, if it ends with the first full tile."""
_ENDING_EARLY = ("first", "newest", "oldest")
_STREAMING = (*_ENDING_EARLY, "highest", "lowest", "lastband", "lastbandhigh", "lastbandhight", "lastbandlow")
"""Selections that hold one scene at a time."""
_COLOUR_OPERATION = 4
_ENCODING = 4


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What decides the price of a tile."""

    size: float
    """Width and height in pixels, buffer included."""
    padding: int = 0
    """Pixels that are read on each side beyond that."""
    scenes: int
    """Scenes that the mosaic lists for it."""
    bands_read: int
    bands_out: int
    operations: int = 0
    """Operations of the expression."""
    colour_operations: int = 0
    selection: str = "first"
    resampling: str = "nearest"

    @property
    def values_out(self) -> float:
        """Values of the tile itself."""
        return self.size**2 * self.bands_out

    @property
    def values_held(self) -> float:
        """Values of all scenes that the selection holds at once."""
        return 0 if self.selection in _STREAMING else self.scenes * self.values_out

    @property
    def work(self) -> float:
        """Values that are read, computed and combined."""
        scenes = min(self.scenes, _STREAMED) if self.selection in _ENDING_EARLY else self.scenes
        read = (self.size + 2 * self.padding) ** 2 * self.bands_read * _KERNELS.get(self.resampling, _OTHER_KERNEL)
        computed = self.size**2 * self.operations
        finished = self.values_out * (_ENCODING + _COLOUR_OPERATION * self.colour_operations)
        combined = self.values_out * _steps(self.selection, scenes)
        return scenes * (read + computed + combined) + finished


def _steps(selection: str, scenes: int) -> float:
    """Return what a selection costs per value, where reading a value costs 1 (measured, with 3 to 40 scenes)."""
    special: Mapping[str, float] = {"geomedian": 5, "medoid": scenes / 8}
    return special.get(selection, 1)


def check_price(tile: Tile, limits: Limits) -> bool:
    """Return whether a tile is plain.

    Raises:
        UsageError: the tile is too dear.
    """
    if tile.size > limits.tile_size:
        raise UsageError(
            f"a tile of {tile.size:,.0f} pixels is too large: the limit is {limits.tile_size:,}",
            hint="request a smaller `tilesize`",
        )
    if tile.values_out > limits.values_out:
        raise UsageError(
            f"a tile of {tile.values_out:,.0f} values is too large: the limit is {limits.values_out:,}",
            hint="request a smaller `tilesize` or fewer bands",
        )
    if tile.values_held > limits.values_held:
        raise UsageError(
            f"a tile from {tile.scenes:,} scenes holds {tile.values_held:,.0f} values at once: "
            f"the limit is {limits.values_held:,}",
            hint="request a smaller `tilesize`, a higher zoom or fewer bands",
        )
    if tile.work > limits.work:
        raise UsageError(
            f"a tile from {tile.scenes:,} scenes takes {tile.work:,.0f} steps: the limit is {limits.work:,}",
            hint="request a smaller `tilesize`, a higher zoom, fewer bands or a simpler formula",
        )
    return tile.work <= limits.plain_work
