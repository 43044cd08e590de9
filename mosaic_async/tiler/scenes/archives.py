"""What the counts of the big archives mean: value = scale * count + offset, one table of rules.

The item's own scale and offset come first, but for a rule that overrules them. `docs/archives.md` has the rules with
their sources; a test compares it with this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mosaic_async.tiler.scenes.band import Band
from mosaic_async.tiler.scenes.scene import Scene

_SUN = ("view:sun_elevation", "SUN_ELEVATION", "eo:sun_elevation")
_BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version")
_FROM_04 = datetime(2022, 1, 25, tzinfo=UTC)
_REFLECTIVE = re.compile(
    r"(?:(?:sr|oli|tm|etm|msi)_)?b(?:and)?_?0*(?:[1-9]|1[0-2]|8a)|coastal|blue|green|yellow|red|rededge\d*|nir\d*|swir\d*"
    r"|pan|cirrus",
    re.IGNORECASE,
)
RULES_OF_ITEMS = ("boa_offset_applied", "item", "landsat_mtl")
"""The rules by what an item says, which come before those of archives."""
_PICTURE = re.compile(r"visual|tci|overview|preview|thumbnail|rendered", re.IGNORECASE)
_LANDSAT = re.compile(r"L[COTEM]0([4-9])_L([12])\w\w_\d{6}_\d{8}_\d{8}_0([12])_")


@dataclass(frozen=True)
class Meaning:
    """What the counts of a band mean."""

    scale: float
    offset: float
    rule: str
    is_of_scene: bool = False
    """Whether scale and offset differ from scene to scene by nature, by the sun's elevation."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What the counts of an archive mean where the item does not say it."""

    name: str
    holds: Callable[[Scene], bool]
    scale: float
    offset: float
    by_sun: bool = False


def meaning_of(scene: Scene, asset: str, number: int) -> Meaning | None:
    """Return what the counts of a band mean; None if neither the item nor a rule says it.

    Args:
        scene: the scene.
        asset: the asset name of the file.
        number: of the band in the file, from 1.
    """
    file = scene.files[asset]
    band = file.bands[number - 1] if number <= len(file.bands) else None
    own = file.scales[number - 1] if number <= len(file.scales) else None
    is_reflective = _is_reflective(asset, band)
    if is_reflective and _is_corrected(scene.properties):
        return Meaning(own[0] if own else 1e-4, 0.0, "boa_offset_applied")
    rule = next((rule for rule in RULES if is_reflective and rule.holds(scene)), None)
    if own is not None:
        is_half = rule is not None and not rule.by_sun and band is not None and band.offset is None
        return Meaning(own[0], rule.offset, rule.name) if is_half and rule else Meaning(*own, "item")
    if found := _of_mtl(scene.properties, asset):
        return found
    if rule is None:
        return None
    if not rule.by_sun:
        return Meaning(rule.scale, rule.offset, rule.name)
    height = _height(scene.properties)
    return Meaning(rule.scale / height, rule.offset / height, rule.name, is_of_scene=True) if height else None


def _is_reflective(asset: str, band: Band | None) -> bool:
    """Return whether a band holds reflectance, by its names; pictures, flags and temperatures do not."""
    if _PICTURE.search(asset):
        return False
    names: Iterable[str | None] = (asset, band.name if band else None, band.common_name if band else None)
    return any(name is not None and _REFLECTIVE.fullmatch(name) for name in names)


def _is_corrected(properties: Mapping[str, Any]) -> bool:
    return any(name.endswith(":boa_offset_applied") and value is True for name, value in properties.items())


def _is_from_04(scene: Scene) -> bool:
    """Return whether a Sentinel-2 product has processing baseline 04.00 or later."""
    named = (scene.properties.get(name) for name in _BASELINES)
    texts = [re.fullmatch(r"N?(\d\d|\d(?=\.|$))\.?\d*", str(text)) for text in named if text is not None]
    names = (scene.id, str(scene.properties.get("s2:product_uri") or ""))
    found = next((text for text in texts if text), None) or next(
        (match for name in names if (match := re.search(r"_N(\d{2})(\d{2})_", name))), None
    )
    if found:
        return int(found[1]) >= 4
    return scene.taken is not None and scene.taken >= _FROM_04


def _landsat(scene: Scene, *, level: int, collections: str, sensors: str = "456789") -> bool:
    """Return whether a scene is a Landsat product of a level, a collection and a satellite."""
    product = str(scene.properties.get("landsat:product_id") or scene.id)
    if found := _LANDSAT.match(product):
        return found[2] == str(level) and found[3] in collections and found[1] in sensors
    correction = str(scene.properties.get("landsat:correction") or "")
    collection = str(scene.properties.get("landsat:collection_number") or "").lstrip("0")
    platform = re.fullmatch(r"landsat0?([4-9])", scene.platform)
    return (
        correction.startswith(f"L{level}")
        and collection in collections.split("|")
        and platform is not None
        and platform[1] in sensors
    )


RULES = (
    Rule(
        name="sentinel-2_from_04.00",
        holds=lambda scene: scene.is_sentinel_2 and _is_from_04(scene),
        scale=1e-4,
        offset=-0.1,
    ),
    Rule(name="sentinel-2_before_04.00", holds=lambda scene: scene.is_sentinel_2, scale=1e-4, offset=0.0),
    Rule(
        name="landsat_c2_surface",
        holds=lambda scene: _landsat(scene, level=2, collections="2"),
        scale=2.75e-5,
        offset=-0.2,
    ),
    Rule(
        name="landsat_c1_surface",
        holds=lambda scene: _landsat(scene, level=2, collections="1"),
        scale=1e-4,
        offset=0.0,
    ),
    Rule(
        name="landsat_8_9_level_1",
        holds=lambda scene: _landsat(scene, level=1, collections="1|2", sensors="89"),
        scale=2e-5,
        offset=-0.1,
        by_sun=True,
    ),
    Rule(name="hls", holds=lambda scene: scene.is_hls, scale=1e-4, offset=0.0),
)


def _of_mtl(properties: Mapping[str, Any], asset: str) -> Meaning | None:
    number = re.search(r"(\d+)$", asset)
    height = _height(properties)
    if not number or height is None:
        return None
    multiplier = properties.get(f"REFLECTANCE_MULT_BAND_{int(number[1])}")
    addend = properties.get(f"REFLECTANCE_ADD_BAND_{int(number[1])}")
    if multiplier is None or addend is None:
        return None
    return Meaning(float(multiplier) / height, float(addend) / height, "landsat_mtl", is_of_scene=True)


def _height(properties: Mapping[str, Any]) -> float | None:
    """Return the sine of the sun's elevation; None if it is not known, or at night."""
    elevation = next((properties[name] for name in _SUN if properties.get(name) is not None), None)
    return math.sin(math.radians(float(elevation))) if elevation is not None and float(elevation) > 0 else None
