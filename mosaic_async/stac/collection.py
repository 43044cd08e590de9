"""The parts of a run as one mosaic: a STAC Collection with Items, a MosaicJSON, and an index for GDAL (extra `stac`).

Names in them are relative, so the folder can be moved; only the MosaicJSON states the place of the folder, once, since
its readers know no relative names. It knows nothing of how the files get into their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pystac
import rasterio
from shapely.geometry.base import BaseGeometry

from mosaic_async.errors import SourceError
from mosaic_async.events import MosaicReport
from mosaic_async.geo.cover import WORLD
from mosaic_async.geo.grid import Grid
from mosaic_async.raster.environment import pinned
from mosaic_async.sources.outlines import MAX_CELLS, cell_count, cells_of, metres_of, mosaic_document
from mosaic_async.stac.item import Described, as_json, describe, moments, scene_links, software
from mosaic_async.stac.tile_index import IndexedFile, tile_index

_AT_ONCE = 4
_INDEXES = (
    ("mosaicjson", "./mosaic.json", pystac.MediaType.JSON),
    ("tile_index", "./index.gti.gpkg", pystac.MediaType.GEOPACKAGE),
)
"""Key, place and kind of each."""
_SOURCE_TAG = "MOSAIC_SOURCE"


def describe_collection(folder: Path, grid: Grid, report: MosaicReport) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of all files of a collection beside the COGs that are in its folder.

    Args:
        folder: with the COGs of the parts, under its working name.
        grid: the pixels of all parts.
        report: of the run; it has the final name.
    """
    cogs = sorted((folder / "parts").rglob("*.tif"))
    names, parts = [], []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for cog, part in zip(cogs, pool.map(partial(_part, report=report), cogs), strict=True):
            if part.geometry.is_empty:  # a polygon has cut out all of its pixels
                continue
            name = cog.relative_to(folder)
            names.append(name.as_posix())
            parts.append(part)
            yield name.with_suffix(".json").as_posix(), as_json(_document(part.item))
    yield "collection.json", as_json(_document(_collection(cogs[0], names, parts, report)))
    if mosaic := _mosaic(names, [part.geometry for part in parts], grid, report):
        yield "mosaic.json", as_json(mosaic)
    files = [IndexedFile(name, part.bounds) for name, part in zip(names, parts, strict=True)]
    with pinned(), rasterio.open(cogs[0]) as like:
        yield "index.gti.gpkg", tile_index(files, grid, like)


def _part(cog: Path, report: MosaicReport) -> Described:
    found = describe(cog, f"{report.output.name}-{cog.stem}", f"./{cog.name}", report.scenes)
    found.item.collection_id = report.output.name
    for relation in ("root", "parent", "collection"):
        found.item.add_link(pystac.Link(relation, "../../collection.json", media_type=pystac.MediaType.JSON))
    return found


def _document(thing: pystac.Item | pystac.Collection) -> dict[str, Any]:
    return thing.to_dict(include_self_link=False, transform_hrefs=False)


def _collection(
    first: Path, names: Sequence[str], parts: Sequence[Described], report: MosaicReport
) -> pystac.Collection:
    with pinned(), rasterio.open(first) as dataset:
        source = dataset.tags().get(_SOURCE_TAG, "")
    found = pystac.Collection(
        id=report.output.name,
        title=report.output.name,
        description=f"{report.tiles_placed:,} tiles of {source}, in {len(parts):,} Cloud Optimized GeoTIFFs",
        extent=_extent(report),
        license="other",
        providers=[
            pystac.Provider(
                "mosaic-async", roles=[pystac.ProviderRole.PROCESSOR], extra_fields={"processing:software": software()}
            )
        ],
        summaries=pystac.Summaries({"proj:code": [code]} if (code := parts[0].item.properties["proj:code"]) else {}),
    )
    for name in names:
        href = f"./{Path(name).with_suffix('.json')}"
        found.add_link(pystac.Link("item", href, media_type=pystac.MediaType.GEOJSON))
    found.add_links(scene_links(report.scenes, report.output))
    for key, href, kind in _INDEXES:
        found.add_asset(key, pystac.Asset(href, media_type=kind, roles=["index"]))
    return found


def _extent(report: MosaicReport) -> pystac.Extent:
    days = moments(report.scenes)
    ends = [days.get("start_datetime") or days["datetime"], days.get("end_datetime") or days["datetime"]]
    return pystac.Extent(pystac.SpatialExtent([list(report.bounds)]), pystac.TemporalExtent([ends]))


def _mosaic(
    names: Sequence[str], outlines: Sequence[BaseGeometry], grid: Grid, report: MosaicReport
) -> dict[str, Any] | None:
    """Return the MosaicJSON; None where no part lies within Web Mercator's latitudes."""
    maxzoom = _native_zoom(grid)
    zoom = max(0, maxzoom - max(0, round(math.log2(grid.part_size / 256))))
    while zoom and cell_count(outlines, zoom) > MAX_CELLS:
        zoom -= 1
    cells = {key: [names[index] for index in found] for key, found in cells_of(outlines, zoom).items()}
    lowest = max(0, min(zoom, maxzoom - grid.part_levels))
    try:
        document = mosaic_document(outlines, (lowest, maxzoom, zoom), cells, name=report.output.name, asset_type="COG")
    except SourceError:
        return None
    return {**document, "asset_prefix": f"{report.output}/"}


def _native_zoom(grid: Grid) -> int:
    """Return the zoom whose tiles of 256 pixels are nearest to the grid's resolution."""
    west, south, east, north = grid.bounds
    left, _, right, _ = metres_of((west, south, east if east > west else east + 360, north))
    return max(0, round(math.log2(WORLD / 256 / ((right - left) / grid.width))))
