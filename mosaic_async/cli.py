"""The command line: parses, calls the library, prints. The only file that prints, draws a bar or chooses the loop.

stdout carries data (the report or the plan), stderr carries text for people and the bar.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import click

from mosaic_async import __version__
from mosaic_async.arguments import BoundsCommand, numbers, pair, size, split_list, write_whole
from mosaic_async.cover import MAX_TILES
from mosaic_async.dialects import DIALECTS
from mosaic_async.encoding import MASK_MODES, OVERVIEW_RESAMPLINGS, PROFILES
from mosaic_async.endpoints import rendered_by, with_rendering
from mosaic_async.errors import IncompleteError, MosaicError, UsageError
from mosaic_async.events import MosaicReport
from mosaic_async.pipeline import build_mosaic, plan_mosaic
from mosaic_async.plan import MosaicPlan
from mosaic_async.rendering import Rendering
from mosaic_async.sources import TileSource, is_template, open_source
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
        "-c", "--concurrency", type=click.IntRange(1), default=50, show_default=True, help="Requests in flight."
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
        "--param", "params", type=pair("="), multiple=True, metavar="NAME=VALUE", help="Added to every tile's URL."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
_rendering = _options(
    click.option("--bands", multiple=True, metavar="B4,B3,B2", help="Asset names, or numbers for plain files."),
    click.option("--expression", help="Formulas separated by ; instead of bands: '(B5-B4)/(B5+B4)'."),
    click.option("--pixel-selection", metavar="METHOD", help="first, median, percentile:25, newest, lastbandhigh, ..."),
    click.option("--rounding", is_flag=True, help="Round means of integers instead of cutting them."),
    click.option("--reflectance", metavar="float|integer", help="Instead of counts; integer is 10000 times that."),
    click.option("--cloud-mask", metavar="BAND[:RULE]", help="Leave out bad pixels: qa_pixel, fmask:values=2,4, ..."),
    click.option("--rescale", type=numbers, multiple=True, metavar="LOW,HIGH", help="To 0-255; once, or once a band."),
    click.option("--color-formula", help="Such as 'gamma RGB 3.5, saturation 1.7'."),
    click.option("--resampling", metavar="METHOD", help="nearest, bilinear, cubic, ..."),
    click.option("--tiler", metavar="URL", help="Who renders SOURCE, in place of the embedded tiler."),
    click.option("--dialect", type=click.Choice(sorted(DIALECTS)), help="Of a tiler that does not say what it is."),
)


class _Main(click.Group):
    """The place where errors and signals become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MosaicError as error:
            self._end(ctx, f"error: {error.message}", error.hint, error.exit_code)
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            word, code = ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else ("terminated", 143)
            hint = "the same command goes on from here" if ctx.invoked_subcommand == "build" else None
            self._end(ctx, word, hint, code)

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
    return re.sub(r"`([\w=]+)`", lambda match: flags.get(match[1], match[0]), hint)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Fetch every tile of an area and get one validated Cloud Optimized GeoTIFF.

    SOURCE is an XYZ template (https://host/{z}/{x}/{y}.tif), the URL or path of a TileJSON, or scenes on disk: a
    MosaicJSON, or a folder of STAC items or COGs, for which the embedded tiler is started. With --tiler it is what
    that tiler shall render: the URL of a MosaicJSON for TiTiler, a search in a file for titiler-pgstac and awspds.
    """


@main.command(cls=BoundsCommand)
@click.argument("source")
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@_what
@click.option("--max-failures", type=click.IntRange(0), default=0, show_default=True, help="Tiles that may stay holes.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.")
@click.option("--fresh", is_flag=True, help="Drop what an earlier run of this output left.")
@_rendering
@click.option("--scenes", type=click.Path(dir_okay=False, path_type=Path), help="Write the area's scenes: GeoJSON.")
@click.option("-q", "--quiet", is_flag=True, help="No bar, no lines about tiles.")
@click.option("-v", "--verbose", is_flag=True, help="Say every retry.")
def build(source: str, output: Path, scenes: Path | None, **options: Any) -> None:
    """Write OUTPUT, one COG of all tiles that touch the area. Run it again to go on after an interruption."""
    as_json = options.pop("as_json")
    options["resume"] = not options.pop("fresh")
    with Progress(quiet=options.pop("quiet"), verbose=options.pop("verbose")) as progress:
        area, rendering, arguments = _arguments(options)
        if scenes and (_is_remote(source) or _is_tilejson(Path(source))):
            raise UsageError("a tile URL does not tell its scenes", hint="leave `scenes` out")
        listed = _stac("provenance").scenes_of(source, area) if scenes else {}

        async def work() -> MosaicReport:
            async with _opened(source, arguments, rendering) as opened:
                return await build_mosaic(opened, area, output, on_event=progress, **arguments)

        try:
            report = _run(work())
        except IncompleteError as error:
            if as_json:
                click.echo(json.dumps(error.report.as_dict()))
            raise
    if scenes:
        write_whole(scenes, json.dumps(listed))
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


@main.command()
@click.argument("search", type=click.File("r"), metavar="SEARCH.json")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="MosaicJSON; default: stdout.")
@click.option("--api", metavar="URL", help="STAC API to ask.")
@click.option("--items", type=click.Path(exists=True, path_type=Path), help="Or a folder, catalogue or list of items.")
@click.option("--collection", "collections", multiple=True, help="Instead of those that the search names.")
@click.option("--seasons", type=split_list, metavar="summer,autumn", help="By month and hemisphere.")
@click.option("--optimized-selection", is_flag=True, help="One scene a path and row, the first.")
@click.option("--max-scenes", type=click.IntRange(1), help="Use so many scenes, the first.")
@click.option("--max-per-cell", type=click.IntRange(1), help="List so many scenes a cell, the first.")
@click.option("--minzoom", type=click.IntRange(0, 24))
@click.option("--maxzoom", type=click.IntRange(0, 24), help="Default: the scenes' own resolution.")
@click.option("--quadkey-zoom", type=click.IntRange(0, 24), help="Of the cells.")
@click.option("--asset", metavar="NAME", help="List this asset's files, for tilers that read plain files.")
@click.option(
    "--scenes", type=click.Path(dir_okay=False, path_type=Path), help="Write ids, dates, footprints: GeoJSON."
)
@click.option(
    "--header", "headers", type=pair(":"), multiple=True, metavar="'NAME: VALUE'", help="Sent with every request."
)
def create(search: IO[str], output: Path | None, scenes: Path | None, **options: Any) -> None:
    """Search scenes and write a MosaicJSON. SEARCH.json is a STAC API search, or SAT-API's; - is stdin."""
    options["headers"] = dict(options["headers"])
    if not options["seasons"]:
        del options["seasons"]
    created = _stac("search").create_mosaic(_json_object(search), **options)
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


_Area = Sequence[float] | dict[str, Any]
_OWN = ("rounding", "reflectance", "cloud_mask")
"""What only the embedded tiler can do."""


def _arguments(options: Mapping[str, Any]) -> tuple[_Area, dict[str, Any], dict[str, Any]]:
    """Split what was given into the area, the rendering and arguments of the library; pairs become dicts."""
    given = dict(options)
    area = _area(given.pop("bounds"), given.pop("area"))
    names = ["bands", "expression", "pixel_selection", "rescale", "color_formula", "resampling"]
    names += ["tiler", "dialect", *_OWN]
    rendering = {name: given.pop(name) for name in names}
    rendering["bands"] = tuple(band for value in rendering["bands"] for band in split_list(value))
    for name in ("headers", "params", "creation_options"):
        given[name] = dict(given[name])
    return area, {name: value for name, value in rendering.items() if value}, given


def _area(bounds: tuple[float, ...] | None, file: IO[str] | None) -> _Area:
    if (bounds is None) == (file is None):
        raise UsageError("give the area, as --bounds W S E N or --area FILE.geojson")
    return (bounds or ()) if file is None else _json_object(file)


def _json_object(file: IO[str]) -> dict[str, Any]:
    try:
        found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file.name} is no JSON object")
    return found


