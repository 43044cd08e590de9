"""`mosaic-async build`: one COG from the tiles of an area."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from mosaic_async.build.api import build_mosaic
from mosaic_async.build.failed_tiles import check_not_own
from mosaic_async.build.job import NOT_FOUND, ON_ERROR, Effort
from mosaic_async.cli import extras
from mosaic_async.cli.dask_option import crew_of
from mosaic_async.cli.found_scenes import found
from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.opened_source import is_tile_url, opened
from mosaic_async.cli.options import job_options, rendering_options
from mosaic_async.cli.parsing import SHARD_VARIABLE, BoundsCommand, write_whole
from mosaic_async.cli.progress import Progress
from mosaic_async.cli.running import run
from mosaic_async.cli.search_options import search_options, sign_option
from mosaic_async.cli.shown_command import shown_command
from mosaic_async.cli.signals import Interrupted
from mosaic_async.cli.stderr_lines import hint, is_json, log_format_option
from mosaic_async.cli.terminal import report_text, shard_text
from mosaic_async.cloud.address import is_address
from mosaic_async.errors import IncompleteError, UsageError
from mosaic_async.events import MosaicReport


@click.command(cls=BoundsCommand)
@click.argument("source")
@click.argument("output", type=click.Path(path_type=Path))
@job_options
@click.option(
    "--max-failures",
    default=str(Effort.max_failures),
    show_default=True,
    metavar="N|P%",
    help="Tiles that may fail and stay masked holes in OUTPUT, as a number or a share.",
)
@click.option(
    "--on-error",
    type=click.Choice(ON_ERROR),
    default=Effort.on_error,
    show_default=True,
    help="On a failed tile: retry it at the end (park), stop the run (fail), or retry it and leave a hole (nodata).",
)
@click.option(
    "--not-found",
    type=click.Choice(NOT_FOUND),
    default=Effort.not_found,
    show_default=True,
    help="Tiles that the server does not find (404 and the like), also when requested once more at the end.",
)
@click.option("--sparse", is_flag=True, help="Accept a source where nearly no tile of a first sample has data.")
@click.option(
    "--max-outage",
    type=click.FloatRange(0, min_open=True),
    default=Effort.max_outage,
    show_default=True,
    help="How long to wait for an unavailable server, in seconds.",
)
@click.option(
    "--disk-check/--no-disk-check",
    "check_disk",
    default=Effort.check_disk,
    help="Check the free disk space before the download.",
)
@click.option(
    "--work",
    envvar="MOSAIC_ASYNC_WORK",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for what is under way, if OUTPUT is s3://bucket/key.tif.  [default: ~/.cache/mosaic-async]",
)
@click.option("--stac", is_flag=True, help="Also write the STAC Item of OUTPUT, beside it.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@click.option("--fresh", is_flag=True, help="Start over: delete what an earlier run of this output kept.")
@click.option(
    "--shard",
    envvar=SHARD_VARIABLE,
    metavar="I/N",
    help="Build only share I (from 0) of N of the parts, and no OUTPUT; the same command without it makes OUTPUT.",
)
@rendering_options
@search_options
@sign_option
@click.option(
    "--dask",
    metavar="ADDRESS|N",
    help="Build the parts on a Dask cluster: the scheduler's address, or a number of processes of this machine.",
)
@click.option(
    "--scenes",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write the scenes of the area, as GeoJSON.",
)
@click.option("-q", "--quiet", is_flag=True, help="Hide the progress bar and the messages about tiles.")
@click.option("-v", "--verbose", is_flag=True, help="Print every retry.")
@click.option(
    "--report-page/--no-report-page",
    default=False,
    help="Also write OUTPUT.report.html, a page that shows what happened, and OUTPUT.report.json.",
)
@log_format_option
def build(source: str, output: Path, **options: Any) -> None:
    """Build OUTPUT, one COG of all tiles that touch the area; with --as-collection, a folder of COGs.

    Re-run the same command to resume a run that was interrupted or incomplete.
    """
    as_json, scenes, dask = options.pop("as_json"), options.pop("scenes"), options.pop("dask")
    options["resume"] = not options.pop("fresh")
    if options["tiles"]:
        check_not_own(options["tiles"], output)
    context = click.get_current_context()
    wants_page = options.pop("report_page")
    options["report_page"] = shown_command(sys.argv) if wants_page else False
    how = {name: options.pop(name) for name in ("quiet", "verbose")}
    with Progress(**how, as_json=is_json(context)) as progress:
        given = JobArguments.of(options)
        with found(source, given) as mosaic:
            listed = _scenes(mosaic, given) if scenes else {}
            report = _build(mosaic, output, given, progress, as_json=as_json, dask=dask)
    if scenes:
        write_whole(scenes, json.dumps(listed))
    shard = options["shard"]
    text = report_text(report) if shard is None else shard_text(report, shard)
    click.echo(json.dumps(report.as_dict()) if as_json else text)
    if report.tiles_failed and shard is None:
        kept = f"{output.name}.work is kept: re-run the same command with --overwrite to retry the failed tiles"
        hint(context, f"{kept}, or delete the folder to accept the holes")


def _scenes(source: str | Path, given: JobArguments) -> Any:
    if is_tile_url(str(source)):
        raise UsageError("the scenes behind a tile URL are unknown", hint="leave --scenes out")
    if is_address(str(source)):
        raise UsageError("--scenes does not apply to a source in a bucket", hint="leave --scenes out")
    return extras.stac().scenes_of(source, given.area, headers=given.access["headers"])


def _build(
    source: str | Path, output: Path, given: JobArguments, progress: Progress, *, as_json: bool, dask: str | None
) -> MosaicReport:
    """Run the library; an incomplete run prints its report too."""
    stop = asyncio.Event()

    async def work() -> MosaicReport:
        async with opened(source, given) as tiles, crew_of(dask, source, given) as crew:
            return await build_mosaic(
                tiles, given.area, output, crew=crew, stop=stop, on_event=progress, **given.library
            )

    def stop_softly(number: signal.Signals) -> bool:
        """Stop the run where it waits for tiles only: those in flight are worth waiting for."""
        progress.answer("Ctrl-C" if number == signal.SIGINT else number.name)
        if progress.is_downloading:
            stop.set()
        return progress.is_downloading

    try:
        return run(work(), stop_softly)
    except (IncompleteError, Interrupted) as error:
        ended = error.__cause__ if isinstance(error, Interrupted) else error
        if as_json and isinstance(ended, IncompleteError):
            click.echo(json.dumps(ended.report.as_dict()))
        if isinstance(error, Interrupted) and not isinstance(ended, IncompleteError) and progress.kept:
            error.add_note(f"{progress.kept} are kept in {output.name}.work")
        raise
