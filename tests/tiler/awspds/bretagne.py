"""Scenes such as Landsat 8 leaves over Bretagne, made up and coarse, with the items that SAT-API had of them in 2020.

What the notebook's search must drop is there too, and bright: in a mosaic it would be seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_geom

BANDS = (2, 3, 4, 5)
_WIDTH, _HEIGHT, _LEAN = 185_000, 180_000, 0.2
"""Metres of a scene's square, and by how much of its width its footprint leans."""
_LAND = {2: 0.05, 3: 0.08, 4: 0.06, 5: 0.3}
_SEA = {2: 0.07, 3: 0.04, 4: 0.02, 5: 0.01}
_GAIN, _OFFSET = 2e-5, -0.1


@dataclass(frozen=True)
class Taken:
    """One scene."""

    path: int
    row: int
    date: str
    cloud: float = 1.0
    tier: str = "T1"
    platform: str = "landsat-8"
    sun: float = 50.0
    is_wanted: bool = True
    """Whether the notebook's search finds it."""

    @property
    def name(self) -> str:
        """Of the product."""
        sensor = "LC08" if self.platform == "landsat-8" else "LE07"
        return f"{sensor}_L1TP_{self.path:03}{self.row:03}_{self.date.replace('-', '')}_01_{self.tier}"

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude and latitude, as the satellite's path goes."""
        return -2.2 - 1.55 * (self.path - 202) - 0.42 * (self.row - 27), 47.45 - 1.43 * (self.row - 27)


def taken() -> Iterator[Taken]:
    """List scenes of 2019 over Bretagne, three of each path and row and those that are not wanted."""
    for path in (201, 202, 203):
        for row in (26, 27, 28):
            for turn, date in enumerate(("2019-04-1", "2019-06-2", "2019-08-0")):
                cloud = 0.3 + (7 * path + 3 * row + 5 * turn) % 11 / 5
                yield Taken(path, row, f"{date}{path % 9 + 1}", cloud)
    bad = {"is_wanted": False}
    yield Taken(202, 27, "2019-01-15", **bad)  # winter
    yield Taken(202, 27, "2019-10-15", **bad)  # autumn
    yield Taken(202, 27, "2018-07-15", **bad)
    yield Taken(202, 27, "2019-07-15", cloud=3.0, **bad)
    yield Taken(202, 26, "2019-07-15", cloud=-1, **bad)  # not known, in SAT-API
    yield Taken(203, 27, "2019-07-15", tier="T2", **bad)
    yield Taken(203, 26, "2019-07-15", tier="RT", **bad)
    yield Taken(201, 27, "2019-07-15", platform="landsat-7", **bad)
    yield Taken(201, 26, "2019-07-15", sun=-5.0, **bad)  # at night
    yield Taken(190, 27, "2019-07-15", **bad)  # elsewhere


def write_scenes(folder: Path, scenes: Iterable[Taken] | None = None, *, metres: float = 1200) -> list[Path]:
    """Write scenes with pixels of a size, a folder each, and give their items."""
    return [_write(folder / one.name, one, metres) for one in scenes or taken()]


def _write(folder: Path, one: Taken, metres: float) -> Path:
    folder.mkdir(parents=True)
    longitude, latitude = one.centre
    crs = CRS.from_epsg(32601 + int((longitude + 180) // 6))
    (x,), (y,) = transform("EPSG:4326", crs, [longitude], [latitude])
    left, top = (round(x) - _WIDTH // 2) // 30 * 30, (round(y) + _HEIGHT // 2) // 30 * 30
    height, width = round(_HEIGHT / metres), round(_WIDTH / metres)
    grid = from_origin(left, top, metres, metres)
    down, across = np.mgrid[:height, :width] + 0.5
    lean = _LEAN * (1 - down / height)
    is_seen = (across / width >= lean) & (across / width <= lean + 1 - _LEAN)
    easting, northing = left + across * metres, top - down * metres
    for band in BANDS:
        with rasterio.open(
            folder / f"{one.name}_B{band}.tif", "w", driver="GTiff", dtype="uint16", nodata=0, count=1, crs=crs,
            width=width, height=height, transform=grid, compress="zstd",
        ) as dataset:  # fmt: skip
            dataset.write(np.where(is_seen, _counts(one, band, easting, northing), 0).astype("uint16"), 1)
    skew, edge = _LEAN * _WIDTH, top - height * metres
    ring = [
        [left + skew, top], [left + width * metres, top], [left + width * metres - skew, edge], [left, edge],
        [left + skew, top],
    ]  # fmt: skip
    item = _item(one, transform_geom(crs, "EPSG:4326", {"type": "Polygon", "coordinates": [ring]}))
    path = folder / f"{one.name}.json"
    path.write_text(json.dumps(item))
    return path


def _counts(one: Taken, band: int, easting: np.ndarray, northing: np.ndarray) -> np.ndarray:
    """Land and sea with fields and waves, greener in summer; by place alone, but for the date's haze."""
    if not one.is_wanted:
        return np.full(easting.shape, 60_000)
    month, day = int(one.date[5:7]), int(one.date[8:])
    coast = np.sin(easting / 61_000) + np.cos(northing / 47_000) + 0.4 * np.sin((easting + northing) / 17_000)
    fields = np.sin(easting / 7_000 + day) * np.cos(northing / 5_000 - month)
    land = _LAND[band] * (1 + 0.25 * fields) + (0.02 * (month - 6) if band == 5 else 0)
    sea = _SEA[band] * (1 + 0.1 * np.sin(northing / 3_000 + one.path))
    haze = 0.004 * ((day * 3 + one.row) % 5)
    value = np.where(coast > 0, land, sea) + haze
    return (value - _OFFSET) * np.sin(np.radians(one.sun)) / _GAIN


def _item(one: Taken, outline: dict) -> dict:
    corners = np.array(outline["coordinates"][0])
    properties = {
        "datetime": f"{one.date}T10:{one.row:02}:30Z",
        "eo:platform": one.platform,
        "eo:cloud_cover": one.cloud,
        "eo:sun_elevation": one.sun,
        "eo:column": f"{one.path:03}",
        "eo:row": f"{one.row:03}",
        "landsat:tier": one.tier,
        "landsat:product_id": one.name,
    }
    for band in BANDS:
        properties |= {f"REFLECTANCE_MULT_BAND_{band}": _GAIN, f"REFLECTANCE_ADD_BAND_{band}": _OFFSET}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": one.name,
        "collection": f"{one.platform}-l1",
        "geometry": {"type": "Polygon", "coordinates": [corners.tolist()]},
        "bbox": [*corners.min(axis=0), *corners.max(axis=0)],
        "properties": properties,
        "assets": {f"B{band}": {"href": f"{one.name}_B{band}.tif"} for band in BANDS},
        "links": [],
    }
