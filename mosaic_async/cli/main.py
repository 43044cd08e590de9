"""The command line: parses, calls the library, prints. The only file that prints, draws a bar or chooses the loop.

stdout carries data (the report or the plan), stderr carries text for people and the bar.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

import click

from mosaic_async import __version__
from mosaic_async.api import build_mosaic, plan_mosaic
from mosaic_async.build.download import ON_ERROR
from mosaic_async.build.failed_tiles import area_of_tiles, check_not_own, read_tiles
from mosaic_async.build.plan import MosaicPlan
from mosaic_async.cli.options import job_options, rendering_options
from mosaic_async.cli.parsing import (
    HEADERS_VARIABLE,
    PARAMS_VARIABLE,
    BoundsCommand,
    pair,
    pairs_in_environment,
    split_list,
    write_whole,
)
from mosaic_async.cli.signals import Interrupted, interruptible
from mosaic_async.cli.terminal import Progress, plan_text, report_text
from mosaic_async.errors import IncompleteError, MosaicError, StoppedError, UsageError
from mosaic_async.events import MosaicReport
from mosaic_async.http.client import MAX_OUTAGE
from mosaic_async.safe_json import parse
from mosaic_async.sources.rendering import Rendering
from mosaic_async.sources.source import TileSource, is_template, open_source
from mosaic_async.sources.tilers import rendered_by, with_rendering


class _Main(click.Group):
    """The place where errors and signals become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MosaicError as error:
            flags = _flags(self.get_command(ctx, ctx.invoked_subcommand or ""))
            self._end(ctx, f"error: {error.message}", error.hint_in(flags), error.exit_code)
        except Interrupted as interrupted:
            word = "interrupted" if interrupted.exit_code == 130 else "terminated"
            if isinstance(interrupted.__cause__, StoppedError):
                word += f": {interrupted.__cause__.message}"
            hint = "the same command goes on from here" if ctx.invoked_subcommand == "build" else None
            self._end(ctx, word, hint, interrupted.exit_code)

    def _end(self, ctx: click.Context, message: str, hint: str | None, code: int) -> NoReturn:
        click.echo(message, err=True)
        if hint:
            click.echo(f"hint: {hint}", err=True)
        ctx.exit(code)


def _flags(command: click.Command | None) -> dict[str, str]:
    """Return what the library's parameters are called on the command line, as `MosaicError.hint_in` takes it."""
    flags: dict[str, str] = {}
    for param in command.params if command else ():
        if isinstance(param, click.Option) and param.name:
            flags[param.name] = max(param.opts, key=len)
            flags |= {f"{param.name}=False": off for off in param.secondary_opts}
    if "fresh" in flags:
        flags["resume=False"] = flags["fresh"]
    return flags


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
@job_options
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
@rendering_options
@click.option("--scenes", type=click.Path(dir_okay=False, path_type=Path), help="Write the area's scenes: GeoJSON.")
@click.option("-q", "--quiet", is_flag=True, help="No bar, no lines about tiles.")
@click.option("-v", "--verbose", is_flag=True, help="Say every retry.")
def build(source: str, output: Path, scenes: Path | None, **options: Any) -> None:
    """Write OUTPUT, one COG of all tiles that touch the area. Run it again to go on after an interruption."""
    as_json = options.pop("as_json")
    options["resume"] = not options.pop("fresh")
    if options["tiles"]:
        check_not_own(options["tiles"], output)
    with Progress(quiet=options.pop("quiet"), verbose=options.pop("verbose")) as progress:
        area, rendering, arguments = _arguments(options)
        if scenes and (_is_remote(source) or _is_tilejson(Path(source))):
            raise UsageError("a tile URL does not tell its scenes", hint="leave --scenes out")
        listed = _stac().scenes_of(source, area) if scenes else {}

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
    if scenes:
        write_whole(scenes, json.dumps(listed))
    click.echo(json.dumps(report.as_dict()) if as_json else report_text(report))
    if report.tiles_failed:
        kept = f"hint: {output.name}.work is kept: the same command with --overwrite asks for what failed and fills the"
        click.echo(f"{kept} holes; if they may stay, delete it", err=True)


@main.command(cls=BoundsCommand)
@click.argument("source")
@job_options
@rendering_options
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
    created = _stac().create_mosaic(_json_object(search), **options)
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
    tiles = given.pop("tiles")
    if tiles is not None:
        listed = read_tiles(tiles)
        if given["zoom"] not in (None, listed[0].z):
            raise UsageError(f"{tiles} lists tiles of zoom {listed[0].z}", hint="leave --zoom out")
        given["zoom"] = listed[0].z
    area = _area(given.pop("bounds"), given.pop("area"), area_of_tiles(listed) if tiles else None)
    names = ["bands", "expression", "pixel_selection", "rescale", "color_formula", "resampling"]
    names += ["tiler", "dialect", *_OWN]
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
    return (bounds or ()) if file is None else _json_object(file)


def _json_object(file: IO[str]) -> dict[str, Any]:
    try:
        found = parse(file.read())
    except ValueError as error:
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
        raise UsageError(f"only the embedded tiler has {', '.join(own)}", hint="leave --tiler and --dialect out")
    if tiler:
        made = Rendering(**look)
        opened = await rendered_by(tiler, source, rendering=made, dialect=dialect, headers=arguments["headers"], **size)
        _say_notes(opened)
        yield opened
    elif _is_remote(source) or await asyncio.to_thread(_is_tilejson, Path(source)):
        if look and not dialect:
            names = ", ".join("--" + name.replace("_", "-") for name in look)
            raise UsageError(
                f"{names} mean nothing to a tile URL, whose server has its own parameters",
                hint="give them with --param, or say with --dialect what tiler it is",
            )
        if dialect:
            yield with_rendering(await open_source(source, headers=arguments["headers"]), dialect, Rendering(**look))
        else:
            yield source
    elif dialect:
        raise UsageError("the embedded tiler has no other dialect", hint="leave --dialect out, or name a --tiler")
    else:
        async with _tiler().local_tiler(source, **look, **size) as opened:
            _say_notes(opened)
            yield opened


def _say_notes(source: TileSource) -> None:
    for note in source.notes:
        click.echo(f"note: {note}", err=True)


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
        document = parse(path.read_bytes())
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


def _stac() -> Any:
    try:
        from mosaic_async import stac  # noqa: PLC0415 - the extra may be missing
    except ImportError as error:
        raise UsageError(f"scenes need the extra `stac` ({error})", hint="pip install 'mosaic-async[stac]'") from error
    return stac


_Result = TypeVar("_Result")


def _run(
    coroutine: Coroutine[Any, Any, _Result], stop: asyncio.Event | None = None, is_draining: Callable[[], bool] = bool
) -> _Result:
    """Run on uvloop where there is one; signals end it as `interruptible` says."""
    gc.freeze()  # what is imported stays: looking through it again and again, at the end too, costs 0.1 s
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(interruptible(coroutine, stop, is_draining))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
