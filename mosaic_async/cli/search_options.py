"""The options of a search for scenes, which `create`, `build` and `plan` share, and what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from mosaic_async.cli import extras
from mosaic_async.cli.parsing import split_list
from mosaic_async.sources.bad_scenes import DEFAULT

_Command = TypeVar("_Command", bound=Callable[..., Any])
ZOOM = click.IntRange(0, 24)
_OPTIONS = (
    click.option("--api", metavar="URL", help="STAC API to search."),
    click.option(
        "--items",
        type=click.Path(exists=True, path_type=Path),
        help="Folder, catalogue, item collection or stac-geoparquet to search instead of an API.",
    ),
    click.option(
        "--collection", "collections", multiple=True, help="Collection to search, instead of the search's own."
    ),
    click.option(
        "--seasons", type=split_list, metavar="summer,autumn", help="Seasons to keep, by month and hemisphere."
    ),
    click.option("--optimized-selection", is_flag=True, help="Keep the first scene per WRS path and row."),
    click.option("--max-scenes", type=click.IntRange(1), help="Maximum number of scenes; the first are kept."),
    click.option(
        "--max-per-cell", type=click.IntRange(1), help="Maximum number of scenes per cell; the first are kept."
    ),
    click.option("--minzoom", type=ZOOM, help="Minimum zoom of the mosaic; default: five below the maximum."),
    click.option("--maxzoom", type=ZOOM, help="Maximum zoom of the mosaic; default: the scenes' own resolution."),
)
bad_scenes_option = click.option(
    "--max-bad-scenes",
    default=DEFAULT,
    show_default=True,
    metavar="N|P%",
    help="Scenes that may be left out because they cannot be used, as a number or a share.",
)
sign_option = click.option("--sign", is_flag=True, help="Sign the scenes' hrefs that lead to Planetary Computer.")
SEARCH = (
    "api",
    "items",
    "collections",
    "seasons",
    "optimized_selection",
    "max_scenes",
    "max_per_cell",
    "minzoom",
    "maxzoom",
)
"""The names of these options."""
OF_TILERS = ("seasons", "optimized_selection", "max_per_cell", "minzoom", "maxzoom")
"""Those that awspds-mosaic takes in its own query."""


def search_options(command: _Command) -> _Command:
    """Add the options to a command."""
    for option in (bad_scenes_option, *reversed(_OPTIONS)):
        command = option(command)
    return command


def searched(search: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Search for scenes, print what was left out, and return the created mosaic."""
    given = {name: value for name, value in options.items() if value or name != "seasons"}
    created = extras.stac().create_mosaic(search, **given)
    for warning in created.warnings:
        click.echo(f"warning: {warning}", err=True)
    return created
