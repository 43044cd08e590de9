"""Tiles of other grids than Web Mercator's: a real TiTiler 2, and outputs that are the stored pixels.

Each scene lies on the pixels of one zoom of its grid, so no server needs to resample, and the file is the oracle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import morecantile
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from morecantile import TileMatrixSet
from pyproj import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rasterio.windows import Window
from rio_cogeo import cog_validate

from mosaic_async import IncompleteError, UsageError, build_mosaic, plan_mosaic, verify_mosaic
from tests.cli.test_main import run
from tests.loopback import running, uvicorn_of
from tests.map_server import PATTERN, MapServer, map_body
from tests.moods import at, status
from tests.pairwise import quick_only
from tests.sources.test_descriptions import capabilities, layer

APP = """
from pathlib import Path
import morecantile
from fastapi import FastAPI
from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
from titiler.core.factory import TilerFactory, TMSFactory

files = Path(__file__).parent.glob("*.json")
sets = [morecantile.TileMatrixSet.model_validate_json(path.read_text()) for path in files]
app = FastAPI()
known = morecantile.tms.register({one.id: one for one in sets})
app.include_router(TilerFactory(supported_tms=known).router)
app.include_router(TMSFactory(supported_tms=known).router)
add_exception_handlers(app, DEFAULT_STATUS_CODES)
"""


def custom(
    name: str, crs: str, left: float, top: float, cells: list[float], widths: list[tuple[int, int]]
) -> TileMatrixSet:
    """A set whose zooms are no powers of two, with matrices that are no squares."""
    matrices = [
        {
            "id": str(zoom), "scaleDenominator": cell / 0.00028, "cellSize": cell, "pointOfOrigin": [left, top],
            "tileWidth": 256, "tileHeight": 256, "matrixWidth": columns, "matrixHeight": rows,
        }
        for zoom, (cell, (columns, rows)) in enumerate(zip(cells, widths, strict=True))
    ]  # fmt: skip
    return TileMatrixSet.model_validate({"id": name, "crs": crs, "orderedAxes": ["E", "N"], "tileMatrices": matrices})


EPSG = "http://www.opengis.net/def/crs/EPSG/0/{}"
LANDSAT = custom("LandsatUTM", EPSG.format(32633), 300015.0, 5500005.0, [150, 60, 30], [(3, 5), (7, 11), (14, 21)])
EUROPE = custom("Europe", EPSG.format(3035), 4000123.5, 3000077.25, [100, 40, 25], [(4, 3), (10, 8), (16, 12)])


@dataclass(frozen=True)
class Scene:
    """Pixels on the grid of a set's zoom."""

    tms: TileMatrixSet
    zoom: int
    x: int
    y: int
    """The tile that its first pixel lies in, 37 columns and 21 rows from the corner."""

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.tms.id}.tif"
        left, _, _, top = self.tms.xy_bounds(self.x, self.y, self.zoom)
        cell = self.tms.matrix(self.zoom).cellSize
        rows, columns = np.mgrid[0:700, 0:900]
        pixels = ((columns * 7 + rows * 13 + (columns // 5) * (rows // 3)) % 250 + 1).astype("uint8")
        profile = {
            "driver": "GTiff", "width": 900, "height": 700, "count": 1, "dtype": "uint8", "nodata": 0, "tiled": True,
            "crs": self.tms.rasterio_crs, "transform": from_origin(left + 37 * cell, top - 21 * cell, cell, cell),
            "blockxsize": 256, "blockysize": 256,
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(pixels, 1)
        return path


UTM = morecantile.tms.get("UTM31WGS84Quad")
SCENES = {
    "WebMercatorQuad": Scene(morecantile.tms.get("WebMercatorQuad"), 9, 268, 178),
    "WorldCRS84Quad": Scene(morecantile.tms.get("WorldCRS84Quad"), 8, 264, 57),
    "UTM31WGS84Quad": Scene(UTM, 10, *UTM.tile(2.5, 47.5, 10)[:2]),
    "LandsatUTM": Scene(LANDSAT, 2, 3, 4),
    "Europe": Scene(EUROPE, 1, 2, 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("grids")
    (path / "tiler.py").write_text(APP)
    for tms in (LANDSAT, EUROPE):
        (path / f"{tms.id}.json").write_text(tms.model_dump_json(exclude_none=True))
    return path


@pytest.fixture(scope="module")
def titiler(folder) -> Iterator[str]:
    with uvicorn_of(Path(sys.executable), "tiler:app", folder) as url:
        yield url


def degrees_within(path: Path) -> tuple[float, float, float, float]:
    """A box in degrees well inside of a file."""
    with rasterio.open(path) as dataset:
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    width, height = east - west, north - south
    return west + 0.2 * width, south + 0.25 * height, east - 0.15 * width, north - 0.2 * height


def assert_stored(output: Path, scene: Path) -> None:
    """The output is the scene's pixels where they lie, and masked elsewhere."""
    with rasterio.open(output) as dataset, rasterio.open(scene) as source:
        assert dataset.crs == source.crs
        assert np.allclose(dataset.transform[0], source.transform[0], rtol=1e-12)
        col_off, row_off = ~source.transform @ (dataset.transform.c, dataset.transform.f)
        assert abs(col_off - round(col_off)) < 0.01
        assert abs(row_off - round(row_off)) < 0.01
        window = Window(round(col_off), round(row_off), dataset.width, dataset.height)
        stored = source.read(1, window=window, boundless=True, fill_value=0)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, stored > 0)
        np.testing.assert_array_equal(dataset.read(1) * (stored > 0), stored)
        assert (stored > 0).mean() > 0.2
    assert cog_validate(output, strict=True, quiet=True)[0]


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", SCENES)
async def test_the_output_is_the_stored_pixels_in_the_grid_of_the_tiles(name, titiler, folder, tmp_path):
    """The set comes from the URL where its name is known, or from its file; PNGs have no place of their own."""
    scene = SCENES[name]
    path = scene.write(tmp_path)
    area, is_known = degrees_within(path), (name not in ("LandsatUTM", "Europe"))
    tms = {} if is_known else {"tms": folder / f"{name}.json"}
    for ext, options in (("tif", {"part_size": 512}), ("png", {"clip": True})):
        template = f"{titiler}/tiles/{name}/{{z}}/{{x}}/{{y}}.{ext}?url={path}"
        output = tmp_path / f"{ext}.tif"
        report = await build_mosaic(template, area, output, zoom=scene.zoom, **tms, **options)
        assert report.requests == report.tiles_total > 3
        if ext == "tif":
            assert_stored(output, path)
            found = await verify_mosaic(output, source=template, sample=20)
            assert found.is_sound
            assert found.tiles_compared > 3
    with rasterio.open(tmp_path / "png.tif") as dataset, rasterio.open(path) as source:
        pixels, mask, back = dataset.read(1), dataset.dataset_mask() > 0, ~source.transform @ dataset.transform
        stored = source.read(1, window=Window(round(back.c), round(back.f), *pixels.shape[::-1]))
        np.testing.assert_array_equal(pixels[mask], stored[mask])
        west, south, east, north = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    assert max(west - area[0], south - area[1], area[2] - east, area[3] - north) < 1e-9
    assert mask.mean() > 0.8


async def test_the_set_and_the_zoom_come_from_the_server(titiler, tmp_path):
    """A TileJSON of TiTiler names its set in its tiles' URL, and the server has a document of each set.

    Its tiles have 512 pixels, so a lower zoom has the resolution of the data.
    """
    for name in ("WorldCRS84Quad", "UTM31WGS84Quad", "LandsatUTM"):
        scene = SCENES[name]
        path = scene.write(tmp_path)
        options = {"tms": f"{titiler}/tileMatrixSets/LandsatUTM"} if name == "LandsatUTM" else {}
        place = f"{titiler}/{name}/tilejson.json?url={path}&tile_format=tif"
        plan = await plan_mosaic(place, degrees_within(path), **options)
        assert plan.resolution == pytest.approx(scene.tms.matrix(scene.zoom).cellSize)
    document = {"tiles": [f"{titiler}/tiles/LandsatUTM/{{z}}/{{x}}/{{y}}.tif?url={path}&tilesize=256"], "maxzoom": 2}
    document["tileMatrixSetURI"] = f"{titiler}/tileMatrixSets/LandsatUTM"
    (tmp_path / "t.json").write_text(json.dumps({"tilejson": "3.0.0", **document}))
    await build_mosaic(tmp_path / "t.json", degrees_within(path), tmp_path / "a.tif", allow_hosts=["127.0.0.1"])
    assert_stored(tmp_path / "a.tif", path)


async def test_a_set_that_the_url_does_not_name_is_never_taken_for_web_mercator(titiler, tmp_path):
    """`Europe` could be a layer's name; each answer says in which system it is."""
    from mosaic_async import SourceError

    path = SCENES["Europe"].write(tmp_path)
    for ext in ("png", "npy", "tif"):
        template = f"{titiler}/tiles/Europe/{{z}}/{{x}}/{{y}}.{ext}?url={path}"
        with pytest.raises(SourceError):
            await build_mosaic(template, degrees_within(path), tmp_path / "a.tif", zoom=1)


def test_the_command_takes_a_set_by_name_or_file_and_plans_in_its_units(titiler, folder, tmp_path):
    path = SCENES["LandsatUTM"].write(tmp_path)
    template = f"{titiler}/tiles/LandsatUTM/{{z}}/{{x}}/{{y}}.tif?url={path}"
    area = [str(value) for value in degrees_within(path)]
    given = ["--bounds", *area, "-z", 2, "--tms", folder / "LandsatUTM.json"]
    stdout, _ = run("plan", template, *given)
    assert "30 units/pixel of EPSG:32633" in stdout
    run("build", template, tmp_path / "out.tif", *given)
    assert_stored(tmp_path / "out.tif", path)
    _, stderr = run("build", template, tmp_path / "x.tif", "--bounds", *area, "-z", 2, "--tms", "Nowhere", code=2)
    assert "neither a file nor a known tile matrix set" in stderr


async def test_rows_counted_from_the_south_and_systems_without_a_code_are_placed_right(serve, tmp_path):
    """A set of a projection that is in no list, whose rows start in the south; tiles are arrays without a place."""
    own = CRS.from_proj4("+proj=laea +lat_0=20 +lon_0=30 +ellps=WGS84 +units=m")
    matrices = [
        {
            "id": "3", "scaleDenominator": 1000 / 0.00028, "cellSize": 1000, "cornerOfOrigin": "bottomLeft",
            "pointOfOrigin": [-700_000, -600_000], "tileWidth": 256, "tileHeight": 256, "matrixWidth": 6,
            "matrixHeight": 5,
        }
    ]  # fmt: skip
    tms = {"id": "own", "crs": {"wkt": own.to_json_dict()}, "orderedAxes": ["E", "N"], "tileMatrices": matrices}
    tiler = serve(ext="npy")
    output = tmp_path / "a.tif"
    await build_mosaic(tiler.template, (28, 17, 33, 22), output, zoom=3, tms=tms)
    with rasterio.open(output) as dataset:
        pixels, mask, transform = dataset.read(), dataset.dataset_mask() > 0, dataset.transform
        assert CRS.from_wkt(dataset.crs.to_wkt()).is_exact_same(own) or CRS.from_wkt(dataset.crs.to_wkt()) == own
    left, top = (transform.c + 700_000) / 256_000, (-600_000 + 5 * 256_000 - transform.f) / 256_000
    assert (left % 1, top % 1) == (0, 0)
    assert {x for _, x, _ in tiler.hits} == set(range(int(left), int(left) + pixels.shape[2] // 256))
    for _, x, y in tiler.hits:
        row, column = (4 - y - int(top)) * 256, (x - int(left)) * 256
        expected, valid = tiler.pattern.expected(x * 256, y * 256, 256, 256)
        place = np.s_[row : row + 256, column : column + 256]
        np.testing.assert_array_equal(mask[place], valid)
        np.testing.assert_array_equal(pixels[:, *place][:, valid], expected[:, valid])
    assert (await verify_mosaic(output, source=tiler.template, sample=9)).is_sound


async def test_a_world_in_degrees_closes_at_the_antimeridian_and_reaches_the_poles(serve, tmp_path):
    tiler = serve(ext="npy")
    template = f"{tiler.url}/WorldCRS84Quad/{{z}}/{{x}}/{{y}}.npy"
    await build_mosaic(template, (170, 60, -170, 90), tmp_path / "a.tif", zoom=3)
    assert {(x, y) for _, x, y in tiler.hits} == {(15, 0), (15, 1), (0, 0), (0, 1)}
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.bounds == (157.5, 45, 202.5, 90)
    plan = await plan_mosaic(template, {"type": "Polygon", "coordinates": [[[0, 80], [90, 89], [0, 90]]]}, zoom=3)
    assert plan.bounds == (0, 67.5, 90, 90)


@pytest.mark.parametrize(
    ("tms", "words"),
    [
        ("GNOSISGlobalGrid", "rows of unlike width"),
        ({"crs": EPSG.format(3035)}, "not a tile matrix set"),
        ({**json.loads(EUROPE.model_dump_json(exclude_none=True)), "id": "x", "tileMatrices": []}, "tile matrix set"),
        ("EuropeanETRS89_LAEAQuad", "outside"),
        ("WorldCRS84Quad", "no zoom 99"),
    ],
)
async def test_sets_that_cannot_be_are_refused(tms, words, serve):
    from mosaic_async import MosaicError

    zoom = 99 if "99" in words else 5
    with pytest.raises(MosaicError, match=words):
        await plan_mosaic(serve().template, (-70, -40, -60, -30), zoom=zoom, tms=tms)
    for template, reason in (
        ("https://host.invalid/{q}", "quadtrees of one first tile only"),
        ("https://host.invalid/map?bbox={bbox-epsg-3857}", "maps in EPSG:3857, the tiles are in EPSG:4326"),
        ("https://host.invalid/map?request=GetMap&SRS=EPSG:3035&bbox={bbox}", "maps in EPSG:3035, the tiles are in"),
    ):
        with pytest.raises(UsageError, match=reason):
            await plan_mosaic(template, (0, 0, 1, 1), zoom=3, tms="WorldCRS84Quad")


def described_set(crs: str, corner: str, cells: list[float], *, unit: float = 1.0, rows=9, columns=7) -> str:
    matrices = "".join(
        f"<TileMatrix><ows:Identifier>set:{zoom}</ows:Identifier><ScaleDenominator>{cell * unit / 0.00028!r}"
        f"</ScaleDenominator><TopLeftCorner>{corner}</TopLeftCorner><TileWidth>256</TileWidth><TileHeight>256"
        f"</TileHeight><MatrixWidth>{columns}</MatrixWidth><MatrixHeight>{rows}</MatrixHeight></TileMatrix>"
        for zoom, cell in enumerate(cells)
    )
    return (
        f"<TileMatrixSet><ows:Identifier>set</ows:Identifier><ows:SupportedCRS>urn:ogc:def:crs:EPSG::{crs}"
        f"</ows:SupportedCRS>{matrices}</TileMatrixSet>"
    )


@pytest.mark.parametrize(
    ("crs", "corner", "cells", "corner_is", "box"),
    [
        ("25832", "300000 5300000", [1000, 100, 25], (300_000, 5_300_000), "6 46 12 48"),
        ("3035", "3000000 4000000", [1000, 100, 25], (4_000_000, 3_000_000), "8 46 14 50"),  # north comes first
        ("4326", "50 8", [0.01, 0.001, 0.0004], (8, 50), "8 46 14 50"),
        ("4326", "8 50", [0.01, 0.001, 0.0004], (8, 50), "8 46 14 50"),  # a server that does not know the order
        ("3857", "900000 6200000", [1000, 100, 25], (900_000, 6_200_000), "8 46 10 48.4"),  # Web Mercator's own levels
    ],
)
async def test_a_wmts_describes_any_grid(crs, corner, cells, corner_is, box, tmp_path):
    unit = 111319.49079327358 if crs == "4326" else 1.0
    link = (
        '<ResourceURL format="image/png" resourceType="tile" template="/matrix/{TileMatrix}/{TileRow}/{TileCol}.png"/>'
    )
    server = MapServer()
    server.documents["/w"] = capabilities(
        layer("a", {"set": ""}, urls=link, box=box), described_set(crs, corner, cells, unit=unit)
    )
    with running(server.app) as url:
        left, top = corner_is
        west, south, east, north = transform_bounds(
            f"EPSG:{crs}", "EPSG:4326",
            left + 300 * cells[1], top - 700 * cells[1], left + 700 * cells[1], top - 300 * cells[1],
        )  # fmt: skip
        await build_mosaic(f"{url}/w", (west, south, east, north), tmp_path / "a.tif", zoom=1)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.crs == f"EPSG:{crs}"
        assert np.allclose(dataset.res, cells[1], rtol=1e-12)
        pixels, transform = dataset.read(), dataset.transform
    x0, y0 = (transform.c - left) / cells[1], (top - transform.f) / cells[1]
    assert (abs(x0 - round(x0)), abs(y0 - round(y0))) < (1e-6, 1e-6)
    assert (round(x0) % 256, round(y0) % 256) == (0, 0)
    expected, _ = PATTERN.expected(round(x0), round(y0), *pixels.shape[1:])
    np.testing.assert_array_equal(pixels, expected)


async def test_failed_tiles_have_their_outline_in_degrees_and_the_job_resumes(serve, tmp_path):
    tiler = serve(ext="npy")
    output, options = tmp_path / "a.tif", {"zoom": 1, "tms": EUROPE.model_dump(mode="json", exclude_none=True)}
    west, south, east, north = transform_bounds(3035, 4326, 4_030_000, 2_930_000, 4_060_000, 2_950_000)
    bad = (1, 4, 5)
    tiler.mood = at(tiler, bad, status(500), times=9)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, (west, south, east, north), output, attempts=1, **options)
    (failed,) = json.loads((tmp_path / "a.tif.work" / "failed.geojson").read_text())["features"]
    outline = shapely.geometry.shape(failed["geometry"])
    box = shapely.segmentize(shapely.box(*EUROPE.xy_bounds(4, 5, 1)), 50)
    into = pyproj.Transformer.from_crs(3035, 4326, always_xy=True)
    truth = shapely.transform(box, lambda xy: np.column_stack(into.transform(*xy.T)))
    assert shapely.hausdorff_distance(outline, truth) < 1e-5
    tiler.mood = None
    before = tiler.requests
    await build_mosaic(tiler.template, (west, south, east, north), output, **options)
    assert tiler.requests - before <= 2
    assert (await verify_mosaic(output, source=tiler.template, sample=50)).is_sound


@pytest.mark.parametrize(
    "is_south_up", quick_only([False, True], True), ids=["rows from the north", "as gdal2tiles writes them"]
)
async def test_a_folder_of_tiles_in_degrees_is_placed_by_its_set(is_south_up, tmp_path):
    folder = tmp_path / "tiles"
    for x, y in [(x, y) for x in range(130, 134) for y in range(20, 24)]:
        path = folder / "7" / str(x) / f"{2**7 - 1 - y if is_south_up else y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(map_body(x * 256, y * 256, 256))
    if is_south_up:
        text = '<TileMap><SRS>EPSG:4326</SRS><TileSets profile="geodetic"></TileSets></TileMap>'
        (folder / "tilemapresource.xml").write_text(text)
        with pytest.raises(UsageError, match="geodetic profile"):
            await build_mosaic(folder, (4, 58, 6, 60), tmp_path / "no.tif", zoom=7)
    await build_mosaic(folder, (4, 58, 6, 60), tmp_path / "a.tif", zoom=7, tms="WorldCRS84Quad")
    with rasterio.open(tmp_path / "a.tif") as dataset:
        side = 180 / 2**7
        assert dataset.bounds == (130 * side - 180, 90 - 23 * side, 133 * side - 180, 90 - 21 * side)
        expected, _ = PATTERN.expected(130 * 256, 21 * 256, dataset.height, dataset.width)
        np.testing.assert_array_equal(dataset.read(), expected)
