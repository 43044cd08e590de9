"""SOURCE, made ready: a tile URL, scenes behind the embedded tiler, or scenes behind the tiler of somebody else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from mosaic_async.build.job import Effort
from mosaic_async.cli import extras
from mosaic_async.cli.job_arguments import JobArguments
from mosaic_async.cli.parsing import split_list
from mosaic_async.cloud.address import is_address
from mosaic_async.errors import UsageError
from mosaic_async.http.trust import trusting
from mosaic_async.safety.redaction import learn
from mosaic_async.safety.safe_json import parse
from mosaic_async.sources.access import origins_of
from mosaic_async.sources.described import describes_tiles
from mosaic_async.sources.opening import opened_source, with_secrets
from mosaic_async.sources.placeholders import is_template
from mosaic_async.sources.rendering import Rendering
from mosaic_async.sources.source import TileSource
from mosaic_async.sources.stores.found import is_store
from mosaic_async.sources.tilers import rendered_by, with_rendering

_EMBEDDED_ONLY = ("rounding", "group_by", "reflectance", "alternate", "cloud_mask", "crs", "resolution", "like")
"""Renderings that no other tiler has."""


@asynccontextmanager
async def opened(source: str | Path, given: JobArguments) -> AsyncIterator[TileSource]:
    """Yield the source as the library takes it; the embedded tiler runs as long as the block.

    Args:
        source: what the user named, or the path of a mosaic that a search made for this run.
        given: the options.

    Raises:
        UsageError: the source does not exist, or the options do not fit it.
        SourceError: the source cannot be read.
    """
    learn(given.access["secrets"].values())
    _check_rendering(given)
    size, hosts = given.library.get("tile_size"), given.library["allow_hosts"]
    with trusting(given.access["ca"]):
        async with (
            _rendered(source, given, {"tile_size": size} if size else {}) as tiles,
            opened_source(tiles, **given.access, allow_hosts=hosts, tile_size=size) as found,
        ):
            for note in found.notes:
                click.echo(f"note: {note}", err=True)
            yield _in_dialect(found, given)


@asynccontextmanager
async def _rendered(
    source: str | Path, given: JobArguments, size: Mapping[str, int]
) -> AsyncIterator[str | TileSource]:
    """Yield a source that a tiler renders, or the place of tiles as it is."""
    name = str(source)
    if given.tiler:
        yield await _by_tiler(given.tiler, name, given, size)
    elif await asyncio.to_thread(is_tile_url, name):
        _check_tile_url(given)
        yield name
    elif given.dialect:
        raise UsageError("--dialect does not apply to the embedded tiler", hint="leave --dialect out, or set --tiler")
    else:
        memory = given.library.get("memory", Effort.memory) // 2  # the other half is the run's
        async with extras.tiler().local_tiler(name, **_tiler_options(source, given, size), memory=memory) as local:
            yield local


def tiler_on_workers(source: str | Path, given: JobArguments) -> tuple[str, dict[str, Any]] | None:
    """Return the scenes and the options of the embedded tiler, for others to start it; None if it is not needed."""
    if given.tiler or is_tile_url(str(source)):
        return None
    size = given.library.get("tile_size")
    name = str(source) if re.match(r"[a-z0-9]+://", str(source)) else str(Path(source).absolute())
    return name, _tiler_options(source, given, {"tile_size": size} if size else {})


def _tiler_options(source: str | Path, given: JobArguments, size: Mapping[str, int]) -> dict[str, Any]:
    return {
        **given.rendering,
        **size,
        "max_bad_scenes": given.max_bad_scenes,
        "home": source.parent if isinstance(source, Path) else None,
        "signing": extras.tiler().Signing(unsigned=True) if given.sign else None,
        "headers": given.access["headers"],
        "origins": origins_of([given.search.get("api") or ""]),
    }


async def _by_tiler(tiler: str, source: str, given: JobArguments, size: Mapping[str, int]) -> TileSource:
    return await rendered_by(
        with_secrets(tiler, given.access["secrets"]),
        source,
        rendering=_rendering(given),
        dialect=given.dialect,
        headers=given.access["headers"],
        creation=given.search,
        **size,
    )


def is_tile_url(source: str) -> bool:
    """Return whether the source is a URL template, a TileJSON or a store of tiles, and not scenes.

    Raises:
        UsageError: no such file, or it is not JSON.
    """
    is_url = is_template(source) or re.match(r"https?://", source, re.IGNORECASE) is not None
    if not is_url and is_address(source):
        return False
    return is_url or is_store(source) or _is_description(Path(source))


def _is_description(path: Path) -> bool:
    if not path.exists():
        raise UsageError(
            f"{path} not found",
            hint="SOURCE is a URL with {z}/{x}/{y}, a TileJSON, tiles on disk, a MosaicJSON, a search or scenes",
        )
    if path.suffix == ".xml":
        return True
    if path.is_dir() or path.suffix.lower() not in ("", ".json", ".geojson", ".tilejson"):
        return False
    try:
        document = parse(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    return isinstance(document, dict) and describes_tiles(document)


def _rendering(given: JobArguments) -> Rendering:
    """Return the rendering for a tiler that does not know the names of the scenes' bands: none has a comma or blank."""
    bands = tuple(band for value in given.rendering.get("bands", ()) for band in split_list(value))
    return Rendering(**{**given.rendering, "bands": bands})


def _check_rendering(given: JobArguments) -> None:
    own = [name for name in _EMBEDDED_ONLY if name in given.rendering]
    if own and (given.tiler or given.dialect):
        raise UsageError(f"only the embedded tiler has {_flags(own)}", hint="leave --tiler and --dialect out")


def _check_tile_url(given: JobArguments) -> None:
    if given.rendering and not given.dialect:
        raise UsageError(
            f"{_flags(given.rendering)} cannot be sent to a tile URL, whose server has its own parameters",
            hint="set them with --param, or set --dialect to the kind of tiler",
        )


def _in_dialect(source: TileSource, given: JobArguments) -> TileSource:
    """Return a tile URL with the rendering in the dialect of its tiler, if that is named."""
    if given.tiler or not given.dialect:
        return source
    return with_rendering(source, given.dialect, _rendering(given))


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names)
