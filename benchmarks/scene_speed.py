"""Scenes to one raster: this package against odc-stac, rio-tiler and GDAL's warper, on the same grid and scenes.

    python -m benchmarks.scene_speed [SCENES] --bounds W S E N --zoom Z [--bands B4 B3] [--selection first|median]
                                     [--resampling nearest|bilinear] [--crs EPSG:32621 --resolution 30] [--repeats 1]

Each contestant runs in its own process and writes a GeoTIFF on the grid of the tiles; ours is a COG with overviews.
They take turns. GDAL's warper runs through rasterio as `gdalwarp` runs it: scene by scene, with an error of an eighth
of a pixel. The table shows how many values differ from ours; docs/performance.md says why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mercantile
import numpy as np
import rasterio
import rasterio.transform
from rasterio.enums import Resampling

from benchmarks.measure import run

_SCENES = Path(__file__).parents[2] / "shared/data/landsat8-parana-2020"
_SIZE = 512


@dataclass(frozen=True)
class Task:
    """What all contestants make."""

    scenes: Path
    bounds: tuple[float, float, float, float]
    """West, south, east, north in degrees."""
    zoom: int
    bands: tuple[str, ...]
    selection: str
    resampling: str
    output: Path
    native: tuple[str, float] | None = None
    """Coordinate system and pixel width of the scenes; None: Web Mercator."""
    like: Path | None = None
    """Our output, whose grid the others take."""

    @property
    def tiles(self) -> list[mercantile.Tile]:
        """All tiles of the area."""
        return list(mercantile.tiles(*self.bounds, zooms=[self.zoom]))

    @property
    def grid(self) -> tuple[Any, Any, int, int]:
        """Coordinate system, transform, width and height of the output."""
        with rasterio.open(self.like) as made:
            return made.crs, made.transform, made.width, made.height

    @property
    def items(self) -> list[Path]:
        """Items in the order of their paths, as this package takes them."""
        return [path for path in sorted(self.scenes.rglob("*.json")) if path.name != "collection.json"]

    def write(self, pixels: np.ndarray, valid: np.ndarray) -> None:
        """Write a GeoTIFF with an internal mask."""
        crs, transform, width, height = self.grid
        options = {"driver": "GTiff", "tiled": True, "compress": "deflate", "predictor": 2, "zlevel": 1}
        size = {"count": len(pixels), "width": width, "height": height, "dtype": pixels.dtype}
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(self.output, "w", crs=crs, transform=transform, **options, **size) as file,
        ):
            file.write(pixels)
            file.write_mask(valid)


def ours(task: Task) -> list[str]:
    """Return the command as a user would type it."""
    grid = (
        ("--crs", task.native[0], "--resolution", repr(task.native[1])) if task.native else ("--zoom", str(task.zoom))
    )
    return [
        *(sys.executable, "-m", "mosaic_async", "build", str(task.scenes), str(task.output), "-q"),
        *("--bounds", *map(repr, task.bounds), *grid, "--tile-size", str(_SIZE)),
        *("--bands", ",".join(task.bands), "--pixel-selection", task.selection, "--resampling", task.resampling),
    ]


def combined(stack: list[tuple[np.ndarray, np.ndarray]], selection: str) -> tuple[np.ndarray, np.ndarray]:
    """Combine whole scenes, pixels and validity, in plain NumPy."""
    if selection == "median":
        masked = np.ma.stack([np.ma.MaskedArray(data, ~valid) for data, valid in stack])
        made = np.ma.median(masked, axis=0)
        return made.filled(0).astype(stack[0][0].dtype), ~np.ma.getmaskarray(made).any(axis=0)
    data, valid = (array.copy() for array in stack[0])
    for other, there in stack[1:]:
        fill = there & ~valid
        data[fill] = other[fill]
        valid |= there
    return data, valid.all(axis=0)


def rio_tiler(task: Task) -> None:
    """Read tile after tile with rio-tiler's mosaic reader."""
    from rio_tiler.errors import EmptyMosaicError, TileOutsideBounds
    from rio_tiler.io import STACReader
    from rio_tiler.mosaic import mosaic_reader
    from rio_tiler.mosaic.methods import PixelSelectionMethod

    def read(item: str, x: int, y: int, z: int) -> Any:
        with STACReader(item) as reader:
            return reader.tile(
                *(x, y, z),
                assets=list(task.bands),
                tilesize=_SIZE,
                padding=2,
                resampling_method=task.resampling,
                reproject_method=task.resampling,
            )

    crs, transform, width, height = task.grid
    if task.native:
        bounds = rasterio.transform.array_bounds(height, width, transform)
        options = {"bounds_crs": crs, "dst_crs": crs, "width": width, "height": height}
        images = []
        for item in task.items:
            with STACReader(str(item)) as reader:
                images.append(reader.part(bounds, assets=list(task.bands), **options).array)
        task.write(*combined([(image.data, ~np.ma.getmaskarray(image)) for image in images], task.selection))
        return
    left, top = min(tile.x for tile in task.tiles), min(tile.y for tile in task.tiles)
    pixels, valid = np.zeros((len(task.bands), height, width), "uint16"), np.zeros((height, width), bool)
    for tile in task.tiles:
        method = PixelSelectionMethod[task.selection].value
        try:
            image, _ = mosaic_reader(
                *([str(item) for item in task.items], read, *tile),
                pixel_selection=method,
                threads=1,
                allowed_exceptions=(TileOutsideBounds,),
            )
        except EmptyMosaicError:
            continue
        place = np.s_[
            (tile.y - top) * _SIZE : (tile.y - top + 1) * _SIZE, (tile.x - left) * _SIZE : (tile.x - left + 1) * _SIZE
        ]
        pixels[:, *place] = image.data
        valid[place] = ~np.ma.getmaskarray(image.array).any(axis=0)
    task.write(pixels, valid)


