"""From a search to a MosaicJSON: seasons, one scene per path and row, cap and order (extra `stac`).

It knows nothing of pixels. The same search and options return the same document, with the same name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.geo.cover import MAX_ZOOM, WORLD
from mosaic_async.raster import whole_file
from mosaic_async.sources.bad_scenes import DEFAULT, BadScenes
from mosaic_async.sources.footprint import outline_of, reach_of
from mosaic_async.sources.item_files import OnBad, Scene
from mosaic_async.sources.item_folder import paths_in, write_items
from mosaic_async.sources.outlines import capped_cells, cell_count, cells_of, mosaic_document
from mosaic_async.sources.seasons import SEASONS, read_seasons, season_of
from mosaic_async.sources.signing import Signer, reader_pays
from mosaic_async.sources.stac_query import Search, moment_of, one_per_place
from mosaic_async.stac.items import search_api, search_files
from mosaic_async.stac.provenance import feature_of

_ZOOM_SPAN = 5
"""Zooms from minzoom to maxzoom, where only one of them is known: 7 to 12 for Landsat."""
_INDEX_LEVELS = 3
"""Zooms between the data's own and the cells': a cell of 8 x 8 tiles lists few scenes that do not touch a tile."""
_FINE_ENOUGH = 6
"""Zoom of cells, 600 km wide, that is fine enough for all data."""
_MAX_ENTRIES = 250_000
"""Maximum number of names in a document; where there would be more, the cells are coarser."""
_METRES_PER_DEGREE = WORLD / 360
_DEFAULT_MAXZOOM = 12


@dataclass(frozen=True, kw_only=True)
class CreatedMosaic:
    """A MosaicJSON and the scenes that it lists."""

    document: dict[str, Any]
    """MosaicJSON 0.0.3; `name` is the same for the same search and options."""
    scenes: dict[str, Any]
    """GeoJSON FeatureCollection: id, datetime and footprint of each scene that a cell lists."""
    warnings: tuple[str, ...] = ()
    """What was left out and what expires, in words for people."""
    bad: Mapping[str, str] = field(default_factory=dict)
    """Why a scene is malformed and left out, by its path or name."""


@dataclass(frozen=True)
class _Placed:
    """A scene, its name in the mosaic, and what it covers."""

    scene: Scene
    name: str
    outline: Any
    """A shapely geometry in degrees."""
    reach: Any
    """The same with a margin: pixels of the scene are nowhere else."""


def create_mosaic(
    search: Mapping[str, Any] | Search,
    *,
    api: str | None = None,
    items: str | Path | None = None,
    collections: Sequence[str] = (),
    seasons: Sequence[str] = SEASONS,
    optimized_selection: bool = False,
    max_scenes: int | None = None,
    max_per_cell: int | None = None,
    minzoom: int | None = None,
    maxzoom: int | None = None,
    quadkey_zoom: int | None = None,
    asset: str | None = None,
    keep_items: str | Path | None = None,
    signer: Signer | None = None,
    headers: Mapping[str, str] | None = None,
    attempts: int = 5,
    max_bad_scenes: int | str = DEFAULT,
) -> CreatedMosaic:
    """Search for scenes and return a MosaicJSON of them. It blocks; run it in a thread beside a loop.

    Args:
        search: as for `POST /search` of a STAC API 1.0, or of SAT-API, whose words are translated.
        api: URL of the STAC API to search.
        items: files to search instead: a folder, a catalogue, an item collection, stac-geoparquet.
        collections: replace those of the search.
        seasons: to keep: winter, spring, summer, autumn, by month and by the scene's hemisphere.
        optimized_selection: keep the first scene per WRS path and row, in the order of the search.
        max_scenes: maximum number of scenes; the first are kept; None: all.
        max_per_cell: maximum number of scenes per cell; the first are listed; None: all.
        minzoom: of the mosaic; None: five below `maxzoom`.
        maxzoom: zoom at which tiles of 256 pixels have the data's own resolution; None: that of the items, or 12.
        quadkey_zoom: of the cells; None: three below `maxzoom`, or coarser if the document would be large.
        asset: list the files of this asset instead of the items, for tilers that read plain files.
        keep_items: write the items into this folder, with absolute hrefs that can be opened, and list these files, so
            that rendering does not require the API. Signatures in them expire within the hour.
        signer: signs hrefs of Planetary Computer; None: `signing.Signer()`.
        headers: sent to the API.
        attempts: maximum per page of the API.
        max_bad_scenes: scenes that may be malformed and are left out, as a number or a share such as `5%`.

    Raises:
        UsageError: the search or an option is malformed, or options exclude each other.
        SourceError: the API or the files cannot be read, or no scene matches.
    """
    parsed = search if isinstance(search, Search) else Search.parse(search, of_files=items is not None)
    wanted = parsed.within(collections)
    kept_seasons = read_seasons(seasons)
    if (api is None) == (items is None):
        raise UsageError("scenes come from an API or from files", hint="set either ``api`` or ``items``")
    if asset is not None and keep_items is not None:
        raise UsageError("a mosaic lists items or the files of an asset", hint="omit ``asset`` or ``keep_items``")
    warnings: list[str] = []
    bad = BadScenes(max_bad_scenes)
    found: Iterable[Scene] = (
        search_api(api, wanted, headers=headers, attempts=attempts, on_bad=bad.add)
        if api
        else search_files(items or "", wanted, on_bad=bad.add)
    )
    scenes = _in_order(found, wanted)
    total = len(scenes)
    names = paths_in(Path(keep_items), scenes) if keep_items is not None else [_name(one, asset) for one in scenes]
    placed = [one for scene, name in zip(scenes, names, strict=True) if (one := _placed(scene, name, bad.add))]
    bad.check(len(placed))
    if kept_seasons != frozenset(SEASONS):
        placed = [one for one in placed if _season(one) in kept_seasons]
    if optimized_selection:
        placed = one_per_place(placed, lambda one: one.scene.item)
    if max_scenes and len(placed) > max_scenes:
        warnings.append(f"{len(placed):,} scenes match; only the first {max_scenes:,} are used")
        placed = placed[:max_scenes]
    if not placed:
        raise SourceError(
            "the search matched no scenes" + (f" ({total:,} before seasons)" if total else ""),
            hint="widen the search: dates, clouds, ``seasons``, ``collections``",
        )
    zooms = _zooms(placed, minzoom, maxzoom, quadkey_zoom)
    options = {
        "seasons": sorted(kept_seasons), "optimized_selection": optimized_selection, "max_scenes": max_scenes,
        "max_per_cell": max_per_cell, "zooms": [minzoom, maxzoom, quadkey_zoom], "asset": asset,
    }  # fmt: skip
    document = _document(placed, zooms, max_per_cell, warnings, asset)
    document["name"] = _digest({"search": wanted.body(), **options})
    if any(reader_pays(one.scene.item) for one in placed):
        warnings.append(
            "these scenes lie in a requester-pays bucket: set AWS_REQUEST_PAYER=requester where tiles are rendered"
        )
    if keep_items is not None:
        warnings += _keep(placed, signer or Signer())
    return CreatedMosaic(
        document=document, scenes=_collection(placed, document), warnings=(*warnings, *bad.notes), bad=bad.reasons
    )


def _placed(scene: Scene, name: str, on_bad: OnBad) -> _Placed | None:
    try:
        return _Placed(scene, name, outline_of(scene.item), reach_of(scene.item))
    except SourceError as error:
        on_bad(str(scene.item["id"]), error)
        return None


def _in_order(found: Iterable[Scene], wanted: Search) -> list[Scene]:
    """Sort again: servers leave the order of equal items open, and then the same search makes another mosaic."""
    scenes = list(found)
    by_item = {id(scene.item): scene for scene in scenes}
    return [by_item[id(item)] for item in wanted.ordered(scene.item for scene in scenes)]


def _name(scene: Scene, asset: str | None) -> str:
    if asset is not None:
        return scene.asset(asset)
    if scene.location is None:
        raise UsageError(
            f"the item {scene.item.get('id')} has no file or URL of its own that a mosaic could list",
            hint="set ``asset`` to the asset whose files to list, or ``keep_items`` to a folder",
        )
    return scene.location


def _keep(placed: Sequence[_Placed], signer: Signer) -> list[str]:
    """Write items with hrefs that can be opened; return a warning if these expire."""
    write_items(((one.name, one.scene) for one in placed), signer, whole_file.write)
    if signer.ends is None:
        return []
    ends = datetime.fromtimestamp(signer.ends, UTC)
    return [f"the signatures of the scenes expire at {ends:%H:%M} UTC; repeat this command after that"]


def _season(placed: _Placed) -> str | None:
    """Return the season of a scene; None without a date."""
    moment = moment_of(placed.scene.item)
    _, south, _, north = placed.outline.bounds
    return season_of(moment.month, (south + north) / 2) if moment else None


def _zooms(
    placed: Sequence[_Placed], minzoom: int | None, maxzoom: int | None, quadkey_zoom: int | None
) -> tuple[int, int, int]:
    """Return minzoom, maxzoom and the zoom of the cells; chooses those not set."""
    top = _native_zoom(placed) if maxzoom is None else maxzoom
    low = max(0, top - _ZOOM_SPAN) if minzoom is None else minzoom
    if not 0 <= low <= top <= MAX_ZOOM:
        raise UsageError(
            f"zooms {low} to {top} are not a range from 0 to {MAX_ZOOM}", hint="change ``minzoom`` or ``maxzoom``"
        )
    if quadkey_zoom is not None:
        if not 0 <= quadkey_zoom <= top:
            raise UsageError(f"the zoom of the cells is {quadkey_zoom}", hint=f"set ``quadkey_zoom`` to 0 to {top}")
        return low, top, quadkey_zoom
    reaches = [one.reach for one in placed]
    cells = max(min(top, _FINE_ENOUGH), top - _INDEX_LEVELS)
    while cells > 0 and cell_count(reaches, cells) > _MAX_ENTRIES:
        cells -= 1
    return low, top, cells


def _native_zoom(placed: Sequence[_Placed]) -> int:
    """Return the zoom whose 256-pixel tiles are nearest to the median resolution of the items."""
    zooms = []
    for one in placed:
        try:
            metres = _resolution(one.scene.item)
        except (IndexError, TypeError, ValueError) as error:
            raise SourceError(f"{one.scene.item['id']} has a malformed proj:transform or gsd: {error}") from error
        if metres is not None:
            _, south, _, north = one.outline.bounds
            stretched = metres / max(math.cos(math.radians((south + north) / 2)), 0.05)
            zooms.append(math.log2(WORLD / 256 / stretched))
    return min(max(round(median(zooms)), 0), MAX_ZOOM) if zooms else _DEFAULT_MAXZOOM


def _resolution(item: Mapping[str, Any]) -> float | None:
    """Return metres per pixel, the finest of all assets, from the projection's transform or else from gsd."""
    properties = item.get("properties") or {}
    holders = [properties, *(item.get("assets") or {}).values()]
    transforms = [holder["proj:transform"] for holder in holders if holder.get("proj:transform")]
    sizes = [abs(float(transform[0])) or abs(float(transform[1])) for transform in transforms]
    sizes = [size * _METRES_PER_DEGREE if size < 0.1 else size for size in sizes]
    sizes = sizes or [float(holder["gsd"]) for holder in holders if holder.get("gsd")]
    return min((size for size in sizes if 0 < size < math.inf), default=None)


