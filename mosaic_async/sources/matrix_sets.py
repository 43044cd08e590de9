"""Tile matrix sets by name, file or document, and the one that a source states (extra `tms`).

It knows nothing of areas.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from yarl import URL

from mosaic_async.errors import UsageError
from mosaic_async.geo.grid_names import WEB_MERCATOR, crs_named, crs_of_set
from mosaic_async.geo.matrix import MatrixSet, TileMatrix, web_mercator
from mosaic_async.http.request import is_same_place
from mosaic_async.safety.redaction import one_line
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.description import Description, is_url
from mosaic_async.sources.mercator_levels import Level
from mosaic_async.sources.placeholders import without_placeholders
from mosaic_async.sources.source import TileSource
from mosaic_async.sources.wmts_grids import zooms_named

_MAX_NAME = 60
"""Characters of a name that a source gives."""
_NUMBER = re.compile(r"-?\d+")
Document = Mapping[str, Any]


async def matrix_set_for(source: TileSource, tms: str | Path | Document | None) -> MatrixSet | None:
    """Return the grid of a source's tiles: the requested one, or the one that the source states; None: Web Mercator.

    Raises:
        UsageError: the source names a grid that is not known, or the requested one does not exist.
        SourceError: the document of the set cannot be fetched.
    """
    wanted = tms
    if tms is None and source.matrix_set is None and _is_own_document(source):
        wanted = source.stated_grid
    if isinstance(wanted, str) and is_url(wanted):
        is_own = is_same_place(URL(wanted), URL(without_placeholders(source.template)))
        wanted = (await Description.fetch(wanted, source.headers if is_own else {}, ())).json_object
    return await asyncio.to_thread(_matrix_set_for, source, wanted)


def _is_own_document(source: TileSource) -> bool:
    """Return whether a source names a set by a URL of its own server, and not by that of a well-known one."""
    stated = source.stated_grid or ""
    is_own = is_url(stated) and is_same_place(URL(stated), URL(without_placeholders(source.template)))
    return is_own and crs_of_set(stated) is None


def _matrix_set_for(source: TileSource, tms: str | Path | Document | None) -> MatrixSet | None:
    if tms is not None:
        found = matrix_set(tms)
        return None if found.is_mercator else found
    if source.matrix_set is not None:
        return source.matrix_set
    stated = source.stated_grid
    if stated is None:
        return None
    known = _registered().get(stated.rpartition("/")[2].lower())
    if known is None:
        raise UsageError(
            f"the source names {one_line(stated, _MAX_NAME)} as the grid of its tiles, which is not Web Mercator",
            hint="set ``tms`` to the name of its tile matrix set, or to the URL or file that describes it as JSON",
        )
    return _of(known)


def matrix_set(tms: str | Path | Document) -> MatrixSet:
    """Return a tile matrix set.

    Args:
        tms: its name, such as WorldCRS84Quad; the path of its JSON (OGC 17-083, version 1 or 2); or that document.

    Raises:
        UsageError: it does not exist or is malformed, has tiles that are not square, or rows of unlike width.
    """
    if isinstance(tms, Mapping):
        return _parsed(tms, "the tile matrix set")
    if known := _registered().get(str(tms).lower()):
        return _of(known)
    if crs_of_set(str(tms)) == WEB_MERCATOR:
        return _of(_registered()["webmercatorquad"])
    path = Path(tms)
    if not path.is_file():
        names = ", ".join(sorted(one.id for one in _registered().values()))
        raise UsageError(f"{tms} is neither a file nor a known tile matrix set", hint=f"use a JSON file, or {names}")
    try:
        document = parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    return _parsed(document, str(path))


def _morecantile() -> Any:
    try:
        import morecantile  # noqa: PLC0415 - the extra may be missing
    except ImportError as error:
        raise UsageError(
            f"other grids than Web Mercator require the extra `tms` ({error})", hint="pip install 'mosaic-async[tms]'"
        ) from error
    return morecantile


def _registered() -> dict[str, Any]:
    """Return morecantile's tile matrix sets by their name in lower case."""
    sets = _morecantile().tms
    return {name.lower(): sets.get(name) for name in sets.list()}


