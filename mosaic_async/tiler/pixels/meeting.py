"""The scenes of one tile so far: a scene that does not fit them is left out, and is not mixed with them."""

from __future__ import annotations

import threading

from mosaic_async.errors import SourceError
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.terms import common_offset
from mosaic_async.tiler.pixels.view import View
from mosaic_async.tiler.scenes.scene import Scene
from mosaic_async.tiler.scenes.survey import Unit


class Meeting:
    """Checks the scenes of a tile one by one, in any thread."""

    def __init__(self, view: View) -> None:
        """Begin without scenes.

        Args:
            view: what the tile shows of a scene.
        """
        self._view = view
        self._lock = threading.Lock()
        self._bands: int | None = None
        self._units: list[set[Unit]] = [set() for _ in view.assets]

    def admit(self, scene: Scene, pixels: Pixels) -> None:
        """Check a scene against those before it.

        Raises:
            SourceError: it has another number of bands.
            UsageError: its counts mean something else.
        """
        with self._lock:
            if self._bands is None:
                self._bands = len(pixels.data)
            if len(pixels.data) != self._bands:
                raise SourceError(f"it has {len(pixels.data)} bands and not {self._bands}")
            if self._view.reflectance or self._view.terms.is_known:
                return
            for (name, _), known, unit in zip(self._view.assets, self._units, self._view.units(scene), strict=True):
                if unit is not None:
                    known.add(unit)
                    common_offset(sorted(known), name, is_final=True)
