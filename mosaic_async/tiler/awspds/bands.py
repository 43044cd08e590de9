"""Bands as the notebook writes them, by number, and their assets."""

from __future__ import annotations

import re
from collections.abc import Collection

from mosaic_async.errors import UsageError
from mosaic_async.sources.rendering import split_formulas

_COMMON = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "", "cirrus", "lwir11", "lwir12")
"""Landsat 8's bands 1 to 11 as Landsat Collection 2 calls their assets; band 8 is not in it."""
_NUMBER = re.compile(r"\bb(\d+[aA]?)\b")


def asset_of(band: str, assets: Collection[str]) -> str:
    """Return the asset of a band.

    Args:
        band: a number such as `4`, or an asset's own name.
        assets: the asset names of the scenes.

    Raises:
        UsageError: the scenes do not have the band.
    """
    names = [band, f"B{band}", f"b{band}", f"B{band.zfill(2)}", f"B{band.upper().zfill(3)}"]
    if band.isdecimal() and 1 <= int(band) <= len(_COMMON):
        names.append(_COMMON[int(band) - 1])
    for name in names:
        if name and name in assets:
            return name
    raise UsageError(f"the scenes have no band {band}", hint=f"they have {', '.join(assets)}")


def split_expression(text: str, assets: Collection[str]) -> tuple[list[str], str]:
    """Split `b4,b3,(b5-b4)/(b5+b4)` into its assets and the formulas over their positions, separated by `;`.

    Raises:
        UsageError: the text names no band, or one that the scenes do not have.
    """
    used = list(dict.fromkeys(_NUMBER.findall(text)))
    if not used:
        raise UsageError(f"the expression {text!r} names no band")
    places = {band: f"b{place}" for place, band in enumerate(used, start=1)}
    blocks = [_NUMBER.sub(lambda match: places[match[1]], block) for block in split_formulas(text)]
    return [asset_of(band, assets) for band in used], ";".join(blocks)
