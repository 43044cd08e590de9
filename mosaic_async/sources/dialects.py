"""The dialect of each tiler: its tile path, its query parameters, and what it does not support.

A dialect is data, read from the server's own OpenAPI description where it has one. What a dialect does not support is
refused with the reason, because TiTiler ignores unknown parameters in silence. It knows nothing of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.sources.rendering import Rendering, renamed, selection_today

TMS = "WebMercatorQuad"
_TODAY = ("first", "highest", "lowest", "mean", "median", "stdev", "lastbandlow", "lastbandhigh", "count")
_NEEDED = ("url", "searchid", "search_id", "tilematrixsetid")
_SCALES = (1, 2, 3, 4)

Params = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The path and parameters of one tiler."""

    name: str
    path: str
    """Path of a tile below the mosaic, with `{z}`, `{x}`, `{y}`, `{format}`, and optionally `{tms}` and `{scale}`."""
    parameters: frozenset[str]
    """Query parameters that it supports."""
    selections: tuple[str, ...]
    """Pixel selections that it supports, in its spelling."""
    reads: Literal["items", "files"] | None = None
    """STAC items with assets, or plain files with numbered bands; None: the names of bands decide."""
    required: frozenset[str] = frozenset()
    """Query parameters that it requires."""

    @property
    def sizes(self) -> str:
        """The tile sizes that it supports, in words."""
        return "any size" if "tilesize" in self.parameters else "256, 512, 768 or 1024 pixels"

    def tile(self, tile_format: str, tile_size: int) -> tuple[str, Params]:
        """Return the path of tiles of a format and size, with `{z}/{x}/{y}` left in it, and its parameters.

        Raises:
            UsageError: the tiler does not support this size.
        """
        path = self.path.replace("{tms}", TMS).replace("{format}", tile_format)
        if "tilesize" in self.parameters:
            return path, [("tilesize", str(tile_size))]
        scale, rest = divmod(tile_size, 256)
        if rest or scale not in _SCALES or ("{scale}" not in path and scale != 1):
            raise UsageError(
                f"{self.name} makes no tiles of {tile_size} pixels", hint=f"``tile_size`` may be {self.sizes}"
            )
        return path.replace("{scale}", str(scale)), []

    def query(self, rendering: Rendering) -> Params:
        """Return a rendering as query parameters.

        Raises:
            UsageError: the tiler does not support it.
        """
        if self.name == "awspds":
            return _awspds_query(self, rendering)
        params = self._layer(rendering)
        if rendering.pixel_selection:
            params.append(("pixel_selection", self.selection(rendering)))
        if rendering.rescale:
            self._needs("rescale")
            params += [("rescale", f"{low:g},{high:g}") for low, high in rendering.rescale]
        if rendering.color_formula:
            self._needs("color_formula")
            params.append(("color_formula", rendering.color_formula))
        if rendering.resampling:
            self._needs("resampling")
            params.append(("resampling", rendering.resampling))
            if "reproject" in self.parameters:
                params.append(("reproject", rendering.resampling))
            if "padding" in self.parameters and rendering.resampling != "nearest":
                params.append(("padding", "2"))  # the kernel reaches beyond the tile; without it, seams appear
        return params

    def selection(self, rendering: Rendering) -> str:
        """Return the name of a pixel selection in this tiler's spelling."""
        wanted = rendering.selection or "first"
        found = next((name for name in self.selections if selection_today(name) == wanted), None)
        if found is None:
            raise UsageError(
                f"{self.name} has no pixel selection {wanted}", hint=f"it has {', '.join(self.selections)}"
            )
        return found

    def _needs(self, parameter: str) -> None:
        if parameter not in self.parameters:
            raise UsageError(
                f"{self.name} has no parameter {parameter} and would ignore it", hint=f"omit ``{parameter}``"
            )

    def _layer(self, rendering: Rendering) -> Params:
        """Return the parameters of bands or expression, for items with assets or for plain files."""
        has_assets = self.reads == "items" or (self.reads is None and not _of_plain_files(rendering))
        if rendering.expression:
            return self._expression(rendering, has_assets=has_assets)
        if rendering.bands and not has_assets:
            if named := [band for band in rendering.bands if not _is_number(band)]:
                raise UsageError(
                    f"{self.name} renders plain files here, whose bands have numbers and not names such as {named[0]}",
                    hint="a mosaic of STAC items requires a tiler that reads items",
                )
            return [("bidx", band.lstrip("bB")) for band in rendering.bands]
        if has_assets and not rendering.bands and "assets" in self.required:
            raise UsageError(f"{self.name} does not know which assets to show", hint="set ``bands`` or ``expression``")
        return [("assets", band) for band in rendering.bands]

    def _expression(self, rendering: Rendering, *, has_assets: bool) -> Params:
        formulas = rendering.formulas
        if not has_assets:
            return [("expression", ";".join(formulas))]
        names = rendering.names()
        if "asset_bidx" not in self.parameters:  # TiTiler 2: bands of the stack of all assets that are listed
            places = {name: f"b{index}" for index, name in enumerate(names, start=1)}
            formulas = [renamed(formula, places) for formula in formulas]
            return [*(("assets", name) for name in names), ("expression", ";".join(formulas))]
        if "asset_as_band" in self.parameters:
            return [
                *(("assets", name) for name in names), ("asset_as_band", "true"), ("expression", ";".join(formulas)),
            ]  # fmt: skip
        bands = {name: f"{name}_b1" for name in names}
        return [
            *(("assets", name) for name in names),
            ("expression", ";".join(renamed(formula, bands) for formula in formulas)),
        ]


