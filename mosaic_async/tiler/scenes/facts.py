"""What the index of a mosaic needs of one scene: where its pixels can be, its zoom, its assets and their hosts.

It knows nothing of the other scenes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import shapely
from morecantile import tms
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.errors import RasterioError
from rasterio.warp import calculate_default_transform
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import MosaicError, SourceError
from mosaic_async.sources.footprint import grid_of, outline_of, reach_of
from mosaic_async.sources.raster_grid import RasterGrid
from mosaic_async.sources.stac_files import resolve_href
from mosaic_async.tiler.scenes.raster_file import is_named_raster, open_raster

_MERCATOR = tms.get("WebMercatorQuad")
_RASTER_TYPES = frozenset({"image/tiff", "image/vnd.stac.geotiff", "image/x.geotiff", "image/jp2"})
_TORN = 4.0
"""How many times coarser than its pixels GDAL's resolution of a raster is when the edge of the map cuts the raster."""


@dataclass(frozen=True)
class SceneFacts:
    """The facts of a STAC item or a raster file that the index needs."""

    location: str
    """Path or URL of the item, or of the file."""
    reach: BaseGeometry
    """In degrees, cut at ±180: pixels of the scene are nowhere else."""
    maxzoom: int
    """Zoom of the data's own resolution."""
    assets: tuple[str, ...] = ()
    """Names of an item's rasters; empty for a file."""
    hosts: frozenset[str] = frozenset()
    """Hosts and buckets of its assets."""

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as JSON types, without the location."""
        return {
            "reach": shapely.to_wkb(self.reach, hex=True),
            "maxzoom": self.maxzoom,
            "assets": list(self.assets),
            "hosts": sorted(self.hosts),
        }

    @classmethod
    def from_dict(cls, location: str, values: Mapping[str, Any]) -> SceneFacts:
        """Return what `as_dict` made."""
        reach = shapely.from_wkb(values["reach"])
        return cls(location, reach, int(values["maxzoom"]), tuple(values["assets"]), frozenset(values["hosts"]))


def facts_of_raster(location: str) -> SceneFacts:
    """Read the facts of a raster file.

    Raises:
        SourceError: the file cannot be read or used.
    """
    try:
        grid = _grid_of_file(location)
        return SceneFacts(location, grid.reach(), zoom_of(grid), hosts=hosts_of([location]))
    except MosaicError as error:
        raise SourceError(f"the scene {location} cannot be used: {error}") from error
    except Exception as error:  # of GDAL and PROJ
        raise SourceError(f"the scene {location} cannot be read: {type(error).__name__}: {error}") from error


def facts_of_item(location: str, item: Mapping[str, Any]) -> SceneFacts:
    """Read the facts of a STAC item; if it does not state the grid of its first raster, the file has to.

    Raises:
        SourceError: the item is malformed, has no raster, or its file cannot be read.
    """
    try:
        if item["geometry"] is None or not isinstance(item["properties"], Mapping):
            raise SourceError("the item has no geometry or no properties")
        outline_of(item)  # raises where the geometry is malformed
        reach, assets = reach_of(item), raster_assets(item)
        if not assets:
            raise SourceError("the item has no raster asset")
        first = next(iter(assets.values()))
        grid = grid_of(item) or grid_of(item, first)
        if grid is None:
            grid = _grid_of_file(resolve_href(str(first["href"]), location))
            reach = reach.union(grid.reach())
        hrefs = (str(asset["href"]) for asset in item["assets"].values())
        return SceneFacts(location, reach, zoom_of(grid), tuple(assets), hosts_of(hrefs))
    except MosaicError as error:
        raise SourceError(f"the scene {location} cannot be used: {error}") from error
    except Exception as error:  # of GDAL, PROJ, and any error that a malformed document causes
        raise SourceError(f"the scene {location} cannot be read: {type(error).__name__}: {error}") from error


def file_behind(location: str, item: Mapping[str, Any]) -> str | None:
    """Return the raster that the facts of an item come from too; None if the item states the grid itself."""
    first = next(iter(raster_assets(item).values()))
    return None if grid_of(item) or grid_of(item, first) else resolve_href(str(first["href"]), location)


def raster_assets(item: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the assets of an item that are rasters, by their media type, or by their ending if they state none."""
    return {name: asset for name, asset in item["assets"].items() if _is_raster(asset)}


def _is_raster(asset: Mapping[str, Any]) -> bool:
    if stated := asset.get("type"):
        return str(stated).partition(";")[0].strip().lower() in _RASTER_TYPES
    return is_named_raster(str(asset.get("href")))


def zoom_of(grid: RasterGrid) -> int:
    """Return the zoom whose tiles of 256 pixels have the resolution of a raster, as rio-tiler chooses it."""
    own = grid.resolution()
    bounds = grid.bounds
    try:
        found, _, _ = calculate_default_transform(grid.crs, "EPSG:3857", grid.width, grid.height, *bounds)
        resolution = max(abs(found.a), abs(found.e))
    except (CPLE_BaseError, RasterioError):  # of one point
        resolution = math.inf
    if own * _TORN < resolution:
        resolution = own
    if not 0 < resolution < math.inf:
        raise SourceError("the resolution of the raster is not known")
    return int(_MERCATOR.zoom_for_res(resolution))


def hosts_of(names: Iterable[str]) -> frozenset[str]:
    """Return the hosts and buckets in these names, without users and passwords."""
    return frozenset(host for name in names if (host := urlsplit(name).netloc.rpartition("@")[2]))


def _grid_of_file(name: str) -> RasterGrid:
    with open_raster(name) as dataset:
        return RasterGrid.of(dataset)