def odc_stac(task: Task) -> None:
    """Load all scenes with odc-stac, each by itself, and combine them."""
    import odc.stac
    from odc.geo.geobox import GeoBox
    from pystac import Item

    crs, transform, width, height = task.grid
    box = GeoBox((height, width), transform, str(crs))
    items = [Item.from_file(item) for item in task.items]
    for item in items:
        item.make_asset_hrefs_absolute()
    options = {"geobox": box, "resampling": task.resampling, "groupby": "id", "nodata": 0, "pool": 2}
    stack = []
    for item in items:
        loaded = odc.stac.load([item], bands=task.bands, **options)
        data = np.stack([loaded[band].values[0] for band in task.bands])
        stack.append((data, data != 0))
    task.write(*combined(stack, task.selection))


def gdal(task: Task) -> None:
    """Warp each band of each scene with GDAL's warper."""
    from rasterio.warp import reproject

    crs, transform, width, height = task.grid
    stack = []
    for item in task.items:
        data = np.zeros((len(task.bands), height, width), "uint16")
        for number, band in enumerate(task.bands):
            with rasterio.open(next(item.parent.glob(f"*_{band}.tif"))) as source:
                reproject(
                    *(rasterio.band(source, 1), data[number]),
                    dst_transform=transform,
                    dst_crs=crs,
                    src_nodata=0,
                    dst_nodata=0,
                    resampling=Resampling[task.resampling],
                    num_threads=2,
                )
        stack.append((data, data != 0))
    task.write(*combined(stack, task.selection))


_CONTESTANTS: dict[str, Callable[[Task], None]] = {"rio-tiler": rio_tiler, "odc-stac": odc_stac, "GDAL": gdal}


def compare(task: Task, repeats: int) -> None:
    """Print a line per contestant: the best of its runs, and how its values differ from ours."""
    measured: dict[str, list[tuple[float, float, int]]] = {}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    grid = task.output.with_name("grid.tif")
    for _ in range(repeats):
        for name in ("ours", *_CONTESTANTS):
            done = run(ours(task) if name == "ours" else _rival(name, task, grid))
            if done.problem:
                print(f"{name:<14}{done.problem}")
                continue
            measured.setdefault(name, []).append((done.wall, done.cpu, done.peak_rss))
            with rasterio.open(task.output) as made:
                found[name] = (made.read(), made.dataset_mask() > 0)
            task.output.replace(grid) if name == "ours" else task.output.unlink()
    height, width = found["ours"][1].shape
    print(
        f"{task.scenes.name}: {len(task.items)} scenes, {width} x {height} pixels of {task.native or f'z{task.zoom}'}"
    )
    print(f"{task.selection + ', ' + task.resampling:<18}{'wall s':>8}{'CPU s':>8}{'MiB':>7}  compared with ours")
    for name, runs in measured.items():
        wall, cpu, rss = (min(values) for values in zip(*runs, strict=True))
        told = "" if name == "ours" else _difference(found["ours"], found[name])
        print(f"{name:<18}{wall:>8.1f}{cpu:>8.1f}{rss / 2**20:>7.0f}  {told}")


def _rival(name: str, task: Task, grid: Path) -> list[str]:
    this = [sys.executable, "-m", "benchmarks.scene_speed", *sys.argv[1:]]
    return [*this, "--run", name, "--output", str(task.output), "--like", str(grid)]


def _difference(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> str:
    both = one[1] & other[1]
    away = np.abs(one[0][:, both].astype(int) - other[0][:, both])
    near = (away <= 1).mean() if away.size else 1.0
    return (
        f"{(away == 0).mean():.3%} equal, {near:.3%} within 1, largest {away.max(initial=0)}; "
        f"{(one[1] & ~other[1]).sum():,} pixels only in ours, {(other[1] & ~one[1]).sum():,} only there"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, and run one contestant or all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenes", type=Path, nargs="?", default=_SCENES)
    parser.add_argument("--bounds", type=float, nargs=4, default=(-54.8, -25.45, -54.55, -25.25))
    parser.add_argument("--zoom", type=int, default=12)
    parser.add_argument("--bands", nargs="+", default=["B4", "B3", "B2"])
    parser.add_argument("--selection", choices=["first", "median"], default="first")
    parser.add_argument("--resampling", choices=["nearest", "bilinear"], default="bilinear")
    parser.add_argument("--crs", help="coordinate system of the scenes, for their own pixels instead of tiles")
    parser.add_argument("--resolution", type=float, help="width of these pixels")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--run", choices=list(_CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--like", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        task = Task(
            scenes=given.scenes,
            bounds=tuple(given.bounds),
            zoom=given.zoom,
            bands=tuple(given.bands),
            selection=given.selection,
            resampling=given.resampling,
            output=given.output or Path(folder) / "out.tif",
            native=(given.crs, given.resolution) if given.crs else None,
            like=given.like,
        )
        if given.run:
            _CONTESTANTS[given.run](task)
        else:
            compare(task, given.repeats)


if __name__ == "__main__":
    main()
