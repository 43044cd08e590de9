"""`mosaic-async create`: a MosaicJSON from a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click

from mosaic_async.cli import extras
from mosaic_async.cli.parsing import json_object, pair, split_list, write_whole

_ZOOM = click.IntRange(0, 24)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("search", type=click.File("r"), metavar="SEARCH.json")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="MosaicJSON to write; default: stdout.")
@click.option("--api", metavar="URL", help="STAC API to search.")
@click.option(
    "--items",
    type=click.Path(exists=True, path_type=Path),
    help="Folder, catalogue, item collection or stac-geoparquet to search instead of an API.",
)
@click.option("--collection", "collections", multiple=True, help="Collection to search, instead of the search's own.")
@click.option("--seasons", type=split_list, metavar="summer,autumn", help="Seasons to keep, by month and hemisphere.")
@click.option("--optimized-selection", is_flag=True, help="Keep the first scene per WRS path and row.")
@click.option("--max-scenes", type=click.IntRange(1), help="Maximum number of scenes; the first are kept.")
@click.option("--max-per-cell", type=click.IntRange(1), help="Maximum number of scenes per cell; the first are kept.")
@click.option("--minzoom", type=_ZOOM, help="Minimum zoom of the mosaic; default: five below the maximum.")
@click.option("--maxzoom", type=_ZOOM, help="Maximum zoom of the mosaic; default: the scenes' own resolution.")
@click.option("--quadkey-zoom", type=_ZOOM, help="Zoom of the cells; default: three below the maximum, or coarser.")
@click.option("--asset", metavar="NAME", help="List the files of this asset, for tilers that read plain files.")
@click.option(
    "--keep-items",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the items into this folder, with hrefs that can be opened, and list these files.",
)
@click.option("--scenes", type=_FILE, metavar="FILE", help="Also write ids, dates and footprints, as GeoJSON.")
@click.option(
    "--header", "headers", type=pair(":"), multiple=True, metavar="'NAME: VALUE'", help="Header of every request."
)
def create(search: IO[str], output: Path | None, scenes: Path | None, **options: Any) -> None:
    """Search for scenes and write a MosaicJSON.

    SEARCH.json is a search as a STAC API or SAT-API takes it; - reads it from stdin.
    """
    options["headers"] = dict(options["headers"])
    if not options["seasons"]:
        del options["seasons"]
    created = extras.stac().create_mosaic(json_object(search), **options)
    for warning in created.warnings:
        click.echo(f"warning: {warning}", err=True)
    text = json.dumps(created.document)
    if scenes:
        write_whole(scenes, json.dumps(created.scenes))
    if output:
        write_whole(output, text)
        cells = len(created.document["tiles"])
        click.echo(f"{output}: {len(created.scenes['features']):,} scenes in {cells:,} cells", err=True)
    else:
        click.echo(text)
