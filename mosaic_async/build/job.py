"""What a user wants, as two values that travel through a run: the job decides pixels, the effort decides the rest.

Every default of `build_mosaic` is written here. It knows nothing of requests, tiles and files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from mosaic_async.build.shard import Shard
from mosaic_async.errors import UsageError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import MAX_TILES, Tile, has_outline
from mosaic_async.geo.grid import check_tile_size, default_zoom
from mosaic_async.geo.matrix import MatrixSet, TileMatrix, web_mercator
from mosaic_async.http.limits import Concurrency
from mosaic_async.http.pace import USUAL_PACE, Pace
from mosaic_async.raster.digest import DIGEST, UNSIGNED
from mosaic_async.raster.encoding import (
    DEFAULT_MASK,
    DEFAULT_OVERVIEW_RESAMPLING,
    DEFAULT_PROFILE,
    Encoding,
    MaskMode,
    OverviewChoice,
    Values,
)
from mosaic_async.raster.form import RGB, TileFormat
from mosaic_async.raster.packing import DECODINGS, check_decoding
from mosaic_async.raster.tile import MAX_BORDER
from mosaic_async.safety.redaction import scrub
from mosaic_async.sources.band_label import BandLabel
from mosaic_async.sources.coverage import check_coverage, check_zooms
from mosaic_async.sources.placeholders import check_grid_of
from mosaic_async.sources.source import TileSource

OnError = Literal["park", "fail", "nodata"]
"""What happens to tiles that fail: they are requested again at the end; the run ends; as park, and then holes."""
ON_ERROR: tuple[OnError, ...] = get_args(OnError)
NotFound = Literal["empty", "fail"]
"""What a tile is that the server does not find (404), and says so twice."""
NOT_FOUND: tuple[NotFound, ...] = get_args(NotFound)
ZOOM_TAG, RESAMPLING_TAG = "MOSAIC_ZOOM", "MOSAIC_OVERVIEW_RESAMPLING"
QUALITY_TAG = "MOSAIC_OVERVIEW_QUALITY"
DECODE_TAG = "MOSAIC_DECODE"
BORDER_TAG = "MOSAIC_TILE_BORDER"
"""Pixels of a tile at each side that were cut off, if any."""
MATRIX_TAG = "MOSAIC_TILE_MATRIX"
"""The grid of the tiles as JSON, where it is not Web Mercator's."""
CLIP_TAG = "MOSAIC_CLIP"
"""Whether pixels outside of the area's polygons are cut out: YES or NO."""
EMPTY_TAG = "MOSAIC_EMPTY"
"""The rules for empty tiles, one per line, if there are any."""
_SOFTWARE = f"mosaic-async {version('mosaic-async')}"
_DEFAULT_TILE_SIZE = 256
"""Pixels per side, where neither the user nor the source says: what every generation of tilers sends."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides the pixels of the output, and nothing else."""

    source: TileSource
    area: Area
    zoom: int | None = None
    """As requested; `tile_zoom` is what it comes to."""
    tms: MatrixSet | None = None
    """Grid of the tiles; None: Web Mercator."""
    tile_size: int | None = None
    """Pixels per side, as requested; `known_tile_size` is what it comes to."""
    tile_border: int | None = None
    """Pixels at each side of a tile to cut off, as requested; `border` is what it comes to."""
    profile: str = DEFAULT_PROFILE
    creation_options: Mapping[str, str] = field(default_factory=dict)
    overview_resampling: OverviewChoice = DEFAULT_OVERVIEW_RESAMPLING
    nodata: float | None = None
    dtype: str | None = None
    decode: str | None = None
    """How values are packed into the tiles' colours; the output has the values. None: it has what the tiles have."""
    mask: MaskMode = DEFAULT_MASK
    clip: bool = False
    all_touched: bool = False
    """Whether a clipped output keeps all pixels that the polygons touch, and not only those whose centre is inside."""
    part_size: int | None = None
    """Pixels per side; None: as large as the memory allows."""
    empty: Sequence[str] = ()
    """Rules for answers without data, beside the defaults, as `spelled` returns them."""
    collection: bool = False
    """Whether the output is a folder of COGs, one per part, with their catalogue."""

    def __post_init__(self) -> None:
        if self.decode is not None:
            check_decoding(self.decode)
        if not 0 <= self.border <= MAX_BORDER:
            raise UsageError(f"tile_border must be from 0 to {MAX_BORDER} pixels, got {self.border}")
        if self.known_tile_size is not None:
            check_tile_size(self.known_tile_size)
        if self.all_touched and not self.clip:
            raise UsageError(
                "touched pixels are kept in a clipped output only", hint="set ``clip`` beside ``all_touched``"
            )
        if self.zoom is None and self.source.maxzoom is None and self.source.zooms is None:
            raise UsageError("the source does not state its zooms", hint="set ``zoom``, the z of the tiles to request")
        if self.tms is None:
            check_coverage(self.source, self.area, self.tile_zoom)
        else:
            check_zooms(self.source, self.tile_zoom)
            self.tms.matrix(self.tile_zoom)
        check_grid_of(self.source.template, self.matrix)

    @property
    def known_tile_size(self) -> int | None:
        """Pixels per side; None when only a tile can tell."""
        return self.tile_size or self.source.tile_size

    @property
    def border(self) -> int:
        """Pixels at each side of a tile to cut off: as requested, or as the URL of the source states."""
        return self.source.border if self.tile_border is None else self.tile_border

    @property
    def tile_zoom(self) -> int:
        """The z of the tiles: the requested one, or the one at the resolution of the data."""
        if self.zoom is not None:
            return self.zoom
        if self.source.maxzoom is None:
            assert self.source.zooms is not None, "checked when the job is made"
            return self.source.zooms[1]
        if self.tms is not None:
            return self.tms.zoom_like(self.source.maxzoom, self.known_tile_size or self.tms.tile_size)
        return default_zoom(self.source.maxzoom, self.known_tile_size or _DEFAULT_TILE_SIZE)

    @property
    def matrix(self) -> TileMatrix:
        """Where the tiles lie."""
        return web_mercator(self.tile_zoom) if self.tms is None else self.tms.matrix(self.tile_zoom)

    def url(self, tile: Tile) -> str:
        """Return the URL of one tile."""
        return self.source.url(tile, self.matrix)

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the output's pixels beside what the source is sent, as JSON types."""
        values = asdict(replace(self, zoom=self.tile_zoom, tile_size=self.known_tile_size))
        del values["tms"]  # jobs of a time before these options are the same jobs
        if not self.all_touched:
            del values["all_touched"]
        if self.tms is not None:
            values["matrix"] = asdict(self.matrix)
        if not self.empty:
            del values["empty"]
        if not self.collection:
            del values["collection"]
        if self.area.has_slopes:
            values["edges"] = "straight in degrees"  # they once were straight in Web Mercator, and other tiles
        if self.decode is None:
            del values["decode"]  # as above
        values["tile_border"] = self.border
        if not self.border:
            del values["tile_border"]
        if self.overview_resampling == "auto":
            values["overview_resampling"] = "average"  # as the default was called before
        elif self.overview_resampling == "average":
            values["overview_resampling"] = "average of all"  # of indices and packed values too
        packing = {"packing": self.source.packing} if self.source.packing else {}
        return {**values, "source": {"mask_band": self.source.mask_band, **packing}}

    def tags(self, encoding: Encoding) -> dict[str, str]:
        """Return the GDAL metadata that tells where the pixels come from, and what `verify_mosaic` needs."""
        options = {name.upper(): value for name, value in self.creation_options.items()}
        quality = {QUALITY_TAG: options["OVERVIEW_QUALITY"]} if "OVERVIEW_QUALITY" in options else {}
        rules = {EMPTY_TAG: "\n".join(self.empty)} if self.empty else {}
        return {
            **quality,
            **({DECODE_TAG: self.decode} if self.decode else {}),
            **({BORDER_TAG: str(self.border)} if self.border else {}),
            **rules,
            "TIFFTAG_SOFTWARE": _SOFTWARE,
            "MOSAIC_SOURCE": scrub(self.source.origin or self.source.identity or self.source.template),
            ZOOM_TAG: str(self.tile_zoom),
            RESAMPLING_TAG: encoding.overview_resampling,
            CLIP_TAG: "YES" if self.clip and has_outline(self.area, self.matrix) else "NO",
            DIGEST: UNSIGNED,
            **({} if self.tms is None else {MATRIX_TAG: json.dumps(asdict(self.matrix))}),
        }

    def encoding(self, tile_format: TileFormat) -> Encoding:
        """Decide how the output is stored.

        Raises:
            UsageError: the profile cannot hold such pixels.
        """
        encoding = Encoding.of(
            tile_format,
            profile=self.profile,
            creation_options=self.creation_options,
            mask=self.mask,
            nodata=self.nodata,
            dtype=self.dtype,
            overview_resampling=self.overview_resampling,
            values=self._values,
        )
        return _labelled(encoding, self.source.bands)

    def why_no_average(self, encoding: Encoding) -> str | None:
        """Return why the overviews are not averages, in words; None if they are, or if the user chose so."""
        if self.overview_resampling != "auto":
            return None
        if self._values == "packed":
            known = f"; decode={self.source.packing!r} writes heights" if self.source.packing in DECODINGS else ""
            return f"the tiles pack values into colours ({self.source.packing}), which have no average{known}"
        if self._values == "classes":
            return "the URL names class codes or flags, which have no average"
        if encoding.palette:
            return "the tiles share one colour table, whose indices have no average"
        has_indices = "palette" in encoding.colorinterp
        return "the tiles hold indices of a colour table, which have no average" if has_indices else None

    @property
    def _values(self) -> Values:
        """What the output's numbers are."""
        if self.source.packing is not None and self.decode is None:
            return "packed"
        return "classes" if self.source.has_classes else "quantities"


