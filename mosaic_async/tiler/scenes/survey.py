"""What the scenes of a mosaic have in common under a name: data types, numbers of bands, meanings of counts.

The first scene does not speak for all. So the survey reads all items, and files where items leave it open; of very many
on servers it reads a random sample, always the same. Tiles leave out a scene that does not fit what it found.
It knows nothing of tiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from rasterio._err import CPLE_BaseError  # not every error of GDAL becomes a RasterioError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from mosaic_async.errors import SourceError
from mosaic_async.tiler.scenes.archives import Meaning, meaning_of
from mosaic_async.tiler.scenes.band import Band
from mosaic_async.tiler.scenes.naming import Place, find_bands, has_bands
from mosaic_async.tiler.scenes.raster_file import is_local, open_raster
from mosaic_async.tiler.scenes.scene import Scene, open_scene

_MAX_SCENES = 5_000
"""Maximum scenes on servers whose items are read before the first tile."""
_MAX_FILES = 1_000
"""Maximum files on servers that are opened before the first tile."""
_AT_ONCE = 16
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_DTYPES = frozenset(["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"])

_Value = TypeVar("_Value")
Unit = tuple[float, float]
"""Scale and offset of counts; (0, 0) where they differ from scene to scene by nature."""


@dataclass(frozen=True)
class Agreement:
    """What all scenes have under one name."""

    dtype: str | None = None
    """A type that holds the values of all; None: not known."""
    width: int | None = None
    """Bands, alpha left out; None: not known, or the same in all items."""
    is_picture: bool = False
    """Whether those are red, green and blue, so that a scene of one grey band can stand for all three."""
    units: tuple[Unit, ...] = ()
    """The different meanings of counts."""
    labels: tuple[tuple[str | None, str | None], ...] = ()
    """Name and unit of each band, where all scenes agree on them."""


@dataclass(frozen=True)
class Survey:
    """What a mosaic's scenes agree on, by name."""

    names: Mapping[str, Agreement] = field(default_factory=dict)
    files: tuple[str, ...] = field(default=(), compare=False)
    """Files that were opened for it."""

    def of(self, name: str) -> Agreement | None:
        """Return what is known of a name; None if it was not looked for."""
        return self.names.get(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the survey as JSON types."""
        return {name: asdict(one) for name, one in self.names.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Survey:
        """Return what `as_dict` made, also after it was JSON."""

        def settled(one: Mapping[str, Any]) -> Agreement:
            return Agreement(**{**one, **{key: tuple(map(tuple, one[key])) for key in ("units", "labels")}})

        return cls({name: settled(one) for name, one in values.items()})


@dataclass(frozen=True)
class _Facts:
    """What one scene has under a name."""

    dtype: str
    width: int
    is_picture: bool = False


def survey(names: Sequence[str], wanted: Iterable[str] | None, *, is_stac: bool) -> Survey:
    """Survey the scenes of a mosaic; those that cannot be read are left to the tiles, which report them.

    Args:
        names: of the scenes.
        wanted: names of bands that tiles may show; None: any.
        is_stac: whether the scenes are STAC items.

    Raises:
        SourceError: a band holds complex numbers.
    """
    if not names:
        return Survey()
    if not is_local(names[0]):
        names = _sample(names, _MAX_SCENES)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        opened = map if is_local(names[0]) else threads.map
        scenes = [scene for scene in opened(lambda name: _opened(name, is_stac=is_stac), names) if scene]
        looked_for = dict.fromkeys(_all_names(scenes) if wanted is None else wanted)
        opened_files: list[str] = []
        found = {name: _agreement(scenes, name, threads, opened_files) for name in looked_for}
    return Survey(found, tuple(dict.fromkeys(opened_files)))


def _sample(values: Sequence[_Value], most: int) -> list[_Value]:
    """Return at most this many, spread at random but the same in every run, in their order."""
    if len(values) <= most:
        return list(values)
    places = np.sort(np.random.default_rng(0).choice(len(values), most, replace=False))
    return [values[place] for place in places.tolist()]


def names_in(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the scenes of a MosaicJSON, each once."""
    return tuple(dict.fromkeys(name for names in document["tiles"].values() for name in names))


def _all_names(scenes: Sequence[Scene]) -> Iterator[str]:
    for scene in scenes:
        for asset, file in scene.files.items():
            if file.is_raster:
                yield asset
                yield from (name for band in file.bands for name in (band.common_name, band.name) if name)


def _opened(name: str, *, is_stac: bool) -> Scene | None:
    with suppress(Exception):  # of the disk, the HTTP client, the parser; the tile tells the reason
        return open_scene(name, is_item=is_stac)
    return None


def _agreement(scenes: Sequence[Scene], name: str, threads: ThreadPoolExecutor, opened: list[str]) -> Agreement:
    places = list(_places(scenes, name))
    facts = _facts(places, threads, opened)
    dtypes = {one.dtype for one in facts}
    if any(dtype.startswith(("c", "complex")) for dtype in dtypes):
        raise SourceError(
            f"{name or 'a file'} holds complex numbers", hint="compute amplitude or phase before a mosaic"
        )
    widths = {one.width for one in facts}
    return Agreement(
        dtype=str(np.result_type(*dtypes)) if dtypes else None,
        width=max(widths) if len(widths) > 1 else None,
        is_picture=len(widths) > 1 and all(one.is_picture for one in facts if one.width > 1),
        units=tuple(dict.fromkeys(unit for scene, place in places for unit in _units(scene, place))),
        labels=_labels(places),
    )


def _places(scenes: Sequence[Scene], name: str) -> Iterator[tuple[Scene, Place]]:
    for scene in scenes:
        if has_bands(scene, name):
            yield scene, find_bands(scene, name)


def _facts(places: Sequence[tuple[Scene, Place]], threads: ThreadPoolExecutor, opened: list[str]) -> list[_Facts]:
    """Return what items say, or what files say where an item is silent, or items differ in the number of bands.

    Args:
        places: where the scenes have the band.
        threads: for files on servers.
        opened: takes the names of the files that are opened.
    """
    stated = [_stated(scene, place) for scene, place in places]
    agreed = len({one.width for one in stated if one}) < 2
    known = [one for one in stated if one and agreed]
    left = [place for place, one in zip(places, stated, strict=True) if one is None or not agreed]
    files = [(scene.files[asset].href, bands) for scene, (asset, bands) in left]
    if files and not is_local(files[0][0]):
        files = _sample(files, _MAX_FILES)
        opened += [href for href, _ in files]
        return known + [one for one in threads.map(_read, files) if one]
    opened += [href for href, _ in files]
    return known + [one for one in map(_read, files) if one]


def _stated(scene: Scene, place: Place) -> _Facts | None:
    asset, numbers = place
    described = scene.files[asset].bands
    if numbers and max(numbers) > len(described):
        return None
    bands = [described[number - 1] for number in numbers] if numbers else described
    dtypes = [band.dtype for band in bands]
    if not dtypes or not all(dtype in _DTYPES for dtype in dtypes):
        return None
    return _Facts(str(np.result_type(*(dtype for dtype in dtypes if dtype))), len(bands))


def _read(file: tuple[str, tuple[int, ...]]) -> _Facts | None:
    href, bands = file
    # The tile tells the reason.
    with suppress(CPLE_BaseError, RasterioError, OSError), open_raster(href) as dataset:
        colours = [colour for colour in dataset.colorinterp if colour is not ColorInterp.alpha]
        return _Facts(dataset.dtypes[0], len(bands) or len(colours), tuple(colours[:3]) == _RGB)
    return None


def _units(scene: Scene, place: Place) -> Iterator[Unit]:
    asset, numbers = place
    for number in numbers or range(1, len(scene.files[asset].bands) + 1) or (1,):
        if meaning := meaning_of(scene, asset, number):
            yield unit_of(meaning)


def unit_of(meaning: Meaning) -> Unit:
    """Return the unit of counts."""
    return (0.0, 0.0) if meaning.is_of_scene else (meaning.scale, meaning.offset)


def _labels(places: Sequence[tuple[Scene, Place]]) -> tuple[tuple[str | None, str | None], ...]:
    """Return names and units of bands, None where scenes differ; empty if they differ in the number of bands."""
    found = [_described(scene, place) for scene, place in places]
    if len({len(bands) for bands in found}) != 1:
        return ()
    return tuple(
        (_only({band.common_name or band.name for band in bands}), _only({band.unit for band in bands}))
        for bands in zip(*found, strict=True)
    )


def _described(scene: Scene, place: Place) -> list[Band]:
    asset, numbers = place
    bands = scene.files[asset].bands
    return [bands[number - 1] for number in numbers if number <= len(bands)] if numbers else list(bands)


def _only(values: set[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None
