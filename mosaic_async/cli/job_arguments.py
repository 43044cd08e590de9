"""What the options of `build` and `plan` mean: the area, the rendering, and arguments of the library.

It opens the files that options name, and knows nothing of the source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mosaic_async.build.failed_tiles import read_tiles
from mosaic_async.cli.area_file import area_in, extent_of
from mosaic_async.cli.options import RENDERING
from mosaic_async.cli.parsing import (
    HEADERS_VARIABLE,
    PARAMS_VARIABLE,
    SECRETS_VARIABLE,
    pairs_of,
)
from mosaic_async.cli.search_options import SEARCH
from mosaic_async.errors import UsageError
from mosaic_async.geo.listed_tiles import area_in_matrix, area_of_tiles
from mosaic_async.sources.bad_scenes import DEFAULT
from mosaic_async.sources.matrix_sets import matrix_set

_Area = Sequence[float] | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class JobArguments:
    """The options of a job, sorted by who takes them."""

    area: _Area
    tiler: str | None
    """URL of the tiler that renders the source; None: no other than the source itself or the embedded tiler."""
    dialect: str | None
    """Kind of that tiler; None: detected."""
    search: Mapping[str, Any]
    """Options of a search for scenes, those that were set."""
    max_bad_scenes: str
    """Scenes that may be left out, as a number or a share."""
    sign: bool
    """Whether blobs of Planetary Computer are signed when they are read."""
    rendering: Mapping[str, Any]
    """Arguments of `Rendering`, those that were set."""
    access: Mapping[str, Any]
    """How the source is opened: headers, params, secrets, ca."""
    library: Mapping[str, Any]
    """The other keyword arguments of `build_mosaic` or `plan_mosaic`."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Sort the options of a command.

        Raises:
            UsageError: the area is missing or given twice, or a file is not what its option takes.
        """
        left = dict(options)
        listed = _tiles(left)
        bounds, file = left.pop("bounds"), left.pop("area")
        if left.get("like") and (bounds, file, listed) == (None, None, None):
            area: _Area = extent_of(left["like"])
            left["clip"] = True
        else:
            area = _area(bounds, file, listed)
        left["creation_options"] = dict(left["creation_options"])
        return cls.of_source(left, area=area)

    @classmethod
    def of_source(cls, options: Mapping[str, Any], *, area: _Area = ()) -> Self:
        """Sort the options of a command that takes the area from somewhere else.

        Raises:
            UsageError: a file is not what its option takes.
        """
        left = dict(options)
        tiler, dialect = left.pop("tiler"), left.pop("dialect")
        rendering = {name: left.pop(name) for name in RENDERING}
        search = {name: value for name in SEARCH if (value := left.pop(name, None))}
        access = {
            "headers": pairs_of(left, "header", HEADERS_VARIABLE, ":"),
            "params": pairs_of(left, "param", PARAMS_VARIABLE, "="),
            "secrets": pairs_of(left, "secret", SECRETS_VARIABLE, "="),
            "ca": left.pop("ca"),
        }
        return cls(
            area=area,
            tiler=tiler,
            dialect=dialect,
            search=search,
            sign=left.pop("sign", False),
            max_bad_scenes=left.pop("max_bad_scenes", DEFAULT),
            rendering={name: value for name, value in rendering.items() if value},
            access=access,
            library=left,
        )


def _tiles(options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the area of the tiles that --tiles lists, whose zoom is the job's."""
    path: Path | None = options.pop("tiles")
    if path is None:
        return None
    grid = matrix_set(options["tms"]) if options.get("tms") else None
    listed = read_tiles(path, grid)
    zoom = listed[0].z
    if options["zoom"] not in (None, zoom):
        raise UsageError(f"{path} lists tiles of zoom {zoom}", hint="leave --zoom out")
    options["zoom"] = zoom
    is_other = grid is not None and not grid.is_mercator
    return area_in_matrix(listed, grid.matrix(zoom)) if grid and is_other else area_of_tiles(listed)


def _area(bounds: tuple[float, ...] | None, file: str | None, tiles: dict[str, Any] | None) -> _Area:
    if sum(given is not None for given in (bounds, file, tiles)) != 1:
        raise UsageError(
            "the area is missing or set twice",
            hint="set one of --bounds W S E N, --area, --tiles or, for scenes, --like",
        )
    if tiles is not None:
        return tiles
    return (bounds or ()) if file is None else area_in(file)
