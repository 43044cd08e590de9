"""The options that several commands share, one group per question: what to build, how it is rendered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mosaic_async.build.job import Effort, Job
from mosaic_async.cli.parsing import (
    HEADERS_VARIABLE,
    PARAMS_VARIABLE,
    SECRETS_VARIABLE,
    concurrency,
    numbers,
    pair,
    pairs_in_file,
    size,
)
from mosaic_async.raster.encoding import MASK_MODES, OVERVIEW_CHOICES, PROFILES
from mosaic_async.raster.packing import DECODINGS
from mosaic_async.sources.dialects import DIALECTS

_Command = TypeVar("_Command", bound=Callable[..., Any])

RENDERING = (
    "bands",
    "expression",
    "pixel_selection",
    "rounding",
    "group_by",
    "reflectance",
    "alternate",
    "cloud_mask",
    "rescale",
    "color_formula",
    "resampling",
    "crs",
    "resolution",
    "like",
)
"""The options of `rendering_options` that say how pixels look, and not who renders them."""


def flags_of(command: click.Command | None) -> dict[str, str]:
    """Return the flag of each parameter of the library, as `MosaicError.hint_in` takes it."""
    flags: dict[str, str] = {}
    for param in command.params if command else ():
        if isinstance(param, click.Option) and param.name:
            flags[param.name] = max(param.opts, key=len)
            flags |= {f"{param.name}=False": off for off in param.secondary_opts}
    if "fresh" in flags:
        flags["resume=False"] = flags["fresh"]
    return flags


def _all_of(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_HEADERS = (
    click.option(
        "--header", "headers", type=pair(":"), multiple=True, metavar="'NAME: VALUE'", help="Header of every request."
    ),
    click.option(
        "--header-file",
        "header_files",
        type=pairs_in_file(":"),
        multiple=True,
        metavar="FILE",
        help=f"File of headers, one per line; keeps secrets out of the process list, as ${HEADERS_VARIABLE} does.",
    ),
)
_CA = click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="File of certificate authorities to trust beside those of the system; $SSL_CERT_FILE works too.",
)
access_options = _all_of(*_HEADERS, _CA)
request_options = _all_of(
    click.option(
        "-c",
        "--concurrency",
        type=concurrency,
        default=str(Effort.concurrency),
        show_default=True,
        metavar="N|auto",
        help="Maximum requests in flight; auto adapts to the server.",
    ),
    click.option("--rate", type=click.FloatRange(0, min_open=True), help="Maximum requests per second."),
    click.option(
        "--attempts",
        type=click.IntRange(1),
        default=Effort.attempts,
        show_default=True,
        help="Maximum attempts per tile.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=Effort.timeout,
        show_default=True,
        help="Timeout per attempt, in seconds.",
    ),
    *_HEADERS,
    click.option(
        "--param", "params", type=pair("="), multiple=True, metavar="NAME=VALUE", help="Query parameter of every tile."
    ),
    click.option(
        "--param-file",
        "param_files",
        type=pairs_in_file("="),
        multiple=True,
        metavar="FILE",
        help=f"File of query parameters, one per line; ${PARAMS_VARIABLE} works too.",
    ),
    click.option(
        "--secret",
        "secrets",
        type=pair("="),
        multiple=True,
        metavar="NAME=TEXT",
        help="Secret in the URL's path, which may change between runs; {NAME} stands for it.",
    ),
    click.option(
        "--secret-file",
        "secret_files",
        type=pairs_in_file("="),
        multiple=True,
        metavar="FILE",
        help=f"File of secrets, one per line; ${SECRETS_VARIABLE} works too.",
    ),
    click.option(
        "--allow-host",
        "allow_hosts",
        multiple=True,
        metavar="HOST",
        help="Host that redirects and a TileJSON's template may lead to; headers are not sent there.",
    ),
    _CA,
)
job_options = _all_of(
    click.option(
        "--bounds",
        "--bbox",
        nargs=4,
        type=float,
        metavar="W S E N",
        help="Area in degrees; separate the numbers by spaces or commas.",
    ),
    click.option(
        "--area",
        metavar="FILE",
        help="Area as polygons, instead of --bounds: GeoJSON, - for stdin, or FILE[:LAYER] in any format of GDAL.",
    ),
    click.option("-z", "--zoom", type=int, help="Zoom of the tiles; default: the data's own resolution, if known."),
    click.option(
        "--tms",
        metavar="NAME|FILE|URL",
        help="Tile matrix set of the tiles, such as WorldCRS84Quad, or its JSON; default: as the source states.",
    ),
    click.option(
        "--tile-size", type=int, help="Tile width in pixels; default: from the source, or from the first tile."
    ),
    click.option("--tile-border", type=int, metavar="N", help="Pixels to cut off at each side of a tile; default: 0."),
    click.option("--clip", is_flag=True, help="Cut the output to the area; default: whole tiles."),
    click.option(
        "--all-touched",
        is_flag=True,
        help="With --clip: keep all pixels that polygons touch, not only by their centre.",
    ),
    request_options,
    click.option(
        "--memory",
        type=size,
        default=f"{Effort.memory // 2**30}GiB",
        show_default=True,
        help="Memory budget of the run.",
    ),
    click.option(
        "-p",
        "--profile",
        type=click.Choice(PROFILES),
        default=Job.profile,
        show_default=True,
        help="Compression.",
    ),
    click.option(
        "--co", "creation_options", type=pair("="), multiple=True, metavar="NAME=VALUE", help="COG creation option."
    ),
    click.option(
        "--overview-resampling",
        type=click.Choice(OVERVIEW_CHOICES),
        default=Job.overview_resampling,
        show_default=True,
        help="Resampling of the overviews; auto is average for all that may be averaged.",
    ),
    click.option("--nodata", type=float, help="Value of pixels without data; default: an internal mask."),
    click.option("--dtype", help="Data type of the output; default: that of the tiles."),
    click.option(
        "--decode",
        metavar="|".join([*DECODINGS, "R,G,B,BASE"]),
        help="Write the values, such as heights in metres, that the tiles pack into colours.",
    ),
    click.option(
        "--mask",
        type=click.Choice(MASK_MODES),
        default=Job.mask,
        show_default=True,
        help="How to mark pixels without data.",
    ),
    click.option(
        "--empty",
        multiple=True,
        metavar="WHEN",
        help="What also means that a tile has no data: 403, header:NAME=VALUE, sha256:DIGEST, or a sample file.",
    ),
    click.option(
        "--as-collection",
        "collection",
        is_flag=True,
        help="Make OUTPUT a folder of COGs with a STAC Collection, a MosaicJSON and a GDAL tile index.",
    ),
    click.option("--part-size", type=int, help="Part width in pixels; default: from the memory budget."),
    click.option(
        "--max-tiles", type=int, default=Effort.max_tiles, show_default=True, help="Refuse more tiles than this."
    ),
    click.option(
        "--tiles",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Tiles to fetch, instead of an area: a failed.geojson, a JSON report, or one z/x/y per line.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
rendering_options = _all_of(
    click.option("--bands", multiple=True, metavar="B4,B3,B2", help="Assets to show, or band numbers of plain files."),
    click.option("--expression", help="Formulas separated by ;, instead of bands, such as '(B5-B4)/(B5+B4)'."),
    click.option(
        "--pixel-selection", metavar="METHOD", help="How scenes combine: first, median, percentile:25, newest, ..."
    ),
    click.option("--rounding", is_flag=True, help="Round the means of integers instead of truncating them."),
    click.option(
        "--group-by",
        type=click.Choice(["acquisition", "day", "none"]),
        help="Scenes that count once in means, medians and counts; default: those of one acquisition.",
    ),
    click.option(
        "--reflectance",
        metavar="float|integer",
        help="Convert counts to reflectance; integer is 10000 times the float.",
    ),
    click.option("--alternate", metavar="KEY", help="Alternate hrefs of assets to read, such as s3."),
    click.option("--cloud-mask", metavar="BAND[:RULE]", help="Drop bad pixels, such as qa_pixel or fmask:values=2,4."),
    click.option(
        "--rescale",
        type=numbers,
        multiple=True,
        metavar="LOW,HIGH",
        help="Stretch this range to 0-255; set once, or once per band.",
    ),
    click.option("--color-formula", help="Colour operations, such as 'gamma RGB 3.5, saturation 1.7'."),
    click.option("--resampling", metavar="METHOD", help="How to resample scenes: nearest, bilinear, cubic, ..."),
    click.option("--crs", metavar="EPSG:CODE", help="Coordinate system of scenes' tiles; with --resolution."),
    click.option(
        "--resolution",
        type=click.FloatRange(0, min_open=True),
        help="Pixel width in units of --crs; scenes that have such pixels are not resampled.",
    ),
    click.option(
        "--like",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE.tif",
        help="Raster file whose system, resolution and pixels scenes are brought to; without an area, OUTPUT "
        "has its extent too.",
    ),
    click.option("--tiler", metavar="URL", help="Tiler that renders SOURCE, instead of the embedded tiler."),
    click.option("--dialect", type=click.Choice(sorted(DIALECTS)), help="Kind of tiler, where it cannot be detected."),
)
