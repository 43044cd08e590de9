"""What a run reports while it goes on, and the report at its end: frozen facts, for whoever listens.

It knows nothing of who listens: the library emits, the command line draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile


def zxy(tile: Tile) -> str:
    """Write a tile as it stands in URLs."""
    return f"{tile.z}/{tile.x}/{tile.y}"


@dataclass(frozen=True)
class RunStarted:
    """The first tiles have been looked at and the plan is made; now all others are asked for."""

    tiles_total: int
    parts_total: int
    parts_resumed: int
    """Parts that an earlier run finished."""
    tiles_resumed: int
    """Tiles of those parts."""


@dataclass(frozen=True)
class TileFetched:
    """A body has arrived."""

    tile: Tile
    nbytes: int


@dataclass(frozen=True)
class TileRetried:
    """An attempt failed; the tile is asked for again after a wait."""

    url: str
    """Without secrets."""
    attempt: int
    """The one that failed, from 1."""
    reason: str
    wait: float
    """Seconds."""


@dataclass(frozen=True)
class TileParked:
    """A tile's attempts are used up; it is asked for once more when all others are there."""

    tile: Tile
    reason: str


@dataclass(frozen=True)
class ServerTrouble:
    """The server asks for a pause, is away, or is back; nothing is asked for meanwhile."""

    kind: Literal["pause", "outage", "back"]
    seconds: float
    """How long the pause will be, or how long the outage has been."""
    reason: str = ""


@dataclass(frozen=True)
class TilePlaced:
    """A tile's pixels are where they belong."""

    tile: Tile


@dataclass(frozen=True)
class TileEmpty:
    """The server has nothing for this tile."""

    tile: Tile


@dataclass(frozen=True)
class TileFailed:
    """A tile could not be had."""

    tile: Tile
    url: str
    """Without secrets."""
    reason: str
    status: int | None
    """HTTP status of the last answer; None when there was none."""
    attempts: int


@dataclass(frozen=True)
class SceneSkipped:
    """The tiler could not read a scene and left it out; told once a scene, with the first tile that lacks it."""

    scene: str
    """As the tiler names it, without secrets."""
    tile: Tile


@dataclass(frozen=True)
class PartSealed:
    """All tiles of a part are in, and its COG is in the work folder."""

    name: str
    nbytes: int
    """Bytes of its COG; 0 when the part has no data and no file."""


@dataclass(frozen=True)
class Stitching:
    """All parts are there and become one file."""

    parts: int


@dataclass(frozen=True)
class SceneCount:
    """A scene, and tiles of this output that it has to do with."""

    name: str
    """As the tiler names it, most often where its item is; without secrets."""
    day: str | None
    """Year, month and day; None when the tiler does not say."""
    tiles: int


@dataclass(frozen=True, kw_only=True)
class SceneReport:
    """Which scenes the tiles were made of, as far as their tiler said; a `kill -9` may lose the last tiles' count."""

    total: int = 0
    """Scenes, at most 20,000."""
    tiles: int = 0
    """Tiles whose tiler said of which scenes they are made."""
    first: str | None = None
    """The first day; None when no scene's is known."""
    last: str | None = None
    used: tuple[SceneCount, ...] = ()
    """The 500 scenes that are in most tiles, the most frequent first."""
    lacking: int = 0
    """Tiles that lack scenes which could not be read."""
    skipped_total: int = 0
    """Scenes that could not be read, each in one tile at least."""
    skipped: tuple[SceneCount, ...] = ()
    """500 of them at most, with the tiles that lack them."""


@dataclass(frozen=True, kw_only=True)
class MosaicReport:
    """What a run did."""

    output: Path
    bounds: Bounds
    """West, south, east, north of the output in degrees; west above east across the antimeridian."""
    zoom: int
    tile_size: int
    """Pixels a side."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    tiles_total: int
    tiles_placed: int
    tiles_empty: int
    tiles_failed: int
    requests: int
    """Attempts of this run, retries included; tiles of an earlier run are not asked for again."""
    retries: int
    retried: dict[str, int]
    """How often each reason led to a retry, the most frequent first; 20 reasons at most."""
    bytes_received: int
    bytes_written: int
    """Size of the output."""
    seconds: float
    seconds_by_stage: dict[str, float]
    """Probing, downloading (with encoding) and finishing (stitching and validating)."""
    parts_total: int
    parts_resumed: int
    peak_rss: int
    """Bytes; the most that this process had in memory so far."""
    failed: tuple[TileFailed, ...] = ()
    scenes: SceneReport = SceneReport()

    def as_dict(self) -> dict[str, Any]:
        """Give the report as JSON types; tiles are written z/x/y."""
        failed = [{**asdict(failure), "tile": zxy(failure.tile)} for failure in self.failed]
        return {**asdict(self), "output": str(self.output), "bounds": list(self.bounds), "failed": failed}


Event = (
    RunStarted
    | TileFetched
    | TileRetried
    | ServerTrouble
    | TileParked
    | TilePlaced
    | TileEmpty
    | TileFailed
    | SceneSkipped
    | PartSealed
    | Stitching
)
OnEvent = Callable[[Event], None]
"""Called on the event loop: it must be quick and must not raise."""
