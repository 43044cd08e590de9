"""One scene: its files, footprint and date, read from a STAC item once and kept.

It knows nothing of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rasterio.features import bounds as bounds_of
from rio_tiler.io.stac import fetch

from mosaic_async.safety.safe_json import read
from mosaic_async.sources.bucket import read_object
from mosaic_async.sources.footprint import reach_of, states_grid
from mosaic_async.sources.outlines import Box, boxes_of
from mosaic_async.sources.remote_json import get_json
from mosaic_async.sources.signing import Signer, signature_end
from mosaic_async.sources.stac_files import resolve_href
from mosaic_async.tiler.scenes.band import Band, bands_of

_TIMEOUT = 30.0
"""Seconds to wait for a byte of an item."""
_REMOTE = ("http", "https", "s3", "gs", "az", "abfs", "abfss", "oss")
"""Schemes of files on servers; others, such as `zip+file`, can lead back to this machine."""
_KEPT = 20_000
"""Scenes that a process remembers, about 3 KB each."""


@dataclass(frozen=True)
class SceneFile:
    """One asset of a scene."""

    href: str
    """Absolute path or URL; may hold secrets."""
    scales: tuple[tuple[float, float], ...] = ()
    """(scale, offset) of each band, which turn counts into reflectance; empty if the item does not have them."""
    bands: tuple[Band, ...] = ()
    """What the item says of each band of the file; empty: nothing."""

    alternates: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further hrefs of the same file by their keys, such as `s3`, see the extension alternate-assets."""
    is_raster: bool = True
    """Whether its media type may be that of an image."""

    def at(self, key: str) -> str:
        """Return the alternate href of a key, or the usual one if it has none."""
        return self.alternates.get(key, self.href)

    def nodata(self, number: int) -> float | None:
        """Return the value that marks pixels without data in a band, numbered from 1; None if the item has none."""
        if number <= len(self.bands):
            return self.bands[number - 1].nodata
        return self.bands[0].nodata if len(self.bands) == 1 else None


@dataclass(frozen=True)
class Scene:
    """The facts of a scene that a tile needs before it reads pixels."""

    name: str
    """The name that the mosaic lists."""
    files: Mapping[str, SceneFile] = field(repr=False)
    """Files by asset name; a plain file has the empty name."""
    bounds: Box | None = None
    """West, south, east, north of the footprint in degrees, as the item states them; None if not known."""
    reach: tuple[Box, ...] | None = None
    """Boxes in degrees outside of which the scene has no pixels; None if not known."""
    taken: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict, repr=False)
    id: str = ""
    """Of the item; empty for a plain file."""
    ends: float | None = None
    """When the first signature of the files' URLs ends, in seconds since 1970; None: never."""

    @property
    def platform(self) -> str:
        """The satellite without case and punctuation: `Sentinel-2A` and `sentinel-2a` are the same; "" if not known."""
        named = (self.properties.get(name) for name in ("platform", "eo:platform", "constellation"))
        return re.sub(r"[^a-z0-9]", "", next((str(name).lower() for name in named if name), ""))

    @property
    def is_sentinel_2(self) -> bool:
        """Whether it is a product of Sentinel-2, by its satellite or its id."""
        return (self.platform.startswith("sentinel2") or re.match(r"S2[A-D]_", self.id) is not None) and not self.is_hls

    @property
    def is_hls(self) -> bool:
        """Whether it is of the archive Harmonized Landsat Sentinel-2."""
        return re.match(r"HLS\.[LS]30\.", self.id) is not None

    def may_touch(self, bounds: Box) -> bool:
        """Return whether pixels of the scene can lie in a box in degrees."""
        west, south, east, north = bounds
        return self.reach is None or any(
            left <= east and west <= right and bottom <= north and south <= top
            for left, bottom, right, top in self.reach
        )


