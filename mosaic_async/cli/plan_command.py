"""`mosaic-async plan`: what a build would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mosaic_async.build.api import plan_mosaic
from mosaic_async.build.plan import MosaicPlan
from mosaic_async.cli.found_scenes import found
from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.opened_source import opened
from mosaic_async.cli.options import job_options, rendering_options
from mosaic_async.cli.parsing import BoundsCommand
from mosaic_async.cli.running import run
from mosaic_async.cli.search_options import search_options, sign_option
from mosaic_async.cli.terminal import plan_text


@click.command(cls=BoundsCommand)
@click.argument("source")
@job_options
@rendering_options
@search_options
@sign_option
def plan(source: str, **options: Any) -> None:
    """Estimate what a build takes: tiles, bytes, parts, memory, time.

    Fetches one tile and keeps no files.
    """
    as_json = options.pop("as_json")
    given = JobArguments.of(options)

    async def work(mosaic: str | Path) -> MosaicPlan:
        async with opened(mosaic, given) as tiles:
            return await plan_mosaic(tiles, given.area, **given.library)

    with found(source, given) as mosaic:
        planned = run(work(mosaic))
    click.echo(json.dumps(planned.as_dict()) if as_json else plan_text(planned))
