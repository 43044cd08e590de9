"""A folder of tiles: `z/x/y.png` with rows from the north, `z/x/-y` of gdal2tiles, or a template of paths.

It knows nothing of what is in the tiles.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.geo.cover import MAX_ZOOM, Tile
from mosaic_async.geo.matrix import web_mercator
from mosaic_async.sources.grid_signs import is_web_mercator
from mosaic_async.sources.placeholders import check_placeholders, fill, is_template, unstated
from mosaic_async.sources.stores.store import Store, UnreadableError

_EXTENSIONS = ("png", "jpg", "jpeg", "webp", "tif", "tiff", "npy", "jp2")
_TMS = "tilemapresource.xml"
"""Written beside tiles whose rows are counted from the south, by gdal2tiles and MapTiler."""
_SRS = re.compile(r"<SRS>\s*([^<]*?)\s*</SRS>", re.IGNORECASE)
_PROFILE = re.compile(r"<TileSets\s+profile=[\"']([^\"']+)", re.IGNORECASE)
_FROM_NORTH = "rows of {} are read from the north (XYZ); for rows from the south, write {}/{{z}}/{{x}}/{{-y}}.{}"


def is_folder_of_tiles(path: Path) -> bool:
    """Return whether a folder has tiles at z/x/y with an extension of images; blocks."""
    return path.is_dir() and any(True for zoom in _zooms(path) for _ in _tiles(path / str(zoom)))


@asynccontextmanager
async def folder_store(location: str) -> AsyncIterator[Store]:
    """Yield the store of a folder, or of a template of paths.

    Raises:
        UsageError: the template has no place for a tile.
        SourceError: the folder has no tiles.
    """
    yield await asyncio.to_thread(_store, location)


def _store(location: str) -> Store:
    if is_template(location):
        return _of_template(location)
    folder = Path(location)
    sample = next((tile for zoom in _zooms(folder) for tile in _tiles(folder / str(zoom))), None)
    if sample is None:
        raise SourceError(f"{folder} has no tiles", hint="tiles are at z/x/y, such as 7/64/44.png")
    is_south_up, grid = _tile_map(folder)
    extensions = tuple(dict.fromkeys((sample.suffix[1:], *_EXTENSIONS, *map(str.upper, _EXTENSIONS))))
    row = "{-y}" if is_south_up else "{y}"
    templates = tuple(f"{folder.resolve()}/{{z}}/{{x}}/{row}.{extension}" for extension in extensions)
    zooms = sorted(_zooms(folder))
    note = () if is_south_up else (_FROM_NORTH.format(location, location, extensions[0]),)
    return Store(
        read=lambda tile: asyncio.to_thread(_read, templates, tile),
        identity=f"{Path(templates[0]).as_uri()}",
        zooms=(zooms[0], zooms[-1]),
        grid=grid,
        notes=note,
    )


def _of_template(template: str) -> Store:
    if missing := unstated(template):
        raise UsageError(
            f"the path of tiles has no {', '.join(f'{{{name}}}' for name in missing)}",
            hint="it looks like folder/{z}/{x}/{y}.png, or {-y} for rows from the south",
        )
    check_placeholders(template)
    base = Path(template.partition("{")[0]).resolve()
    top = base if template.partition("{")[0].endswith("/") else base.parent
    if not top.is_dir():
        raise SourceError(f"{top} is not a folder", hint="check the path before the first placeholder")
    path = str(Path(template).absolute())
    return Store(
        read=lambda tile: asyncio.to_thread(_read, (path,), tile),
        identity=Path(path).as_uri(),
        zooms=_bounds_of(_zooms(top)) if "/{z}/" in template else None,
    )


def _bounds_of(zooms: Iterator[int]) -> tuple[int, int] | None:
    found = sorted(zooms)
    return (found[0], found[-1]) if found else None


def _read(templates: tuple[str, ...], tile: Tile) -> bytes | None:
    """Return the first file that exists; None without one."""
    for template in templates:
        try:
            return Path(fill(template, tile, web_mercator(tile.z), size=None, matrices={})).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UnreadableError(f"{error.filename}: {error.strerror}") from error
    return None


def _zooms(folder: Path) -> Iterator[int]:
    """Yield the zooms that a folder has, in any order."""
    for path in folder.iterdir():
        if _is_number(path.name) and int(path.name) <= MAX_ZOOM and path.is_dir():
            yield int(path.name)


def _tiles(zoom: Path) -> Iterator[Path]:
    for column in zoom.iterdir():
        if _is_number(column.name) and column.is_dir():
            for tile in column.iterdir():
                if _is_number(tile.stem) and tile.suffix[1:].lower() in _EXTENSIONS:
                    yield tile


def _is_number(name: str) -> bool:
    """Return whether a name is a number as paths of tiles write it: in ASCII, and without leading zeros."""
    return name.isascii() and name.isdecimal() and name == str(int(name))


def _tile_map(folder: Path) -> tuple[bool, str | None]:
    """Return whether a folder states that its rows are counted from the south, and which other grid it has, if any."""
    try:
        text = (folder / _TMS).read_text(errors="replace")
    except FileNotFoundError:
        return False, None
    profile, system = (found[1] if (found := part.search(text)) else "" for part in (_PROFILE, _SRS))
    if profile and not profile.lower().endswith("mercator"):
        return True, f"the {profile} profile"
    return True, None if not system or is_web_mercator(system) else system
