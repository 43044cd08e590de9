"""How the embedded tiler makes pixels: bands, expression, selection, colours, written as TiTiler's parameters.

It knows nothing of servers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

import numpy as np
from rio_tiler.errors import InvalidExpression
from rio_tiler.types import RIOResampling, WarpResampling

from mosaic_async.errors import UsageError
from mosaic_async.sources import rendering
from mosaic_async.sources.band_label import BandLabel
from mosaic_async.tiler.edge.formulas import check_expression
from mosaic_async.tiler.pixels.acquisitions import GROUPINGS
from mosaic_async.tiler.pixels.clouds import CloudMask
from mosaic_async.tiler.pixels.expression import evaluate
from mosaic_async.tiler.pixels.picture import check_color_formula
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.radiometry import REFLECTANCES
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.scenes.known_bands import Known
from mosaic_async.tiler.scenes.mosaic import Mosaic
from mosaic_async.tiler.scenes.naming import Place
from mosaic_async.tiler.scenes.survey import Survey, Unit, names_in

_RESAMPLINGS = tuple(name for name in get_args(RIOResampling) if name in get_args(WarpResampling))
"""Those that both reprojection and resampling know."""


@dataclass(frozen=True, kw_only=True)
class Rendering(rendering.Rendering):
    """What a tile shows: the settings of every tiler, and those that only this one has."""

    pixel_selection: str | None = "first"
    """One of `PIXEL_SELECTIONS`."""
    resampling: str | None = "bilinear"
    """Also used to reproject; 2 pixels are read around each tile, so that tiles meet."""
    rounding: bool = False
    """Whether means, medians and percentiles of integers are rounded (half to even); otherwise they are truncated."""
    group_by: str = GROUPINGS[0]
    """What counts once in means, medians and counts: an `acquisition`, a `day`, or every scene (`none`)."""
    reflectance: str | None = None
    """Reflectance instead of counts, by the items' metadata: `float`, or `integer` for 10,000 times that in 16 bits."""
    alternate: str | None = None
    """Key of the hrefs to read of assets that have alternate ones, such as `s3`."""
    cloud_mask: str | None = None
    """The quality band and its bad values, which are left out: `qa_pixel`, `fmask:values=2,4`, `BQA:bits=4,7-8>=3`."""

    def query(self, mosaic: Mosaic) -> str:
        """Return TiTiler 2's query parameters.

        Raises:
            UsageError: the mosaic does not have a band, or a name is not known.
        """
        selection, resampling = self.selection or "first", self.resampling or "bilinear"
        Selection.parse(selection, group_by=self.group_by)
        if resampling not in _RESAMPLINGS:
            raise UsageError(f"resampling {resampling!r} is not known", hint=f"use one of {', '.join(_RESAMPLINGS)}")
        if self.color_formula:
            check_color_formula(self.color_formula)
        params = self._layer(mosaic)
        _check_expression(next((value for name, value in params if name == "expression"), None))
        params += [("pixel_selection", selection)]
        params += [("rounding", "true")] if self.rounding else []
        params += [("group_by", self.group_by)] if self.group_by != GROUPINGS[0] else []
        params += self._of_items(mosaic)
        params += [("rescale", f"{low!r},{high!r}") for low, high in self.rescale]
        params += [("color_formula", self.color_formula)] if self.color_formula else []
        params += [("resampling", resampling), ("reproject", resampling), ("padding", "2")]
        return urlencode(params)

    def _of_items(self, mosaic: Mosaic) -> list[tuple[str, str]]:
        """Return the parameters that only STAC items support."""
        given = {"reflectance": self.reflectance, "cloud_mask": self.cloud_mask, "alternate": self.alternate}
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

    def shown(self, mosaic: Mosaic) -> list[str]:
        """Return the names of the bands that tiles show or compute with; plain files have one, which is empty."""
        return [name for name, _ in self._read(mosaic)[0]] if mosaic.is_stac else [""]

    def labels(self, mosaic: Mosaic, survey: Survey) -> list[BandLabel]:
        """Return what the bands of the output are called and mean; empty if it is not known how many there are."""
        if self.expression:
            return [BandLabel(name=formula) for formula in self.formulas[: self._kept]]
        places = self._read(mosaic)[0] if mosaic.is_stac else []
        found: list[BandLabel] = []
        for name, numbers in places:
            agreed = survey.of(name)
            bands = list(agreed.labels) if agreed else []
            if numbers:
                bands = [bands[number - 1] if number <= len(bands) else (None, None) for number in numbers]
            bands = bands or [(None, None)]
            scale, offset = self._meaning(agreed.units if agreed else ())
            found += [
                BandLabel(name=band or (name if len(bands) == 1 else None), scale=scale, offset=offset, unit=unit)
                if self._keeps_values
                else BandLabel(name=band or name)
                for band, unit in bands
            ]
        return found[: self._kept]

    @property
    def _kept(self) -> int | None:
        """How many bands the output has of those that tiles compute: the last may only decide."""
        return -1 if Selection.parse(self.selection or "first").drops_last_band else None

    @property
    def _keeps_values(self) -> bool:
        """Whether pixels still are values of the scenes, and no colours, counts or deviations."""
        return not (self.rescale or self.color_formula or self.selection in ("count", "stdev"))

    def _meaning(self, units: Sequence[Unit]) -> tuple[float | None, float | None]:
        """Return scale and offset of the numbers in the output."""
        if self.reflectance:
            return (1e-4, 0.0) if self.reflectance == "integer" else (None, None)
        if not units or units[0] == (0.0, 0.0):
            return None, None
        return units[0][0], max(offset for _, offset in units)

    def _layer(self, mosaic: Mosaic) -> list[tuple[str, str]]:
        if not mosaic.is_stac:
            formulas = [("expression", ";".join(self.formulas))]
            return formulas if self.expression else [("bidx", str(number)) for number in _numbers(self.bands)]
        places, formula = self._read(mosaic)
        assets = [("assets", f"{name}|bidx={','.join(map(str, bands))}" if bands else name) for name, bands in places]
        return [*assets, ("expression", formula)] if formula else assets

    def _read(self, mosaic: Mosaic) -> tuple[list[Place], str]:
        """Return the bands to read, and formulas over their positions.

        `(B5-B4)/(B5+B4)` is `(b1-b2)/(b1+b2)` of B5 and B4, as TiTiler 2 requires.

        Raises:
            UsageError: the scenes do not have a band.
        """
        known = Known(names_in(mosaic.document), mosaic.assets)
        if self.expression:
            names, formula = known.split(self.expression)
            return [(name, ()) for name in names], formula
        if not self.bands:
            raise UsageError(
                "no bands are set",
                hint=f"set ``bands`` or ``expression``; the scenes have {', '.join(mosaic.assets)}",
            )
        return known.read(self.bands), ""


def _check_expression(expression: str | None) -> None:
    """Compute formulas over b1, b2, ... for one pixel.

    Raises:
        UsageError: a formula is malformed.
    """
    if expression is None:
        return
    formula = check_expression(expression)
    one = np.ones((max(formula.bands, default=1), 1, 1))
    try:
        evaluate(Pixels(one, one > 0), expression)
    except InvalidExpression as error:
        raise UsageError(f"the expression is malformed: {error}", hint="write it as `(B5-B4)/(B5+B4)`") from error


def _numbers(bands: Sequence[str]) -> list[int]:
    """Return the numbers of bands of plain files: `4` and `b4` are the same.

    Raises:
        UsageError: a name is not a number.
    """
    texts = [text for band in bands for text in band.replace(",", " ").split()]
    if wrong := [text for text in texts if not re.fullmatch(r"[bB]?[1-9]\d{0,3}", text)]:
        raise UsageError(f"plain files have no band {wrong[0]}", hint="their bands have numbers, such as 1,2,3")
    return [int(text.lstrip("bB")) for text in texts]
