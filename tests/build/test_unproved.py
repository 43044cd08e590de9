"""A run is killed before its connections have proved their answers: the next one keeps none of another request."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_async.build.arrivals import Arrivals, Unproved, digest_of
from mosaic_async.build.proof import Proof, read_record
from mosaic_async.build.recheck import telling
from mosaic_async.build.run import Run
from mosaic_async.errors import ResourceError
from mosaic_async.geo.cover import Tile
from tests.build.test_desync import ZOOM, build, tiler_of
from tests.desync import Desync, ahead, answer
from tests.effort import examples
from tests.forks import server as forks
from tests.test_api import AREA, assert_is_the_world

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


class Stalling(Desync):
    """Answers so many requests, and then none while `is_stalling`."""

    limit = 0
    is_stalling = True

    async def _answer(self, head, writer, connection):
        while self.is_stalling and self.hits.total() >= self.limit:
            await asyncio.sleep(0.01)
        await super()._answer(head, writer, connection)


async def killed(server: Stalling, output, connections: int, limit: int) -> None:
    """Run the command until the server stalls, and kill it."""
    server.limit = limit
    where = ("--bounds", *AREA, "-z", ZOOM, "-c", connections, "--part-size", 512, "--timeout", 30)
    with forks().start(("build", server.template, output, *where)) as process:
        async with asyncio.timeout(30):
            while server.hits.total() < limit:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # what has arrived is written, and full parts are sealed
        process.kill()
    assert process.returncode == -9
    server.is_stalling = False


@pytest.mark.quick(2)
@pytest.mark.parametrize(("connections", "limit"), [(1, 6), (1, 10), (1, 30), (4, 30)])
async def test_a_kill_before_the_farewell_leaves_no_shifted_tile(tmp_path, connections, limit):
    """The fourth answer and those after it are shifted; with thirty, parts are sealed from them."""
    tiler, output = tiler_of("png"), tmp_path / "out.tif"
    stray = ahead(answer(tiler.body((8, 0, 0))))
    with Stalling(tiler, stray, turns=range(4, 5)).running() as server:
        await killed(server, output, connections, limit)
        assert server.strays == 1
        assert limit < 30 or list((tmp_path / "out.tif.work" / "parts").rglob("*.json"))
        await build(server, output, connections)
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_two_kills_and_a_shift_in_each_run_leave_no_shifted_tile(tmp_path):
    tiler, output = tiler_of("png"), tmp_path / "out.tif"
    stray = ahead(answer(tiler.body((8, 0, 0))))
    with Stalling(tiler, stray, turns=range(4, 10**9, 18)).running() as server:
        for limit in (12, 30):
            server.is_stalling = True
            await killed(server, output, 1, limit)
        server.stray = None
        await build(server, output, 1)
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.parametrize(("connections", "limit"), [(1, 30), (4, 30)])
async def test_a_kill_costs_a_healthy_server_three_requests_per_connection(tmp_path, connections, limit):
    tiler, output = tiler_of("png"), tmp_path / "out.tif"
    with Stalling(tiler).running() as server:
        await killed(server, output, connections, limit)
        before = server.hits.total()
        report = await build(server, output, connections)
    assert before + report.requests <= report.tiles_total + (3 + 1 + 1) * connections  # checks, under way, farewells
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.quick(2)
@pytest.mark.parametrize("damage", ["missing", "empty", "of another job", "zeroed", "torn"])
async def test_without_its_log_no_unproved_tile_of_the_spool_is_used(tmp_path, damage):
    tiler, output = tiler_of("png"), tmp_path / "out.tif"
    stray = ahead(answer(tiler.body((8, 0, 0))))
    with Stalling(tiler, stray, turns=range(4, 5)).running() as server:
        await killed(server, output, 1, 10)
        log = tmp_path / "out.tif.work" / "arrivals.log"
        data = log.read_bytes()
        if damage == "missing":
            log.unlink()
        else:
            changed = {"empty": b"", "of another job": b"x" + data[1:], "zeroed": data[:16] + bytes(len(data) - 16)}
            log.write_bytes(changed.get(damage, data[:-5]))
        await build(server, output, 1)
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_when_all_tiles_are_there_the_log_leaves_nothing_to_check(tmp_path, monkeypatch):
    """A kill during the stitch must not have parts made again whose blocks are in the output already."""
    tiler, output = tiler_of("png"), tmp_path / "out.tif"

    async def assemble(*args):
        raise ResourceError("killed")

    with Desync(tiler, ahead(answer(tiler.body((8, 0, 0)))), turns=range(4, 5)).running() as server:
        with monkeypatch.context() as patch:
            patch.setattr(Run, "_assemble", assemble)
            with pytest.raises(ResourceError):
                await build(server, output, 1)
        assert server.strays
        state = read_record(tmp_path / "out.tif.work" / "job.json")
        log = Arrivals(tmp_path / "out.tif.work" / "arrivals.log", Proof(state.label))
        assert log.scan(())
        assert (log.path.stat().st_size > 100, log.unproved) == (True, {})
        report = await build(server, output, 1)
    assert report.requests == 0
    assert_is_the_world(output, tiler, AREA, ZOOM)


async def test_tiles_that_name_their_place_need_no_log(tmp_path):
    tiler, output = tiler_of("tif"), tmp_path / "out.tif"
    with Stalling(tiler).running() as server:
        await killed(server, output, 1, 10)
        assert not (tmp_path / "out.tif.work" / "arrivals.log").exists()
        report = await build(server, output, 1)
        assert server.hits.total() <= report.tiles_total + 1
    assert_is_the_world(output, tiler, AREA, ZOOM)


def taken(bodies, strays):
    """Return what a client takes for the answers of its requests, with strays ahead of some."""
    sent: list[bytes] = []
    for place, body in enumerate(bodies):
        sent += [stray for at, stray in strays if at == place]
        sent.append(body)
    return sent[: len(bodies)]


def assert_that_nothing_wrong_passes(bodies, strays, useless) -> None:
    """Some answers are of no use, such as errors, and so are not noted."""
    noted = [
        Unproved(place + 1, Tile(place, 0, 9), digest_of(body))
        for place, body in enumerate(taken(bodies, strays))
        if place not in useless
    ]
    shown = telling(noted) if noted else ()
    if shown and all(answer.digest == digest_of(bodies[answer.tile.x]) for answer in shown):
        assert [answer.digest for answer in noted] == [digest_of(bodies[answer.tile.x]) for answer in noted]


BODIES = st.sampled_from([b"", b"sea", b"land"])
PLACES = st.integers(0, 11)
USELESS = st.sets(PLACES, max_size=3)


@given(st.lists(BODIES, min_size=1, max_size=12), st.lists(st.tuples(PLACES, BODIES), max_size=1), USELESS)
@settings(max_examples=examples(300), deadline=None)
def test_one_stray_is_found_however_alike_the_tiles_are(bodies, strays, useless):
    assert_that_nothing_wrong_passes(bodies, strays, useless)


@given(st.integers(1, 12), st.lists(st.tuples(PLACES, st.integers(0, 99)), max_size=4), USELESS)
@settings(max_examples=examples(200), deadline=None)
def test_any_number_of_strays_is_found_where_all_tiles_are_unlike(count, strays, useless):
    """The strays are foreign, or answers that were sent before."""
    bodies = [b"%d" % place for place in range(count)]
    sent = [(at, b"%d" % number if number < at else b"foreign") for at, number in strays]
    assert_that_nothing_wrong_passes(bodies, sent, useless)


def test_a_connection_whose_tiles_are_all_unlike_needs_three_requests():
    answers = [Unproved(number, Tile(number, 0, 9), digest_of(b"%d" % number)) for number in range(1, 90)]
    assert {answer.number for answer in telling(answers)} == {87, 88, 89}
