"""A tile as awspds-mosaic drew it: bands by number, colours in its order of operations, its layout of files.

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
from rio_tiler.models import ImageData
from rio_tiler.utils import render

from mosaic_async.errors import UsageError
from mosaic_async.tiler.awspds.bands import asset_of, split_expression
from mosaic_async.tiler.pixels.composer import Composer
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.view import View

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
class Asked:
    """What a tile is to show: the query of a tile."""

    bands: Annotated[str | None, Query(description="4,3,2")] = None
    expr: Annotated[str | None, Query(description="b4,b3,(b5-b4)/(b5+b4); goes before `bands`")] = None
    rescale: Annotated[str | None, Query(pattern=r"^-?[\d.e+-]+,-?[\d.e+-]+$")] = None
    color_ops: str | None = None
    color_map: str | None = None
    pixel_selection: str = "first"

    def view(self, assets: Sequence[str], reflectance: str | None) -> View:
        """Say what is read of a scene.

        Raises:
            UsageError: neither bands nor an expression are given, or they are none.
        """
        if self.expr:
            used, formulas = split_expression(self.expr, assets)
            return View(assets=tuple((asset, ()) for asset in used), expression=formulas, reflectance=reflectance)
        if not self.bands:
            raise UsageError("a tile needs `bands` or `expr`")
        named = [asset_of(band.strip(), assets) for band in self.bands.split(",")]
        return View(assets=tuple((asset, ()) for asset in named), reflectance=reflectance)


def draw(
    composer: Composer, scenes: Sequence[str], tile: mercantile.Tile, *, view: View, size: int, ext: str, asked: Asked
) -> Response:
    """Compose a tile and write it; 204 where no scene has data.

    Raises:
        UsageError: bands, expression, selection, formula or colour map are none.
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
        Selection.parse(asked.pixel_selection),
    )
    if composed.pixels is None or not composed.pixels.valid.any():
        return Response(status_code=204)
    headers = {"X-Assets": ",".join(composed.used)}
    with composer.finishing:
        body = _written(composed.pixels, frame, ext, asked)
    return Response(body, media_type=_MEDIA[ext], headers=headers)


def _written(pixels: Pixels, frame: Frame, ext: str, asked: Asked) -> bytes:
    there = pixels.valid.any(axis=0)
    mask = np.where(there, 255, 0).astype(np.uint8)
    if ext == "npy":  # (tile, mask), not coloured, as objects: `numpy.load` needs allow_pickle=True
        pair = np.empty(2, object)
        pair[:] = [pixels.data, mask]
        with BytesIO() as file:
            np.save(file, pair, allow_pickle=True)
            return file.getvalue()
    image = _coloured(pixels, asked)
    options = (
        {"crs": frame.crs, "transform": from_bounds(*frame.bounds, frame.width, frame.height)} if ext == "tif" else {}
    )
    return render(
        image.data,
        mask.astype(image.data.dtype) if ext == "tif" else mask,
        img_format=_DRIVERS[ext],
        colormap=_colormap(asked.color_map),
        **options,
    )


def _coloured(pixels: Pixels, asked: Asked) -> ImageData:
    """Rescale, then apply each colour operation by itself, floats as int16; see tile handler of awspds-mosaic."""
    image = ImageData(np.ma.MaskedArray(pixels.data, mask=~pixels.valid))
    try:
        if asked.rescale:
            low, high = (float(number) for number in asked.rescale.split(","))
            image.rescale([(low, high)])
        if asked.color_ops:
            if np.issubdtype(image.array.dtype, np.floating):
                limits = np.iinfo(np.int16)
                filled = np.clip(np.nan_to_num(image.array.filled(0)), limits.min, limits.max)
                image.array = np.ma.MaskedArray(filled.astype(np.int16), mask=image.array.mask)
            image.apply_color_formula(asked.color_ops)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"the colours cannot be: {error}") from error
    return image


def _colormap(name: str | None) -> dict[int, tuple[int, int, int, int]] | None:
    if name is None:
        return None
    try:
        return cmap.get(name)  # type: ignore[return-value]
    except InvalidColorMapName as error:
        raise UsageError(f"there is no colour map {name}") from error