def _labelled(encoding: Encoding, labels: Sequence[BandLabel]) -> Encoding:
    """Return an encoding with labels for its bands, if there are as many."""
    if len(labels) != encoding.count:
        return encoding
    scales = tuple((1.0 if label.scale is None else label.scale, label.offset or 0.0) for label in labels)
    names = tuple(label.name for label in labels)
    return replace(
        encoding,
        colorinterp=_colours(names) or encoding.colorinterp,
        descriptions=names if any(names) else encoding.descriptions,
        scales=encoding.scales if set(scales) == {(1.0, 0.0)} else scales,
        units=tuple(label.unit or "" for label in labels),
    )


def _colours(names: Sequence[str | None]) -> tuple[str, ...]:
    """Return what each band means if they are a colour picture, by the names that STAC has for them."""
    if any(names.count(colour) != 1 for colour in RGB):
        return ()
    return tuple(name if name in RGB else "undefined" for name in names)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard a run tries and what it may use; nothing here changes a pixel of a complete output."""

    concurrency: Concurrency = USUAL_PACE.concurrency
    rate: float | None = None
    """Requests per second; None: no limit."""
    attempts: int = USUAL_PACE.attempts
    timeout: float = USUAL_PACE.timeout
    """Seconds per attempt."""
    memory: int = 2**30
    """Bytes."""
    max_tiles: int = MAX_TILES
    max_failures: int | str = 0
    """Tiles, or a share of them such as "1%"."""
    on_error: OnError = "park"
    not_found: NotFound = "empty"
    sparse: bool = False
    """Whether data may be in any tile, however many others of a first sample have none."""
    max_outage: float = USUAL_PACE.max_outage
    """Seconds."""
    allow_hosts: Collection[str] = ()
    check_disk: bool = True
    work: str | Path | None = None
    """Folder for what is under way, where the output is in a bucket; None: one in the user's cache."""
    stac: bool = False
    """Whether a STAC Item of the output is written beside it."""
    overwrite: bool = False
    resume: bool = True
    shard: str | None = None
    """"I/N": which share of the parts to build, and no output; None: all, and the output."""

    def __post_init__(self) -> None:
        if self.shard is not None:
            Shard.parse(self.shard)
            if not self.resume:
                raise UsageError(
                    "a shard cannot start over, since the others use the same folder",
                    hint="to start over, delete the folder before the first shard starts",
                )
        if self.on_error not in ON_ERROR:
            raise UsageError(f"on_error {self.on_error!r} is not known", hint=f"use one of {', '.join(ON_ERROR)}")
        if self.not_found not in NOT_FOUND:
            raise UsageError(f"not_found {self.not_found!r} is not known", hint=f"use one of {', '.join(NOT_FOUND)}")
        _allowed(self.max_failures, tiles=0)

    @property
    def in_flight(self) -> int:
        """Maximum requests in flight."""
        return self.pace.in_flight

    @property
    def pace(self) -> Pace:
        """How hard the client tries."""
        return Pace(
            concurrency=self.concurrency,
            rate=self.rate,
            attempts=self.attempts,
            timeout=self.timeout,
            max_outage=self.max_outage,
        )

    def towards(self, source: TileSource) -> Effort:
        """Return the effort with no more requests at once than the processes of a source can have under way."""
        if source.capacity is None or self.in_flight <= source.capacity:
            return self
        return replace(self, concurrency=source.capacity)

    def allowed_failures(self, tiles: int) -> int:
        """Return how many of `tiles` may stay holes."""
        return tiles if self.on_error == "nodata" else _allowed(self.max_failures, tiles)


def _allowed(max_failures: int | str, tiles: int) -> int:
    """Read a number of tiles, or a share of all tiles.

    Raises:
        UsageError: it is neither.
    """
    text = str(max_failures).strip()
    try:
        if text.endswith("%"):
            share = float(text.removesuffix("%")) / 100
            if 0 <= share <= 1:
                return math.floor(share * tiles)
        elif (count := int(text)) >= 0:
            return count
    except ValueError:
        pass
    raise UsageError(f"max_failures must be 0 or more, or a share up to 100%, got {text}", hint="write 12 or 0.5%")
