"""What a run learns before it starts, and the next one needs to continue in the same way.

It knows nothing of where it is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mosaic_async.geo.grid import check_tile_size
from mosaic_async.raster.form import TileFormat

_MAX_BLOCKS = 2**16
_MAX_BANDS = 1024


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What decides how the output is divided, and how much room it takes."""

    tile_format: TileFormat
    part_blocks: int
    """Blocks per side of a part."""
    disk: int | None
    """Bytes that the run needs, estimated; None if no tile told."""

    @property
    def layout(self) -> str:
        """A name that only the same tile size and the same parts have; what else tiles are may differ in a layer."""
        return hashlib.sha256(json.dumps([self.tile_format.size, self.part_blocks]).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Return the state as JSON types."""
        return {"tile": asdict(self.tile_format), "part_blocks": self.part_blocks, "disk": self.disk}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunState:
        """Return what `as_dict` made.

        Raises:
            ValueError: no run can have made it.
        """
        try:
            state = cls(
                tile_format=TileFormat.from_dict(values["tile"]),
                part_blocks=values["part_blocks"],
                disk=values["disk"],
            )
            state._check()
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"it lacks a value, or has one of a wrong kind: {error}") from error
        return state

    def _check(self) -> None:
        tile, blocks = self.tile_format, self.part_blocks
        check_tile_size(tile.size)
        if np.dtype(tile.dtype).kind not in "uifc":
            raise ValueError(f"{tile.dtype} is not a type of pixels")
        if not (type(tile.count) is int and 0 < tile.count <= _MAX_BANDS):
            raise ValueError(f"{tile.count} is not a number of bands")
        if not (type(blocks) is int and 0 < blocks <= _MAX_BLOCKS and blocks & (blocks - 1) == 0):
            raise ValueError(f"{blocks} is not a power of two of blocks")
        if not (self.disk is None or (type(self.disk) is int and self.disk >= 0)):
            raise ValueError(f"{self.disk} is not a number of bytes")
