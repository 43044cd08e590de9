"""The mosaic for TiTiler's routes: cogeo-mosaic's backend with our own index and composer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import attr
import numpy as np
from cogeo_mosaic.backends.memory import MemoryBackend
from cogeo_mosaic.mosaic import MosaicJSON
from morecantile import Tile
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from rio_tiler.errors import EmptyMosaicError, NoAssetFoundError
from rio_tiler.expression import parse_expression
from rio_tiler.models import ImageData, PointData

from mosaic_async.errors import UsageError
from mosaic_async.tiler.pixels.clouds import CloudMask
from mosaic_async.tiler.pixels.composer import Composer
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.picture import Picture
from mosaic_async.tiler.pixels.selection import Selection
from mosaic_async.tiler.pixels.view import View
from mosaic_async.tiler.scenes.quadkey_index import QuadkeyIndex

_GRID = "WebMercatorQuad"
_POINTS = 21
"""On each side of a tile."""
_OURS = ("reflectance", "cloud_mask", "alternate")
_GENERAL = ("nodata", "unscale")


def definition(document: Mapping[str, Any]) -> tuple[MosaicJSON, QuadkeyIndex]:
    """Return cogeo-mosaic's model of a MosaicJSON without its cells, and the index of the cells."""
    model = MosaicJSON(**{**document, "tiles": {}})
    return model, QuadkeyIndex(document["tiles"], model.quadkey_zoom or model.minzoom)


@attr.s
class SceneBackend(MemoryBackend):
    """A mosaic for one request; the composer keeps what lasts longer."""

    index: QuadkeyIndex = attr.ib(kw_only=True)
    composer: Composer = attr.ib(kw_only=True)

    @property
    def _quadkeys(self) -> list[str]:
        return list(self.index)

    def get_assets(self, x: int, y: int, z: int, reverse: bool = False) -> list[str]:  # type: ignore[override]  # noqa: FBT001, FBT002 - theirs is a cache
        """Return the scenes listed for a tile, in order."""
        names = self.index.scenes(x, y, z)
        return names[::-1] if reverse else names

    def assets_for_tile(self, x: int, y: int, z: int, **kwargs: Any) -> list[str]:
        """Return the scenes listed where a tile of any grid lies, in order."""
        if self.tms.id == _GRID:
            return self.get_assets(x, y, z, **kwargs)
        return self.index.within(self._degrees(x, y, z))

    def _degrees(self, x: int, y: int, z: int) -> tuple[float, float, float, float]:
        """Return the box around a tile; two corners alone would miss what bulges between them."""
        if self.tms.id == _GRID:
            west, south, east, north = self.tms.bounds(Tile(x, y, z))
            return west, south, east, north
        bounds = self.tms.xy_bounds(Tile(x, y, z))
        west, south, east, north = transform_bounds(self.tms.rasterio_crs, "EPSG:4326", *bounds, densify_pts=_POINTS)
        return west, south, east, north

    def tile(  # type: ignore[override]  # as in rio-tiler itself
        self,
        x: int,
        y: int,
        z: int,
        *,
        search_options: Mapping[str, Any] | None = None,
        tilesize: int | None = None,
        pixel_selection: Selection,
        **options: Any,
    ) -> tuple[ImageData, list[str]]:
        """Compose a tile.

        Raises:
            NoAssetFoundError: the mosaic lists no scene for the tile.
            EmptyMosaicError: no scene has a valid pixel there.
        """
        started = time.perf_counter()
        names = self.assets_for_tile(x, y, z, **(search_options or {}))
        if not names:
            raise NoAssetFoundError(f"no scene is listed for the tile {z}/{x}/{y}")
        searched = time.perf_counter()
        frame = self._frame(Tile(x, y, z), tilesize, options)
        composed = self.composer.compose(names, frame, self._degrees(x, y, z), _view(options), pixel_selection)
        pixels = composed.pixels
        if pixels is None or not pixels.valid.any():
            raise EmptyMosaicError(f"no scene has data in the tile {z}/{x}/{y}")
        timings = [
            ("search", round(1000 * (searched - started), 2)),
            ("mosaicking", round(1000 * (time.perf_counter() - searched), 2)),
        ]
        image = Picture(
            np.ma.MaskedArray(pixels.data, mask=~pixels.valid),
            assets=composed.used,
            crs=frame.crs,
            bounds=frame.bounds,
            metadata={"timings": timings},
        )
        image.palette = composed.palette if len(pixels.data) == 1 else None
        return image, composed.used

    def point(  # type: ignore[override]  # as in rio-tiler itself
        self, lon: float, lat: float, coord_crs: CRS | None = None, **options: Any
    ) -> list[tuple[str, PointData]]:
        """Return the stored values of all scenes at a point."""
        theirs = {name: value for name, value in options.items() if name not in _OURS}
        points: list[tuple[str, PointData]] = super().point(lon, lat, coord_crs=coord_crs, **theirs)
        return points

    def _frame(self, tile: Tile, tilesize: int | None, options: Mapping[str, Any]) -> Frame:
        matrix = self.tms.matrix(tile.z)
        width, height = tilesize or matrix.tileWidth, tilesize or matrix.tileHeight
        left, bottom, right, top = self.tms.xy_bounds(tile)
        buffer = options.get("buffer") or 0
        across, up = buffer * (right - left) / width, buffer * (top - bottom) / height
        return Frame(
            bounds=(left - across, bottom - up, right + across, top + up),
            crs=self.tms.rasterio_crs,
            width=width + int(2 * buffer),
            height=height + int(2 * buffer),
            padding=options.get("padding") or 0,
            resampling=options.get("resampling_method") or "nearest",
            reprojection=options.get("reproject_method") or "nearest",
            options=tuple((name, options[name]) for name in _GENERAL if options.get(name) is not None),
        )


def _view(options: Mapping[str, Any]) -> View:
    """Translate TiTiler's parameters."""
    expression = options.get("expression")
    if "assets" in options:
        assets = tuple(_asset(asset) for asset in options["assets"])
    else:
        assets = (("", tuple(options.get("indexes") or _bands_of(expression))),)
    text = options.get("cloud_mask")
    return View(
        assets=assets,
        expression=expression,
        reflectance=options.get("reflectance"),
        alternate=options.get("alternate"),
        clouds=CloudMask.parse(text) if text else None,
    )


def _asset(asset: str | Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    if isinstance(asset, str):
        return asset, ()
    if refused := {"expression", "bands"} & asset.keys():
        raise UsageError(f"an asset cannot have its own {min(refused)} here", hint="use ``expression`` over all bands")
    return asset["name"], tuple(asset.get("indexes") or ())


def _bands_of(expression: str | None) -> Sequence[int]:
    """Return all bands up to the highest that a formula over b1, b2, ... names; empty without a formula."""
    return range(1, max(parse_expression(expression)) + 1) if expression else ()
