"""The command line: parses, calls the library, prints. The only file that prints, draws a bar or chooses the loop.

stdout carries data (the report or the plan), stderr carries text for people and the bar.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import click
from tqdm import tqdm

from mosaic_async import __version__
from mosaic_async.arguments import BoundsCommand, numbers, pair, size, split_list
from mosaic_async.encoding import MASK_MODES, OVERVIEW_RESAMPLINGS, PROFILES
from mosaic_async.errors import IncompleteError, MosaicError, UsageError
from mosaic_async.events import (
    Event,
    MosaicReport,
    RunStarted,
    Stitching,
    TileEmpty,
    TileFailed,
    TileFetched,
    TilePlaced,
    TileRetried,
)
from mosaic_async.grid import MAX_TILES
from mosaic_async.pipeline import build_mosaic, plan_mosaic
from mosaic_async.plan import MosaicPlan
from mosaic_async.sources import TileSource, is_template

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
    click.option("--pixel-selection", metavar="METHOD", help="first, median, highest, lastbandhigh, ..."),
    click.option("--rescale", type=numbers, multiple=True, metavar="LOW,HIGH", help="To 0-255; once, or once a band."),
    click.option("--color-formula", help="Such as 'gamma RGB 3.5, saturation 1.7'."),
    click.option("--resampling", metavar="METHOD", help="nearest, bilinear, cubic, ..."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
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
@click.option("--overview-resampling", type=click.Choice(OVERVIEW_RESAMPLINGS), default="average", show_default=True)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests a second at most.")
@click.option("--attempts", type=click.IntRange(1), default=5, show_default=True, help="Tries a tile.")
@click.option("--max-failures", type=click.IntRange(0), default=0, show_default=True, help="Tiles that may stay holes.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT.")
@click.option("--fresh", is_flag=True, help="Drop what an earlier run of this output left.")
@_rendering
@click.option("-q", "--quiet", is_flag=True, help="No bar.")
@click.option("-v", "--verbose", is_flag=True, help="Say every retry.")
def build(source: str, output: Path, **options: Any) -> None:
    """Write OUTPUT, one COG of all tiles that touch the area. Run it again to go on after an interruption."""
    as_json = options.pop("as_json")
    options["resume"] = not options.pop("fresh")
    with Progress(quiet=options.pop("quiet"), verbose=options.pop("verbose")) as progress:
        rendering, arguments = _arguments(options)

        async def work() -> MosaicReport:
            async with _opened(source, arguments.get("tile_size"), rendering) as opened:
                return await build_mosaic(opened, _area(arguments), output, on_event=progress, **arguments)

        report = _run(work(), as_json=as_json)
    _print_report(report, as_json=as_json)


@main.command(cls=BoundsCommand)
@click.argument("source")
@_what
@_rendering
def plan(source: str, **options: Any) -> None:
    """Say what building would take: tiles, bytes, parts, memory, time. Asks for one tile and writes nothing."""
    as_json = options.pop("as_json")
    rendering, arguments = _arguments(options)

    async def work() -> MosaicPlan:
        async with _opened(source, arguments.get("tile_size"), rendering) as opened:
            return await plan_mosaic(opened, _area(arguments), **arguments)

    found = _run(work(), as_json=as_json)
    click.echo(json.dumps(found.as_dict()) if as_json else _plan_text(found))


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

    _run(work(), as_json=False)


class Progress:
    """Draws the bar from events; silent when stderr is no terminal."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._quiet = quiet
        self._verbose = verbose
        self._bytes = 0
        self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case RunStarted():
                self._start(event)
            case TileFetched():
                self._bytes += event.nbytes
            case TilePlaced() | TileEmpty():
                self._advance()
            case TileFailed():
                self._failed += 1
                self._say(f"failed: {'/'.join(map(str, _zxy(event)))}: {event.reason} ({event.attempts} attempts)")
                self._advance()
            case TileRetried() if self._verbose:
                self._say(f"retry {event.attempt} in {event.wait:.1f} s: {event.url}: {event.reason}")
            case Stitching() if self._bar is not None:
                self._bar.set_description_str("stitching" if event.parts > 1 else "validating")
            case _:
                pass

    def _start(self, event: RunStarted) -> None:
        self._bar = tqdm(
            total=event.tiles_total,
            initial=event.tiles_resumed,
            unit="tile",
            dynamic_ncols=True,
            disable=True if self._quiet else None,  # None: off when stderr is no terminal
        )

    def _advance(self) -> None:
        if self._bar is not None and not self._bar.disable:
            elapsed = self._bar.format_dict["elapsed"] or 1
            rate = f"{self._bytes / 1e6 / elapsed:.1f} MB/s"
            self._bar.set_postfix_str(f"{rate}, {self._failed} failed" if self._failed else rate, refresh=False)
            self._bar.update()

    def _say(self, line: str) -> None:
        if not self._quiet:
            tqdm.write(line, file=sys.stderr)


