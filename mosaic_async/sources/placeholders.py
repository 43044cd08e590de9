"""The placeholders of a tile URL, as maps of all kinds write them, and what stands in their place for one tile.

Braces are literal or percent-encoded, and a `$` may stand before them. Any other brace is left as it is. It knows
nothing of how a URL is requested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, quote, urlsplit

import mercantile
from rasterio.crs import epsg_treats_as_latlong, epsg_treats_as_northingeasting

from mosaic_async.errors import UsageError
from mosaic_async.geo.grid_names import DEGREES, crs_named
from mosaic_async.geo.matrix import Tile, TileMatrix
from mosaic_async.geo.systems import system

_NAMED = re.compile(
    r"\$?(?:\{|%7[Bb])([-!]?[A-Za-z][\w.-]*(?::[\w.,-]+)?|[0-9]-[0-9]|\w(?:,[A-Za-z]\w*)+)(?:\}|%7[Dd])"
)
_RANGE = re.compile(r"([a-z])-([a-z])|([0-9])-([0-9])")
_DEFAULT_SIZE = 256
"""Pixels per side of a tile whose URL leaves it to us."""
_SUBDOMAINS = "abc"
"""What `{s}` stands for, as in Leaflet."""


@dataclass(slots=True)
class _Filling:
    """What a placeholder may depend on."""

    tile: Tile
    grid: TileMatrix
    """That the tile is of."""
    size: int
    """Pixels per side."""
    matrices: Mapping[int, str]
    is_north_first: bool
    """Whether a box begins with the south, as WMS 1.3.0 orders the axes of some systems."""

    @property
    def from_the_other_end(self) -> int:
        return self.grid.rows - 1 - self.tile.y

    @property
    def quadkey(self) -> str:
        column, row = self.grid.place(self.tile)
        return str(mercantile.quadkey(column, row, self.tile.z))

    @property
    def bbox(self) -> str:
        """The edges in units of the CRS; neighbours state the same number for the edge they share."""
        column, row = self.grid.place(self.tile)
        west, east = (
            _edge(self.grid.left, index, self.grid.width, self.grid.columns) for index in (column, column + 1)
        )
        north, south = (-_edge(-self.grid.top, index, self.grid.height, self.grid.rows) for index in (row, row + 1))
        box = (south, west, north, east) if self.is_north_first else (west, south, east, north)
        return ",".join(map(repr, box))

    @property
    def matrix(self) -> str:
        return self.matrices.get(self.tile.z) or quote(self.grid.name or str(self.tile.z), safe=":")


def _edge(start: float, index: int, width: float, count: int) -> float:
    """Return where a column of tiles begins."""
    return float(width * count * index / count + start)


_Value = Callable[[_Filling], object]
_VALUES: dict[str, tuple[str, _Value]] = {
    **dict.fromkeys(("z", "zoom", "level"), ("z", lambda at: at.tile.z)),
    **dict.fromkeys(("x", "col", "tilecol"), ("x", lambda at: at.tile.x)),
    **dict.fromkeys(("y", "row", "tilerow"), ("y", lambda at: at.tile.y)),
    **dict.fromkeys(("-y", "!y", "ty", "reversey"), ("y", lambda at: at.from_the_other_end)),
    **dict.fromkeys(("q", "quadkey"), ("xyz", lambda at: at.quadkey)),
    "bbox": ("xyz", lambda at: at.bbox),
    **dict.fromkeys(("width", "height"), ("", lambda at: at.size)),
    "tilematrix": ("z", lambda at: at.matrix),
    "r": ("", lambda at: f"@{at.size // 256}x" if at.size > 256 else ""),
    "ratio": ("", lambda at: max(1, at.size // 256)),
    "prefix": ("", lambda at: f"{at.tile.x % 16:x}{at.tile.y % 16:x}"),
    "proj": ("", lambda at: at.grid.crs),
    "wkid": ("", lambda at: at.grid.crs.partition(":")[2]),
}
"""Which of x, y and z a placeholder states, and its text; of Leaflet, MapLibre, OpenLayers, JOSM, Esri and Cesium."""
_BOX = re.compile(r"bbox-(?:epsg-(\d+)|(crs-?84))")
_QUADKEYS, _CODES = frozenset({"q", "quadkey"}), frozenset({"proj", "wkid"})
_SYSTEMS = ("crs", "srs", "bboxsr", "imagesr")
"""Parameters of a map that name its coordinate system."""
_CODE = re.compile(r"[A-Z]+:\d+")


def is_template(text: str) -> bool:
    """Return whether a text contains a placeholder, known or not."""
    return _NAMED.search(text) is not None


def unstated(template: str) -> list[str]:
    """Return which of x, y and z the placeholders of a template do not state."""
    stated = {axis for name in _names(template) for axis in _known(name)[0]}
    return sorted({"x", "y", "z"} - stated)


def has(template: str, name: str) -> bool:
    """Return whether a template contains a placeholder."""
    return name in (found.lower() for found in _names(template))


def fill(template: str, tile: Tile, matrix: TileMatrix, *, size: int | None, matrices: Mapping[int, str]) -> str:
    """Return the URL of one tile.

    Args:
        template: the URL with placeholders.
        tile: what to request.
        matrix: that the tile is of.
        size: pixels per side; None when not known.
        matrices: the name of each zoom's tile matrix, where it is not the number.
    """
    filling = _Filling(tile, matrix, size or _DEFAULT_SIZE, matrices, _is_north_first(template, matrix.crs))
    return "".join(text if value is None else f"{text}{value(filling)}" for text, value in _parsed(template))


@lru_cache(maxsize=64)
def _parsed(template: str) -> tuple[tuple[str, _Value | None], ...]:
    """Return the pieces of a template: a text, and the value that follows it; None after the last text."""
    pieces: list[tuple[str, _Value | None]] = []
    end = 0
    for found in _NAMED.finditer(template):
        if value := _value_of(found[1]):
            pieces.append((template[end : found.start()], value))
            end = found.end()
    return (*pieces, (template[end:], None))


def _value_of(name: str) -> _Value | None:
    """Return what a placeholder stands for; None for one that is not known."""
    if known := _known(name)[1]:
        return known
    if hosts := _subdomains(name):
        # The sum of both, as in Leaflet: neighbours differ, and a tile always has the same one.
        return lambda at: hosts[(at.tile.x + at.tile.y) % len(hosts)]
    return None


def _known(name: str) -> tuple[str, _Value | None]:
    """Return which of x, y and z a placeholder states, and its text; None for one that is not known."""
    lower = name.lower()
    return _VALUES.get("bbox" if _BOX.fullmatch(lower) else lower, ("", None))


@lru_cache(maxsize=64)
def _is_north_first(template: str, crs: str) -> bool:
    """Return whether boxes of a URL begin with the south: WMS 1.3.0 takes the axes of a system in their own order."""
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(template).query)}
    if query.get("version") != "1.3.0" or query.get("crs", "").upper().startswith("CRS:"):
        return False
    found = system(crs)
    return bool(epsg_treats_as_latlong(found) or epsg_treats_as_northingeasting(found))


def on_each_server(template: str) -> list[str]:
    """Return the template of each server that its placeholders list; itself where they list none."""
    lists = [hosts for name in _names(template) if (hosts := _subdomains(name))]

    def at(index: int) -> str:
        def text(found: re.Match[str]) -> str:
            hosts = _subdomains(found[1])
            return hosts[index % len(hosts)] if hosts else found[0]

        return _NAMED.sub(text, template)

    return [at(index) for index in range(max(map(len, lists), default=1))]


def with_values(template: str, values: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Fill the placeholders that are not of tiles; return the template, and the values that have no placeholder."""
    given = {name.lower(): value for name, value in values.items()}
    used: set[str] = set()

    def text(found: re.Match[str]) -> str:
        name = found[1].lower()
        if name not in given or _is_known(found[1]):
            return found[0]
        used.add(name)
        return quote(given[name], safe="/:,")

    filled = _NAMED.sub(text, template)
    return filled, {name: value for name, value in values.items() if name.lower() not in used}


