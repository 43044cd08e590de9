"""How the embedded tiler makes pixels: bands, expression, selection, colours, written as TiTiler's parameters.

It knows nothing of servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from mosaic_async.errors import UsageError
from mosaic_async.sources import rendering
from mosaic_async.tiler.pixels.clouds import CloudMask
from mosaic_async.tiler.pixels.radiometry import REFLECTANCES
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.scenes.mosaic import Mosaic


@dataclass(frozen=True, kw_only=True)
class Rendering(rendering.Rendering):
    """What a tile shows: the settings of every tiler, and those that only this one has."""

    pixel_selection: str | None = "first"
    """One of `PIXEL_SELECTIONS`."""
    resampling: str | None = "bilinear"
    """Also used to reproject; 2 pixels are read around each tile, so that tiles meet."""
    rounding: bool = False
    """Whether means, medians and percentiles of integers are rounded (half to even); otherwise they are truncated."""
    reflectance: str | None = None
    """Reflectance instead of counts, by the items' metadata: `float`, or `integer` for 10,000 times that in 16 bits."""
    cloud_mask: str | None = None
    """The quality band and its bad values, which are left out: `qa_pixel`, `fmask:values=2,4`, `BQA:bits=4,7-8>=3`."""

    def query(self, mosaic: Mosaic) -> str:
        """Return TiTiler 2's query parameters.

        Raises:
            UsageError: the mosaic does not have a band, or a name is not known.
        """
        selection, resampling = self.selection or "first", self.resampling or "bilinear"
        Selection.parse(selection)
        params = self._layer(mosaic)
        params += [("pixel_selection", selection)]
        params += [("rounding", "true")] if self.rounding else []
        params += self._of_items(mosaic)
        params += [("rescale", f"{low!r},{high!r}") for low, high in self.rescale]
        params += [("color_formula", self.color_formula)] if self.color_formula else []
        params += [("resampling", resampling), ("reproject", resampling), ("padding", "2")]
        return urlencode(params)

    def _of_items(self, mosaic: Mosaic) -> list[tuple[str, str]]:
        """Return the parameters that only STAC items support."""
        given = {"reflectance": self.reflectance, "cloud_mask": self.cloud_mask}
        params = [(name, value) for name, value in given.items() if value]
        if params and not mosaic.is_stac:
            raise UsageError(f"plain files have no metadata for `{params[0][0]}`", hint="use STAC items")
        if self.reflectance and self.reflectance not in REFLECTANCES:
            raise UsageError(
                f"reflectance {self.reflectance!r} is not known", hint=f"use one of {', '.join(REFLECTANCES)}"
            )
        if self.cloud_mask:
            CloudMask.parse(self.cloud_mask).check(mosaic.assets)
        return params

    def _layer(self, mosaic: Mosaic) -> list[tuple[str, str]]:
        if not mosaic.is_stac:
            formulas = [("expression", ";".join(self.formulas))]
            return formulas if self.expression else [("bidx", band) for band in self.bands]
        if self.expression:
            return self._of_assets(mosaic.assets)
        if not self.bands:
            raise UsageError(
                "no bands are set",
                hint=f"set ``bands`` or ``expression``; the scenes have {', '.join(mosaic.assets)}",
            )
        if unknown := [band for band in self.bands if band not in mosaic.assets]:
            raise UsageError(
                f"the scenes have no band {', '.join(unknown)}", hint=f"they have {', '.join(mosaic.assets)}"
            )
        return [("assets", band) for band in self.bands]

    def _of_assets(self, assets: Sequence[str]) -> list[tuple[str, str]]:
        """Name assets by position, as TiTiler 2 requires: `(B5-B4)/(B5+B4)` is `(b1-b2)/(b1+b2)` of B5 and B4."""
        used = [name for name in self.names() if name in assets]
        if not used:
            raise UsageError(
                f"the expression {self.expression!r} names no band", hint=f"the scenes have {', '.join(assets)}"
            )
        places = {name: f"b{index}" for index, name in enumerate(used, start=1)}
        numbered = ";".join(rendering.renamed(formula, places) for formula in self.formulas)
        return [*(("assets", name) for name in used), ("expression", numbered)]