def _zxy(event: TileFailed) -> tuple[int, int, int]:
    return event.tile.z, event.tile.x, event.tile.y


def _arguments(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what was given into rendering and arguments of the library; pairs become dicts."""
    given = dict(options)
    names = ("bands", "expression", "pixel_selection", "rescale", "color_formula", "resampling")
    rendering = {name: given.pop(name) for name in names}
    rendering["bands"] = tuple(band for value in rendering["bands"] for band in split_list(value))
    for name in ("headers", "params", "creation_options"):
        given[name] = dict(given[name])
    return {name: value for name, value in rendering.items() if value}, given


def _area(arguments: dict[str, Any]) -> Sequence[float] | dict[str, Any]:
    """Take the area out of the arguments."""
    bounds, file = arguments.pop("bounds"), arguments.pop("area")
    if (bounds is None) == (file is None):
        raise UsageError("give the area, as --bounds W S E N or --area FILE.geojson")
    if file is None:
        return tuple(bounds)
    try:
        geojson: dict[str, Any] = json.load(file)
    except ValueError as error:
        raise UsageError(f"{file.name} is not JSON: {error}") from error
    return geojson


@asynccontextmanager
async def _opened(source: str, tile_size: int | None, rendering: Mapping[str, Any]) -> AsyncIterator[str | TileSource]:
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
        size = {"tile_size": tile_size} if tile_size else {}
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
        _fail(UsageError(f"scenes on disk need the extra `tiler` ({error})", hint="pip install 'mosaic-async[tiler]'"))
    return tiler


_Result = TypeVar("_Result")


def _run(coroutine: Coroutine[Any, Any, _Result], *, as_json: bool) -> _Result:
    """Run on uvloop where there is one; turn errors and signals into exit codes."""
    terminated = False

    async def guarded() -> _Result:
        task = asyncio.ensure_future(coroutine)

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await task

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(guarded())
    except MosaicError as error:
        if as_json and isinstance(error, IncompleteError) and error.report is not None:
            click.echo(json.dumps(error.report.as_dict()))
        _fail(error)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command goes on from here", err=True)
        sys.exit(130)
    except asyncio.CancelledError:
        click.echo("terminated; the same command goes on from here", err=True)
        sys.exit(143 if terminated else 1)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def _fail(error: MosaicError) -> NoReturn:
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    sys.exit(error.exit_code)


def _print_report(report: MosaicReport, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.as_dict()))
        return
    west, south, east, north = report.bounds
    click.echo(
        f"{report.output}: {report.width} x {report.height} pixels, {_size(report.bytes_written)}, "
        f"W {west:.5f} S {south:.5f} E {east:.5f} N {north:.5f}\n"
        f"{report.tiles_placed:,} tiles placed, {report.tiles_empty:,} empty, {report.tiles_failed:,} failed; "
        f"{report.requests:,} requests, {report.retries:,} retries, {_size(report.bytes_received)} received\n"
        f"{report.seconds:.1f} s, {report.parts_total} parts ({report.parts_resumed} resumed), "
        f"peak memory {_size(report.peak_rss)}"
    )


def _plan_text(found: MosaicPlan) -> str:
    west, south, east, north = found.bounds
    lines = [
        f"zoom        {found.zoom}, tiles of {found.tile_size} pixels, {found.resolution:.2f} m a pixel at the equator",
        f"tiles       {found.tiles:,}",
        f"output      {found.width:,} x {found.height:,} pixels, {found.count} x {found.dtype}, mask: {found.mask}",
        f"bounds      W {west:.5f} S {south:.5f} E {east:.5f} N {north:.5f}",
        f"parts       {found.parts:,} of {found.part_size:,} pixels",
        f"size        {_size(found.raw_bytes)} raw, about {_size(found.estimated_bytes)} as a file",
        f"memory      {_size(found.memory)} at most",
    ]
    if found.assumed:
        lines.append("guessed     the tile in the centre is empty, so bands and dtype are a guess")
    else:
        time = tqdm.format_interval(found.seconds or 0)
        lines.append(f"download    about {_size(found.download_bytes or 0)}")
        lines.append(f"time        about {time}, if every tile takes as long as the one that was tried")
    return "\n".join(lines)


def _size(nbytes: float) -> str:
    return f"{tqdm.format_sizeof(nbytes)}B"
