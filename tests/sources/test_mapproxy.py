"""MapProxy, as it is installed: its WMTS and its WMS give the pixels that its own source has."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mosaic_async import UsageError, build_mosaic, plan_mosaic
from tests.loopback import environment, free_port, running, wait_for
from tests.map_server import AREA, ZOOM, MapServer, assert_is_the_map

pytestmark = [
    pytest.mark.slow,  # the short form is in test_descriptions
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]

CONFIGURATION = """
services:
  wmts: {{restful: true, kvp: true}}
  wms: {{srs: ['EPSG:3857', 'EPSG:4326'], versions: ['1.1.1', '1.3.0']}}
layers:
  - {{name: land, title: Land, sources: [land]}}
  - {{name: degrees, title: Degrees, sources: [degrees]}}
grids:
  north: {{base: GLOBAL_GEODETIC, origin: nw}}
caches:
  land: {{grids: [GLOBAL_WEBMERCATOR], sources: [tiles], format: image/png, disable_storage: true}}
  degrees: {{grids: [north], sources: [tiles], format: image/png, disable_storage: true}}
sources:
  tiles: {{type: tile, url: '{url}/xyz/%(z)s/%(x)s/%(y)s.png', grid: GLOBAL_WEBMERCATOR}}
globals:
  image: {{paletted: false}}
"""
GET_MAP = "/service?SERVICE=WMS&REQUEST=GetMap&LAYERS=land&STYLES=&FORMAT=image/png&BBOX={bbox-epsg-3857}"


@contextmanager
def mapproxy(folder: Path, url: str) -> Iterator[str]:
    try:
        python = environment(".venv-mapproxy", ("MapProxy>=5",))
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"MapProxy cannot be installed here: {type(error).__name__}")
    (folder / "mapproxy.yaml").write_text(CONFIGURATION.format(url=url))
    port, log = free_port(), folder / "log"
    command = [python.with_name("mapproxy-util"), "serve-develop", folder / "mapproxy.yaml", "-b", f"127.0.0.1:{port}"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


async def test_mapproxy_s_wmts_and_wms_give_the_pixels_of_its_source(tmp_path):
    with running(MapServer().app) as upstream, mapproxy(tmp_path, upstream) as url:
        rest, kvp = f"{url}/wmts/1.0.0/WMTSCapabilities.xml", f"{url}/service?SERVICE=WMTS&REQUEST=GetCapabilities"
        for number, place in enumerate((rest, kvp)):
            report = await build_mosaic(
                place, AREA, tmp_path / f"{number}.tif", zoom=ZOOM, params={"layer": "land"}, concurrency=4
            )
            assert_is_the_map(tmp_path / f"{number}.tif")
            assert report.tiles_placed == 4
        for name, rest_of in (
            ("1.1.1", "&VERSION=1.1.1&SRS=EPSG:3857&WIDTH={width}&HEIGHT={height}"),
            ("1.3.0", "&VERSION=1.3.0&CRS=EPSG:3857&WIDTH=256&HEIGHT=256"),
        ):
            await build_mosaic(url + GET_MAP + rest_of, AREA, tmp_path / f"{name}.tif", zoom=ZOOM, concurrency=4)
            assert_is_the_map(tmp_path / f"{name}.tif")
        with pytest.raises(UsageError, match="the WMTS has 2 layers"):
            await plan_mosaic(rest, AREA, zoom=ZOOM)
