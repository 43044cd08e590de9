"""What a tile shows of one scene: bands, reflectance, cloud mask, formula, in this order.

It knows one scene at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from rasterio.windows import Window
from rio_tiler.errors import InvalidAssetName

from mosaic_async.tiler.pixels.clouds import CloudMask
from mosaic_async.tiler.pixels.datasets import DatasetPool, Palette
from mosaic_async.tiler.pixels.expression import evaluate
from mosaic_async.tiler.pixels.frame import Frame
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.radiometry import factors, reflectance, shifted
from mosaic_async.tiler.pixels.reading import Layer, read_layers
from mosaic_async.tiler.pixels.terms import Terms, shift_of, widened
from mosaic_async.tiler.scenes.archives import meaning_of
from mosaic_async.tiler.scenes.naming import Place, find_bands
from mosaic_async.tiler.scenes.scene import Scene, SceneFile
from mosaic_async.tiler.scenes.survey import Unit, unit_of


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
    alternate: str | None = None
    """Key of the hrefs to read, such as `s3`, of the assets that have it; None: the usual ones."""
    terms: Terms = field(default_factory=Terms)
    """What all scenes of the mosaic are brought to."""

    def read(self, pool: DatasetPool, scene: Scene, frame: Frame, window: Window | None) -> Pixels | None:
        """Read the bands that formulas use; None if the scene does not reach the window.

        Raises:
            InvalidAssetName: the scene does not have the asset.
            SourceError: the item has no scale and offset, or the pixels do not fit those of other scenes.
            rasterio.errors.RasterioError: a file cannot be read.
        """
        places = self.places(scene)
        pixels = self._counts(pool, scene, places, frame, window)
        if pixels is None:
            return None
        if self.reflectance:
            known = [meaning for asset, bands in places for meaning in factors(scene, asset, bands)]
            pixels = reflectance(pixels, known, self.reflectance)
        else:
            pixels = self.terms.typed(shifted(pixels, self._shifts(scene, places)))
        return self._without_clouds(pool, scene, pixels, frame, window)

    def places(self, scene: Scene) -> list[Place]:
        """Return the assets and band numbers of a scene.

        Raises:
            InvalidAssetName: the scene does not have one.
        """
        return [
            (asset, bands or numbers) for name, bands in self.assets for asset, numbers in [find_bands(scene, name)]
        ]

    def rule(self, scene: Scene) -> str:
        """Return the rules that were applied to the counts of a scene, in words; empty if they stay as they are."""
        places = self.places(scene)
        if self.reflectance:
            used = (one.rule for asset, bands in places for one in factors(scene, asset, bands))
            return " and ".join(dict.fromkeys(used))
        found = []
        for (asset, bands), offset in zip(places, self.terms.offsets, strict=False):
            meaning = meaning_of(scene, asset, bands[0] if bands else 1) if offset is not None else None
            if meaning:
                found.append(f"{meaning.rule}: counts {shift_of(meaning, offset):+d}")
        return " and ".join(dict.fromkeys(found))

    def palette(self, pool: DatasetPool, scene: Scene) -> Palette | None:
        """Return the colour table of a scene, if its values are shown as they are.

        Raises:
            rasterio.errors.RasterioError: the file cannot be read.
        """
        if len(self.assets) != 1 or self.expression or self.reflectance:
            return None
        ((asset, _),) = self.places(scene)
        with pool.lent((self._file(scene, asset).href,)) as stack:
            return stack.palette

    def units(self, scene: Scene) -> tuple[Unit | None, ...]:
        """Return what the counts of each asset mean."""
        found = [meaning_of(scene, asset, bands[0] if bands else 1) for asset, bands in self.places(scene)]
        return tuple(unit_of(meaning) if meaning else None for meaning in found)

    def _counts(
        self, pool: DatasetPool, scene: Scene, places: Sequence[Place], frame: Frame, window: Window | None
    ) -> Pixels | None:
        files = [_layers(self._file(scene, asset), bands) for asset, bands in places]
        if not any(self.terms.widths):
            return read_layers(pool, [layer for layers in files for layer in layers], frame, window)
        found = []
        for layers, width in zip(files, self.terms.widths, strict=True):
            pixels = read_layers(pool, layers, frame, window)
            if pixels is None:
                return None
            found.append(widened(pixels, width))
        return Pixels(np.concatenate([one.data for one in found]), np.concatenate([one.valid for one in found]))

    def _file(self, scene: Scene, asset: str) -> SceneFile:
        file = scene.files[asset]
        return file if self.alternate is None else replace(file, href=file.at(self.alternate))

    def _shifts(self, scene: Scene, places: Sequence[Place]) -> list[int]:
        """Return what to add to each band."""
        if not any(offset is not None for offset in self.terms.offsets):
            return []
        shifts: list[int] = []
        for (asset, bands), offset in zip(places, self.terms.offsets, strict=True):
            numbers = bands or range(1, len(scene.files[asset].bands) + 1) or (1,)
            shifts += [shift_of(meaning_of(scene, asset, number), offset) for number in numbers]
        return shifts

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
        clouds = self.clouds.of_hls if scene.is_hls else self.clouds
        return pixels.where(clouds.is_good(quality.data[0], quality.valid[0]))


def _file(scene: Scene, asset: str) -> SceneFile:
    if asset not in scene.files:
        raise InvalidAssetName(f"it has no band {asset}: it has {', '.join(scene.files)}")
    return scene.files[asset]


def _layers(file: SceneFile, bands: tuple[int, ...]) -> list[Layer]:
    """Return one layer, or one per band where the item has several nodata values."""
    numbers = bands or range(1, len(file.bands) + 1)
    values = [file.nodata(number) for number in numbers]
    if len({str(value) for value in values}) > 1:  # as texts, because NaN does not equal itself
        return [Layer(file.href, (number,), value) for number, value in zip(numbers, values, strict=True)]
    return [Layer(file.href, bands, values[0] if values else None)]
