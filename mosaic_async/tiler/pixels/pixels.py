"""Pixels of a tile and their validity: reading returns them, composing combines them."""

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
    """The same shape; True where the pixel has data. Other values in `data` have no meaning."""

    @property
    def whole(self) -> NDArray[np.bool_]:
        """True where all bands are valid: (height, width)."""
        whole: NDArray[np.bool_] = np.logical_and.reduce(self.valid, axis=0)
        return whole

    def where(self, good: NDArray[np.bool_]) -> Pixels:
        """Return the same pixels, valid only where `good` is True too.

        Args:
            good: (height, width).
        """
        return Pixels(self.data, self.valid & good)
