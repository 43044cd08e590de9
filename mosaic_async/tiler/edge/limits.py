"""The limits of a tiler, as one value: what a request may cost, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may cause. A value is one number of one band of one pixel."""

    tile_size: int
    """Width and height of a tile in pixels, buffer included."""
    values_out: int
    """Values of a tile: pixels times bands."""
    values_held: int
    """Values of all scenes of a tile, which selections such as the median hold at once."""
    bytes_held: int
    """The same in bytes, checked while scenes are read: only files tell how large a value is."""
    work: int
    """Values that are read, computed and combined for a tile; about 20 to 30 million take a second on one core."""
    bytes_at_once: int | None = None
    """Bytes of all scenes above which a tile is composed in strips, one after the other; None: no strips."""
    tiles_at_once: int = 2
    """Tiles of local scenes that a process composes at once: one computes while the other waits for the interpreter."""
    buffers_kept: int = 2**27
    """Bytes of the buffers of files that a process keeps open for the next tile."""
    deadline: float
    """Seconds from the start of the work to the end of the response."""
    patience: float
    """Seconds that a request waits for its turn, while it costs nothing."""
    plain_work: int = 2**26
    """Work up to which a request is plain. Dearer requests run one at a time, so that they do not delay plain ones."""


PUBLIC = Limits(
    tile_size=2048,
    values_out=2**23,
    values_held=2**26,
    bytes_held=2**28,
    work=2**30,
    deadline=60.0,
    patience=300.0,
)
"""For anyone who can reach the address."""
OWN_RUN = Limits(
    tile_size=8192,
    values_out=2**27,
    values_held=2**36,
    bytes_held=2**40,
    work=2**36,
    deadline=900.0,
    patience=900.0,
)
"""For the run that started the tiler, which knows its secret: it only guards against mistakes."""
