"""Cloud masks: the quality band of a scene marks bad pixels by values, bits, or fields of bits.

It knows nothing of files; the caller reads the quality band.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mosaic_async.errors import UsageError

KNOWN = {
    "qa_pixel": "bits=0,1,2,3,4",
    "bqa": "bits=0,4,7-8>=3,11-12>=3",
    "scl": "values=0,1,3,8,9,10",
    "fmask": "values=2,4,255",
}
"""The rule for each quality band with a well-known name, fill included.

qa_pixel: Landsat Collection 2, fill, dilated cloud, cirrus, cloud, cloud shadow (LSDS-1619). bqa: Landsat Collection 1,
fill, cloud, and high confidence of cloud shadow and cirrus (LSDS-1834). scl: Sentinel-2 level 2A, no data, saturated,
cloud shadow, cloud of medium and high probability, cirrus. fmask: CFmask's cloud shadow, cloud and fill; the Fmask of
HLS has bits, see `CloudMask.of_hls`.
"""
_RULE = re.compile(r"(?P<asset>[^:]+)(?::(?P<kind>values|bits)=(?P<list>.+))?")
_MAX_DIGITS = 10
_FIELD = re.compile(r"(\d{1,2})(?:-(\d{1,2})(?:>=(\d{1,10}))?)?")


@dataclass(frozen=True)
class CloudMask:
    """A quality band and the values in it that are bad."""

    asset: str
    values: frozenset[int] = frozenset()
    """Bad values."""
    fields: tuple[tuple[int, int, int], ...] = ()
    """(first bit, last bit, least): bad where the number in these bits is at least `least`."""
    is_usual: bool = False
    """Whether the rule is that of `KNOWN`."""

    @classmethod
    def parse(cls, text: str) -> CloudMask:
        """Read `ASSET`, `ASSET:values=2,4` or `ASSET:bits=3,4,7-8>=3`; the first form for names in `KNOWN` only.

        Raises:
            UsageError: the text has none of these forms.
        """
        found = _RULE.fullmatch(text)
        if not found:
            raise _wrong(text)
        if found["kind"] is None:
            if found["asset"].lower() not in KNOWN:
                raise _wrong(text)
            return replace(cls.parse(f"{found['asset']}:{KNOWN[found['asset'].lower()]}"), is_usual=True)
        parts = found["list"].split(",")
        if found["kind"] == "values":
            if not all(part.isdecimal() and len(part) <= _MAX_DIGITS for part in parts):
                raise _wrong(text)
            return cls(found["asset"], values=frozenset(map(int, parts)))
        return cls(found["asset"], fields=tuple(_field(part, text) for part in parts))

    @property
    def of_hls(self) -> CloudMask:
        """The mask for scenes of HLS, whose Fmask has bits: cloud, next to a cloud or its shadow, cloud shadow."""
        if not self.is_usual or self.asset.lower() != "fmask":
            return self
        return CloudMask(self.asset, fields=((1, 1, 1), (2, 2, 1), (3, 3, 1)), is_usual=True)

    def check(self, assets: Collection[str]) -> None:
        """Check that the scenes have the band.

        Raises:
            UsageError: the scenes do not have it.
        """
        if self.asset not in assets:
            raise UsageError(f"the scenes have no band {self.asset}", hint=f"they have {', '.join(assets)}")

    def is_good(self, quality: NDArray[np.integer], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which pixels are good; pixels without a quality value are not.

        Args:
            quality: (height, width).
            valid: where the quality band has data.
        """
        bad = ~valid
        if self.values:
            bad |= np.isin(quality, list(self.values))
        for first, last, least in self.fields:
            mask = (1 << (last - first + 1)) - 1
            bad |= ((quality.astype(np.int64) >> first) & mask) >= least
        return ~bad


def _field(part: str, text: str) -> tuple[int, int, int]:
    found = _FIELD.fullmatch(part)
    if not found:
        raise _wrong(text)
    first = int(found[1])
    last = int(found[2] or first)
    if not first <= last < 64:
        raise _wrong(text)
    return first, last, int(found[3] or 1)


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"cloud mask {text!r} is not known",
        hint=f"name a band ({', '.join(KNOWN)}), or list its bad values: fmask:values=2,4 or BQA:bits=4,7-8>=3",
    )
