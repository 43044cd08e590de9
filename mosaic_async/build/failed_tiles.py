"""What an output lacks, for people and programs: footprints of failed tiles, the report as a file, lists of tiles.

It knows nothing of why tiles fail.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mosaic_async.build.work_folder import failed_path, work_path
from mosaic_async.errors import UsageError
from mosaic_async.events import MosaicReport, TileFailed, zxy
from mosaic_async.geo.cover import MAX_ZOOM, Tile
from mosaic_async.geo.matrix import MatrixSet, TileMatrix, web_mercator
from mosaic_async.raster import whole_file
from mosaic_async.safety.safe_json import parse

_LINE = re.compile(r"\s*(\d+)[/\s,]+(\d+)[/\s,]+(\d+)\s*")


def report_path(output: Path) -> Path:
    """Name the file that says what an output lacks."""
    return output.with_name(output.name + ".report.json")


def footprints(failed: Iterable[TileFailed], matrix: TileMatrix) -> dict[str, Any]:
    """Return failed tiles as GeoJSON: one polygon each, with reason, status, attempts and URL without secrets."""
    return {"type": "FeatureCollection", "features": [_footprint(failure, matrix) for failure in failed]}


def write_account(report: MosaicReport, geojson: Path, matrix: TileMatrix) -> None:
    """Write the footprints and the report, or delete those of an earlier run where nothing is missing; it blocks.

    A tile that lacks an unreadable scene has pixels, but they may differ from those with the scene. So that is reported
    too.

    Args:
        report: of a run that has ended.
        geojson: the file of the footprints; not written where its folder is gone, as after a complete output.
        matrix: where tiles lie.
    """
    path = report_path(report.output)
    if not report.failed:
        geojson.unlink(missing_ok=True)
    elif geojson.parent.is_dir():
        _write(geojson, footprints(report.failed, matrix))
    if report.failed or report.scenes.lacking:
        _write(path, report.as_dict())
    else:
        path.unlink(missing_ok=True)


def way_out(failed: Collection[TileFailed], hints: Counter[str]) -> str:
    """Return what helps against the failed tiles: another run against what is temporary, and otherwise an option."""
    passing = sum(failure.is_passing for failure in failed)
    ways = [f"re-run the same command to retry the {passing:,} failed tiles"] if passing else []
    if staying := len(failed) - passing:
        ways += [hint for hint, _ in hints.most_common(1)]
        accept = "accept holes by ``max_failures``, or fix the source"
        ways.append(f"{staying:,} of them will fail again: {accept}" if not hints else accept)
    return "; ".join(ways)


def check_not_own(tiles: Path, output: Path) -> None:
    """Refuse to replace an output by a list of the tiles that it lacks.

    Raises:
        UsageError: the list is of that output.
    """
    target = output.resolve() if output.is_symlink() else output
    if tiles.resolve() in (report_path(target).resolve(), failed_path(work_path(target)).resolve()):
        raise UsageError(
            f"{tiles} lists the tiles that {output} lacks; they alone would replace it",
            hint="to fill the holes, re-run the command that made it with ``overwrite``: only they are requested",
        )


def read_tiles(path: Path, grid: MatrixSet | None = None) -> list[Tile]:
    """Read a list of tiles: `failed.geojson`, a report, or a text with one z/x/y per line; `#` begins a comment.

    Raises:
        UsageError: it is not such a list, or lists no tiles, tiles of several zooms, or tiles that do not exist.
    """
    try:
        names = list(_names(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} lists no tiles", hint="write one z/x/y per line, or pass a failed.geojson") from error
    tiles = [_tile(path, name, grid) for name in dict.fromkeys(names)]
    if len({tile.z for tile in tiles}) != 1:
        raise UsageError(f"{path} lists {'tiles of several zooms' if tiles else 'no tiles'}")
    return tiles


def _names(text: str) -> Iterable[str]:
    if not text.lstrip().startswith("{"):
        return [line.partition("#")[0] for line in text.splitlines() if line.partition("#")[0].strip()]
    document = parse(text)
    if "features" in document:
        return [str(feature["properties"]["tile"]) for feature in document["features"]]
    return [str(failure["tile"]) for failure in document["failed"]]


def _tile(path: Path, name: str, grid: MatrixSet | None) -> Tile:
    match = _LINE.fullmatch(name[:100])
    z, x, y = map(int, match.groups()) if match else (-1, 0, 0)
    matrix = None if not 0 <= z <= MAX_ZOOM else web_mercator(z) if grid is None else grid.matrix(z)
    if matrix is None or x >= matrix.columns or y >= matrix.rows:
        raise UsageError(f"{path}: {name.strip()[:100]!r} is not a tile", hint="write z/x/y")
    return Tile(x, y, z)


def _footprint(failure: TileFailed, matrix: TileMatrix) -> dict[str, Any]:
    properties = {
        "tile": zxy(failure.tile),
        "reason": failure.reason,
        "status": failure.status,
        "attempts": failure.attempts,
        "url": failure.url,
    }
    return _feature(failure.tile, properties, matrix)


def _feature(tile: Tile, properties: dict[str, Any], matrix: TileMatrix) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": [matrix.ring_of(tile)]}
    return {"type": "Feature", "id": zxy(tile), "properties": properties, "geometry": geometry}


def _write(path: Path, document: dict[str, Any]) -> None:
    whole_file.write(path, json.dumps(document, indent=1))
