"""The application of a tiler in this process: requests without a server, so that a test can make many tilers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import rasterio
from rasterio.io import MemoryFile

from mosaic_async.tiler import Rendering, open_mosaic
from mosaic_async.tiler.app import Door, make_app
from mosaic_async.tiler.edge.gate import Traffic
from mosaic_async.tiler.edge.limits import OWN_RUN
from mosaic_async.tiler.scenes.survey import names_in, survey


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Bands but the mask, and where the mask is above zero."""
        with rasterio.Env(GDAL_GEOREF_SOURCES="NONE"), MemoryFile(self.body) as memory, memory.open() as image:
            data = image.read()
        return data[:-1], data[-1] > 0


class InProcessTiler:
    def __init__(self, folder: str | Path, *, is_surveyed: bool = True, unsurveyed: Collection[str] = ()) -> None:
        """Open scenes; those whose files are `unsurveyed` are left to the tiles."""
        self.mosaic = open_mosaic(folder)
        store = Path(folder).with_name(f"{Path(folder).name}-created")
        names = [name for name in names_in(self.mosaic.document) if Path(name).name not in unsurveyed]
        agreed = survey(names, None, is_stac=self.mosaic.is_stac) if is_surveyed else None
        self._app = make_app(self.mosaic, store, door=Door(), limits=OWN_RUN, traffic=Traffic(), survey=agreed)

    async def tile(self, tile, size=256, extension="tif", **rendering) -> Answer:
        query = Rendering(**rendering).query(self.mosaic)
        return await self.get(f"/tiles/WebMercatorQuad/{tile.z}/{tile.x}/{tile.y}.{extension}?tilesize={size}&{query}")

    async def get(self, url: str, body: bytes | None = None) -> Answer:
        parts = urlsplit(url)
        scope = {
            "type": "http", "http_version": "1.1", "method": "GET" if body is None else "POST", "scheme": "http",
            "path": parts.path, "raw_path": parts.path.encode(), "query_string": parts.query.encode(), "root_path": "",
            "headers": [(b"host", b"localhost")], "server": ("localhost", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        sent = []
        asked = iter([{"type": "http.request", "body": body or b"", "more_body": False}])

        async def receive():
            return next(asked, None) or await asyncio.Event().wait()  # the client stays

        async def send(message):
            sent.append(message)

        await self._app(scope, receive, send)
        headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(one.get("body", b"") for one in sent[1:]))
