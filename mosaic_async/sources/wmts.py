"""The capabilities of a WMTS, read by OWSLib (extra `wmts`): which layer, matrix set, style and format, and its URL.

It knows nothing of how the document is fetched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.geo.area import Bounds
from mosaic_async.geo.grid_names import WEB_MERCATOR
from mosaic_async.geo.matrix import MatrixSet
from mosaic_async.sources.description import Description
from mosaic_async.sources.extras import required
from mosaic_async.sources.formats import preferred
from mosaic_async.sources.grid_signs import is_web_mercator
from mosaic_async.sources.mercator_levels import PIXEL, Level, levels_by_zoom
from mosaic_async.sources.placeholders import with_values
from mosaic_async.sources.source import TileSource, with_query
from mosaic_async.sources.wmts_grids import matrix_set_of

_MOST_NAMES = 20
"""Layers that a message lists."""
_BASE = {"SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0"}
_PLACE = {"TILEMATRIX": "{TileMatrix}", "TILEROW": "{TileRow}", "TILECOL": "{TileCol}"}


def wmts_source(described: Description, params: Mapping[str, str]) -> TileSource:
    """Return the source of a layer.

    Args:
        described: the capabilities.
        params: `layer`, `tilematrixset`, `style`, `format` and dimensions choose; all others are added to the URL.

    Raises:
        UsageError: the layer is not chosen or does not exist, or the extra is not installed.
        SourceError: the document cannot be read.
    """
    service = _service(described)
    given = {name.lower(): value for name, value in params.items()}
    layer = _chosen("layer", given, [name for name, one in service.contents.items() if one.tilematrixsetlinks])
    content = service.contents[layer]
    matrix_set, levels = _matrix_set(service, content, given)
    values = {"layer": layer, "tilematrixset": matrix_set, **_choices(content, given)}
    template = _template(service, content, values, described.location)
    chosen = {name.lower() for name in values}
    template = with_query(template, {name: value for name, value in params.items() if name.lower() not in chosen})
    zooms = list(levels or ())
    box = _bounds(getattr(content, "boundingBoxWGS84", None))
    own = None if levels else _own_set(service, content, matrix_set, box)
    names = {one.zoom: one.name for one in own.matrices} if own else {}
    names |= {zoom: level.name for zoom, level in (levels or {}).items()}
    choices = ", ".join(f"{name} {value}" for name, value in values.items() if value)
    return described.source(
        template,
        tile_size=levels[zooms[0]].tile_size if levels else None,
        zooms=(zooms[0], zooms[-1]) if levels else None,
        bounds=box,
        grid=WEB_MERCATOR if levels else _grid(service, matrix_set),
        matrix_set=own,
        matrices={zoom: quote(name, safe=":") for zoom, name in names.items()},
        notes=(choices, *_limits(content, matrix_set, zooms)),
    )


def _limits(content: Any, matrix_set: str, zooms: Sequence[int]) -> list[str]:
    """Return what users should know of a layer that does not say at which zooms it has tiles."""
    if not zooms or content.tilematrixsetlinks[matrix_set].tilematrixlimits:
        return []
    words = f"the layer states no limits, so its zooms are those of {matrix_set}, {zooms[0]} to {zooms[-1]}"
    return [f"{words}; set the zoom if its data end before"]


def _service(described: Description) -> Any:
    module = required("owslib.wmts", extra="wmts", what="a WMTS")
    try:
        return module.WebMapTileService(described.location, xml=described.body)
    except Exception as error:  # OWSLib and lxml raise many kinds
        raise SourceError(f"{described.name} cannot be read as the capabilities of a WMTS: {error}") from error


def _chosen(name: str, given: Mapping[str, str], known: list[str]) -> str:
    """Return the one that is given, or the only one.

    Raises:
        UsageError: it does not exist, or several could be meant.
        SourceError: none exists.
    """
    if not known:
        raise SourceError(f"the WMTS has no {name}")
    found = given.get(name) or (known[0] if len(known) == 1 else None)
    if found in known:
        return found
    names = ", ".join(sorted(known)[:_MOST_NAMES]) + (", …" if len(known) > _MOST_NAMES else "")
    if found is None:
        raise UsageError(f"the WMTS has {len(known):,} {name}s", hint=f"set ``params`` {name}=NAME, one of {names}")
    raise UsageError(f"the WMTS has no {name} {found}", hint=f"set ``params`` {name}= to one of {names}")


def _matrix_set(service: Any, content: Any, given: Mapping[str, str]) -> tuple[str, dict[int, Level] | None]:
    """Return the given matrix set, or the one of Web Mercator, with its levels; None where the grid is another one."""
    names = list(content.tilematrixsetlinks)
    if given.get("tilematrixset"):
        names = [_chosen("tilematrixset", given, names)]
    sets = [(name, _levels(service, content, name)) for name in names]
    best = max(sets, key=lambda found: len(found[1] or ()), default=None)
    if best is None:
        raise SourceError("the layer has no tile matrix set")
    return best


def _levels(service: Any, content: Any, name: str) -> dict[int, Level] | None:
    """Return the levels that a layer has in a set, by zoom; None where the set is not Web Mercator."""
    found = service.tilematrixsets.get(name)
    if found is None or not is_web_mercator(found.crs):
        return None
    matrices = _matrices(found, content, name)
    return levels_by_zoom(_level_of(one) for one in matrices if one.tilewidth == one.tileheight)


def _matrices(found: Any, content: Any, name: str) -> list[Any]:
    """Return the matrices of a set that a layer has."""
    limits = content.tilematrixsetlinks[name].tilematrixlimits
    return [one for key, one in found.tilematrix.items() if not limits or key in limits]


def _own_set(service: Any, content: Any, name: str, bounds: Bounds | None) -> MatrixSet | None:
    """Return a set of another grid than Web Mercator's; None where it cannot be used."""
    found = service.tilematrixsets.get(name)
    return None if found is None else matrix_set_of(name, found.crs, _matrices(found, content, name), bounds)


