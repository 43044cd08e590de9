"""The command line: parses, calls the library, prints. The only file that prints, draws a bar or chooses the loop.

stdout carries data (the report or the plan), stderr carries text for people and the bar.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import click

from mosaic_async import __version__
from mosaic_async.account import area_of_tiles, read_tiles
from mosaic_async.arguments import (
    HEADERS_VARIABLE,
    PARAMS_VARIABLE,
    BoundsCommand,
    concurrency,
    numbers,
    pair,
    pairs_in_environment,
    pairs_in_file,
    size,
    split_list,
)
from mosaic_async.cover import MAX_TILES
from mosaic_async.download import ON_ERROR
from mosaic_async.encoding import MASK_MODES, OVERVIEW_RESAMPLINGS, PROFILES
from mosaic_async.errors import IncompleteError, MosaicError, StoppedError, UsageError
from mosaic_async.events import MosaicReport
from mosaic_async.http import MAX_OUTAGE
from mosaic_async.pipeline import build_mosaic, plan_mosaic
from mosaic_async.plan import MosaicPlan
from mosaic_async.signals import Interrupted, interruptible
from mosaic_async.sources import TileSource, is_template
from mosaic_async.terminal import Progress, plan_text, report_text

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _options(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_what = _options(
    click.option("--bounds", "--bbox", nargs=4, type=float, metavar="W S E N", help="Degrees; spaces or commas."),
    click.option(
        "--area", type=click.File("r"), metavar="FILE.geojson", help="Polygons instead of --bounds; - is stdin."
    ),
    click.option(
        "-z", "--zoom", type=int, help="Of the tiles; default: the data's own resolution, if the source says."
    ),
    click.option("--tile-size", type=int, help="Pixels a side; default: what the source says or the first tile has."),
    click.option("--clip", is_flag=True, help="Cut to the area; default: whole tiles."),
    click.option(
        "-c",
        "--concurrency",
        type=concurrency,
        default="50",
        show_default=True,
        metavar="N|auto",
        help="Requests in flight; auto looks for what the server can do.",
    ),
    click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests a second at most."),
    click.option("--attempts", type=click.IntRange(1), default=5, show_default=True, help="Tries a tile."),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=120.0,
        show_default=True,
        help="Seconds an attempt.",
    ),
    click.option("--memory", type=size, default="1GiB", show_default=True, help="What the run may need."),
    click.option(
        "-p", "--profile", type=click.Choice(PROFILES), default="deflate", show_default=True, help="Compression."
    ),
    click.option(
        "--co", "creation_options", type=pair("="), multiple=True, metavar="NAME=VALUE", help="COG creation option."
    ),
    click.option(
        "--overview-resampling", type=click.Choice(OVERVIEW_RESAMPLINGS), default="average", show_default=True
    ),
    click.option("--nodata", type=float, help="Value of pixels without data; default: an internal mask."),
    click.option("--dtype", help="Of the output; default: as the tiles."),
    click.option(
        "--mask",
        type=click.Choice(MASK_MODES),
        default="auto",
        show_default=True,
        help="How pixels without data are marked.",
    ),
    click.option("--part-size", type=int, help="Pixels a side of the parts; default: as the memory allows."),
    click.option("--max-tiles", type=int, default=MAX_TILES, show_default=True, help="Refuse to ask for more."),
    click.option(
        "--header", "headers", type=pair(":"), multiple=True, metavar="'NAME: VALUE'", help="Sent with every request."
    ),
    click.option(
        "--header-file",
        "header_files",
        type=pairs_in_file(":"),
        multiple=True,
        metavar="FILE",
        help=f"Headers, one a line; so secrets stay out of the list of processes. ${HEADERS_VARIABLE} does as well.",
    ),
    click.option(
        "--param", "params", type=pair("="), multiple=True, metavar="NAME=VALUE", help="Added to every tile's URL."
    ),
    click.option(
        "--param-file",
        "param_files",
        type=pairs_in_file("="),
        multiple=True,
        metavar="FILE",
        help=f"Parameters, one a line. ${PARAMS_VARIABLE} does as well.",
    ),
    click.option(
        "--allow-host",
        "allow_hosts",
        multiple=True,
        metavar="HOST",
        help="Where redirects and a TileJSON's template may lead to, without headers.",
    ),
    click.option(
        "--tiles",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Only these instead of an area: failed.geojson, a report, or z/x/y a line.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
_rendering = _options(
    click.option("--bands", multiple=True, metavar="B4,B3,B2", help="Asset names, or numbers for plain files."),
    click.option("--expression", help="Formulas separated by ; instead of bands: '(B5-B4)/(B5+B4)'."),
    click.option("--pixel-selection", metavar="METHOD", help="first, median, highest, lastbandhigh, ..."),
    click.option("--rescale", type=numbers, multiple=True, metavar="LOW,HIGH", help="To 0-255; once, or once a band."),
    click.option("--color-formula", help="Such as 'gamma RGB 3.5, saturation 1.7'."),
    click.option("--resampling", metavar="METHOD", help="nearest, bilinear, cubic, ..."),
)


class _Main(click.Group):
    """The place where errors and signals become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MosaicError as error:
            self._end(ctx, f"error: {error.message}", error.hint, error.exit_code)
        except Interrupted as interrupted:
            word = "interrupted" if interrupted.exit_code == 130 else "terminated"
            if isinstance(interrupted.__cause__, StoppedError):
                word += f": {interrupted.__cause__.message}"
            hint = "the same command goes on from here" if ctx.invoked_subcommand == "build" else None
            self._end(ctx, word, hint, interrupted.exit_code)

    def _end(self, ctx: click.Context, message: str, hint: str | None, code: int) -> NoReturn:
        click.echo(message, err=True)
        if hint:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            click.echo(f"hint: {_in_flags(hint, command)}", err=True)
        ctx.exit(code)


