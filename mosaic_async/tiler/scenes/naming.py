"""Bands as people write them: an asset, a common name, a band's own name, or a number; found in each scene anew.

So `red` is B4 of one scene and B04 of another. It knows nothing of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rio_tiler.errors import InvalidAssetName

from mosaic_async.tiler.scenes.band import Band
from mosaic_async.tiler.scenes.scene import Scene

Place = tuple[str, tuple[int, ...]]
"""An asset, and the numbers of bands in its file; no numbers: all bands."""

_OLI = ["coastal", "blue", "green", "red", "nir08", "swir16", "swir22", "pan", "cirrus", "lwir11", "lwir12"]
_TM = ["blue", "green", "red", "nir08", "swir16", "lwir", "swir22", "pan"]
"""Common names of the bands from 1, as Landsat Collection 2 calls its assets."""
_MSI_NUMBERS = ("1", "2", "3", "4", "5", "6", "7", "8", "8a", "9", "10", "11", "12")
_MSI_NAMES = (
    *("coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3"),
    *("nir", "nir08", "nir09", "cirrus", "swir16", "swir22"),
)
_MSI = dict(zip(_MSI_NUMBERS, _MSI_NAMES, strict=True))
"""Names of Sentinel-2's bands by number, as Earth Search calls its assets."""
_PICTURE = re.compile(r"visual|tci|overview|preview|thumbnail|rendered", re.IGNORECASE)
_NUMBER = re.compile(r"b?0*(\d{1,2}[aA]?)")
_NUMBERED = re.compile(r"(?:(?:sr|oli|tm|etm|msi)_)?b(?:and)?_?0*(\d{1,2}a?)", re.IGNORECASE)


def find_bands(scene: Scene, name: str) -> Place:
    """Find what a name means in a scene.

    Raises:
        InvalidAssetName: the scene does not have it, or has several.
    """
    if name in scene.files:
        return name, ()
    for found in (_described(scene, name), _numbered(scene, name)):
        if found:
            return _only(found, name)
    raise InvalidAssetName(f"it has no band {name}: it has {', '.join(scene.files)}")


def has_bands(scene: Scene, name: str) -> bool:
    """Return whether a name means something in a scene."""
    try:
        find_bands(scene, name)
    except InvalidAssetName:
        return False
    return True


def _described(scene: Scene, name: str) -> dict[str, Place]:
    """Find bands whose common name or own name this is, by their own names."""
    wanted = name.lower()
    return _preferred(
        (scene, asset, number, band)
        for asset, number, band in _bands(scene)
        if wanted in (str(band.common_name).lower(), str(band.name).lower())
    )


def _numbered(scene: Scene, name: str) -> dict[str, Place]:
    """Find a band by its number: `4`, `04` and `b4` are the same, and B04 is a name."""
    number = _NUMBER.fullmatch(name)
    if not number:
        return {}
    wanted = number[1].lower()
    if named := [asset for asset in scene.files if _is_numbered(asset, wanted)]:
        return {asset: (asset, ()) for asset in named}
    found = _preferred(
        (scene, asset, place, band) for asset, place, band in _bands(scene) if _is_numbered(band.name or "", wanted)
    )
    common = _common_name(scene, wanted)
    return found or ({common: (common, ())} if common in scene.files else {})


def _is_numbered(name: str, wanted: str) -> bool:
    found = _NUMBERED.fullmatch(name)
    return found is not None and found[1].lower() == wanted


def _common_name(scene: Scene, number: str) -> str:
    """Return the name of a band of Sentinel-2 or Landsat, of Landsat 8 where the satellite is not known.

    Bands of others have other numbers: the 5 of Landsat is the 8A of Sentinel-2, and Planet's blue is 1.
    """
    if scene.is_sentinel_2:
        return _MSI.get(number, "")
    if scene.platform and not scene.platform.startswith("landsat"):
        return ""
    names = _TM if re.fullmatch(r"landsat0?[4-7]", scene.platform) else _OLI
    return names[int(number) - 1] if number.isdecimal() and 1 <= int(number) <= len(names) else ""


def _bands(scene: Scene) -> Iterator[tuple[str, int, Band]]:
    for asset, file in scene.files.items():
        for number, band in enumerate(file.bands, start=1):
            yield asset, number, band


def _preferred(found: Iterator[tuple[Scene, str, int, Band]]) -> dict[str, Place]:
    """Return the first place of each band; files of one band come before others, pictures last."""
    places: list[tuple[bool, bool, str, Place]] = []
    for scene, asset, number, band in found:
        is_alone = len(scene.files[asset].bands) == 1
        place: Place = (asset, () if is_alone else (number,))
        places.append((_PICTURE.search(asset) is not None, not is_alone, band.name or str(band.common_name), place))
    best = min((one[:2] for one in places), default=None)
    kept: dict[str, Place] = {}
    for *rank, name, place in places:
        if tuple(rank) == best:
            kept.setdefault(name, place)
    return kept


def _only(found: dict[str, Place], name: str) -> Place:
    if len(found) > 1:
        raise InvalidAssetName(f"it has several bands {name}: {', '.join(found)}")
    return next(iter(found.values()))
