"""Bands as the notebook writes them, by number."""

from __future__ import annotations

import re

from mosaic_async.errors import UsageError
from mosaic_async.sources.rendering import split_formulas
from mosaic_async.tiler.scenes.known_bands import Known

_NUMBER = re.compile(r"\bb(\d+[aA]?)\b")


def split_bands(text: str, known: Known) -> list[str]:
    """Split `4,3,2` into names of bands, which each scene finds among its own assets.

    Raises:
        UsageError: the scenes do not have a band.
    """
    return [_checked(band.strip(), known) for band in text.split(",")]


def split_expression(text: str, known: Known) -> tuple[list[str], str]:
    """Split `b4,b3,(b5-b4)/(b5+b4)` into its bands and the formulas over their positions, separated by `;`.

    Raises:
        UsageError: the text names no band, or one that the scenes do not have.
    """
    used = list(dict.fromkeys(_NUMBER.findall(text)))
    if not used:
        raise UsageError(f"the expression {text!r} names no band")
    places = {band: f"b{place}" for place, band in enumerate(used, start=1)}
    blocks = [_NUMBER.sub(lambda match: places[match[1]], block) for block in split_formulas(text)]
    return [_checked(band, known) for band in used], ";".join(blocks)


def _checked(band: str, known: Known) -> str:
    if band not in known:
        raise UsageError(f"the scenes have no band {band}", hint=f"they have {', '.join(known.assets)}")
    return band