@asynccontextmanager
async def _opened(
    source: str, arguments: Mapping[str, Any], rendering: Mapping[str, Any]
) -> AsyncIterator[str | TileSource]:
    """Start the embedded tiler where the source is scenes on disk, or ask the one that was named."""
    look = dict(rendering)
    tiler, dialect = look.pop("tiler", None), look.pop("dialect", None)
    size = {"tile_size": arguments["tile_size"]} if arguments["tile_size"] else {}
    if (tiler or dialect) and (own := [name for name in _OWN if name in look]):
        raise UsageError(f"only the embedded tiler has {', '.join(own)}", hint="leave `tiler` and `dialect` out")
    if tiler:
        made = Rendering(**look)
        opened = await rendered_by(tiler, source, rendering=made, dialect=dialect, headers=arguments["headers"], **size)
        for note in opened.notes:
            click.echo(f"note: {note}", err=True)
        yield opened
    elif _is_remote(source) or await asyncio.to_thread(_is_tilejson, Path(source)):
        if look and not dialect:
            names = ", ".join("--" + name.replace("_", "-") for name in look)
            raise UsageError(
                f"{names} mean nothing to a tile URL, whose server has its own parameters",
                hint="give them with --param, or say with `dialect` what tiler it is",
            )
        if dialect:
            yield with_rendering(await open_source(source, headers=arguments["headers"]), dialect, Rendering(**look))
        else:
            yield source
    elif dialect:
        raise UsageError("the embedded tiler has no other dialect", hint="leave `dialect` out, or name a `tiler`")
    else:
        async with _tiler().local_tiler(source, **look, **size) as opened:
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


def _stac(name: str) -> Any:
    try:
        return importlib.import_module(f"mosaic_async.{name}")
    except ImportError as error:
        raise UsageError(f"scenes need the extra `stac` ({error})", hint="pip install 'mosaic-async[stac]'") from error


_Result = TypeVar("_Result")


def _run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run on uvloop where there is one; SIGTERM cancels, as an interrupt does."""

    async def cancellable() -> _Result:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await coroutine

    gc.freeze()  # what is imported stays: looking through it again and again, at the end too, costs 0.1 s
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(cancellable())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
