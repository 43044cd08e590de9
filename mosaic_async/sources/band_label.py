"""What a band of a source is called, and what its values mean: value = scale * number + offset, in a unit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BandLabel:
    """The label of a band; it changes no pixel."""

    name: str | None = None
    scale: float | None = None
    """None where values are stored as they are, or it is not known."""
    offset: float | None = None
    unit: str | None = None