def from_openapi(document: Mapping[str, Any], prefix: str, *, name: str) -> Dialect:
    """Read the dialect of the mosaic routes below a path from a server's OpenAPI description.

    Raises:
        SourceError: the description has no tile routes of mosaics below the path.
    """
    paths = {path: one["get"] for path, one in (document.get("paths") or {}).items() if "get" in one}
    tiles = [path for path in paths if path.startswith(prefix) and is_tile_path(path)]
    if not tiles:
        raise SourceError(f"the tiler's OpenAPI description has no tiles of mosaics below {prefix or '/'}")
    best = max(tiles, key=_preference)
    parameters = {
        one["name"]: one for one in (_resolved(document, one) for one in paths[best].get("parameters", []))
        if one.get("in") == "query"
    }  # fmt: skip
    selections = _choices(document, parameters.get("pixel_selection", {}).get("schema", {}))
    return Dialect(
        name=name,
        path=_generic(best[len(prefix) :]),
        parameters=frozenset(parameters),
        selections=tuple(selections) or _TODAY,
        reads="items" if "assets" in parameters else "files",
        required=frozenset(
            key for key, one in parameters.items() if one.get("required") and key.lower() not in _NEEDED
        ),
    )


def is_tile_path(path: str) -> bool:
    """Return whether a route is that of a tile with its format in the path."""
    return re.search(r"/tiles/.*\{z\}/\{x\}/\{y\}(@\{scale\}x)?\.\{(format|ext)\}$", path) is not None


def _preference(path: str) -> tuple[bool, bool]:
    """Prefer the route with a tile matrix set, which newer generations require, and the one with a scale."""
    return "{tilematrixsetid}" in path.lower(), "{scale}" in path


def _generic(path: str) -> str:
    return re.sub(r"\{tilematrixsetid\}", "{tms}", path, flags=re.IGNORECASE).replace("{ext}", "{format}")


