"""A COG of a run as a STAC Item: where its data is, how its pixels lie, what it was made of (extra `stac`).

All is read from the file and from the run's report, so no secret gets here that is not in them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from shapely.geometry.base import BaseGeometry

from mosaic_async.events import MosaicReport, SceneReport
from mosaic_async.geo.grid import Grid
from mosaic_async.raster.environment import pinned
from mosaic_async.stac.data_outline import data_outline

PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Described:
    """A COG, as an item and as what indexes list of it."""

    item: pystac.Item
    geometry: BaseGeometry
    """Where it has data, in degrees."""
    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top in its reference system."""


def describe_file(made: Path, _: Grid, report: MosaicReport) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the item that lies beside an output.

    Args:
        made: the output under its working name.
        report: of the run; it has the final name.
    """
    item = describe(made, report.output.stem, f"./{report.output.name}", report.scenes).item
    item.add_links(scene_links(report.scenes, report.output.parent))
    yield f"{report.output.stem}.json", as_json(item.to_dict(include_self_link=False, transform_hrefs=False))


def describe(path: Path, name: str, href: str, scenes: SceneReport) -> Described:
    """Return a COG as an item.

    Args:
        path: the COG.
        name: of the item.
        href: of the COG, from the item.
        scenes: of the run.
    """
    with pinned(), rasterio.open(path) as dataset:
        outline = data_outline(dataset)
        item = pystac.Item(
            id=name,
            geometry=json.loads(shapely.to_geojson(outline.geometry)) if outline.bbox else None,
            bbox=list(outline.bbox) if outline.bbox else None,
            properties={"created": _now(), "processing:software": software()},
            stac_extensions=[PROCESSING],
            **moments(scenes),
        )
        _add_projection(item, dataset)
        asset = pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"], extra_fields=_pixels(dataset))
        asset.extra_fields["bands"] = [
            {**band, "statistics": {"valid_percent": outline.valid_percent}} for band in _bands(dataset)
        ]
        item.add_asset("data", asset)
        RasterExtension.add_to(item)
        return Described(item, outline.geometry, tuple(dataset.bounds))


def moments(scenes: SceneReport) -> dict[str, Any]:
    """Return the arguments of an item for the days of its scenes; for now, where no day is known."""
    if scenes.first is None or scenes.last is None:
        return {"datetime": datetime.now(UTC)}
    first, last = (datetime.fromisoformat(f"{day}T00:00:00Z") for day in (scenes.first, scenes.last))
    return {"datetime": None, "start_datetime": first, "end_datetime": last.replace(hour=23, minute=59, second=59)}


def scene_links(scenes: SceneReport, folder: Path) -> list[pystac.Link]:
    """Return links to the scenes of a run, as far as their names are places; files are named from the folder."""
    names = [scene.name for scene in scenes.used]
    hrefs = [name if _URL.match(name) else os.path.relpath(name, folder) for name in names if _is_place(name)]
    return [pystac.Link("derived_from", href) for href in hrefs]


def software() -> dict[str, str]:
    """Return what made an output."""
    return {"mosaic-async": version("mosaic-async")}


def as_json(document: dict[str, Any]) -> bytes:
    """Return a document as the bytes of its file."""
    return json.dumps(document, indent=1, allow_nan=False).encode()


def _is_place(name: str) -> bool:
    return bool(_URL.match(name)) or Path(name).is_absolute()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _add_projection(item: pystac.Item, dataset: DatasetReader) -> None:
    authority = dataset.crs.to_authority()
    ProjectionExtension.ext(item, add_if_missing=True).apply(
        code=":".join(authority) if authority else None,
        wkt2=None if authority else dataset.crs.to_wkt(version="WKT2_2019"),
        shape=[dataset.height, dataset.width],
        transform=list(dataset.transform)[:6],
        bbox=list(dataset.bounds),
    )


def _pixels(dataset: DatasetReader) -> dict[str, Any]:
    """Return the width of a pixel in metres where it is that everywhere."""
    if dataset.crs.is_projected and dataset.crs.linear_units_factor[1] == 1.0:
        return {"raster:spatial_resolution": abs(dataset.transform.a)}
    return {}


def _bands(dataset: DatasetReader) -> Iterator[dict[str, Any]]:
    for index, (dtype, color) in enumerate(zip(dataset.dtypes, dataset.colorinterp, strict=True)):
        name = dataset.descriptions[index] or ("alpha" if color == ColorInterp.alpha else f"b{index + 1}")
        band: dict[str, Any] = {"name": name, "data_type": dtype}
        nodata = dataset.nodatavals[index]
        if nodata is not None:
            band["nodata"] = nodata if np.isfinite(nodata) else str(nodata)
        if dataset.units[index]:
            band["unit"] = dataset.units[index]
        if (dataset.scales[index], dataset.offsets[index]) != (1.0, 0.0):
            band |= {"raster:scale": dataset.scales[index], "raster:offset": dataset.offsets[index]}
        yield band