def _in_flags(hint: str, command: click.Command | None) -> str:
    """Name options in place of the library's parameters, which stand in backticks."""
    flags = {param.name: max(param.opts, key=len) for param in command.params} if command else {}
    flags["resume=False"] = "--fresh"
    flags["check_disk"] = "the check with --no-disk-check"
    return re.sub(r"`([\w=]+)`", lambda match: flags.get(match[1], match[0]), hint)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Fetch every tile of an area and get one validated Cloud Optimized GeoTIFF.

    SOURCE is an XYZ template (https://host/{z}/{x}/{y}.tif), the URL or path of a TileJSON, or scenes on disk: a
    MosaicJSON, or a folder of STAC items or COGs, for which the embedded tiler is started.
    """


@main.command(cls=BoundsCommand)
@click.argument("source")
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@_what
@click.option(
    "--max-failures",
    default="0",
    show_default=True,
    metavar="N|P%",
    help="Tiles that may stay holes, masked and listed.",
)
@click.option(
    "--on-error",
    type=click.Choice(ON_ERROR),
    default="park",
    show_default=True,
    help="Tiles that fail: once more at the end; end at once; once more, then holes.",
)
@click.option(
    "--max-outage",
    type=click.FloatRange(0, min_open=True),
    default=MAX_OUTAGE,
    show_default=True,
    help="Seconds that the server may be away.",
)
@click.option("--disk-check/--no-disk-check", "check_disk", default=True, help="Look for room on the disk before.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.")
@click.option("--fresh", is_flag=True, help="Drop what an earlier run of this output left.")
@_rendering
@click.option("-q", "--quiet", is_flag=True, help="No bar, no lines about tiles.")
@click.option("-v", "--verbose", is_flag=True, help="Say every retry.")
def build(source: str, output: Path, **options: Any) -> None:
    """Write OUTPUT, one COG of all tiles that touch the area. Run it again to go on after an interruption."""
    as_json = options.pop("as_json")
    options["resume"] = not options.pop("fresh")
    with Progress(quiet=options.pop("quiet"), verbose=options.pop("verbose")) as progress:
        area, rendering, arguments = _arguments(options)

        stop = asyncio.Event()

        async def work() -> MosaicReport:
            async with _opened(source, arguments, rendering) as opened:
                return await build_mosaic(opened, area, output, stop=stop, on_event=progress, **arguments)

        try:
            report = _run(work(), stop, progress.is_downloading)
        except (IncompleteError, Interrupted) as error:
            ended = error if isinstance(error, IncompleteError) else error.__cause__
            if as_json and isinstance(ended, IncompleteError):
                click.echo(json.dumps(ended.report.as_dict()))
            raise
    click.echo(json.dumps(report.as_dict()) if as_json else report_text(report))


@main.command(cls=BoundsCommand)
@click.argument("source")
@_what
@_rendering
def plan(source: str, **options: Any) -> None:
    """Say what building would take: tiles, bytes, parts, memory, time. Asks for one tile and writes nothing."""
    as_json = options.pop("as_json")
    area, rendering, arguments = _arguments(options)

    async def work() -> MosaicPlan:
        async with _opened(source, arguments, rendering) as opened:
            return await plan_mosaic(opened, area, **arguments)

    found = _run(work())
    click.echo(json.dumps(found.as_dict()) if as_json else plan_text(found))


@main.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Others than this serve to whoever can reach it.")
@click.option("--port", type=int, default=8000, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Processes; default: one a core.")
def serve(source: Path, host: str, port: int, workers: int | None) -> None:
    """Serve a MosaicJSON, or a folder of STAC items or COGs, as tiles until interrupted."""
    tiler = _tiler()

    async def work() -> None:
        mosaic = await asyncio.to_thread(tiler.open_mosaic, source)
        async with tiler.serve(mosaic, host=host, port=port, workers=workers) as url:
            example = "&".join(f"assets={name}" for name in mosaic.assets[:3])
            click.echo(f"{url}/WebMercatorQuad/tilejson.json?{example}")
            click.echo(f"{url}/WebMercatorQuad/map.html?{example}", err=True)
            await asyncio.Event().wait()

    _run(work())


_Area = Sequence[float] | dict[str, Any]


def _arguments(options: Mapping[str, Any]) -> tuple[_Area, dict[str, Any], dict[str, Any]]:
    """Split what was given into the area, the rendering and arguments of the library; pairs become dicts."""
    given = dict(options)
    tiles = given.pop("tiles")
    if tiles is not None:
        listed = read_tiles(tiles)
        if given["zoom"] not in (None, listed[0].z):
            raise UsageError(f"{tiles} lists tiles of zoom {listed[0].z}", hint="leave `zoom` out")
        given["zoom"] = listed[0].z
    area = _area(given.pop("bounds"), given.pop("area"), area_of_tiles(listed) if tiles else None)
    names = ("bands", "expression", "pixel_selection", "rescale", "color_formula", "resampling")
    rendering = {name: given.pop(name) for name in names}
    rendering["bands"] = tuple(band for value in rendering["bands"] for band in split_list(value))
    for name, variable, separator in (("header", HEADERS_VARIABLE, ":"), ("param", PARAMS_VARIABLE, "=")):
        in_files = [found for file in given.pop(f"{name}_files") for found in file]
        given[f"{name}s"] = dict([*pairs_in_environment(variable, separator), *in_files, *given[f"{name}s"]])
    given["creation_options"] = dict(given["creation_options"])
    return area, {name: value for name, value in rendering.items() if value}, given


def _area(bounds: tuple[float, ...] | None, file: IO[str] | None, tiles: dict[str, Any] | None) -> _Area:
    if sum(given is not None for given in (bounds, file, tiles)) != 1:
        raise UsageError("give the area, as --bounds W S E N, --area FILE.geojson or --tiles FILE")
    if tiles is not None:
        return tiles
    if file is None:
        return bounds or ()
    try:
        geojson = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(geojson, dict):
        raise UsageError(f"{file.name} is no GeoJSON object")
    return geojson


@asynccontextmanager
async def _opened(
    source: str, arguments: Mapping[str, Any], rendering: Mapping[str, Any]
) -> AsyncIterator[str | TileSource]:
    """Start the embedded tiler where the source is scenes on disk."""
    if _is_remote(source) or await asyncio.to_thread(_is_tilejson, Path(source)):
        if rendering:
            names = ", ".join("--" + name.replace("_", "-") for name in rendering)
            raise UsageError(
                f"{names} mean nothing to a tile URL, whose server has its own parameters",
                hint="give them with --param",
            )
        yield source
    else:
        size = {"tile_size": arguments["tile_size"]} if arguments["tile_size"] else {}
        async with _tiler().local_tiler(source, **rendering, **size) as opened:
            yield opened


def _is_remote(source: str) -> bool:
    return is_template(source) or re.match(r"https?://", source, re.IGNORECASE) is not None


def _is_tilejson(path: Path) -> bool:
    if not path.exists():
        raise UsageError(
            f"there is no {path}",
            hint="SOURCE is a URL with {z}/{x}/{y}, a TileJSON, a MosaicJSON or a folder of scenes",
        )
    if path.is_dir() or path.suffix == ".gz":
        return False
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    return isinstance(document, dict) and isinstance(document.get("tiles"), list)


def _tiler() -> Any:
    try:
        from mosaic_async import tiler  # noqa: PLC0415 - the extra may be missing
    except ImportError as error:
        raise UsageError(
            f"scenes on disk need the extra `tiler` ({error})", hint="pip install 'mosaic-async[tiler]'"
        ) from error
    return tiler


_Result = TypeVar("_Result")


def _run(
    coroutine: Coroutine[Any, Any, _Result], stop: asyncio.Event | None = None, is_draining: Callable[[], bool] = bool
) -> _Result:
    """Run on uvloop where there is one; signals end it as `interruptible` says."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(interruptible(coroutine, stop, is_draining))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
