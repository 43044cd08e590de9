"""`mosaic-async serve`: the embedded tiler, until it is interrupted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from mosaic_async.cli import extras
from mosaic_async.cli.options import access_options
from mosaic_async.cli.parsing import HEADERS_VARIABLE, pairs_of
from mosaic_async.cli.running import run
from mosaic_async.cli.search_options import bad_scenes_option
from mosaic_async.http.trust import trusting


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; any other address is open to the network.",
)
@click.option("--port", type=int, default=8000, show_default=True, help="Port to listen on.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes; default: one per core.")
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Name by which clients may call this server, beside localhost and IP addresses; repeatable.",
)
@click.option(
    "--allowed-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="Site whose pages may read tiles, such as https://map.example; repeatable.",
)
@bad_scenes_option
@access_options
def serve(source: Path, max_bad_scenes: str, ca: str | None, **options: Any) -> None:
    """Serve a MosaicJSON, or STAC items or rasters in files, as tiles until interrupted.

    Headers go to the servers that SOURCE names, and to no others.
    """
    tiler = extras.tiler()
    options["headers"] = pairs_of(options, "header", HEADERS_VARIABLE, ":")

    async def work(folder: Path) -> None:
        access = tiler.Access(headers=options["headers"], file=folder / "gdal.conf")
        mosaic = await asyncio.to_thread(tiler.open_mosaic, source, max_bad_scenes=max_bad_scenes, access=access)
        for note in mosaic.notes:
            click.echo(f"note: {note}", err=True)
        async with tiler.serve(mosaic, **options) as url:
            example = "&".join(f"assets={name}" for name in mosaic.assets[:3])
            click.echo(f"{url}/WebMercatorQuad/tilejson.json?{example}")
            click.echo(f"{url}/WebMercatorQuad/map.html?{example}", err=True)
            if mosaic.is_stac:
                click.echo(f"{url}/mosaic/create (POST a search: the endpoint of the notebook)", err=True)
            await asyncio.Event().wait()

    with TemporaryDirectory(prefix="mosaic-async-") as name, trusting(ca):
        run(work(Path(name)))
