"""How pixels are made of scenes: bands, expression, selection, colours; in one spelling, as TiTiler's parameters.

It knows nothing of servers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from mosaic_async.errors import UsageError
from mosaic_async.tiler.clouds import CloudMask
from mosaic_async.tiler.mosaic import Mosaic
from mosaic_async.tiler.radiometry import REFLECTANCES
from mosaic_async.tiler.selection import Selection

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """What a tile shows."""

    bands: Sequence[str] = ()
    """Asset names of STAC items, or band numbers of plain files."""
    expression: str | None = None
    """One formula a band of the output, separated by `;`, over asset names, or over b1, b2 of plain files."""
    pixel_selection: str = "first"
    """One of `PIXEL_SELECTIONS`."""
    rounding: bool = False
    """Whether means, medians and percentiles of integers are rounded (half to even); else their fraction is cut off."""
    reflectance: str | None = None
    """Reflectance instead of counts: `float`, or `integer` for 10 000 times that in 16 bits; by the items' metadata."""
    cloud_mask: str | None = None
    """The quality band, and what in it is bad and left out: `qa_pixel`, `fmask:values=2,4`, `BQA:bits=4,7-8>=3`."""
    rescale: Sequence[tuple[float, float]] = ()
    """(lowest, highest) to be stretched to 0 to 255, one for all bands or one a band."""
    color_formula: str | None = None
    """rio-color operations such as `gamma RGB 3.5, saturation 1.7`; applied after `rescale`."""
    resampling: str = "bilinear"
    """Also used for reprojecting; 2 pixels are read around each tile, so that tiles meet."""

    def query(self, mosaic: Mosaic) -> str:
        """Write it as TiTiler 2's query parameters.

        Raises:
            UsageError: bands or names that the mosaic does not have, or a name that is not known.
        """
        Selection.parse(self.pixel_selection)
        params = self._layer(mosaic)
        params += [("pixel_selection", self.pixel_selection)]
        params += [("rounding", "true")] if self.rounding else []
        params += self._of_items(mosaic)
        params += [("rescale", f"{low!r},{high!r}") for low, high in self.rescale]
        params += [("color_formula", self.color_formula)] if self.color_formula else []
        params += [("resampling", self.resampling), ("reproject", self.resampling), ("padding", "2")]
        return urlencode(params)

    def _of_items(self, mosaic: Mosaic) -> list[tuple[str, str]]:
        """Check and write what only STAC items can tell."""
        given = {"reflectance": self.reflectance, "cloud_mask": self.cloud_mask}
        params = [(name, value) for name, value in given.items() if value]
        if params and not mosaic.is_stac:
            raise UsageError(f"plain files have no metadata for `{params[0][0]}`", hint="it takes STAC items")
        if self.reflectance and self.reflectance not in REFLECTANCES:
            raise UsageError(
                f"reflectance {self.reflectance!r} is not known", hint=f"use one of {', '.join(REFLECTANCES)}"
            )
        if self.cloud_mask:
            CloudMask.parse(self.cloud_mask).check(mosaic.assets)
        return params

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