def _parsed(document: Any, place: str) -> MatrixSet:
    model = _morecantile().TileMatrixSet
    try:
        if isinstance(document, Mapping) and "tileMatrix" in document:
            return _of(model.from_v1(document))
        numbered, names = _numbered(document)
        return _of(model.model_validate(numbered), names)
    except UsageError:
        raise
    except Exception as error:  # morecantile, pydantic and PROJ raise many kinds
        words = one_line(re.sub(r"\s+", " ", str(error)), 200)
        raise UsageError(f"{place} is not a tile matrix set: {words}") from error


def _numbered(document: Any) -> tuple[Any, Mapping[int, str]]:
    """Return a set whose matrices are named by numbers, as morecantile requires, and their own names by number."""
    matrices = sorted(document["tileMatrices"], key=lambda matrix: -matrix["scaleDenominator"])
    names = [str(matrix["id"]) for matrix in matrices]
    zooms = [int(name) for name in names] if all(map(_NUMBER.fullmatch, names)) else zooms_named(names)
    if [str(zoom) for zoom in zooms] == names:
        return document, {}
    renamed = [{**matrix, "id": str(zoom)} for matrix, zoom in zip(matrices, zooms, strict=True)]
    return {**document, "tileMatrices": renamed}, dict(zip(zooms, names, strict=True))


def _of(tms: Any, names: Mapping[int, str] = MappingProxyType({})) -> MatrixSet:
    """Return one of morecantile's sets as ours; names are those of its matrices that are not their zoom."""
    name = one_line(str(tms.id or tms.title or "without a name"), _MAX_NAME)
    if tms.is_variable:
        raise UsageError(f"the tile matrix set {name} has rows of unlike width", hint="use another set of the source")
    sizes = {(matrix.tileWidth, matrix.tileHeight) for matrix in tms.tileMatrices}
    if any(width != height for width, height in sizes):
        raise UsageError(f"the tile matrix set {name} has tiles that are not square")
    crs = crs_named(tms.crs.srs) or tms.crs.to_wkt()
    matrices = [_matrix(tms, int(matrix.id), matrix, crs) for matrix in tms.tileMatrices]
    named = tuple(replace(matrix, name=names.get(matrix.zoom, "")) for matrix in matrices)
    return MatrixSet(name=name, matrices=named, tile_size=max(sizes)[0])


def _matrix(tms: Any, zoom: int, matrix: Any, crs: str) -> TileMatrix:
    left, _, _, top = tms.xy_bounds(0, 0 if matrix.cornerOfOrigin == "topLeft" else matrix.matrixHeight - 1, zoom)
    is_south_up = matrix.cornerOfOrigin == "bottomLeft"
    if crs == WEB_MERCATOR and _is_of_quadtree(matrix, zoom, left, top):
        return replace(web_mercator(zoom), is_south_up=is_south_up)
    return TileMatrix(
        zoom=zoom,
        crs=crs,
        left=left,
        top=top,
        width=matrix.cellSize * matrix.tileWidth,
        height=matrix.cellSize * matrix.tileHeight,
        columns=matrix.matrixWidth,
        rows=matrix.matrixHeight,
        is_south_up=is_south_up,
    )


def _is_of_quadtree(matrix: Any, zoom: int, left: float, top: float) -> bool:
    """Return whether a matrix is a zoom of Web Mercator's quadtree, though its cells may be rounded."""
    level = Level(
        name=matrix.id,
        resolution=matrix.cellSize,
        tile_size=matrix.tileWidth,
        left=left,
        top=top,
        columns=matrix.matrixWidth,
    )
    return level.zoom == zoom and matrix.matrixWidth == matrix.matrixHeight == 2**zoom
