"""`mosaic-async create`: a MosaicJSON from a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click

from mosaic_async.cli.options import access_options
from mosaic_async.cli.parsing import HEADERS_VARIABLE, json_object, pairs_of, write_whole
from mosaic_async.cli.search_options import ZOOM, search_options, searched
from mosaic_async.http.trust import trusting

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("search", type=click.File("r"), metavar="SEARCH.json")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="MosaicJSON to write; default: stdout.")
@search_options
@click.option("--asset", metavar="NAME", help="List the files of this asset, for tilers that read plain files.")
@click.option(
    "--keep-items",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the items into this folder, with hrefs that can be opened, and list these files.",
)
@click.option("--quadkey-zoom", type=ZOOM, help="Zoom of the cells; default: three below the maximum, or coarser.")
@click.option("--scenes", type=_FILE, metavar="FILE", help="Also write ids, dates and footprints, as GeoJSON.")
@access_options
def create(search: IO[str], output: Path | None, scenes: Path | None, ca: str | None, **options: Any) -> None:
    """Search for scenes and write a MosaicJSON.

    SEARCH.json is a search as a STAC API or SAT-API takes it; - reads it from stdin.
    """
    options["headers"] = pairs_of(options, "header", HEADERS_VARIABLE, ":")
    with trusting(ca):
        created = searched(json_object(search), options)
    text = json.dumps(created.document)
    if scenes:
        write_whole(scenes, json.dumps(created.scenes))
    if output:
        write_whole(output, text)
        cells = len(created.document["tiles"])
        click.echo(f"{output}: {len(created.scenes['features']):,} scenes in {cells:,} cells", err=True)
    else:
        click.echo(text)
