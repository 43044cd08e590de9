"""Maps by their box, and rows from the other end, in grids that are not Web Mercator's: the same pixels as by tile."""

from __future__ import annotations

import io
from collections import Counter

import mercantile
import morecantile
import numpy as np
import pyproj
import pytest
import rasterio
from aiohttp import web
from morecantile import TileMatrixSet
from PIL import Image

from mosaic_async import build_mosaic
from mosaic_async.sources.matrix_sets import matrix_set
from tests.build.test_tile_grids import SCENES
from tests.cli.test_main import run
from tests.loopback import running

QUAD = TileMatrixSet.custom(
    [2_000_000, 3_000_000, 2_512_000, 3_512_000], pyproj.CRS(3035), id="Quad", matrix_scale=[1, 1]
)
SETS = {name: SCENES[name].tms for name in ("Europe", "LandsatUTM", "WorldCRS84Quad")} | {"Quad": QUAD}


class Maps:
    """Answers a tile by column and row, by rows from the south, by quadkey, or by the box of a map."""

    def __init__(self, tms: TileMatrixSet, zoom: int) -> None:
        self.tms, self.zoom = tms, zoom
        self.matrix = tms.matrix(zoom)
        self.hits: Counter[tuple[int, int]] = Counter()
        self.app = web.Application()
        self.app.router.add_get("/xyz/{x}/{y}", self.by_row)
        self.app.router.add_get("/south/{x}/{row}", self.by_row)
        self.app.router.add_get("/quad/{key}", self.by_quadkey)
        self.app.router.add_get("/map", self.by_box)

    async def by_row(self, request: web.Request) -> web.Response:
        info = request.match_info
        return self.tile(
            int(info["x"]), int(info["y"]) if "y" in info else self.matrix.matrixHeight - 1 - int(info["row"])
        )

    async def by_quadkey(self, request: web.Request) -> web.Response:
        tile = self.tms.quadkey_to_tile(request.match_info["key"])
        assert tile.z == self.zoom
        return self.tile(tile.x, tile.y)

    async def by_box(self, request: web.Request) -> web.Response:
        query = {name.lower(): value for name, value in request.query.items()}
        name = query.get("crs") or query.get("srs") or f"EPSG:{query.get('bboxsr')}"
        crs = pyproj.CRS("OGC:CRS84" if name == "CRS:84" else name)
        box = [float(value) for value in query["bbox"].split(",")]
        if query.get("version") == "1.3.0" and crs.axis_info[0].direction == "north":
            box = [box[1], box[0], box[3], box[2]]
        x, y = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        left, top = self.tms.xy_bounds(0, 0, self.zoom).left, self.tms.xy_bounds(0, 0, self.zoom).top
        span = self.matrix.cellSize * 256
        column, row = int((x - left) // span), int((top - y) // span)
        np.testing.assert_allclose(box, self.tms.xy_bounds(column, row, self.zoom), atol=span * 1e-9)
        assert query.get("width", "256") == "256"
        return self.tile(column, row)

    def tile(self, column: int, row: int) -> web.Response:
        self.hits[column, row] += 1
        rows, columns = np.mgrid[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256]
        Image.fromarray(((columns * 7 + rows * 13) % 251).astype("uint8")).save(stream := io.BytesIO(), "PNG")
        return web.Response(body=stream.getvalue(), content_type="image/png")


WMS = "/map?service=WMS&request=GetMap&version={version}&layers=a&styles=&width={{width}}&height={{height}}&"
NEW, OLD = WMS.format(version="1.3.0"), WMS.format(version="1.1.1")


@pytest.mark.parametrize(
    ("name", "zoom", "area", "templates"),
    [
        (
            "WorldCRS84Quad",
            6,
            (5, 44, 11, 49),
            (
                "/south/{x}/{-y}?z={z}",
                NEW + "crs=EPSG:4326&bbox={bbox}",
                NEW + "crs=CRS:84&bbox={bbox}",
                OLD + "srs=EPSG:4326&bbox={bbox-epsg-4326}",
            ),
        ),
        (
            "Europe",
            1,
            (5.9, 49.5, 6.2, 49.8),
            (
                NEW + "crs={proj}&bbox={bbox}",
                "/map?bbox={bbox-epsg-3035}&bboxSR=3035&imageSR={wkid}&width=256&height=256",
                "/south/{x}/{!y}?z={z}",
            ),
        ),
        pytest.param(
            "LandsatUTM",
            2,
            (13, 49, 13.5, 49.4),
            (NEW + "crs=EPSG:32633&bbox={bbox-epsg-32633}", "/south/{x}/{ty}?z={z}"),
            marks=pytest.mark.slow,
        ),
        ("Quad", 3, (-20, 48, -17.5, 49.5), ("/quad/{q}", OLD + "srs=EPSG:3035&bbox={bbox}")),
    ],
)
async def test_every_way_to_state_a_tile_of_another_grid_gives_the_same_pixels(name, zoom, area, templates, tmp_path):
    maps = Maps(SETS[name], zoom)
    tms = SETS[name].model_dump(mode="json", exclude_none=True)
    found = []
    with running(maps.app) as url:
        for index, template in enumerate(("/xyz/{x}/{y}?z={z}", *templates)):
            maps.hits.clear()
            report = await build_mosaic(url + template, area, tmp_path / f"{index}.tif", zoom=zoom, tms=tms)
            with rasterio.open(report.output) as dataset:
                found.append((dataset.read().tobytes(), dataset.transform, set(maps.hits)))
    assert len(found[0][2]) >= 2
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("name", ["EPSG:3035:{}", "level {:02}", "{:03}"])
async def test_matrices_that_are_not_named_by_numbers_are_requested_by_their_names(name, tmp_path):
    tms = morecantile.tms.get("EuropeanETRS89_LAEAQuad")
    document = tms.model_dump(mode="json", exclude_none=True)
    for matrix in document["tileMatrices"]:
        matrix["id"] = name.format(int(matrix["id"]))
    document["tileMatrices"].reverse()
    maps, asked = Maps(tms, 6), []

    async def by_name(request: web.Request) -> web.Response:
        asked.append(request.match_info["matrix"])
        return await maps.by_row(request)

    maps.app.router.add_get("/named/{matrix}/{x}/{y}", by_name)
    area, options = (9.0, 47.0, 15.0, 51.0), {"zoom": 6, "tms": document}
    with running(maps.app) as url:
        for place, path in (("named/{TileMatrix}", "a.tif"), ("xyz", "b.tif")):
            await build_mosaic(f"{url}/{place}/{{x}}/{{y}}?z={{z}}", area, tmp_path / path, **options)
    assert set(asked) == {name.format(6)}
    with rasterio.open(tmp_path / "a.tif") as one, rasterio.open(tmp_path / "b.tif") as other:
        assert one.transform == other.transform
        assert one.transform.a == tms.matrix(6).cellSize
        np.testing.assert_array_equal(one.read(), other.read())


@pytest.mark.parametrize(("digits", "corner"), [(4, "topLeft"), (3, "topLeft"), (8, "bottomLeft")])
def test_a_set_of_web_mercator_whose_cells_are_rounded_is_its_quadtree(digits, corner):
    document = morecantile.tms.get("WebMercatorQuad").model_dump(mode="json", exclude_none=True)
    document |= {"id": "rounded", "tileMatrices": document["tileMatrices"][:17]}
    for matrix in document["tileMatrices"]:
        matrix["cellSize"] = round(matrix["cellSize"], digits)
        if corner == "bottomLeft":
            matrix |= {"cornerOfOrigin": corner, "pointOfOrigin": [-20037508.3427892, -20037508.3427892]}
    found = matrix_set(document)
    assert found.is_mercator is (corner == "topLeft")
    for one in found.matrices:
        bounds = mercantile.xy_bounds(one.columns - 1, one.rows - 1, one.zoom)
        tile = one.tile(one.columns - 1, one.rows - 1)
        assert tile.y == (0 if corner == "bottomLeft" else one.rows - 1)
        assert one.bounds_of(tile) == pytest.approx(tuple(bounds), abs=1e-6)


def test_the_command_fetches_a_list_of_tiles_of_another_grid(tmp_path):
    maps = Maps(SETS["Europe"], 1)
    (tmp_path / "set.json").write_text(SETS["Europe"].model_dump_json(exclude_none=True))
    (tmp_path / "tiles.txt").write_text("1/2/1\n1/3/1\n1/5/4  # far from the others\n")
    common = ("--tiles", tmp_path / "tiles.txt", "--tms", tmp_path / "set.json")
    with running(maps.app) as url:
        run("build", url + "/xyz/{x}/{y}?z={z}", tmp_path / "out.tif", *common)
        assert set(maps.hits) == {(2, 1), (3, 1), (5, 4)}
        (tmp_path / "tiles.txt").write_text("1/99/1\n")
        _, stderr = run("plan", url + "/xyz/{x}/{y}?z={z}", *common, code=2)
        assert "'1/99/1' is not a tile" in stderr
