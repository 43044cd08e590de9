"""How pixels are made of scenes: bands, expression, selection, colours; in one spelling, as TiTiler's parameters.

It knows nothing of servers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from rio_tiler.mosaic.methods import PixelSelectionMethod

from mosaic_async.errors import UsageError
from mosaic_async.tiler.mosaic import Mosaic

PIXEL_SELECTIONS: tuple[str, ...] = tuple(method.name for method in PixelSelectionMethod)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What a tile shows."""

    bands: Sequence[str] = ()
    """Asset names of STAC items, or band numbers of plain files."""
    expression: str | None = None
    """One formula a band of the output, separated by `;`, over asset names, or over b1, b2 of plain files."""
    pixel_selection: str = "first"
    """rio-tiler's: first, highest, lowest, mean, median, stdev, lastbandlow, lastbandhigh, count."""
    rescale: Sequence[tuple[float, float]] = ()
    """(lowest, highest) to be stretched to 0 to 255, one for all bands or one a band."""
    color_formula: str | None = None
    """rio-color operations such as `gamma RGB 3.5, saturation 1.7`; applied after `rescale`."""
    resampling: str = "bilinear"
    """Also used for reprojecting; 2 pixels are read around each tile, so that tiles meet."""

    def query(self, mosaic: Mosaic) -> str:
        """Write it as TiTiler 2's query parameters.

        Raises:
            UsageError: bands or names that the mosaic does not have, or a name that TiTiler does not know.
        """
        if self.pixel_selection not in PIXEL_SELECTIONS:
            raise UsageError(
                f"pixel selection {self.pixel_selection!r} is not known",
                hint=f"use one of {', '.join(PIXEL_SELECTIONS)}",
            )
        params = self._layer(mosaic)
        params += [("pixel_selection", self.pixel_selection)]
        params += [("rescale", f"{low!r},{high!r}") for low, high in self.rescale]
        params += [("color_formula", self.color_formula)] if self.color_formula else []
        params += [("resampling", self.resampling), ("reproject", self.resampling), ("padding", "2")]
        return urlencode(params)

    def _layer(self, mosaic: Mosaic) -> list[tuple[str, str]]:
        if self.bands and self.expression:
            raise UsageError("give bands or an expression, not both")
        if not mosaic.is_stac:
            return [("expression", self.expression)] if self.expression else [("bidx", band) for band in self.bands]
        if self.expression:
            return _of_expression(self.expression, mosaic.assets)
        if not self.bands:
            raise UsageError(
                "which bands?", hint=f"the scenes have {', '.join(mosaic.assets)}; give --bands or --expression"
            )
        if unknown := [band for band in self.bands if band not in mosaic.assets]:
            raise UsageError(
                f"the scenes have no band {', '.join(unknown)}", hint=f"they have {', '.join(mosaic.assets)}"
            )
        return [("assets", band) for band in self.bands]


def _of_expression(expression: str, assets: Sequence[str]) -> list[tuple[str, str]]:
    """Name assets by their place, as TiTiler 2 wants them: `(B5-B4)/(B5+B4)` is `(b1-b2)/(b1+b2)` of B5 and B4."""
    used = list(dict.fromkeys(name for name in _NAME.findall(expression) if name in assets))
    if not used:
        raise UsageError(f"the expression {expression!r} names no band", hint=f"the scenes have {', '.join(assets)}")
    places = {name: f"b{index}" for index, name in enumerate(used, start=1)}
    numbered = _NAME.sub(lambda match: places.get(match[0], match[0]), expression)
    return [*(("assets", name) for name in used), ("expression", numbered)]
