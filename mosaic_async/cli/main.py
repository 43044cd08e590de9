"""The group of all commands; it turns errors and signals into messages and exit codes.

stdout carries data (the report or the plan), stderr carries text for people and the progress bar. This module knows
nothing of what the commands do.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any, NoReturn

import click

from mosaic_async import __version__
from mosaic_async.cli.build_command import build
from mosaic_async.cli.create_command import create
from mosaic_async.cli.options import flags_of
from mosaic_async.cli.plan_command import plan
from mosaic_async.cli.report_command import report
from mosaic_async.cli.serve_command import serve
from mosaic_async.cli.signals import Interrupted
from mosaic_async.cli.stderr_lines import hint, is_json, json_line
from mosaic_async.cli.verify_command import verify
from mosaic_async.errors import MosaicError, StoppedError
from mosaic_async.safety.redaction import scrub


class _Main(click.Group):
    """Ends the process with a message and the exit code of the error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        sys.excepthook = print_unexpected
        try:
            return super().invoke(ctx)
        except MosaicError as error:
            flags = flags_of(self.get_command(ctx, ctx.invoked_subcommand or ""))
            _end(ctx, f"error: {error.message}", error.hint_in(flags), error.exit_code)
        except Interrupted as interrupted:
            way_out = "re-run the same command to resume" if ctx.invoked_subcommand == "build" else None
            _end(ctx, _interruption(interrupted), way_out, interrupted.exit_code)


def print_unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of an error that nobody expected, without secrets."""
    click.echo(scrub("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def _interruption(interrupted: Interrupted) -> str:
    word = "interrupted" if interrupted.exit_code == 130 else "terminated"
    cause = interrupted.__cause__
    words = [cause.message] if isinstance(cause, StoppedError) else getattr(interrupted, "__notes__", [])
    return ": ".join([word, *words])


def _end(ctx: click.Context, message: str, way_out: str | None, code: int) -> NoReturn:
    if is_json(ctx):
        click.echo(json_line("end", message, logging.ERROR, {"hint": way_out, "exit_code": code}), err=True)
        ctx.exit(code)
    click.echo(message, err=True)
    if way_out:
        hint(ctx, way_out)
    ctx.exit(code)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Fetch every tile of an area and write one validated Cloud Optimized GeoTIFF.

    SOURCE is a tile URL (https://host/{z}/{x}/{y}.tif, or a WMS with BBOX={bbox-epsg-3857}); the URL or path of a
    TileJSON, of a WMTS's capabilities, of a tileset, or of an ArcGIS service; a folder of tiles, an MBTiles or a
    PMTiles; or scenes on disk: a MosaicJSON, or a folder of STAC items or COGs, which the embedded tiler renders. With
    --tiler, SOURCE is what that tiler renders: the URL of a MosaicJSON for TiTiler, a file with a search for
    titiler-pgstac and awspds.
    """


for _command in (build, plan, verify, create, serve, report):
    main.add_command(_command)
