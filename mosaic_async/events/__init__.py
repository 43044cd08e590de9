"""What a run reports while it lasts, and the report at its end: frozen facts.

It knows nothing of who listens: the library emits, the command line draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile


def zxy(tile: Tile) -> str:
    """Return a tile as URLs spell it."""
    return f"{tile.z}/{tile.x}/{tile.y}"


def _tile_of(name: str) -> Tile:
    """Return the tile that `zxy` wrote."""
    z, x, y = map(int, name.split("/"))
    return Tile(x, y, z)


@dataclass(frozen=True)
class RunStarted:
    """The first tiles are known and the plan is made; the download starts."""

    tiles_total: int
    parts_total: int
    parts_resumed: int
    """Parts that an earlier run finished."""
    tiles_resumed: int
    """Tiles of those parts."""


@dataclass(frozen=True)
class OverviewsChosen:
    """The overviews are not averages, because the tiles hold values that have none."""

    resampling: str
    reason: str


@dataclass(frozen=True)
class TilesDiffer:
    """A tile is unlike those before it, so the output is stored in a form that holds all of them."""

    tile: Tile
    count: int
    """Bands of the output from now on, without an alpha band."""
    dtype: str
    mask: str
    """How pixels without data are marked: internal, alpha, nodata or none."""


@dataclass(frozen=True)
class PieceDropped:
    """A piece that an earlier run left is damaged or not what it is named; it is made again."""

    name: str
    """Of the piece, such as `part 0-1` or `job.json`."""
    reason: str


@dataclass(frozen=True)
class TileFetched:
    """A body has arrived."""

    tile: Tile
    nbytes: int
    attempts: int = 1
    """Attempts that it took."""
    seconds: float = 0.0
    """How long the last of them took."""


@dataclass(frozen=True)
class TileRetried:
    """An attempt failed; the tile is requested again after a wait."""

    url: str
    """Without secrets."""
    attempt: int
    """The one that failed, from 1."""
    reason: str
    wait: float
    """Seconds."""


@dataclass(frozen=True)
class TileParked:
    """A tile has used up its attempts; it is retried once more when all others have arrived."""

    tile: Tile
    reason: str


@dataclass(frozen=True)
class Pulse:
    """What happens at this moment; sent once a second."""

    in_flight: int
    """Requests in flight."""
    requests: int
    """Attempts of this run so far, retries included."""
    bytes_received: int
    """Bytes of complete bodies so far."""
    retries: int = 0
    """Retries of this run so far."""


@dataclass(frozen=True)
class Stopping:
    """The run is stopped: nothing more is requested, and what is in flight may still arrive."""

    in_flight: int
    """Requests in flight."""


@dataclass(frozen=True)
class ServerTrouble:
    """The server requests a pause, is unavailable, or is back; no tile is requested meanwhile."""

    kind: Literal["pause", "outage", "back"]
    seconds: float
    """How long the pause will be, or how long the outage has been."""
    reason: str = ""


@dataclass(frozen=True)
class TilePlaced:
    """The pixels of a tile are in their part."""

    tile: Tile


@dataclass(frozen=True)
class TileEmpty:
    """The server has no data for a tile."""

    tile: Tile
    kind: str = "no content"
    """Why: no content (204), rule (of the user), transparent, no body, outside (of the matrix), denied (bucket)."""


@dataclass(frozen=True)
class TileNotFound:
    """The server does not find this tile (404), and says so twice, while it still sends others: it counts as empty."""

    tile: Tile


@dataclass(frozen=True)
class TileFailed:
    """A tile failed in all attempts."""

    tile: Tile
    url: str
    """Without secrets."""
    reason: str
    status: int | None
    """HTTP status of the last answer; None without an answer."""
    attempts: int
    is_passing: bool = False
    """Whether a later run may succeed: the server was in trouble, and did not refuse."""


@dataclass(frozen=True)
class SceneSkipped:
    """The tiler cannot read a scene and skipped it; sent once per scene, with the first tile that lacks it."""

    scene: str
    """As the tiler names it, without secrets."""
    tile: Tile


@dataclass(frozen=True)
class PartSealed:
    """All tiles of a part have arrived, and its COG is in the work folder."""

    name: str
    nbytes: int
    """Bytes of its COG; 0 when the part has no data and no file."""


@dataclass(frozen=True)
class Stitching:
    """All parts are sealed and become one file."""

    parts: int


@dataclass(frozen=True)
class StitchProgress:
    """How much of the output is copied from the parts; sent for each per cent."""

    done: int
    """Bytes that the output holds, those of a killed run included."""
    total: int
    """Bytes that the output will hold."""


@dataclass(frozen=True)
class SceneCount:
    """A scene, and the number of tiles of this output that show it or lack it."""

    name: str
    """As the tiler names it, usually the place of its item; without secrets."""
    day: str | None
    """Year, month and day; None if the tiler does not state it."""
    tiles: int
    rule: str | None = None
    """How its counts were converted, see `tiler.scenes.archives`; None: they stay as stored, or it is not known."""
    reason: str | None = None
    """Why it is left out; None: it is not, or the tiler does not say it."""


@dataclass(frozen=True, kw_only=True)
class SceneReport:
    """The scenes of the tiles, as far as the tiler names them; a `kill -9` may lose the count of the last tiles."""

    total: int = 0
    """Scenes, at most 20,000."""
    tiles: int = 0
    """Tiles whose scenes the tiler named."""
    first: str | None = None
    """The first day; None if no day is known."""
    last: str | None = None
    used: tuple[SceneCount, ...] = ()
    """The 500 scenes with the most tiles, the most frequent first."""
    lacking: int = 0
    """Tiles that lack scenes, because the tiler cannot read them."""
    skipped_total: int = 0
    """Scenes that the tiler cannot read, each in at least one tile."""
    skipped: tuple[SceneCount, ...] = ()
    """At most 500 of them, with the number of tiles that lack them."""


@dataclass(frozen=True)
class SameBytes:
    """Many tiles are one picture, which is not of one colour: it may mean "no data"."""

    tiles: int
    total: int
    """Tiles with data that the run has fetched."""
    sha256: str
    """Of the picture's bytes, in hexadecimal, for a rule of ``empty``."""


