"""A server whose tiles can be requested in every way that maps know: by row, by quadkey, by matrix, by bounding box.

Each way computes the place from what the request states, so a wrong placeholder gives other pixels or a 404.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tests.fake_tiler import CONTENT_TYPES, HALF_WORLD, FakeTiler, Pattern, encode
from tests.test_api import assert_is_the_world

PATTERN = Pattern(masked=False)
AREA = (2.0, 46.0, 3.5, 47.0)
"""Two by two tiles at zoom 8."""
ZOOM = 8


@dataclass
class MapServer:
    """Answers all ways of requesting a tile, and counts; add `app` to `loopback.running`."""

    size: int = 256
    first_zoom: int = 0
    """Zoom of the matrix or level 0."""
    documents: dict[str, web.Response | object] = field(default_factory=dict)
    """By path: JSON, or bytes with their media type."""
    requests: list[web.Request] = field(default_factory=list)
    hits: Counter[tuple[int, int, int]] = field(default_factory=Counter)

    @property
    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/xyz/{z}/{x}/{y:\\d+}{rest:.*}", self._by_row)
        app.router.add_get("/tms/{z}/{x}/{row:\\d+}.png", self._by_row)
        app.router.add_get("/quad/{quadkey:[0-3]+}.png", self._by_quadkey)
        app.router.add_get("/arcgis/{z}/{y}/{x}", self._by_row)
        app.router.add_get("/matrix/{matrix}/{y}/{x}.png", self._by_matrix)
        app.router.add_get("/kvp", self._by_matrix)
        app.router.add_get("/{name}/MapServer/tile/{matrix}/{y}/{x}", self._by_matrix)
        app.router.add_get("/{name}/{kind}Server/{export:export.*}", self._by_bbox)
        app.router.add_get("/map", self._by_bbox)
        app.router.add_get("/{path:.*}", self._document)
        return app

    async def _by_row(self, request: web.Request) -> web.Response:
        z, x = int(request.match_info["z"]), int(request.match_info["x"])
        row = request.match_info.get("row")
        y = int(request.match_info["y"]) if row is None else 2**z - 1 - int(row)
        return self._tile(request, z, x, y)

    async def _by_quadkey(self, request: web.Request) -> web.Response:
        x = y = 0
        key = request.match_info["quadkey"]
        for digit in key:
            x, y = 2 * x + int(digit) % 2, 2 * y + int(digit) // 2
        return self._tile(request, len(key), x, y)

    async def _by_matrix(self, request: web.Request) -> web.Response:
        said = {name.upper(): value for name, value in request.query.items()}
        matrix = request.match_info.get("matrix") or said["TILEMATRIX"]
        y, x = request.match_info.get("y") or said["TILEROW"], request.match_info.get("x") or said["TILECOL"]
        return self._tile(request, int(matrix.rpartition(":")[2].lstrip("L")) + self.first_zoom, int(x), int(y))

    async def _by_bbox(self, request: web.Request) -> web.Response:
        said = {name.upper(): value for name, value in request.query.items()}
        west, south, east, north = map(float, said["BBOX"].split(","))
        width, height = (int(n) for n in (said.get("SIZE") or f"{said['WIDTH']},{said['HEIGHT']}").split(","))
        resolution = (east - west) / width
        assert abs((north - south) / height - resolution) < 1e-6
        x0, y0 = (west + HALF_WORLD) / resolution, (HALF_WORLD - north) / resolution
        assert abs(x0 - round(x0)) < 1e-4
        assert abs(y0 - round(y0)) < 1e-4
        self.requests.append(request)
        return self._answer(round(x0), round(y0), width, "tif" if said.get("FORMAT") == "tiff" else "png")

    def _tile(self, request: web.Request, z: int, x: int, y: int) -> web.Response:
        self.requests.append(request)
        self.hits[z, x, y] += 1
        return self._answer(x * self.size, y * self.size, self.size)

    def _answer(self, x0: int, y0: int, size: int, ext: str = "png") -> web.Response:
        return web.Response(body=map_body(x0, y0, size, ext), content_type=CONTENT_TYPES[ext])

    async def _document(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        found = self.documents.get(request.path)
        if found is None:
            return web.Response(status=404)
        if isinstance(found, tuple):
            return web.Response(body=found[0], content_type=found[1])
        return web.json_response(found)


def map_body(x0: int, y0: int, size: int, ext: str = "png") -> bytes:
    """Encode a window of the world, in pixels of its zoom."""
    pixels, _ = PATTERN.expected(x0, y0, size, size)
    side = 2 * HALF_WORLD / 2**ZOOM / 256  # of a pixel, where the place is written into the tile
    west, north = x0 * side - HALF_WORLD, HALF_WORLD - y0 * side
    return encode(pixels, None, ext, (west, north - size * side, west + size * side, north))


def assert_is_the_map(path: Path, *, size: int = 256, area=AREA, zoom: int = ZOOM) -> None:
    """Compare an output pixel by pixel with the pattern."""
    assert_is_the_world(path, FakeTiler(pattern=PATTERN, tile_size=size), area, zoom)
