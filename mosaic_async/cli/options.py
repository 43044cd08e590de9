"""The options that several commands share, one group for each question: what to build, how it is rendered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mosaic_async.cli.parsing import HEADERS_VARIABLE, PARAMS_VARIABLE, concurrency, numbers, pair, pairs_in_file, size
from mosaic_async.geo.cover import MAX_TILES
from mosaic_async.raster.encoding import MASK_MODES, OVERVIEW_RESAMPLINGS, PROFILES
from mosaic_async.sources.dialects import DIALECTS

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _all_of(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


job_options = _all_of(
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
rendering_options = _all_of(
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
