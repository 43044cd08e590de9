"""What tiles are requested from: a URL template and what is known of its tiles.

A source is data. It knows nothing of areas, of HTTP, and of the documents that describe it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from yarl import URL

from mosaic_async.errors import UsageError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.cover import Tile
from mosaic_async.geo.matrix import MatrixSet, TileMatrix, web_mercator
from mosaic_async.safety.redaction import learn, learn_request
from mosaic_async.sources.band_label import BandLabel
from mosaic_async.sources.grid_signs import grid_in_url, is_web_mercator
from mosaic_async.sources.packed import has_classes, packing_of
from mosaic_async.sources.placeholders import (
    border_in_url,
    fill,
    size_in_url,
    unstated,
    with_values,
    without_placeholders,
)

TILE_HEADER = "X-Mosaic-Async-Tile"
"""Names the tile of an answer as z/x/y, whatever grid it lies in; servers of this package send it."""


@dataclass(frozen=True, kw_only=True)
class TileSource:
    """A URL template and what is known of its tiles."""

    template: str
    """URL with placeholders that state a tile, such as `{z}`, `{x}` and `{y}`; see `sources.placeholders`."""
    tile_size: int | None = None
    """Pixels per side; None when only a tile shows it."""
    border: int = 0
    """Pixels that a tile has at each side beside these, as its URL states."""
    minzoom: int | None = None
    maxzoom: int | None = None
    """Zoom at which tiles of 256 pixels have the data's own resolution; None when not known."""
    zooms: tuple[int, int] | None = None
    """Lowest and highest z that the server has tiles of; None when not known, or when it makes tiles of any zoom."""
    bounds: Bounds | None = None
    """West, south, east, north in degrees of the data; None when not known."""
    grid: str | None = None
    """Matrix set or coordinate system that its description names; None: its URL may name one."""
    matrix_set: MatrixSet | None = None
    """Grid of the tiles, where their server describes it; None: `grid` may name it, or it is Web Mercator."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every tile request; may hold secrets."""
    mask_band: bool | None = None
    """Whether the last band of a tile is its mask; None: its colour interpretation says so."""
    encoding: str | None = None
    """How values are packed into colours, as a TileJSON names it: `mapbox`, `terrarium`, ...; None when not known."""
    matrices: Mapping[int, str] = field(default_factory=dict)
    """The name of each zoom's tile matrix, for `{TileMatrix}`, where it is not the number."""
    identity: str | None = None
    """Name of this source from run to run, by which a killed run resumes; None: the template."""
    origin: str | None = None
    """What the output's metadata name as its source; None: the identity, or the template."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secret texts of the URL by name, which may change from run to run without changing a pixel."""
    bands: tuple[BandLabel, ...] = ()
    """Labels for the bands of the output; empty: those of the tiles."""
    notes: tuple[str, ...] = ()
    """What users should know, such as limits of the tiler that its answers do not show."""
    memory: int = 0
    """Bytes that processes of this machine, started for this run, take to answer; they count with the run's own."""
    usual_memory: int = 0
    """Bytes that they take as a rule, with memory that processes share counted once."""
    capacity: int | None = None
    """Requests that those processes can have under way: more would only wait. None: not known."""

    def __post_init__(self) -> None:
        learn(self.secrets.values())
        learn_request(without_placeholders(self.template), self.headers)
        if not re.match(r"https?://[^/]", self.template, re.IGNORECASE):
            raise UsageError("a tile URL must begin with http:// or https:// and a host")
        if missing := unstated(self.template):
            is_map = re.search(r"[?&](bbox|request=getmap)\b", self.template, re.IGNORECASE)
            raise UsageError(
                f"the tile URL has no {', '.join(f'{{{name}}}' for name in missing)}",
                hint="a URL of maps has BBOX={bbox-epsg-3857}, with WIDTH={width} and HEIGHT={height}"
                if is_map
                else "an XYZ template looks like https://host/tiles/{z}/{x}/{y}.tif",
            )
        try:
            URL(self.url(Tile(0, 0, 0)))
        except ValueError as error:
            raise UsageError(f"the tile URL is not a URL: {error}", hint="check host, port and brackets") from error

    @property
    def has_classes(self) -> bool:
        """Whether its URL names a layer or a band of class codes or flags."""
        return has_classes(self.template)

    @property
    def packing(self) -> str | None:
        """How values are packed into the colours of its tiles, by its description or its URL; None: they are not."""
        return packing_of(self.template, self.encoding)

    def url(self, tile: Tile, matrix: TileMatrix | None = None) -> str:
        """Return the URL of one tile of a matrix; None: of Web Mercator."""
        return fill(self.template, tile, matrix or web_mercator(tile.z), size=self.tile_size, matrices=self.matrices)

    @property
    def stated_grid(self) -> str | None:
        """The matrix set or coordinate system that the source names, where that is not Web Mercator."""
        if self.grid is None:
            return grid_in_url(self.template)
        return None if is_web_mercator(self.grid) else self.grid

    def with_template(self, template: str) -> TileSource:
        """Return the source with another template."""
        return replace(self, template=template)

    def with_params(self, params: Mapping[str, str]) -> TileSource:
        """Return the source with parameters in their placeholders, and otherwise added to its query."""
        template, left = with_values(self.template, params)
        identity = None if self.identity is None else f"{self.identity}&{urlencode(params)}"
        return replace(self, template=with_query(template, left), identity=identity) if params else self


def from_template(template: str, *, headers: Mapping[str, str] | None = None) -> TileSource:
    """Return the source of a URL template; its tile size is that in the URL, such as `@2x` or `tilesize=`, if any."""
    source = TileSource(template=template, headers=headers or {})
    return replace(source, tile_size=size_in_url(template), border=border_in_url(template))


def with_query(template: str, params: Mapping[str, str]) -> str:
    """Return a URL with parameters added to its query."""
    if not params:
        return template
    base, mark, fragment = template.partition("#")
    joint = "" if base.endswith(("?", "&")) else "&" if "?" in base else "?"
    return f"{base}{joint}{urlencode(params)}{mark}{fragment}"
