"""The embedded tiler as a context: processes that serve scenes, one per core, for the length of a block."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import certifi

from mosaic_async import errors
from mosaic_async.cloud.access import settings_for_gdal
from mosaic_async.cloud.address import is_address
from mosaic_async.errors import ResourceError, SourceError, UsageError
from mosaic_async.geo.matrix import MatrixSet
from mosaic_async.http.trust import trusted_files
from mosaic_async.raster import whole_file
from mosaic_async.raster.environment import undecided
from mosaic_async.sources.bad_scenes import DEFAULT
from mosaic_async.sources.band_label import BandLabel
from mosaic_async.sources.source import TileSource
from mosaic_async.tiler.address import held_socket
from mosaic_async.tiler.edge.limits import OWN_RUN, PUBLIC, Limits
from mosaic_async.tiler.nursery import Chore, Command, Nursery
from mosaic_async.tiler.share import Share
from mosaic_async.tiler.supervisor import Crew

if TYPE_CHECKING:  # their libraries take half a second, and only the tilers need them
    from mosaic_async.sources.signing import Signing
    from mosaic_async.tiler.scenes.mosaic import Mosaic

_ENVIRONMENT = {
    "GDAL_NUM_THREADS": "1",  # the processes use the cores
    "NUMEXPR_NUM_THREADS": "1",
    "GDAL_MAX_DATASET_POOL_SIZE": "450",  # files in the stacks that stay open
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # a COG's headers in one request
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "MALLOC_ARENA_MAX": "2",  # glibc keeps what threads free; see github.com/developmentseed/titiler/issues/1477
}
"""Settings of the tiler processes. The caller's environment overrides them, but for what changes pixels."""
_STREAMING = ("first", "newest", "oldest", "highest", "lowest")
"""Selections that hold one scene of a tile at a time."""
_AT_A_PLACE = 32
"""Scenes that a tile has at most, as a rule."""
_VALUE = 3
"""Bytes of a value of 16 bits with its validity."""
_FORMATS = ("tif", "png", "jpg", "webp", "npy")


@asynccontextmanager
async def local_tiler(
    mosaic: str | Path | Mosaic,
    *,
    bands: Sequence[str] = (),
    expression: str | None = None,
    pixel_selection: str = "first",
    rescale: Sequence[tuple[float, float]] = (),
    color_formula: str | None = None,
    resampling: str = "bilinear",
    tile_size: int = 512,
    tile_format: str = "tif",
    workers: int | None = None,
    rounding: bool = False,
    group_by: str = "acquisition",
    reflectance: str | None = None,
    alternate: str | None = None,
    cloud_mask: str | None = None,
    signing: Signing | None = None,
    crs: str | None = None,
    resolution: float | None = None,
    like: str | Path | None = None,
    max_bad_scenes: int | str = DEFAULT,
    home: Path | None = None,
    memory: int | None = None,
    headers: Mapping[str, str] | None = None,
    origins: Sequence[str] = (),
) -> AsyncIterator[TileSource]:
    """Serve scenes as tiles on this machine for the block, and yield their source.

    Args:
        mosaic: a MosaicJSON, STAC items or rasters in files, or a folder of either.
        bands: asset names of STAC items, or band numbers of plain files.
        expression: instead of bands, one formula per output band, separated by `;`.
        pixel_selection: how scenes that overlap are combined: first, newest, oldest, highest, lowest, mean, median,
            percentile:N, stdev, count, medoid, geomedian, lastbandlow, lastbandhigh.
        rescale: (lowest, highest) to stretch to 0 to 255, one for all bands or one per band.
        color_formula: such as `gamma RGB 3.5, saturation 1.7`, applied after `rescale`.
        resampling: nearest, bilinear, cubic, ...
        tile_size: width and height of a tile in pixels.
        tile_format: tif, png, jpg, webp or npy.
        workers: number of processes; None: one per core.
        rounding: round means, medians and percentiles of integers; otherwise truncate them.
        group_by: what counts once in means, medians and counts: an acquisition, a day, or every scene (`none`).
        reflectance: `float`, or `integer` for 10,000 times that in 16 bits; None: the stored counts.
        alternate: key of the hrefs to read of assets that have alternate ones, such as `s3`.
        cloud_mask: the quality band whose bad pixels are left out, such as `qa_pixel` or `fmask:values=2,4`.
        signing: renews signatures of scenes' URLs that expire during the run; None: Planetary Computer.
        crs: coordinate system of the tiles, such as EPSG:32633; None: Web Mercator. Scenes in this system and
            resolution are not resampled.
        resolution: width of a pixel, in units of `crs`.
        like: a raster file whose system, resolution and pixels are used, instead of both.
        max_bad_scenes: scenes that may be unusable and are left out, as a number or a share such as `5%`.
        home: a folder made for this run that holds the mosaic; its path does not count for resuming.
        headers: sent to the servers that the mosaic, or items in files, name, and to no others.
        origins: further servers that take the headers: scheme, host and port.
        memory: bytes for all processes together, which the source counts with the memory of a run; None: as much as
            they can use, at most 512 MiB per process, which no run counts.

    Raises:
        SourceError: the scenes cannot be read, or the tiler does not start.
        UsageError: a band or a name is not known.
    """
    if tile_format not in _FORMATS:
        raise UsageError(f"tile format {tile_format!r} is not known", hint=f"use one of {', '.join(_FORMATS)}")
    rendering = {
        "bands": bands,
        "expression": expression,
        "pixel_selection": pixel_selection,
        "rescale": rescale,
        "color_formula": color_formula,
        "resampling": resampling,
        "rounding": rounding,
        "group_by": group_by,
        "reflectance": reflectance,
        "alternate": alternate,
        "cloud_mask": cloud_mask,
    }
    grid = {"crs": crs, "resolution": resolution, "like": None if like is None else str(like), "tile_size": tile_size}
    secret = token_urlsafe(16)
    share = Share.of(memory, workers)
    async with _workshop(in_bucket=isinstance(mosaic, str) and is_address(mosaic)) as workshop:
        reading = {
            "max_bad_scenes": max_bad_scenes,
            "home": str(home) if home else None,
            "headers": dict(headers or {}),
            "origins": list(origins),
        }
        scenes = await workshop.open(mosaic, rendering=rendering, grid=grid, reading=reading)
        workshop.headers = headers or {}
        door = _Door(host="127.0.0.1", port=0, secret=secret)
        async with workshop.serving(scenes.hosts, door, share=share, signing=signing, limits=OWN_RUN) as url:
            name = scenes.grid.name if scenes.grid else "WebMercatorQuad"
            look = f"{tile_format}?tilesize={tile_size}&{scenes.query}"
            yield TileSource(
                template=f"{url}/tiles/{name}/{{z}}/{{x}}/{{y}}.{look}&access_token={secret}",
                tile_size=tile_size,
                minzoom=0 if scenes.grid else scenes.minzoom,
                maxzoom=scenes.grid.matrices[-1].zoom if scenes.grid else scenes.maxzoom,
                matrix_set=scenes.grid,
                bounds=scenes.bounds,
                notes=((f"scenes are read from {', '.join(scenes.hosts)}",) if scenes.hosts else ()) + scenes.notes,
                memory=share.total if memory else 0,
                usual_memory=_usual(share, scenes, pixel_selection, tile_size) if memory else 0,
                capacity=share.capacity if memory else None,
                bands=scenes.bands,
                origin=f"mosaic-async tiler: {look}",
                identity=f"local:{scenes.digest}/{look}",
            )


