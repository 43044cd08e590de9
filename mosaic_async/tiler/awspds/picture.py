"""A tile as in awspds-mosaic: bands by number, its order of colour operations, its layout of files.

It knows nothing of routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Annotated, Literal

import mercantile
import numpy as np
from fastapi import Query, Response
from rasterio.crs import CRS
from rasterio.transform import from_bounds
from rio_tiler.colormap import cmap
from rio_tiler.errors import InvalidColorMapName
from rio_tiler.utils import render

from mosaic_async.errors import UsageError
from mosaic_async.tiler.awspds.bands import split_bands, split_expression
from mosaic_async.tiler.pixels.acquisitions import GROUPINGS
from mosaic_async.tiler.pixels.composer import Composer
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.picture import Picture
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.view import View
from mosaic_async.tiler.scenes.known_bands import Known
from mosaic_async.tiler.ticket import held

Extension = Literal["tif", "png", "jpg", "webp", "npy"]
_MEDIA = {
    "tif": "image/tiff; application=geotiff",
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "npy": "application/x-binary",
}
_DRIVERS = {"tif": "GTiff", "png": "PNG", "jpg": "JPEG", "webp": "WEBP"}


@dataclass(frozen=True)
class TileQuery:
    """What a tile shows: the query of a tile."""

    bands: Annotated[str | None, Query(description="4,3,2")] = None
    expr: Annotated[str | None, Query(description="b4,b3,(b5-b4)/(b5+b4); overrides `bands`")] = None
    rescale: Annotated[str | None, Query(pattern=r"^-?[\d.e+-]+,-?[\d.e+-]+$")] = None
    color_ops: str | None = None
    color_map: str | None = None
    pixel_selection: str = "first"
    group_by: Annotated[str, Query(description="What counts once: acquisition, day, none.")] = GROUPINGS[0]

    def view(self, known: Known, reflectance: str | None) -> View:
        """Return what a tile shows of a scene.

        Raises:
            UsageError: `bands` and `expr` are missing, or name a band that the scenes do not have.
        """
        if self.expr:
            used, formulas = split_expression(self.expr, known)
            return View(assets=tuple((asset, ()) for asset in used), expression=formulas, reflectance=reflectance)
        if not self.bands:
            raise UsageError("a tile requires `bands` or `expr`")
        named = split_bands(self.bands, known)
        return View(assets=tuple((asset, ()) for asset in named), reflectance=reflectance)


def draw(
    composer: Composer,
    scenes: Sequence[str],
    tile: mercantile.Tile,
    *,
    view: View,
    size: int,
    ext: str,
    query: TileQuery,
) -> Response:
    """Compose and encode a tile; 204 if no scene has data.

    Raises:
        UsageError: the selection, a formula or the colour map is not known.
    """
    bounds = mercantile.xy_bounds(tile)
    frame = Frame(
        bounds=tuple(bounds),
        crs=CRS.from_epsg(3857),
        width=size,
        height=size,
        padding=2,
        resampling="bilinear",
        reprojection="bilinear",
    )
    composed = composer.compose(
        scenes,
        frame,
        tuple(mercantile.bounds(tile)),
        view,
        Selection.parse(query.pixel_selection, group_by=query.group_by),
    )
    if composed.pixels is None or not composed.pixels.valid.any():
        return Response(status_code=204)
    headers = {"X-Assets": ",".join(composed.used)}
    with held(composer.finishing):
        body = _encoded(composed.pixels, frame, ext, query)
    return Response(body, media_type=_MEDIA[ext], headers=headers)


def _encoded(pixels: Pixels, frame: Frame, ext: str, query: TileQuery) -> bytes:
    mask = np.where(pixels.valid.any(axis=0), 255, 0).astype(np.uint8)
    if ext == "npy":  # (tile, mask) as objects, without colours: `numpy.load` needs allow_pickle=True
        pair = np.empty(2, object)
        pair[:] = [pixels.data, mask]
        with BytesIO() as file:
            np.save(file, pair, allow_pickle=True)
            return file.getvalue()
    image = _coloured(pixels, query)
    options = (
        {"crs": frame.crs, "transform": from_bounds(*frame.bounds, frame.width, frame.height)} if ext == "tif" else {}
    )
    return render(
        image.data,
        mask.astype(image.data.dtype) if ext == "tif" else mask,
        img_format=_DRIVERS[ext],
        colormap=_colormap(query.color_map),
        **options,
    )


def _coloured(pixels: Pixels, query: TileQuery) -> Picture:
    """Rescale, then apply the colour operations one by one."""
    image = Picture(np.ma.MaskedArray(pixels.data, mask=~pixels.valid))
    if query.rescale:
        try:
            low, high = (float(number) for number in query.rescale.split(","))
        except ValueError as error:
            raise UsageError(f"the range {query.rescale} is malformed: {error}") from error
        image.rescale([(low, high)])
    return image.apply_color_formula(query.color_ops) if query.color_ops else image


def _colormap(name: str | None) -> dict[int, tuple[int, int, int, int]] | None:
    if name is None:
        return None
    try:
        return cmap.get(name)  # type: ignore[return-value]
    except InvalidColorMapName as error:
        raise UsageError(f"colour map {name!r} not found") from error
