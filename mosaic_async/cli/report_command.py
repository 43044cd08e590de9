"""`mosaic-async report`: the page of a report that a build wrote."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from mosaic_async.cli.parsing import write_whole


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="The page; default: FILE with the ending html.",
)
def report(file: Path, output: Path | None) -> None:
    """Make the page of FILE, an OUTPUT.report.json, again."""
    pages = importlib.import_module("mosaic_async.events.pages.files")  # with jinja2, which few processes need
    path = output or file.with_suffix(".html")
    write_whole(path, pages.page_of(file))
    click.echo(path)
