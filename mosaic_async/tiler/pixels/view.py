"""What a tile shows of one scene: bands, reflectance, cloud mask, formula, in this order.

It knows one scene at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rasterio.windows import Window
from rio_tiler.errors import InvalidAssetName

from mosaic_async.tiler.pixels.clouds import CloudMask
from mosaic_async.tiler.pixels.datasets import DatasetPool
from mosaic_async.tiler.pixels.expression import evaluate
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.radiometry import factors, reflectance
from mosaic_async.tiler.pixels.reading import Layer, read_layers
from mosaic_async.tiler.scenes.scene import Scene, SceneFile


@dataclass(frozen=True, kw_only=True)
class View:
    """What a tile shows of a scene."""

    assets: tuple[tuple[str, tuple[int, ...]], ...]
    """(asset, band numbers) in the order of the bands; no numbers: all bands of the file."""
    expression: str | None = None
    """Formulas over the bands b1, b2, ..., separated by `;`."""
    reflectance: str | None = None
    """One of `radiometry.REFLECTANCES`; None: the stored counts."""
    clouds: CloudMask | None = None

    def read(self, pool: DatasetPool, scene: Scene, frame: Frame, window: Window | None) -> Pixels | None:
        """Read the bands that formulas use; None if the scene does not reach the window.

        Raises:
            InvalidAssetName: the scene does not have the asset.
            SourceError: the item has no scale and offset.
            rasterio.errors.RasterioError: a file cannot be read.
        """
        layers = [layer for asset, bands in self.assets for layer in _layers(_file(scene, asset), bands)]
        pixels = read_layers(pool, layers, frame, window)
        if pixels is None:
            return None
        if self.reflectance:
            known = [pair for asset, bands in self.assets for pair in factors(scene, asset, bands)]
            pixels = reflectance(pixels, known, self.reflectance)
        return self._without_clouds(pool, scene, pixels, frame, window)

    def finish(self, pixels: Pixels) -> Pixels:
        """Apply the formulas.

        Raises:
            rio_tiler.errors.InvalidExpression: a formula is malformed.
        """
        return evaluate(pixels, self.expression) if self.expression else pixels

    def _without_clouds(
        self, pool: DatasetPool, scene: Scene, pixels: Pixels, frame: Frame, window: Window | None
    ) -> Pixels | None:
        if self.clouds is None or not pixels.valid.any():
            return pixels
        # flags cannot be averaged
        nearest = replace(frame.nearest, options=())
        quality = read_layers(pool, _layers(_file(scene, self.clouds.asset), (1,)), nearest, window)
        if quality is None:
            return None
        return pixels.where(self.clouds.is_good(quality.data[0], quality.valid[0]))


def _file(scene: Scene, asset: str) -> SceneFile:
    if asset not in scene.files:
        raise InvalidAssetName(f"{asset!r} is not valid, should be one of {list(scene.files)}")
    return scene.files[asset]


def _layers(file: SceneFile, bands: tuple[int, ...]) -> list[Layer]:
    """Return one layer, or one per band where the item has several nodata values."""
    numbers = bands or range(1, len(file.bands) + 1)
    values = [file.nodata(number) for number in numbers]
    if len({str(value) for value in values}) > 1:  # as texts, because NaN does not equal itself
        return [Layer(file.href, (number,), value) for number, value in zip(numbers, values, strict=True)]
    return [Layer(file.href, bands, values[0] if values else None)]