@lru_cache(maxsize=_KEPT)
def open_scene(name: str, *, is_item: bool) -> Scene:
    """Read the item of a scene, or make a scene of a plain file without reading it.

    Errors are not kept: the next call reads a failed item again.

    Raises:
        Exception: any error of reading and parsing; the caller decides what a scene without an item means.
    """
    if not is_item:
        return Scene(name, {"": SceneFile(name)})
    item = read_item(name)
    properties = item.get("properties") or {}
    files = {
        key: _file(href, asset, name)
        for key, asset in item["assets"].items()
        if may_name(name, href := resolve_href(asset["href"], name))
    }
    return Scene(
        name,
        files,
        _bounds(item),
        _reach(item),
        _date(properties),
        properties,
        id=str(item.get("id") or ""),
        ends=_end_of(files),
    )


def _file(href: str, asset: Mapping[str, Any], location: str) -> SceneFile:
    bands, alternates = bands_of(asset), _alternates(asset, location)
    return SceneFile(href, _scales(bands), bands, alternates=alternates, is_raster=_is_raster(asset))


def may_name(location: str, href: str) -> bool:
    """Return whether an item may name a file.

    An item that comes from a server names files on servers only, not files of this machine; and an item from the
    internet names nothing in the private network.

    Args:
        location: path or URL of the item.
        href: absolute path or URL of the file.
    """
    item, file = urlsplit(location), urlsplit(href)
    if item.scheme in ("", "file"):
        return file.scheme in ("", "file", *_REMOTE)
    return file.scheme in _REMOTE and (_is_private(item.hostname) or not _is_private(file.hostname))


def _is_private(host: str | None) -> bool:
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False  # a name


def renewed(scene: Scene, signer: Signer) -> Scene:
    """Return a scene whose signatures are good for at least a minute.

    Raises:
        SourceError: the signatures cannot be renewed.
    """
    files = {key: replace(file, href=signer.renew(file.href)) for key, file in scene.files.items()}
    return replace(scene, files=files, ends=_end_of(files))


def _end_of(files: Mapping[str, SceneFile]) -> float | None:
    ends = (signature_end(file.href) for file in files.values())
    return min((end for end in ends if end is not None), default=None)


def read_item(location: str) -> dict[str, Any]:
    """Read a STAC item from a path or a URL."""
    scheme = urlsplit(location).scheme
    if scheme in ("", "file"):
        document = read(Path(location.removeprefix("file://")))
    elif scheme in ("http", "https"):
        document = get_json(location, timeout=_TIMEOUT)
    elif scheme == "s3":
        document = read_object(location)
    else:
        document = fetch(location)
    if not isinstance(document, dict):
        raise TypeError(f"{location} is not a STAC item")
    return document


def _alternates(asset: Mapping[str, Any], location: str) -> dict[str, str]:
    found = {key: one.get("href") for key, one in (asset.get("alternate") or {}).items() if isinstance(one, Mapping)}
    hrefs = {key: resolve_href(href, location) for key, href in found.items() if isinstance(href, str)}
    return {key: href for key, href in hrefs.items() if may_name(location, href)}


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type") or "image")
    return kind.startswith("image/") or kind in ("image", "application/x-geotiff", "application/octet-stream")


def _scales(bands: Sequence[Band]) -> tuple[tuple[float, float], ...]:
    """Return scale and offset of each band; empty if one of them has neither."""
    if any(band.scale is None and band.offset is None for band in bands):
        return ()
    return tuple((1.0 if band.scale is None else band.scale, band.offset or 0.0) for band in bands)


def _bounds(item: Mapping[str, Any]) -> Box | None:
    box = item.get("bbox") or (bounds_of(item["geometry"]) if item.get("geometry") else None)
    if box is None:
        return None
    half = len(box) // 2
    return (float(box[0]), float(box[1]), float(box[half]), float(box[half + 1]))


def _reach(item: Mapping[str, Any]) -> tuple[Box, ...] | None:
    """Return where an item's pixels are; None if it does not state their grid, and only its files tell."""
    return boxes_of(reach_of(item)) if states_grid(item) else None


def _date(properties: Mapping[str, Any]) -> datetime | None:
    text = properties.get("datetime") or properties.get("start_datetime")
    if not isinstance(text, str):
        return None
    date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)
