"""GDAL's tile index (GTI): a vector file that lists rasters, or XML that names such a file (extra `vector`).

See https://gdal.org/drivers/raster/gti.html. What the index says of pixels (resolution, data type, nodata) does not
count, because the rasters say it themselves. It knows nothing of rasters.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from mosaic_async.errors import SourceError
from mosaic_async.sources.extras import required
from mosaic_async.sources.stac_files import resolve_href, text_of

_SIGNATURES = (b"fgb", b"SQLite format 3\0", b"\0\0\x27\x0a")
"""First bytes of FlatGeobuf, GeoPackage and Shapefile."""
_XML = "GDALTileIndexDataset"
_HEAD = 4096
_REMOTE = {"/vsicurl/": "", "/vsis3/": "s3://", "/vsigs/": "gs://", "/vsiaz/": "az://"}
"""GDAL's prefixes of files on servers, and what their URLs start with."""
_FIELD = "location"
_SQL = ("SQL", "SpatialSQL", "TILE_INDEX_SQL", "TILE_INDEX_SPATIAL_SQL")


def is_tile_index(path: Path) -> bool:
    """Return whether a file on this machine may be a tile index, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head.startswith(_SIGNATURES) or re.search(rb"^\s*(<[?!][^>]*>\s*)*<" + _XML.encode(), head) is not None


def rasters_in(path: Path) -> list[str]:
    """Return paths and URLs of the rasters of an index, the one on top first: GDAL draws those that come later over it.

    Raises:
        SourceError: the file cannot be read, is not an index, or is made with SQL.
        UsageError: the extra `vector` is not installed.
    """
    index = _Index.of(path)
    try:
        found, ranks, is_ascending = _columns(index, *_layer_of(index))
    except (_pyogrio().errors.DataSourceError, _pyogrio().errors.DataLayerError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as a tile index: {error}") from error
    names = _on_top_first(found, ranks, is_ascending=is_ascending)
    return list(dict.fromkeys(_located(str(name), index.file) for name in names if name))


def _pyogrio(module: str = "pyogrio") -> Any:
    return required(module, extra="vector", what="a tile index")


@dataclass(frozen=True)
class _Index:
    """Where the list of rasters is, and what XML says of it."""

    file: Path
    layer: str | None
    where: str | None
    """OGR's SQL condition for the features that count."""
    settings: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> _Index:
        with path.open("rb") as opened:
            if opened.read(_HEAD).startswith(_SIGNATURES):
                return cls._said(path, _elements(_xml_inside(path)))
        found = _elements(text_of(path))
        if "IndexDataset" not in found:
            raise SourceError(f"{path} has no IndexDataset", hint="name the vector file that lists the rasters")
        file = Path(resolve_href(found["IndexDataset"], str(path.absolute())))
        if not is_tile_index(file):
            raise SourceError(f"{path} names {file}, which is not a vector file on this machine")
        return cls._said(file, found)

    @classmethod
    def _said(cls, file: Path, found: Mapping[str, str]) -> _Index:
        _refuse_sql(found, file)
        names = {"LocationField": "LOCATION_FIELD", "SortField": "SORT_FIELD", "SortFieldAsc": "SORT_FIELD_ASC"}
        settings = {name: found[element] for element, name in names.items() if element in found}
        return cls(file, found.get("IndexLayer"), found.get("Filter"), settings)


def _xml_inside(path: Path) -> str:
    """Return the XML of the format that a GeoPackage keeps in its metadata; empty if it has none."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file:
        texts = file.execute("SELECT metadata FROM gpkg_metadata").fetchall()
        return next((text for (text,) in texts if f"<{_XML}" in text), "")
    return ""


def _elements(text: str) -> dict[str, str]:
    """Return the elements of an XML document that have a text alone; the format needs no more."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return {name: unescape(value.strip()) for name, value in re.findall(r"<(\w+)>([^<]*)</\1\s*>", text)}


def _layer_of(index: _Index) -> tuple[str, Mapping[str, Any]]:
    """Return the name of the layer that lists the rasters, and what GDAL knows of it."""
    names = [str(name) for name, _ in _pyogrio().list_layers(index.file)]
    named = index.layer or (_pyogrio().read_info(index.file, layer=names[0])["dataset_metadata"] or {}).get(
        "TILE_INDEX_LAYER"
    )
    if named is None and len(names) != 1:
        raise SourceError(
            f"{index.file} has the layers {', '.join(names)}", hint="name one as TILE_INDEX_LAYER in its metadata"
        )
    layer = str(named or names[0])
    return layer, _pyogrio().read_info(index.file, layer=layer)


def _columns(index: _Index, layer: str, info: Mapping[str, Any]) -> tuple[list[Any], list[Any], bool]:
    """Return names of rasters, what to sort them by, and whether the highest is on top."""
    settings = {**(info["dataset_metadata"] or {}), **(info["layer_metadata"] or {}), **index.settings}
    _refuse_sql(settings, index.file)
    name, rank = settings.get("LOCATION_FIELD", _FIELD), settings.get("SORT_FIELD")
    columns = [column for column in (name, rank) if column]
    if missing := [column for column in columns if column not in info["fields"]]:
        raise SourceError(
            f"{index.file} has no field {missing[0]}: it has {', '.join(info['fields'])}",
            hint=f"a tile index has the paths of rasters in the field {_FIELD} or the one that LOCATION_FIELD names",
        )
    meta, _, _, values = _pyogrio("pyogrio.raw").read(
        index.file, layer=layer, columns=columns, read_geometry=False, where=index.where
    )
    found = dict(zip(meta["fields"], (one.tolist() for one in values), strict=True))
    ranks = found[rank] if rank else [0] * len(found[name])
    return found[name], ranks, _is_true(settings.get("SORT_FIELD_ASC", "YES"))


def _refuse_sql(settings: Mapping[str, str], path: Path) -> None:
    if any(name in settings for name in _SQL):
        raise SourceError(f"{path} lists rasters with SQL, which is not supported", hint="write them into a layer")


def _on_top_first(names: Sequence[Any], ranks: Sequence[Any], *, is_ascending: bool) -> list[Any]:
    """Return names in the reverse of the order in which GDAL draws them."""
    order = sorted(
        range(len(names)), key=lambda place: (ranks[place] is not None, ranks[place]), reverse=not is_ascending
    )
    return [names[place] for place in reversed(order)]


def _is_true(value: str) -> bool:
    return value.strip().upper() in ("YES", "TRUE", "ON", "1")


def _located(name: str, file: Path) -> str:
    """Return an absolute path or a URL."""
    for prefix, start in _REMOTE.items():
        if name.startswith(prefix):
            return start + name.removeprefix(prefix)
    return resolve_href(name, str(file.absolute()))