@asynccontextmanager
async def serve(
    mosaic: Mosaic,
    *,
    host: str,
    port: int,
    workers: int | None = None,
    secret: str | None = None,
    signing: Signing | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    limits: Limits = PUBLIC,
    shown: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """Run the processes for the block, and yield their common URL.

    A process that ends, hangs or takes too much memory is replaced.

    Args:
        mosaic: the scenes.
        host: address to listen on.
        port: port to listen on; 0: a free one.
        workers: number of processes; None: one per core.
        secret: the `access_token` that every request must have; None serves everybody.
        signing: renews signatures of scenes' URLs; None: Planetary Computer.
        hosts: names by which clients may call this server, beside `localhost`, `host` and IP addresses.
        origins: other sites whose pages may read the responses, such as `https://map.example`.
        limits: what one request may cost.
        shown: names of the bands that tiles will show; None: any.
        headers: sent to the servers that the mosaic names as its `origins`, and to no others.

    Raises:
        ResourceError: the address is taken.
        SourceError: a process does not start.
    """
    async with _workshop() as workshop:
        workshop.headers = headers or {}
        scenes = await workshop.open(mosaic, shown=shown, reading={"headers": dict(headers or {}), "origins": []})
        door = _Door(host=host, port=port, secret=secret, hosts=(host, *hosts), origins=tuple(origins))
        share = Share.of(None, workers)
        async with workshop.serving(scenes.hosts, door, share=share, signing=signing, limits=limits) as url:
            yield url


def _usual(share: Share, scenes: _Scenes, selection: str, tile_size: int) -> int:
    """Return the bytes that tilers take as a rule."""
    bands = max(1, len(scenes.bands))
    together = 1 if selection in _STREAMING else min(scenes.scenes, _AT_A_PLACE)
    return share.usual(files=scenes.scenes * bands, held=together * bands * tile_size**2 * _VALUE)


@dataclass(frozen=True, kw_only=True)
class _Door:
    """Where the tilers listen, and to whom."""

    host: str
    port: int
    """0: any that is free."""
    secret: str | None
    hosts: tuple[str, ...] = ("127.0.0.1",)
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Scenes:
    """What a run has to know of its scenes and their rendering."""

    query: str
    digest: str
    hosts: tuple[str, ...]
    minzoom: int
    maxzoom: int
    bounds: tuple[float, float, float, float]
    grid: MatrixSet | None
    """None: Web Mercator."""
    notes: tuple[str, ...]
    scenes: int
    bands: tuple[BandLabel, ...]


class _Workshop:
    """A folder with the mosaic, which only this user can open, and the processes that work on it."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self._file = folder / "mosaic.json"
        self._nursery = nursery
        self.headers: Mapping[str, str] = {}
        """For the servers of the scenes."""

    async def open(
        self,
        source: str | Path | Mosaic,
        *,
        rendering: Mapping[str, Any] | None = None,
        shown: Sequence[str] | None = None,
        grid: Mapping[str, Any] | None = None,
        reading: Mapping[str, Any] | None = None,
    ) -> _Scenes:
        """Return what is to be known of the scenes at a path, or in a mosaic.

        Raises:
            MosaicError: the scenes cannot be read, or not be rendered in this way.
        """
        place = str(source) if isinstance(source, (str, Path)) else None
        if not isinstance(source, (str, Path)):
            await asyncio.to_thread(self._keep, source)
        given = {
            "file": str(self._file),
            "source": place,
            "rendering": rendering,
            "shown": shown,
            "grid": grid,
            "reading": {**(reading or {}), "cache": str(_cache_folder())},
        }
        child = await self._nursery.run("open", given, is_short=True)
        try:
            written = await child.everything()
        finally:
            await child.kill()
        if not written:
            raise SourceError(f"the scenes cannot be opened: {await asyncio.to_thread(self._nursery.last_words)}")
        told = json.loads(written)
        if "error" in told:
            raise getattr(errors, told["error"])(told["message"], hint=told["hint"])
        own = MatrixSet.from_dict(told["grid"]) if told["grid"] else None
        lists = {name: tuple(told[name]) for name in ("hosts", "bounds", "notes")}
        labels = tuple(BandLabel(**label) for label in told["bands"])
        return _Scenes(**{**told, **lists, "grid": own, "bands": labels})

    def _keep(self, mosaic: Mosaic) -> None:
        whole_file.write(self._file, json.dumps(mosaic.as_dict()))

    @asynccontextmanager
    async def serving(
        self,
        scene_hosts: Sequence[str],
        door: _Door,
        *,
        share: Share,
        signing: Signing | None,
        limits: Limits,
    ) -> AsyncIterator[str]:
        """Run tilers for the block, and yield their common URL."""
        try:
            holder = held_socket(door.host, door.port)
        except OSError as error:
            raise ResourceError(
                f"cannot listen on {door.host}:{door.port}: {error.strerror}", hint="choose another ``port``"
            ) from error
        with holder:
            port = holder.getsockname()[1]
            given = {
                "file": str(self._file),
                "host": door.host,
                "port": port,
                "environment": {
                    name: value for name, value in _of_place(scene_hosts).items() if name not in os.environ
                },
                "headers": dict(self.headers),
                "signing": asdict(signing) if signing else {},
                "limits": asdict(limits),
                "share": asdict(share),
                "is_own": door.secret is not None,
                "door": {"hosts": door.hosts, "origins": door.origins, "secret": door.secret},
            }
            self._nursery.forks = share.processes - 1
            async with _running(Chore(self._nursery, "serve", given), share.processes):
                yield f"http://[{door.host}]:{port}" if ":" in door.host else f"http://{door.host}:{port}"


def _cache_folder() -> Path:
    """Return where the system keeps what a program can make again, see the XDG base directory specification."""
    usual = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "mosaic-async"


def _trust(folder: Path) -> dict[str, str]:
    """Return the settings that let the processes, and GDAL in them, trust the certificates that this process trusts."""
    if not (own := trusted_files()):
        return {}
    usual = [] if "SSL_CERT_FILE" in os.environ else [certifi.where()]
    together = folder / "trusted.pem"
    together.write_bytes(b"\n".join(Path(file).read_bytes() for file in (*usual, *own)))
    return {"SSL_CERT_FILE": str(together), "GDAL_CURL_CA_BUNDLE": str(together)}


def _of_place(hosts: Sequence[str]) -> dict[str, str]:
    """Return the settings that depend on where the scenes are."""
    if hosts:  # sidecar files would take a request each
        return {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE"}
    return {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", "VSI_CACHE": "FALSE"}


@asynccontextmanager
async def _workshop(*, in_bucket: bool = False) -> AsyncIterator[_Workshop]:
    """Yield a workshop that lasts for the block.

    Args:
        in_bucket: whether the scenes are certainly in an object store.
    """
    store = await asyncio.to_thread(settings_for_gdal, os.environ, is_needed=in_bucket)
    with TemporaryDirectory(prefix="mosaic-async-") as name:
        folder = Path(name)
        environment = {**_ENVIRONMENT, **undecided(os.environ), **await asyncio.to_thread(_trust, folder), **store}
        program = Command(("-m", "mosaic_async.tiler.server"), log=folder / "tiler.log", environment=environment)
        nursery = Nursery(program)
        try:
            await nursery.warm()
            yield _Workshop(folder, nursery)
        finally:
            await nursery.close()


@asynccontextmanager
async def _running(command: Chore, size: int) -> AsyncIterator[None]:
    """Run and watch processes for the block."""
    crew = Crew(command, size)
    try:
        await crew.start()
        watch = asyncio.create_task(crew.watch())  # ends with this block, which a group would wrap the errors of
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
    finally:
        await crew.stop()
