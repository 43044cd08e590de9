"""A whole run against servers that send what nobody requested: exit 0 means that every pixel is right."""

from __future__ import annotations

import asyncio
import functools
from itertools import product

import pytest
import rasterio

import mosaic_async.build.run_client
from mosaic_async import IncompleteError, PartSealed, TilePlaced, build_mosaic
from mosaic_async.build.part_files import PartFiles
from mosaic_async.errors import ResourceError, SourceError
from mosaic_async.http.client import Client, Clock
from tests.desync import Desync, after, ahead, answer
from tests.fake_tiler import FakeTiler, Pattern
from tests.http.test_wire import IDLE_404, IDLE_408, STRAYS
from tests.pairwise import quick_pairs
from tests.test_api import AREA, assert_is_the_world

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]

ZOOM = 8
NAMED = {
    "a second answer after 0.5 ms": after(0.0005),
    "a second answer after 5 ms": after(0.005),
    "a second answer after 50 ms": after(0.05),
    "404 of an idle server": after(0.003, IDLE_404),
    "408 of an idle server": after(0.003, IDLE_408),
    "a 404 ahead": ahead(IDLE_404),
}
"""Those of the issue, and the worst: a stray that is taken for the answer, while the client is never idle."""


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Have the client wait a tenth of the time before a retry."""
    client = functools.partial(Client, clock=Clock(sleep=lambda seconds: asyncio.sleep(seconds / 10)))
    monkeypatch.setattr(mosaic_async.build.run_client, "Client", client)


def tiler_of(ext: str) -> FakeTiler:
    return FakeTiler(ext=ext, pattern=Pattern(count=1, masked=False), tile_size=128)


async def build(server: Desync, output, connections: int, **options):
    return await build_mosaic(
        server.template, AREA, output, zoom=ZOOM, concurrency=connections, part_size=512, timeout=20, **options
    )


@pytest.mark.quick(4)
@pytest.mark.parametrize(("stray", "ext", "connections"), quick_pairs(product(NAMED, ["png", "tif"], [1, 8])))
async def test_every_pixel_is_right_whatever_follows_the_answers(tmp_path, stray, ext, connections):
    tiler = tiler_of(ext)
    with Desync(tiler, NAMED[stray]).running() as server:
        report = await build(server, tmp_path / "out.tif", connections)
        assert server.strays
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert report.tiles_placed == report.tiles_total


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("ext", ["png", "tif"])
@pytest.mark.parametrize("stray", STRAYS)
async def test_no_stray_at_all_gets_a_wrong_pixel_into_a_complete_output(tmp_path, stray, ext, connections):
    tiler = tiler_of(ext)
    with Desync(tiler, STRAYS[stray]).running() as server:
        try:
            await build(server, tmp_path / "out.tif", connections)
        except IncompleteError:
            return  # an error that says so is right, too
    if "204" in stray:  # the server's own answer for some tiles
        with rasterio.open(tmp_path / "out.tif") as dataset:
            assert dataset.dataset_mask().any()
    else:
        assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


async def test_a_part_that_is_sealed_before_the_stray_shows_is_made_again(tmp_path):
    """One connection, one shift in the first part, and the client is busy until the farewell."""
    tiler, events = tiler_of("png"), []
    with Desync(tiler, ahead(answer(tiler.body((8, 0, 0)))), turns=range(4, 5)).running() as server:
        report = await build(server, tmp_path / "out.tif", 1, on_event=events.append)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    placed = [event.tile for event in events if isinstance(event, TilePlaced)]
    assert len(placed) == len(set(placed)) == report.tiles_placed == report.tiles_total
    assert report.parts_total > 1


@pytest.mark.parametrize("is_repeated", [True, False])
async def test_a_shard_publishes_no_part_that_its_connections_have_not_proved(tmp_path, is_repeated):
    """As above, and the shard ends when two parts are sealed, of which the first one is wrong."""
    tiler, sealed = tiler_of("png"), []
    output, shard = tmp_path / "out.tif", asyncio.current_task()

    def end(event):
        if isinstance(event, PartSealed):
            sealed.append(event)
            if len(sealed) == 2:
                shard.cancel()

    stray = ahead(answer(tiler.body((8, 0, 0))))
    with Desync(tiler, stray, turns=range(4, 5)).running() as server:
        shard = asyncio.create_task(build(server, output, 1, on_event=end, shard="0/1"))
        assert isinstance((await asyncio.gather(shard, return_exceptions=True))[0], asyncio.CancelledError)
        assert server.strays
        # On a slow machine the second part comes over a connection of its own, which proves it.
        assert not list((tmp_path / "out.tif.work" / "parts").rglob("0-0.json"))
        if is_repeated:
            await build(server, output, 1, shard="0/1")
        await build(server, output, 4)
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.parametrize("announces", [True, False])
async def test_a_shift_that_ends_with_its_connection_leaves_no_wrong_pixel(tmp_path, announces):
    tiler = tiler_of("png")
    shift = ahead(answer(tiler.body((8, 0, 0))))
    with Desync(tiler, shift, turns=range(4, 10**9, 30), most=12, announces=announces).running() as server:
        report = await build(server, tmp_path / "out.tif", 1)
        assert server.strays
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert report.tiles_placed == report.tiles_total


async def test_georeferenced_tiles_recover_from_a_shift_with_one_retry(tmp_path):
    tiler = tiler_of("tif")
    with Desync(tiler, ahead(answer(tiler.body((8, 0, 0)), "image/tiff")), turns=range(9, 10)).running() as server:
        report = await build(server, tmp_path / "out.tif", 1)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)
    assert report.retries == 1
    assert report.requests == server.hits.total() == report.tiles_total + 1


@pytest.mark.parametrize(("ext", "more"), [("tif", 0), ("png", 4)])
async def test_a_healthy_server_gets_one_farewell_per_connection_where_tiles_name_no_place(tmp_path, ext, more):
    tiler = tiler_of(ext)
    with Desync(tiler).running() as server:
        report = await build(server, tmp_path / "out.tif", 4)
    assert report.tiles_total <= report.requests == server.hits.total() <= report.tiles_total + more
    assert server.connections <= 4


class Refusing(Desync):
    """Refuses everything after its 30th request until `is_refusing` is False."""

    is_refusing = True

    async def _answer(self, head, writer, connection):
        if self.is_refusing and self.hits.total() >= 30:
            writer.write(answer(b"no", "text/plain", status="403 Forbidden"))
        else:
            await super()._answer(head, writer, connection)


async def refused(server: Refusing, output, connections: int) -> None:
    with pytest.raises(SourceError):
        await build(server, output, connections)
    server.is_refusing = False


async def cancelled(server: Refusing, output, connections: int) -> None:
    """Cancel the run at the 20th tile, while other requests are under way."""
    server.is_refusing, placed, run = False, 0, None

    def on_event(event) -> None:
        nonlocal placed
        placed += isinstance(event, TilePlaced)
        if placed == 20:
            run.cancel()

    run = asyncio.create_task(build(server, output, connections, on_event=on_event))
    with pytest.raises(asyncio.CancelledError):
        await run


async def broken(server: Refusing, output, connections: int) -> None:
    """Have the disk take no more than one sealed part."""
    server.is_refusing = False
    declare = PartFiles.declare

    def fill(files, part, record):
        declare(files, part, record)
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartFiles, "declare", fill)
        with pytest.raises(ResourceError):
            await build(server, output, connections)


@pytest.mark.quick(2)
@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("end", [refused, cancelled, broken])
async def test_a_run_that_ends_early_leaves_no_answer_that_no_connection_can_prove_any_more(tmp_path, end, connections):
    """The fourth answer and those after it are shifted, and the run ends before the farewell that would show it."""
    tiler = tiler_of("png")
    with Refusing(tiler, ahead(answer(tiler.body((8, 0, 0)))), turns=range(4, 5)).running() as server:
        await end(server, tmp_path / "out.tif", connections)
        assert server.strays == 1
        await build(server, tmp_path / "out.tif", connections)
    assert_is_the_world(tmp_path / "out.tif", tiler, AREA, ZOOM)


@pytest.mark.parametrize("end", [refused, cancelled, broken])
async def test_a_run_that_ends_early_keeps_all_tiles_that_name_their_place(tmp_path, end):
    tiler = tiler_of("tif")
    with Refusing(tiler).running() as server:
        await end(server, tmp_path / "out.tif", 4)
        kept = set(server.hits)
        report = await build(server, tmp_path / "out.tif", 4)
        twice = sum(server.hits[tile] > 1 for tile in kept)
    assert twice <= 4 + 4  # those under way
    assert report.tiles_placed == report.tiles_total
