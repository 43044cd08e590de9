"""`mosaic-async plan`: what a build would take."""

from __future__ import annotations

import json
from typing import Any

import click

from mosaic_async.api import plan_mosaic
from mosaic_async.build.plan import MosaicPlan
from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.opened_source import opened
from mosaic_async.cli.options import job_options, rendering_options
from mosaic_async.cli.parsing import BoundsCommand
from mosaic_async.cli.running import run
from mosaic_async.cli.terminal import plan_text


@click.command(cls=BoundsCommand)
@click.argument("source")
@job_options
@rendering_options
def plan(source: str, **options: Any) -> None:
    """Estimate what a build takes: tiles, bytes, parts, memory, time.

    Fetches one tile and keeps no files.
    """
    as_json = options.pop("as_json")
    given = JobArguments.of(options)

    async def work() -> MosaicPlan:
        async with opened(source, given) as tiles:
            return await plan_mosaic(tiles, given.area, **given.library)

    found = run(work())
    click.echo(json.dumps(found.as_dict()) if as_json else plan_text(found))
