"""The scenes of a run, opened in a process of their own, so that the run itself needs none of the libraries for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mosaic_async.errors import MosaicError, RefusedError, ResourceError, SourceError, UsageError
from mosaic_async.raster import whole_file
from mosaic_async.sources.access import use
from mosaic_async.tiler.local_rendering import Rendering
from mosaic_async.tiler.own_grid import document_of, matrix_set_for
from mosaic_async.tiler.scenes.kept_survey import kept_survey
from mosaic_async.tiler.scenes.mosaic import Access, Mosaic, open_mosaic
from mosaic_async.tiler.scenes.survey import Survey, names_in

GDAL_CONFIG = "gdal.conf"
"""Name of GDAL's configuration in the folder of a run."""
_PASSED_ON = (RefusedError, ResourceError, UsageError)


def opened_scenes(given: Mapping[str, Any]) -> str:
    """Return what a run has to know of its scenes and their rendering, or the error, as JSON.

    Args:
        given: `source`, the place of scenes, or None if `file` holds a mosaic; the `rendering`, or None and the names
            of the bands that tiles will show, `shown` (None: any); `grid`, the arguments of `matrix_set_for`;
            `reading`, those of `open_mosaic`. The file takes the mosaic with its survey and its grid.
    """
    try:
        return json.dumps(_opened(**given))
    except MosaicError as error:
        kind = type(error).__name__ if isinstance(error, _PASSED_ON) else SourceError.__name__
        return json.dumps({"error": kind, "message": error.message, "hint": error.hint_in(_AsWritten())})


class _AsWritten(dict[str, str]):
    """Names of parameters in a hint, as the hint wrote them: the run that gets it chooses how to show them."""

    def get(self, name: str, _: object = None) -> str:
        return f"``{name}``"


def _opened(
    *,
    file: str,
    source: str | None,
    rendering: Mapping[str, Any] | None,
    shown: Sequence[str] | None,
    grid: Mapping[str, Any] | None,
    reading: Mapping[str, Any],
) -> dict[str, Any]:
    path = Path(file)
    if source:
        mosaic = _found(source, path.parent, **reading)
    else:
        mosaic, _ = _read(path)
        use(reading.get("headers", {}), mosaic.origins, path.parent / GDAL_CONFIG)
    query, wanted = "", Rendering(**rendering) if rendering is not None else None
    if wanted is not None:
        query, shown = wanted.query(mosaic), wanted.shown(mosaic)
    names = names_in(mosaic.document)
    cache = Path(reading["cache"]) if reading.get("cache") else None
    agreed = kept_survey(names, shown, is_stac=mosaic.is_stac, cache=cache)
    own = matrix_set_for(mosaic, **grid) if grid else None
    written = {**mosaic.as_dict(), "survey": agreed.as_dict(), "grid": document_of(own) if own else None}
    whole_file.write(path, json.dumps(written))
    document = mosaic.document
    return {
        "query": query,
        "digest": mosaic.digest,
        "hosts": mosaic.hosts,
        "minzoom": document["minzoom"],
        "maxzoom": document["maxzoom"],
        "bounds": mosaic.bounds,
        "grid": asdict(own) if own else None,
        "notes": mosaic.notes,
        "scenes": len(names),
        "bands": [asdict(label) for label in wanted.labels(mosaic, agreed)] if wanted else [],
    }


def _found(source: str, folder: Path, *, headers: Mapping[str, str], origins: Sequence[str], **reading: Any) -> Mosaic:
    access = Access(headers=headers, origins=tuple(origins), file=folder / GDAL_CONFIG)
    return open_mosaic(source, items=folder / "items", access=access, **reading)


def _read(file: Path) -> tuple[Mosaic, dict[str, Any]]:
    given = json.loads(file.read_text())
    return Mosaic.from_dict(given), given


def surveyed(file: Path) -> tuple[Mosaic, Survey, dict[str, Any] | None]:
    """Read the mosaic, its survey and the document of its grid that `opened_scenes` wrote; it blocks."""
    mosaic, given = _read(file)
    return mosaic, Survey.from_dict(given["survey"]), given["grid"]
