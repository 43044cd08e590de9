"""Real scenes turned into what the world has: grids, data types, masks, layouts, items; two unlike ones per mosaic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import mercantile
import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from tests.conftest import PARANA
from tests.pairwise import covering
from tests.tiler.in_process import InProcessTiler
from tests.tiler.test_unlike_scenes import assert_is, first_of, nan_stack
from tests.tiler.world import write_item

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore:The dataset has no Overviews"),
    pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid"),
]
GRIDS = {
    "utm": "EPSG:32621",
    "degrees": "EPSG:4326",
    "mercator": "EPSG:3857",
    "albers": "+proj=aea +lat_1=-5 +lat_2=-42 +lat_0=-32 +lon_0=-60 +x_0=0 +y_0=0 +ellps=aust_SA +units=m",
    "polyconic": "EPSG:5880",
}
MASKS = ("nodata", "of item", "beside as metadata", "internal mask", "mask beside", "alpha")
DTYPES = ("uint8", "uint16", "int16", "float32")
LAYOUTS = ("a file per band", "one file")
VERSIONS = ("1.0", "1.1", "names only")
NAMES = ("red", "green", "blue")
TILES = [mercantile.tile(-54.62, -25.45, zoom) for zoom in (8, 10, 12)]
CASES = covering(product(GRIDS, MASKS, DTYPES, LAYOUTS, VERSIONS))
PAIRS = [pytest.param(place, marks=[] if place < 6 else [pytest.mark.slow]) for place in range(0, len(CASES), 2)]


@dataclass(frozen=True)
class Variety:
    grid: str
    mask: str
    dtype: str
    layout: str
    version: str


def turned(scene: Path, variety: Variety) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return bands, their mask and a profile: a scene on another grid and in another data type."""
    bands = []
    for name in ("B4", "B3", "B2"):
        with (
            rasterio.open(next(scene.glob(f"*_{name}.tif"))) as dataset,
            WarpedVRT(dataset, crs=CRS.from_user_input(GRIDS[variety.grid]), resampling=Resampling.nearest) as vrt,
        ):
            window = ((vrt.height // 3, vrt.height), (0, vrt.width))
            bands.append(vrt.read(1, window=window))
            profile = {"crs": vrt.crs, "transform": vrt.window_transform(rasterio.windows.Window.from_slices(*window))}
    mask = np.logical_and.reduce([band > 0 for band in bands])
    counts = np.array(bands)
    scaled = {"uint8": counts // 200, "uint16": counts, "int16": counts // 2 - 3000, "float32": counts / 7}
    values = np.maximum(scaled[variety.dtype], 1) if variety.dtype != "int16" else scaled["int16"]
    nodata = -32768 if variety.dtype == "int16" else 0
    return np.where(mask, values, nodata).astype(variety.dtype), mask, {**profile, "nodata": nodata}


def written(folder: Path, values: np.ndarray, mask: np.ndarray, profile: dict, how: str) -> str:
    """Write bands into one file whose mask is stated in one of `MASKS`."""
    nodata = profile["nodata"] if how == "nodata" else None
    is_alpha = how == "alpha"
    path = folder.with_suffix(".tif")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how != "mask beside"),
        rasterio.open(
            path, "w", driver="GTiff", count=len(values) + is_alpha, height=values.shape[1], width=values.shape[2],
            dtype=values.dtype, crs=profile["crs"], transform=profile["transform"], nodata=nodata, tiled=True,
        ) as file,
    ):  # fmt: skip
        if is_alpha:
            file.colorinterp = [*[ColorInterp.undefined] * len(values), ColorInterp.alpha]
            opaque = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
            file.write(np.where(mask, opaque, 0).astype(values.dtype), len(values) + 1)
        for number, band in enumerate(values, start=1):
            file.write(band, number)
        if "mask" in how:
            file.write_mask(mask)
    if how == "beside as metadata":
        bands = "".join(
            f'<PAMRasterBand band="{number}"><NoDataValue>{profile["nodata"]}</NoDataValue></PAMRasterBand>'
            for number in range(1, len(values) + 1)
        )
        path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    return str(path)


def described(count: int, variety: Variety, profile: dict, names) -> dict:
    nodata = {"nodata": profile["nodata"]} if variety.mask == "of item" else {}
    eo = [{"name": name, "common_name": name} for name in names]
    if variety.version == "1.1":
        return {
            "bands": [{"name": name, "eo:common_name": name} for name in names],
            "data_type": variety.dtype,
            **nodata,
        }
    if variety.version == "1.0":
        return {"eo:bands": eo, "raster:bands": [{"data_type": variety.dtype, **nodata}] * count}
    return {"eo:bands": eo, **nodata}


def write_scene(folder: Path, scene: Path, variety: Variety) -> list[str]:
    """Write a scene and its item, and files with the same pixels whose mask rio-tiler finds: one per band."""
    folder.mkdir()
    (oracles := folder.parent.with_name(f"{folder.parent.name}-oracles")).mkdir(exist_ok=True)
    values, mask, profile = turned(scene, variety)
    kind = variety.mask if variety.mask in ("internal mask", "alpha") else "nodata"
    kind = "internal mask" if variety.mask == "mask beside" else kind
    assets = {}
    if variety.layout == "one file":
        path = written(folder / "image", values, mask, profile, variety.mask)
        assets["image"] = {"href": Path(path).name, **described(3, variety, profile, NAMES)}
    paths = []
    for name, band in zip(NAMES, values, strict=True):
        if variety.layout != "one file":
            path = written(folder / f"{name}-band", band[np.newaxis], mask, profile, variety.mask)
            assets[f"{name}-band"] = {"href": Path(path).name, **described(1, variety, profile, [name])}
        paths.append(written(oracles / f"{folder.name}-{name}", band[np.newaxis], mask, profile, kind))
    write_item(folder / "item.json", assets, **{"proj:code": None})
    return paths


@pytest.mark.quick(2)
@pytest.mark.parametrize("case", PAIRS)
async def test_no_pixel_of_unlike_scenes_is_missing_and_none_is_off(case, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    sources = sorted(path.parent for path in PARANA.rglob("*.json") if path.name != "collection.json")
    varieties = [Variety(*CASES[place % len(CASES)]) for place in (case, case + 1)]
    bands = [
        write_scene(folder / f"{place}", scene, variety)
        for place, (scene, variety) in enumerate(zip(sources, varieties, strict=True))
    ]
    dtype = str(np.result_type(*(variety.dtype for variety in varieties)))
    tiler = InProcessTiler(folder)
    seen = 0
    for tile in TILES:
        expected = first_of(np.array([nan_stack(paths, tile)[:, 0] for paths in bands]))
        answer = await tiler.tile(tile, bands=list(NAMES))
        assert_is(answer, expected, dtype)
        assert "x-skipped-assets" not in answer.headers
        seen += (~np.isnan(expected)).sum()
    assert seen > 100_000