@dataclass(frozen=True)
class WorkerShare:
    """What one worker of a cluster has built."""

    worker: str
    """Its address."""
    parts: int
    tiles: int


@dataclass(frozen=True, kw_only=True)
class MosaicReport:
    """What a run did."""

    output: Path
    bounds: Bounds
    """West, south, east, north of the output in degrees; west above east across the antimeridian."""
    zoom: int
    tile_size: int
    """Width and height of a tile, in pixels."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    tiles_total: int
    tiles_placed: int
    tiles_empty: int
    """Those of `tiles_not_found` included."""
    tiles_failed: int
    requests: int
    """Attempts of this run, retries included; tiles of an earlier run are not requested again."""
    retries: int
    retried: dict[str, int]
    """How often each reason led to a retry, the most frequent first; at most 20 reasons."""
    bytes_received: int
    bytes_written: int
    """Size of the output."""
    seconds: float
    seconds_by_stage: dict[str, float]
    """Probing, downloading (with encoding) and finishing (stitching and validating)."""
    parts_total: int
    parts_resumed: int
    peak_rss: int
    """Peak memory of this process so far, in bytes."""
    peak_memory: int = 0
    """Most bytes that this process and the tilers that it started had at once, pages that they share counted once; it
    is looked up every second."""
    failed: tuple[TileFailed, ...] = ()
    scenes: SceneReport = SceneReport()
    tiles_not_found: int = 0
    """Empty tiles that the server does not find (404), in contrast to those that it calls empty (204)."""
    empty_kinds: dict[str, int] = field(default_factory=dict)
    """Empty tiles by kind, as in `TileEmpty`, and "not found"; kinds without any are left out."""
    same_bytes: SameBytes | None = None
    """Of the picture that more than 5 % of the tiles are, if there is one."""
    averaged_values: int = 0
    """Different values of a band, if these are so few (2 to 64) that they may be class codes, and the overviews are
    averages without the user's choice; 0 otherwise."""
    tile_dtypes: tuple[str, ...] = ()
    """Those of the tiles, if they differ: their numbers are kept, so 255 of uint8 is not 65535 of uint16."""
    workers: tuple[WorkerShare, ...] = ()
    """Who has built how much, if workers of a cluster did."""
    address: str | None = None
    """URL of an output in a bucket; `output` is then its name."""

    @property
    def place(self) -> str:
        """Where the output is, for people."""
        return self.address or str(self.output)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types; tiles are written z/x/y."""
        failed = [{**asdict(failure), "tile": zxy(failure.tile)} for failure in self.failed]
        return {**asdict(self), "output": self.place, "bounds": list(self.bounds), "failed": failed}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MosaicReport:
        """Return what `as_dict` made, also after it was JSON."""
        west, south, east, north = values["bounds"]
        failed = [TileFailed(**{**failure, "tile": _tile_of(failure["tile"])}) for failure in values["failed"]]
        scenes = {**values["scenes"]}
        for name in ("used", "skipped"):
            scenes[name] = tuple(SceneCount(**count) for count in scenes[name])
        same_bytes = SameBytes(**found) if (found := values.get("same_bytes")) else None
        settled = {"output": Path(values["output"]), "bounds": (west, south, east, north), "failed": tuple(failed)}
        settled |= {"same_bytes": same_bytes, "tile_dtypes": tuple(values.get("tile_dtypes", ()))}
        settled |= {"workers": tuple(WorkerShare(**share) for share in values.get("workers", ()))}
        return cls(**{**values, **settled, "scenes": SceneReport(**scenes)})


Event = (
    RunStarted
    | OverviewsChosen
    | TilesDiffer
    | PieceDropped
    | TileFetched
    | TileRetried
    | Pulse
    | Stopping
    | ServerTrouble
    | TileParked
    | TilePlaced
    | TileEmpty
    | TileNotFound
    | TileFailed
    | SceneSkipped
    | PartSealed
    | Stitching
    | StitchProgress
)
OnEvent = Callable[[Event], None]
"""Called on the event loop: it must be quick and must not raise."""
