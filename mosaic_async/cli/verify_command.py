"""`mosaic-async verify`: an output against its digest, against itself, and against its source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mosaic_async.build.api import verify_mosaic
from mosaic_async.build.source_comparison import TilePlaces
from mosaic_async.build.verify import SAMPLE, VerifyReport
from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.opened_source import opened
from mosaic_async.cli.options import rendering_options, request_options
from mosaic_async.cli.running import run
from mosaic_async.cli.terminal import verify_text


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--source", metavar="SOURCE", help="Also compare tiles of this source with OUTPUT; as for build.")
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=SAMPLE,
    show_default=True,
    metavar="N",
    help="Tiles to request: N of all, and N of those at the edges.",
)
@click.option("--seed", type=int, help="Number that makes the sample repeatable.")
@request_options
@rendering_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(output: Path, source: str | None, **options: Any) -> None:
    """Check OUTPUT: every block decodes, overviews match, and nothing changed since it was built.

    With --source, tiles are requested again and compared pixel by pixel. Exits with 3 if anything differs.
    """
    as_json = options.pop("as_json")
    given = JobArguments.of_source(options)

    async def work() -> VerifyReport:
        if source is None:
            return await verify_mosaic(output)
        tile_size = TilePlaces.of(output).tile_size
        rendered = replace(given, library={**given.library, "tile_size": tile_size})
        async with opened(source, rendered) as tiles:
            return await verify_mosaic(output, source=tiles, **given.library)

    report = run(work())
    click.echo(json.dumps(report.as_dict()) if as_json else verify_text(report))
    if not report.is_sound:
        click.get_current_context().exit(3)
