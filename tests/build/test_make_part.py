"""One part, built alone from values that were pickled, is as a run makes it; twice at once it is still the same."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

from mosaic_async import build_mosaic
from mosaic_async.build.drawing import draw_shared
from mosaic_async.build.identity import Identity
from mosaic_async.build.job import Effort, Job
from mosaic_async.build.make_part import make_part
from mosaic_async.build.run_client import RetryTally, run_client
from mosaic_async.build.shared_folder import SharedFolder
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover
from mosaic_async.sources.source import TileSource
from tests.build.test_stitching import SMALL_PARTS
from tests.moods import at, status
from tests.test_api import AREA, BAD, ZOOM


def ignore(_):
    pass


async def blueprint_of(tiler, folder, scratch):
    job = Job(source=TileSource(template=tiler.template), area=Area.parse(AREA), zoom=ZOOM, **SMALL_PARTS)
    identity, cover, effort = Identity.of(job), Cover.of(job.area, job.matrix), Effort(concurrency=4)
    work = await WorkFolder.open(scratch / "first", identity.label, on_drop=ignore)
    client = run_client(job, effort, RetryTally(ignore), on_event=ignore, on_proof=work.arrivals.prove)
    async with client:
        drawn = draw_shared(job, effort, cover, identity, client=client, work=work, folder=folder, on_event=ignore)
        blueprint, _ = await drawn
    await work.remove()
    await work.close()
    return pickle.loads(pickle.dumps(blueprint))


async def test_parts_built_alone_and_twice_at_once_are_what_a_run_stitches(serve, tmp_path):
    tiler, output, scratch = serve(ext="png"), tmp_path / "out.tif", tmp_path / "scratch"
    job = Job(source=TileSource(template=tiler.template), area=Area.parse(AREA), zoom=ZOOM, **SMALL_PARTS)
    folder = await SharedFolder.open(output, Identity.of(job).label)
    blueprint = await blueprint_of(tiler, folder, scratch)
    six = [(part.row, part.col) for part in blueprint.layout.grid.parts()][:6]
    places = [*six, *six[:2]]
    made = await asyncio.gather(*(make_part(blueprint, place, scratch=scratch, published=folder) for place in places))
    assert all(one.records[f"{row}-{col}"].placed == 1 for one, (row, col) in zip(made, places, strict=True))
    assert pickle.loads(pickle.dumps(made)) == list(made)
    again = await make_part(blueprint, places[0], scratch=scratch, published=folder)
    assert (again.found, again.requests, again.records) == (1, 0, made[0].records)
    assert list(scratch.iterdir()) == []
    folder.close()
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, **SMALL_PARTS)
    assert report.parts_resumed == 6
    await build_mosaic(tiler.template, AREA, tmp_path / "alone.tif", zoom=ZOOM, **SMALL_PARTS)
    assert output.read_bytes() == (tmp_path / "alone.tif").read_bytes()


async def test_a_part_that_lacks_a_tile_is_published_and_finished_later_with_that_tile_alone(serve, tmp_path):
    tiler, output, scratch = serve(), tmp_path / "out.tif", tmp_path / "scratch"
    tiler.mood = at(tiler, BAD, status(500), times=99)
    job = Job(source=TileSource(template=tiler.template), area=Area.parse(AREA), zoom=ZOOM, **SMALL_PARTS)
    folder = await SharedFolder.open(output, Identity.of(job).label)
    blueprint = await blueprint_of(tiler, folder, scratch)
    grid = blueprint.layout.grid
    (part,) = [one for one in grid.parts() if (BAD[1], BAD[2]) in [(tile.x, tile.y) for tile in grid.tiles(one)]]
    lacking = await make_part(blueprint, (part.row, part.col), scratch=scratch, published=folder)
    assert [failure.status for failure in lacking.failed] == [500]
    tiler.mood = None
    whole = await make_part(blueprint, (part.row, part.col), scratch=scratch, published=folder)
    assert (whole.found, whole.failed, whole.requests) == (0, (), 1)
    assert not whole.records[part.name].missing
    folder.close()


async def test_a_part_that_is_stopped_or_cancelled_leaves_nothing(serve, tmp_path):
    tiler, output, scratch = serve(latency=0.2), tmp_path / "out.tif", tmp_path / "scratch"
    job = Job(source=TileSource(template=tiler.template), area=Area.parse(AREA), zoom=ZOOM, **SMALL_PARTS)
    folder = await SharedFolder.open(output, Identity.of(job).label)
    blueprint, stop = await blueprint_of(tiler, folder, scratch), asyncio.Event()
    stop.set()
    assert not (await make_part(blueprint, (0, 0), scratch=scratch, published=folder, stop=stop)).records
    task = asyncio.create_task(make_part(blueprint, (0, 0), scratch=scratch, published=folder))
    requests = tiler.requests
    while tiler.requests == requests:
        await asyncio.sleep(0.01)
    task.cancel()
    assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
    assert list(scratch.iterdir()) == []
    assert not [path for path in Path(folder.path).rglob("*") if path.suffix == ".tif"]
    folder.close()
