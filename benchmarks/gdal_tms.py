"""GDAL at its best: the TMS mini-driver in large swaths to a tiled GeoTIFF, then the COG driver.

The direct way, `-of COG` from the endpoint, fetches one tile at a time, and twice what does not fit into the block
cache; nobody who measures would use it. Through rasterio's GDAL, or with `--cli` through `gdal_translate`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from benchmarks.bodies import HALF_WORLD
from benchmarks.job import LEFT, TILE_SIZE, TOP, ZOOM, Job, parse_job

_SWATH = 200_000_000
_CONFIG = {"GDAL_SWATH_SIZE": str(_SWATH), "GDAL_TIFF_INTERNAL_MASK": "YES", "GDAL_NUM_THREADS": "ALL_CPUS"}
_COG = {"NUM_THREADS": "ALL_CPUS", "BIGTIFF": "IF_SAFER", "BLOCKSIZE": "512", "OVERVIEW_RESAMPLING": "AVERAGE"}
_TILED = {
    "TILED": "YES",
    "BLOCKXSIZE": "512",
    "BLOCKYSIZE": "512",
    "INTERLEAVE": "PIXEL",
    "BIGTIFF": "IF_SAFER",
    "ALPHA": "NO",
}


def service(job: Job) -> str:
    """Describe the endpoint to the TMS driver: the rectangle as one raster whose blocks are the tiles."""
    side = 2 * HALF_WORLD / 2**ZOOM
    west, north = LEFT * side - HALF_WORLD, HALF_WORLD - TOP * side
    url = job.template.replace("{z}", str(ZOOM)).replace("{x}", "${x}").replace("{y}", "${y}")
    return f"""<GDAL_WMS>
  <Service name="TMS"><ServerUrl>{escape(url)}</ServerUrl></Service>
  <DataWindow>
    <UpperLeftX>{west}</UpperLeftX><UpperLeftY>{north}</UpperLeftY>
    <LowerRightX>{west + job.columns * side}</LowerRightX><LowerRightY>{north - job.rows * side}</LowerRightY>
    <SizeX>{job.width}</SizeX><SizeY>{job.height}</SizeY>
    <TileX>{LEFT}</TileX><TileY>{TOP}</TileY><TileLevel>0</TileLevel><YOrigin>top</YOrigin>
  </DataWindow>
  <Projection>EPSG:3857</Projection>
  <BlockSizeX>{TILE_SIZE}</BlockSizeX><BlockSizeY>{TILE_SIZE}</BlockSizeY>
  <BandsCount>4</BandsCount><DataType>Byte</DataType>
  <MaxConnections>{job.concurrency}</MaxConnections><ZeroBlockHttpCodes>204,404</ZeroBlockHttpCodes>
</GDAL_WMS>"""


def masked(source: Path, job: Job) -> str:
    """Describe the downloaded raster with its last band as mask."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{color}</ColorInterp>'
        f"{_simple(source, band)}</VRTRasterBand>"
        for band, color in enumerate(("Red", "Green", "Blue"), start=1)
    )
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{_simple(source, 4)}</VRTRasterBand></MaskBand>'
    with rasterio.open(source) as dataset:
        geo = ",".join(repr(value) for value in dataset.transform.to_gdal())
    return (
        f'<VRTDataset rasterXSize="{job.width}" rasterYSize="{job.height}"><SRS>EPSG:3857</SRS>'
        f"<GeoTransform>{geo}</GeoTransform>{bands}{mask}</VRTDataset>"
    )


def _simple(source: Path, band: int) -> str:
    name = f"<SourceFilename>{escape(str(source))}</SourceFilename>"
    return f"<SimpleSource>{name}<SourceBand>{band}</SourceBand></SimpleSource>"


def build(job: Job, *, cli: bool) -> dict[str, float]:
    """Run both steps and return the seconds of each."""
    started = time.monotonic()
    endpoint, tiled = job.output.with_suffix(".xml"), job.output.with_suffix(".tiled.tif")
    endpoint.write_text(service(job))
    if cli:
        _translate(endpoint, tiled, "GTiff", _TILED, cli=True)
    else:
        _download(endpoint, tiled)
    downloaded = time.monotonic()
    view = job.output.with_suffix(".vrt")
    view.write_text(masked(tiled, job))
    _translate(view, job.output, "COG", {**_COG, "COMPRESS": job.profile.upper()}, cli=cli)
    finished = time.monotonic()
    for path in (endpoint, tiled, view):
        path.unlink()
    return {"download": downloaded - started, "finish": finished - downloaded}


def _download(endpoint: Path, tiled: Path) -> None:
    """Copy in swaths, band by band: the driver fetches a window's tiles at once only for a single band.

    Copied whole, GDAL reads this pixel-interleaved source block by block, so one tile at a time: 144 s for 576 tiles at
    200 ms. The first band of a swath fetches its tiles, the others find them in the block cache.
    """
    options = {name.lower(): value for name, value in _TILED.items() if name != "ALPHA"}
    with rasterio.Env(**_CONFIG), rasterio.open(endpoint) as source:
        profile = {name: source.profile[name] for name in ("width", "height", "count", "dtype", "crs", "transform")}
        with rasterio.open(tiled, "w", driver="GTiff", **profile, **options, alpha="NO") as target:
            rows = max(1, _SWATH // (source.width * source.count * TILE_SIZE)) * TILE_SIZE
            for row_off in range(0, source.height, rows):
                window = Window(0, row_off, source.width, min(rows, source.height - row_off))
                target.write(np.stack([source.read(band, window=window) for band in source.indexes]), window=window)


def _translate(source: Path, target: Path, driver: str, options: dict[str, str], *, cli: bool) -> None:
    if cli:
        config = [word for name, value in _CONFIG.items() for word in ("--config", name, value)]
        creation = [word for name, value in options.items() for word in ("-co", f"{name}={value}")]
        command = ["gdal_translate", "-q", "-of", driver, *config, *creation, str(source), str(target)]
        subprocess.run(command, check=True)
    else:
        with rasterio.Env(**_CONFIG):
            rasterio.shutil.copy(str(source), str(target), driver=driver, **options)


if __name__ == "__main__":
    use_cli = "--cli" in sys.argv
    print(json.dumps({"stages": build(parse_job([word for word in sys.argv[1:] if word != "--cli"]), cli=use_cli)}))