def without_placeholders(template: str) -> str:
    """Return what stands around the placeholders, none of which is a secret."""
    return _NAMED.sub("", template)


def with_rows_from_south(template: str) -> str:
    """Return the template with its rows counted from the south."""
    return _NAMED.sub(lambda found: "{-y}" if found[1].lower() in ("y", "row", "tilerow") else found[0], template)


def check_placeholders(template: str) -> None:
    """Check that all placeholders are known, and that a URL of maps states their CRS.

    Raises:
        UsageError: a placeholder is not known, or the CRS is missing.
    """
    if unknown := next((name for name in _names(template) if not _is_known(name)), None):
        raise UsageError(
            f"`{{{unknown}}}` is not a tile placeholder",
            hint=f"set ``params`` {unknown}=…, or ``secrets`` {unknown}=… if it is secret",
        )
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(template).query)}
    if _is_map(template):
        _check_map(urlsplit(template).path.lower(), query)


def check_grid_of(template: str, matrix: TileMatrix) -> None:
    """Check that the placeholders of a template have a meaning in the grid of the tiles.

    Raises:
        UsageError: a box or a map is in another coordinate system, or the grid has no quadkeys or no code.
    """
    names = {name.lower() for name in _names(template)}
    if names & _QUADKEYS and not matrix.columns == matrix.rows == 2**matrix.zoom:
        raise UsageError("quadkeys apply to quadtrees of one first tile only", hint="use {z}, {x} and {y}")
    if names & _CODES and not _CODE.fullmatch(matrix.crs):
        raise UsageError("the coordinate system of the tiles has no code", hint="write it into the URL")
    stated = {crs for name in names if (crs := _system_of_box(name))}
    if "bbox" in names or stated:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(template).query)}
        stated |= {
            _system_named(query[name]) for name in _SYSTEMS if query.get(name, "") not in ("", "{proj}", "{wkid}")
        }
    if others := sorted(stated - {matrix.crs}):
        raise UsageError(
            f"the URL requests maps in {others[0]}, the tiles are in {matrix.crs[:40]}",
            hint="set ``tms`` to a tile matrix set in the system of the URL, or write the same system into the URL",
        )


