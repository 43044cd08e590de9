"""A store of tiles behind a server on this machine, for the length of a block.

So tiles of a store have what all tiles have: checks, retries, pauses, a work folder, a report. It knows nothing of
where the tiles are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_urlsafe

from aiohttp import web

from mosaic_async.geo.cover import Tile
from mosaic_async.safety.redaction import learn
from mosaic_async.sources.source import TILE_HEADER, TileSource
from mosaic_async.sources.stores.store import Store, UnreadableError


@asynccontextmanager
async def serving(store: Store) -> AsyncIterator[TileSource]:
    """Serve the tiles of a store to this process for the block, and yield their source."""
    secret = token_urlsafe(16)  # other users of this machine may not read the store
    learn([secret])
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return await _answer(store, request)

    app.router.add_get(f"/{secret}/{{z:\\d+}}/{{x:\\d+}}/{{y:\\d+}}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        yield TileSource(
            template=f"http://127.0.0.1:{port}/{secret}/{{z}}/{{x}}/{{y}}",
            identity=store.identity,
            zooms=store.zooms,
            bounds=store.bounds,
            grid=store.grid,
            encoding=store.encoding,
            notes=store.notes,
        )
    finally:
        await runner.cleanup()


async def _answer(store: Store, request: web.Request) -> web.Response:
    """Return a tile with its name, so that the client knows whose answer it is; a tile that is missing is empty."""
    tile = Tile(*(int(request.match_info[name]) for name in "xyz"))
    try:
        body = await store.read(tile)
    except UnreadableError as error:
        headers = {} if error.retry_after is None else {"Retry-After": error.retry_after}
        return web.Response(status=error.status, text=error.reason, headers=headers)
    if body is None:
        return web.Response(status=204)
    headers = {TILE_HEADER: f"{tile.z}/{tile.x}/{tile.y}"}
    return web.Response(body=body, content_type="application/octet-stream", headers=headers)
