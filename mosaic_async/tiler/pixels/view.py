"""What a tile shows of one scene: bands, reflectance, clouds left out, formula; in this order.

It knows of one scene at a time.
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
from mosaic_async.tiler.scenes.scene import Scene


@dataclass(frozen=True, kw_only=True)
class View:
    """What to make of a scene's files."""

    assets: tuple[tuple[str, tuple[int, ...]], ...]
    """(asset, band numbers) in the order of the bands; no numbers: all bands of the file."""
    expression: str | None = None
    """Formulas separated by `;` over b1, b2, ... of what is read."""
    reflectance: str | None = None
    """One of `radiometry.REFLECTANCES`; None: counts as they are stored."""
    clouds: CloudMask | None = None

    def read(self, pool: DatasetPool, scene: Scene, frame: Frame, window: Window | None) -> Pixels | None:
        """Read what formulas are applied to; None where the scene does not reach.

        Raises:
            InvalidAssetName: the scene has no such file.
            SourceError: how its counts become reflectance is not known.
            rasterio.errors.RasterioError: a file cannot be read.
        """
        layers = [Layer(_file(scene, asset), bands) for asset, bands in self.assets]
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
            rio_tiler.errors.InvalidExpression: they cannot be.
        """
        return evaluate(pixels, self.expression) if self.expression else pixels

    def _without_clouds(
        self, pool: DatasetPool, scene: Scene, pixels: Pixels, frame: Frame, window: Window | None
    ) -> Pixels | None:
        if self.clouds is None or not pixels.valid.any():
            return pixels
        # a mean of flags is no flag
        nearest = replace(frame, resampling="nearest", reprojection="nearest", options=())
        quality = read_layers(pool, [Layer(_file(scene, self.clouds.asset), (1,))], nearest, window)
        return quality and pixels.where(self.clouds.is_good(quality.data[0], quality.valid[0]))


def _file(scene: Scene, asset: str) -> str:
    if asset not in scene.files:
        raise InvalidAssetName(f"{asset!r} is not valid, should be one of {list(scene.files)}")
    return scene.files[asset].href