def _resolved(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    while isinstance(reference := node.get("$ref"), str):
        found: Any = document
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
        node = found
    return node


def _choices(document: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return the values of an enumeration, in a schema or in the schemas that it combines."""
    schema = _resolved(document, schema)
    if "enum" in schema:
        return [str(name) for name in schema["enum"]]
    inner: Iterable[Mapping[str, Any]] = schema.get("allOf") or schema.get("anyOf") or ()
    return next((found for one in inner if (found := _choices(document, one))), [])


def _is_number(band: str) -> bool:
    return re.fullmatch(r"[bB]?\d+", band) is not None


def _of_plain_files(rendering: Rendering) -> bool:
    """Return, from the names, whether numbered bands are meant: 4, or b4 in a formula, and not B4 or red."""
    if rendering.bands:
        return all(band.isdigit() for band in rendering.bands)
    names = rendering.names()
    return bool(names) and all(re.fullmatch(r"b\d+", name) for name in names)


def _awspds_query(dialect: Dialect, rendering: Rendering) -> Params:
    """Return bands by number, one `expr` with commas, and one stretch for all bands."""
    params: Params = []
    if rendering.bands:
        if named := [band for band in rendering.bands if not _is_number(band)]:
            raise UsageError(f"awspds names bands by number, such as 4,3,2, and not {named[0]}")
        params.append(("bands", ",".join(band.lstrip("bB") for band in rendering.bands)))
    elif rendering.expression:
        lower = {name: name.lower() for name in rendering.names()}
        params.append(("expr", ",".join(renamed(formula, lower) for formula in rendering.formulas)))
    else:
        raise UsageError("awspds does not know which bands to show", hint="set ``bands`` or ``expression``")
    if rendering.pixel_selection:
        params.append(("pixel_selection", dialect.selection(rendering)))
    if len(rendering.rescale) > 1:
        raise UsageError("awspds stretches all bands alike", hint="set ``rescale`` once")
    params += [("rescale", f"{low:g},{high:g}") for low, high in rendering.rescale]
    if rendering.color_formula:
        params.append(("color_ops", rendering.color_formula))
    if rendering.resampling not in (None, "bilinear"):
        raise UsageError("awspds always resamples bilinearly", hint="omit ``resampling``")
    return params


def _titiler(name: str, path: str, parameters: str, selections: Sequence[str] = _TODAY) -> Dialect:
    common = "assets bidx expression pixel_selection resampling rescale color_formula nodata unscale return_mask"
    return Dialect(
        name=name, path=path, parameters=frozenset(f"{common} {parameters}".split()), selections=tuple(selections)
    )


_SCALED = "/tiles/{tms}/{z}/{x}/{y}@{scale}x.{format}"
_PLAIN = "/tiles/{tms}/{z}/{x}/{y}.{format}"
_LIMITS = "items_limit scan_limit time_limit exitwhenfull skipcovered"
_OLD = (*_TODAY[:7], "lastbandhight")

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(
            name="awspds",
            path="",
            parameters=frozenset({"bands", "expr", "rescale", "color_ops", "color_map", "pixel_selection"}),
            selections=("first", "highest", "lowest", "mean", "median", "stdev", "lastband", "count"),
        ),
        _titiler("titiler-0.11", _SCALED, "asset_bidx asset_as_band", _TODAY[:6]),
        _titiler("titiler-0.18", _SCALED, "asset_bidx asset_as_band reproject buffer padding", _OLD),
        _titiler("titiler-1", _SCALED, "asset_bidx asset_as_band reproject buffer padding"),
        _titiler("titiler-2", _PLAIN, "tilesize asset_as_band reproject buffer padding"),
        _titiler("pgstac-1", _SCALED, f"asset_bidx asset_as_band reproject buffer padding {_LIMITS}", _OLD),
        _titiler("pgstac-3", _PLAIN, f"tilesize asset_as_band reproject buffer padding {_LIMITS}"),
        _titiler(
            "planetary-computer",
            _SCALED,
            f"asset_bidx asset_as_band reproject buffer padding collection {_LIMITS}",
            _OLD,
        ),
    )
}
"""For servers without an OpenAPI description; named after releases of TiTiler (0.11 to 2.4) and titiler-pgstac."""
