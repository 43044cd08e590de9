"""What is missing, for people and for programs: footprints of failed tiles, the report as a file, and lists of tiles.

It knows nothing of why tiles fail.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mercantile

from mosaic_async.build.work_folder import failed_path, work_path
from mosaic_async.errors import UsageError
from mosaic_async.events import MosaicReport, TileFailed, zxy
from mosaic_async.geo.cover import MAX_ZOOM, Tile
from mosaic_async.raster import whole_file
from mosaic_async.safe_json import parse

_LINE = re.compile(r"\s*(\d+)[/\s,]+(\d+)[/\s,]+(\d+)\s*")


def report_path(output: Path) -> Path:
    """Name the file that says what an output lacks."""
    return output.with_name(output.name + ".report.json")


def footprints(failed: Iterable[TileFailed]) -> dict[str, Any]:
    """Give failed tiles as GeoJSON: a polygon each, with reason, status, attempts and URL without secrets."""
    return {"type": "FeatureCollection", "features": [_footprint(failure) for failure in failed]}


def write_account(report: MosaicReport, geojson: Path) -> None:
    """Leave the footprints and the report as files, or, where nothing is missing, none of an earlier run; it blocks.

    A tile that lacks a scene which could not be read has pixels, and they may be others than with it: so that is
    reported too.

    Args:
        report: of a run that has come to its end.
        geojson: the footprints; not written where its folder has gone, with the work of a complete output.
    """
    path = report_path(report.output)
    if not report.failed:
        geojson.unlink(missing_ok=True)
    elif geojson.parent.is_dir():
        _write(geojson, footprints(report.failed))
    if report.failed or report.scenes.lacking:
        _write(path, report.as_dict())
    else:
        path.unlink(missing_ok=True)


def check_not_own(tiles: Path, output: Path) -> None:
    """Insist that a list of tiles is not what is missing in the very output: they alone would take its place.

    Raises:
        UsageError: it is.
    """
    if tiles.resolve() in (report_path(output).resolve(), failed_path(work_path(output)).resolve()):
        raise UsageError(
            f"{tiles} lists what {output} lacks, and those tiles alone would take its place",
            hint="to fill the holes give the command that made it, with ``overwrite``: only they are asked for",
        )


def read_tiles(path: Path) -> list[Tile]:
    """Read a list of tiles: `failed.geojson`, a report, or a text with z/x/y a line; `#` begins a comment.

    Raises:
        UsageError: it is none of these, or lists no tile, tiles of several zooms, or ones that do not exist.
    """
    try:
        names = list(_names(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} lists no tiles", hint="write z/x/y, one a line, or give a failed.geojson") from error
    tiles = [_tile(path, name) for name in dict.fromkeys(names)]
    if len({tile.z for tile in tiles}) != 1:
        raise UsageError(f"{path} lists {'tiles of several zooms' if tiles else 'no tile'}")
    return tiles


def area_of_tiles(tiles: Iterable[Tile]) -> dict[str, Any]:
    """Give the area that is exactly these tiles, as GeoJSON."""
    return {"type": "FeatureCollection", "features": [_feature(tile, {}) for tile in tiles]}


def _names(text: str) -> Iterable[str]:
    if not text.lstrip().startswith("{"):
        return [line.partition("#")[0] for line in text.splitlines() if line.partition("#")[0].strip()]
    document = parse(text)
    if "features" in document:
        return [str(feature["properties"]["tile"]) for feature in document["features"]]
    return [str(failure["tile"]) for failure in document["failed"]]


def _tile(path: Path, name: str) -> Tile:
    match = _LINE.fullmatch(name[:100])
    z, x, y = map(int, match.groups()) if match else (-1, 0, 0)
    if not (0 <= z <= MAX_ZOOM and x < 2**z and y < 2**z):
        raise UsageError(f"{path}: {name.strip()[:100]!r} is no tile", hint="write z/x/y")
    return Tile(x, y, z)


def _footprint(failure: TileFailed) -> dict[str, Any]:
    properties = {
        "tile": zxy(failure.tile),
        "reason": failure.reason,
        "status": failure.status,
        "attempts": failure.attempts,
        "url": failure.url,
    }
    return _feature(failure.tile, properties)


def _feature(tile: Tile, properties: dict[str, Any]) -> dict[str, Any]:
    west, south, east, north = mercantile.bounds(tile)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "id": zxy(tile), "properties": properties, "geometry": geometry}


def _write(path: Path, document: dict[str, Any]) -> None:
    whole_file.write(path, json.dumps(document, indent=1))
