"""The scenes of one tile so far: a scene that does not fit them is left out, and is not mixed with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mosaic_async.errors import SourceError
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.terms import check_unit, common_offset
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
            SourceError: it has another number of bands, or its counts a meaning that the survey did not find.
            UsageError: its counts mean something else, and the scenes were not surveyed.
        """
        with self._lock:
            if self._bands is None:
                self._bands = len(pixels.data)
            if len(pixels.data) != self._bands:
                raise SourceError(f"it has {len(pixels.data)} bands and not {self._bands}")
            if not self._view.reflectance:
                self._check_units(self._view.units(scene))

    def _check_units(self, units: Sequence[Unit | None]) -> None:
        terms = self._view.terms
        if terms.is_known:
            for (name, _), known, unit in zip(self._view.assets, terms.units, units, strict=True):
                check_unit(unit, known, name)
            return
        for (name, _), seen, unit in zip(self._view.assets, self._units, units, strict=True):
            if unit is not None:
                seen.add(unit)
                common_offset(sorted(seen), name, is_final=True)
