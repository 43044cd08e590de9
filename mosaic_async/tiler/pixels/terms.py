"""The terms on which scenes meet in a tile: one data type, one number of bands, one meaning of counts.

They come from a survey of the mosaic's scenes, so they are the same in every tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.scenes.archives import Meaning
from mosaic_async.tiler.scenes.survey import Agreement, Survey, Unit

_WHOLE = 1e-6


@dataclass(frozen=True)
class Terms:
    """What the pixels of every scene are brought to."""

    is_known: bool = False
    """Whether the scenes were surveyed; otherwise each tile checks its own."""
    dtype: str | None = None
    widths: tuple[int | None, ...] = ()
    """Bands of each asset in a tile; None: those of its file."""
    offsets: tuple[float | None, ...] = ()
    """The offset that the counts of each asset get; None: counts stay."""
    units: tuple[tuple[Unit, ...], ...] = ()
    """The meanings of the counts of each asset that the survey found."""

    @classmethod
    def of(cls, survey: Survey, assets: Sequence[tuple[str, tuple[int, ...]]], *, in_counts: bool) -> Terms:
        """Return the terms for bands of a mosaic.

        Args:
            survey: of its scenes.
            assets: asset names and band numbers.
            in_counts: whether tiles show stored counts, and not reflectance.

        Raises:
            UsageError: the scenes cannot be in one mosaic.
        """
        found = [survey.of(name) for name, _ in assets]
        agreed = [one for one in found if one]
        if len(agreed) < len(found):
            return cls()
        dtypes = [one.dtype for one in agreed]
        return cls(
            is_known=True,
            dtype=str(np.result_type(*(dtype for dtype in dtypes if dtype))) if all(dtypes) else None,
            widths=tuple(None if bands else _width(one) for one, (_, bands) in zip(agreed, assets, strict=True)),
            offsets=tuple(
                common_offset(one.units, name) if in_counts else None
                for one, (name, _) in zip(agreed, assets, strict=True)
            ),
            units=tuple(one.units for one in agreed),
        )

    def typed(self, pixels: Pixels) -> Pixels:
        """Return pixels in the common data type.

        Raises:
            SourceError: it does not hold their values.
        """
        if self.dtype is None or pixels.data.dtype == self.dtype:
            return pixels
        if not np.can_cast(pixels.data.dtype, self.dtype):
            raise SourceError(f"its values are {pixels.data.dtype}, and those of the mosaic {self.dtype} or smaller")
        return Pixels(pixels.data.astype(self.dtype), pixels.valid)


def widened(pixels: Pixels, width: int | None) -> Pixels:
    """Return pixels with a number of bands; one grey band becomes all colours.

    Raises:
        SourceError: the bands are neither as many nor one.
    """
    bands = len(pixels.data)
    if width is None or bands == width:
        return pixels
    if bands != 1:
        raise SourceError(f"it has {bands} bands and not {width}")
    return Pixels(np.repeat(pixels.data, width, axis=0), np.repeat(pixels.valid, width, axis=0))


def common_offset(units: Sequence[Unit], name: str, *, is_final: bool = False) -> float | None:
    """Return the offset that counts of different meanings can share; None if they have one meaning already.

    Args:
        units: the different meanings.
        name: of the band.
        is_final: whether counts can no longer be shifted.

    Raises:
        UsageError: no shift by a whole number makes their meanings one.
    """
    if len(units) < 2:
        return None
    scales = {scale for scale, _ in units}
    highest = max(offset for _, offset in units)
    if (
        not is_final
        and len(scales) == 1
        and (scale := scales.pop())
        and all(_is_whole(highest - one, scale) for _, one in units)
    ):
        return highest
    raise UsageError(
        f"the counts of {name or 'the files'} mean different things in different scenes: {_shown(units)}",
        hint="set ``reflectance`` to mix them, or use scenes of one kind",
    )


def check_unit(unit: Unit | None, known: Sequence[Unit], name: str) -> None:
    """Check that the survey found what the counts of a scene mean.

    Raises:
        SourceError: it found other meanings, and other tiles show those.
    """
    if unit is not None and unit not in known:
        own, others = _shown([unit]), _shown(known) or "nothing known"
        raise SourceError(f"its counts of {name or 'the file'} mean {own}, and those of the mosaic {others}")


def _shown(units: Sequence[Unit]) -> str:
    return ", ".join(f"{scale:g} x count {offset:+g}" if scale else "by the sun's elevation" for scale, offset in units)


def shift_of(meaning: Meaning | None, offset: float | None) -> int:
    """Return what to add to counts so that they have another offset."""
    if meaning is None or offset is None or meaning.is_of_scene:
        return 0
    return round((meaning.offset - offset) / meaning.scale)


def _is_whole(distance: float, scale: float) -> bool:
    return abs(distance / scale - round(distance / scale)) < _WHOLE


def _width(one: Agreement) -> int | None:
    """Return the number of bands that all scenes show.

    Raises:
        UsageError: they have different bands, which cannot become the same.
    """
    if one.width is None or (one.is_picture and one.width == len("RGB")):
        return one.width
    raise UsageError(
        "the scenes have different numbers of bands", hint=f"choose ``bands``, such as 1; some scenes have {one.width}"
    )