def _system_of_box(name: str) -> str | None:
    found = _BOX.fullmatch(name)
    return None if found is None else DEGREES if found[2] else _system_named(found[1])


def _system_named(text: str) -> str:
    return crs_named(f"EPSG:{text}" if text.isdigit() else text) or text


def _check_map(path: str, query: Mapping[str, str]) -> None:
    """Check that a request for a map states its CRS, which a server would otherwise choose."""
    is_arcgis = path.endswith(("/export", "/exportimage"))
    wanted = ("bboxSR", "imageSR") if is_arcgis else ("CRS",) if query.get("version") == "1.3.0" else ("SRS",)
    is_wms = query.get("request", "").lower() == "getmap"
    missing = [name for name in wanted if name.lower() not in query and not (is_wms and "crs" in query)]
    if missing and (is_arcgis or is_wms):
        code = "3857" if is_arcgis else "EPSG:3857"
        raise UsageError(
            f"the tile URL does not state {' and '.join(missing)}",
            hint=" and ".join(f"set ``params`` {name}={code}" for name in missing),
        )


def size_in_url(template: str) -> int | None:
    """Return the tile width in a URL in pixels: of `tilesize=512`, of `@2x`, or of a map; None without one.

    Raises:
        UsageError: the URL requests maps that are not square.
    """
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(template).query)}
    if query.get("tilesize", "").isdigit():
        return int(query["tilesize"])
    scale = re.search(r"(?:\}|%7[Dd])@([1-4])x", template)
    if scale:
        return 256 * int(scale[1])
    return _size_of_map(query) if _is_map(template) else _DEFAULT_SIZE if has(template, "width") else None


def border_in_url(template: str) -> int:
    """Return the pixels at each side of a tile that TiTiler adds for `buffer=`; of maps, it changes no size.

    Raises:
        UsageError: the buffer is half a pixel, which cannot be cut off.
    """
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(template).query)}
    text = "0" if _is_map(template) else query.get("buffer", "0")
    if re.fullmatch(r"\d+\.5", text):
        raise UsageError(f"a buffer of {text} pixels shifts the tiles' pixels", hint="request whole pixels, or none")
    return int(float(text)) if re.fullmatch(r"\d+(\.0*)?", text) else 0


def _is_map(template: str) -> bool:
    """Return whether a URL requests a map by its bounding box; of other URLs, WIDTH and SIZE mean anything."""
    return any(_known(name)[1] is _VALUES["bbox"][1] for name in _names(template))


def _size_of_map(query: Mapping[str, str]) -> int:
    """Return the width of a map in pixels, of WIDTH and HEIGHT or of SIZE; the default where placeholders leave it."""
    width, height = query.get("width", ""), query.get("height", "")
    if "," in query.get("size", ""):
        width, height = query["size"].split(",")[:2]
    if width.isdigit() and height.isdigit() and width != height:
        raise UsageError(f"the tile URL requests maps of {width} x {height} pixels", hint="make both the same")
    return int(width) if width.isdigit() else _DEFAULT_SIZE


def _names(template: str) -> Iterator[str]:
    return (found[1] for found in _NAMED.finditer(template))


def _is_known(name: str) -> bool:
    return _value_of(name) is not None


def _subdomains(name: str) -> list[str]:
    """Return the names of servers that a placeholder lists: `s`, `a-c`, `a,b,c` or `switch:a,b`; none otherwise."""
    if name == "s":
        return list(_SUBDOMAINS)
    if name.lower().startswith("switch:"):
        return name.partition(":")[2].split(",")
    if "," in name:
        return name.split(",")
    if found := _RANGE.fullmatch(name):
        first, last = (text for text in found.groups() if text)
        return [chr(code) for code in range(ord(first), ord(last) + 1)]
    return []
