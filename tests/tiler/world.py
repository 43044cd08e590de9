"""Scenes as the world has them, made small: any grid, data type, mask and item, over one place in Paraná."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mercantile
import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds
from rio_tiler.reader import part

MERCATOR = CRS.from_epsg(3857)
PLACE = (-54.6, -25.3)
"""The centre of every scene that is not moved, in degrees."""
METRES = 60.0


def values_of(seed: int, size: int = 300, *, low: int = 1, high: int = 200, dtype: str = "uint16") -> np.ndarray:
    """Return smooth values between two bounds, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    wave = (np.sin(9 * x + seed) * np.cos(7 * y + seed) + 1) / 2 * 0.8 + rng.random((size, size)) * 0.2
    return (low + wave * (high - low)).astype(dtype)


def write_raster(
    path: Path,
    bands: np.ndarray,
    *,
    crs: str = "EPSG:32721",
    shift: tuple[float, float] = (0, 0),
    pixel: float = METRES,
    nodata: float | None = None,
    mask: np.ndarray | None = None,
    mask_beside: bool = False,
    colours: Sequence[ColorInterp] = (),
    palette: Mapping[int, tuple[int, int, int, int]] | None = None,
    **options: Any,
) -> str:
    """Write (bands, height, width) around the place, shifted by pixels, and return the path."""
    bands = bands if bands.ndim == 3 else bands[np.newaxis]
    count, height, width = bands.shape
    (x,), (y,) = transform("EPSG:4326", crs, [PLACE[0]], [PLACE[1]])
    size = pixel / 111_320 if CRS.from_user_input(crs).is_geographic else pixel
    grid = from_origin(x + (shift[0] - width / 2) * size, y + (shift[1] + height / 2) * size, size, size)
    profile = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": bands.dtype, "crs": crs}
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=not mask_beside),
        rasterio.open(path, "w", **profile, transform=grid, nodata=nodata, tiled=True, **options) as file,
    ):
        file.write(bands)
        if colours:
            file.colorinterp = tuple(colours)
        if palette:
            file.write_colormap(1, dict(palette))
        if mask is not None:
            file.write_mask(mask)
    return str(path)


def write_item(path: Path, assets: Mapping[str, Mapping[str, Any]], **properties: Any) -> Path:
    """Write an item beside its rasters; its footprint is that of the first that is a local file."""
    first = next(path.parent / asset["href"] for asset in assets.values() if (path.parent / asset["href"]).exists())
    with rasterio.open(first) as dataset:
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        grid = {
            "proj:code": f"EPSG:{dataset.crs.to_epsg()}",
            "proj:shape": list(dataset.shape),
            "proj:transform": list(dataset.transform)[:6],
        }
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/projection/v2.0.0/schema.json"],
        "id": properties.pop("id", path.stem),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {"datetime": "2020-05-18T13:40:00Z", **grid, **properties},
        "links": [],
        "assets": {
            name: {"type": "image/tiff; application=geotiff", "roles": ["data"], **asset}
            for name, asset in assets.items()
        },
    }
    path.write_text(json.dumps(item))
    return path


def three_tiles(path: str, *, zooms: Sequence[int] = (9, 11, 12)) -> list[mercantile.Tile]:
    """Return a tile at each of three zooms: around the scene, across its corner, and at its own resolution."""
    with rasterio.open(path) as dataset:
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    return [mercantile.tile(west + (east - west) * share, north - (north - south) * share, zoom)
            for zoom, share in zip(zooms, (0.5, 0.03, 0.03), strict=True)]  # fmt: skip


def read_alone(path: str, tile: mercantile.Tile, size: int = 256, *, method: str = "bilinear", **options: Any):
    """Read a tile of one file with rio-tiler, as the embedded tiler does by default."""
    with rasterio.open(path) as dataset:
        return part(
            dataset, tuple(mercantile.xy_bounds(tile)), height=size, width=size, dst_crs=MERCATOR, bounds_crs=MERCATOR,
            padding=2, resampling_method=method, reproject_method=method, **options,
        ).array  # fmt: skip