def _level_of(matrix: Any) -> Level:
    left, top = matrix.topleftcorner
    return Level(
        name=matrix.identifier,
        resolution=matrix.scaledenominator * PIXEL,
        tile_size=matrix.tilewidth,
        left=left,
        top=top,
        columns=matrix.matrixwidth,
    )


def _grid(service: Any, name: str) -> str:
    """Name a set that is not Web Mercator, or whose levels are not those of its quadtree."""
    found = service.tilematrixsets.get(name)
    if found is None or not is_web_mercator(found.crs):
        return name if found is None or not is_web_mercator(name) else str(found.crs)
    return f"{name}, whose levels are its own,"


def _choices(content: Any, given: Mapping[str, str]) -> dict[str, str]:
    """Return the style, the format and the dimensions: as given, or as the layer prefers."""
    return {
        "style": given.get("style", _style(content)),
        "format": given.get("format") or preferred(content.formats),
        **{name: given.get(name.lower()) or one["default"] or "default" for name, one in content.dimensions.items()},
    }


def _style(content: Any) -> str:
    """Return the default style, or the first one."""
    names = [name or "" for name in content.styles]
    return next((name or "" for name, one in content.styles.items() if one["isDefault"]), names[0] if names else "")


def _template(service: Any, content: Any, values: Mapping[str, str], location: str) -> str:
    """Return the URL of tiles: that of the REST interface if the layer has one, and otherwise with parameters."""
    tiles = [one for one in content.resourceURLs if one["resourceType"] == "tile"]
    for one in tiles:
        if one["format"] == values["format"]:
            filled, _ = with_values(one["template"], values)
            return filled
    query = urlencode({name.upper(): value for name, value in values.items()}, quote_via=quote)
    place = "&".join(f"{name}={value}" for name, value in {**_BASE, **_PLACE}.items())
    base = next(_addresses(service), location.partition("?")[0])
    joint = "" if base.endswith(("?", "&")) else "&" if "?" in base else "?"
    return f"{base}{joint}{place}&{query}"


def _addresses(service: Any) -> Iterator[str]:
    """Yield the URLs of GetTile that take parameters."""
    methods: Iterable[Any] = (method for one in service.operations if one.name == "GetTile" for method in one.methods)
    for method in methods:
        encodings = {value for one in method.get("constraints") or () for value in one.values}
        if method["type"].lower() == "get" and (not encodings or "KVP" in encodings):
            yield str(method["url"])


def _bounds(box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
    return box if box is not None and box[1] < box[3] and max(map(abs, box)) <= 360 else None
