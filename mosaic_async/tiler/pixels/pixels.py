"""Pixels of a tile and which of them are valid: the value that reading gives and composing takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pixels:
    """Pixels of one scene, or composed of several."""

    data: NDArray[Any]
    """(bands, height, width)."""
    valid: NDArray[np.bool_]
    """The same shape; True where the pixel has data. What lies elsewhere in `data` means nothing."""

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Where all bands are valid: (height, width)."""
        whole: NDArray[np.bool_] = np.logical_and.reduce(self.valid, axis=0)
        return whole

    def where(self, wanted: NDArray[np.bool_]) -> Pixels:
        """Keep only some pixels valid.

        Args:
            wanted: (height, width).
        """
        return Pixels(self.data, self.valid & wanted)