def _document(
    placed: Sequence[_Placed], zooms: tuple[int, int, int], cap: int | None, warnings: list[str], asset: str | None
) -> dict[str, Any]:
    quadkey_zoom = zooms[2]
    outlines = [one.outline for one in placed]
    cells = capped_cells(outlines, [one.reach for one in placed], quadkey_zoom, cap)
    tiles = {key: [placed[index].name for index in indices] for key, indices in cells.items()}
    if cap:
        warnings += _cut(cells_of(outlines, quadkey_zoom), cap)
    return mosaic_document(outlines, zooms, tiles, name="", asset_type="COG" if asset else "STAC")


def _cut(cells: Mapping[str, Sequence[int]], cap: int) -> list[str]:
    """Return a warning if a cap leaves scenes out of cells that their footprints touch."""
    counts = [len(found) for found in cells.values()]
    if not (cut := sum(count > cap for count in counts)):
        return []
    return [
        f"{cut:,} of {len(counts):,} cells have more than {cap} scenes, up to {max(counts)}; only the first are listed"
    ]


def _collection(placed: Sequence[_Placed], document: Mapping[str, Any]) -> dict[str, Any]:
    listed = {name for names in document["tiles"].values() for name in names}
    return {
        "type": "FeatureCollection",
        "features": [feature_of(one.scene.item, one.outline, one.name) for one in placed if one.name in listed],
    }


def _digest(request: Mapping[str, Any]) -> str:
    """Return the name of a request: 56 hexadecimal digits, as awspds-mosaic's are."""
    return hashlib.sha224(json.dumps(request, sort_keys=True).encode()).hexdigest()
