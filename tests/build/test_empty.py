"""Empty tiles of all kinds in whole runs: each is masked and counted apart, and none of them hides a fault."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from aiohttp import web

from mosaic_async import IncompleteError, SourceError, WorkFolderError, build_mosaic, plan_mosaic, verify_mosaic
from mosaic_async.cli.terminal import report_text
from tests.desync import Desync
from tests.fake_tiler import FakeTiler, Pattern
from tests.http.test_emptiness import DENIED, OTHER_403, OUTSIDE
from tests.test_api import AREA, ZOOM, assert_is_the_world, expected, left_behind

TILES = [(7, 63, 47), (7, 62, 48), (7, 65, 46)]
PICTURE = Pattern(count=3, masked=False, smooth=True)
pytestmark = pytest.mark.usefixtures("unblocked_loop")


def answer(status: int, body: bytes = b"", kind: str = "application/xml", **headers: str):
    """Return a maker of answers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: web.Response(status=status, body=body, content_type=kind, headers=named)


def only(make, tiles=TILES):
    async def mood(tile, hit):
        return make() if tile in tiles else None

    return mood


def assert_is_the_world_without(path, tiler, tiles) -> None:
    pixels, valid, (left, top) = expected(tiler.pattern, AREA, ZOOM, 256)
    for _, x, y in tiles:
        valid[(y - top) * 256 : (y - top + 1) * 256, (x - left) * 256 : (x - left + 1) * 256] = False
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, valid)
        np.testing.assert_array_equal(dataset.read()[:, valid], pixels[:, valid])


KINDS = {
    "204": (answer(204), [], "no content"),
    "404": (answer(404), [], "not found"),
    "200 without a body": (answer(200, kind="image/tiff"), [], "no body"),
    "400 outside": (answer(400, OUTSIDE["GeoWebCache"]), [], "outside"),
    "403 of a bucket": (answer(403, DENIED["S3"]), [], "denied"),
    "no-tile": (answer(200, b"a picture", "image/png", X_VE_Tile_Info="no-tile"), [], "rule"),
    "410 by a rule": (answer(410), ["410"], "rule"),
    "403 by a rule": (answer(403, OTHER_403["a gateway"]), ["403"], "rule"),
    "500 by a rule": (answer(500), ["500"], "rule"),
    "a header by a rule": (answer(200, b"x", "image/png", X_Blank="1"), ["header:x-blank=1"], "rule"),
}


@pytest.mark.quick(4)
@pytest.mark.parametrize(("make", "rules", "kind"), KINDS.values(), ids=KINDS)
async def test_each_kind_of_empty_tile_is_masked_and_counted_apart(serve, tmp_path, make, rules, kind):
    tiler, output = serve(pattern=Pattern(masked=False), mood=only(make)), tmp_path / "out.tif"
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, empty=rules, part_size=512)
    assert_is_the_world_without(output, tiler, TILES)
    assert (report.tiles_placed, report.tiles_empty, report.empty_kinds) == (13, 3, {kind: 3})
    assert report.tiles_not_found == (3 if kind == "not found" else 0)
    assert left_behind(tmp_path) == ["out.tif"]
    is_doubt = make().status >= 400 or kind == "no body"
    hits = {tile: tiler.hits[tile] for tile in TILES}
    assert all(1 + is_doubt <= count <= 5 for count in hits.values()), hits  # with the probe and two farewells


async def test_a_sample_file_tells_the_picture_that_means_no_data(serve, tmp_path):
    tiler, output = serve(ext="png", pattern=Pattern(count=3, masked=False)), tmp_path / "out.tif"
    picture, sample = tiler.body((9, 1, 1)), tmp_path / "sample.png"
    sample.write_bytes(picture)
    tiler.mood = only(answer(200, picture, "image/png"))
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, empty=[str(sample)])
    assert_is_the_world_without(output, tiler, TILES)
    assert report.empty_kinds == {"rule": 3}
    assert report.same_bytes is None
    verified = await verify_mosaic(output, source=tiler.template)
    assert (verified.tiles_compared, verified.tile_faults) == (16, ())


async def test_wholly_transparent_tiles_are_empty_and_not_placed(serve, tmp_path):
    tiler, output = serve(pattern=Pattern()), tmp_path / "out.tif"
    body = tiler.body(TILES[0])
    with rasterio.MemoryFile(body) as file, file.open() as source:
        profile, pixels = source.profile, source.read()
    pixels[-1] = 0
    with rasterio.MemoryFile() as file:
        with file.open(**profile) as target:
            target.colorinterp = (
                source.colorinterp if False else [*target.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
            )
            target.write(pixels)
        transparent = bytes(file.getbuffer())
    tiler.mood = only(answer(200, transparent, "image/tiff"), TILES[:1])
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM)
    assert (report.tiles_placed, report.empty_kinds) == (15, {"transparent": 1})


@pytest.mark.parametrize("not_found", ["fail", "empty"])
async def test_what_is_only_a_doubt_can_fail(serve, tmp_path, not_found):
    tiler, output = serve(pattern=Pattern(masked=False), mood=only(answer(403, DENIED["GCS"]))), tmp_path / "out.tif"
    if not_found == "empty":
        assert (await build_mosaic(tiler.template, AREA, output, zoom=ZOOM)).empty_kinds == {"denied": 3}
        return
    with pytest.raises(IncompleteError, match="3 of 16"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, not_found="fail")


ENDS = {
    "a bucket that lets nobody in any more": (answer(403, DENIED["S3"]), []),
    "a signature of the past": (answer(403, OTHER_403["a signed URL of the past"]), []),
    "a token of the past, with a rule": (answer(403, OTHER_403["a gateway"]), ["403"]),
    "bodies that get lost": (answer(200, kind="image/tiff"), []),
    "another matrix": (answer(400, OUTSIDE["OnEarth"]), []),
}


@pytest.mark.quick(2)
@pytest.mark.parametrize(("make", "rules"), ENDS.values(), ids=ENDS)
async def test_a_server_that_answers_so_for_all_tiles_after_a_while_ends_the_run(serve, tmp_path, make, rules):
    """No tile that has data becomes empty: the next run fetches all of them."""
    tiler, output, options = serve(pattern=Pattern(count=1)), tmp_path / "out.tif", {"zoom": ZOOM, "empty": rules}
    seen = 0

    async def mood(tile, hit):
        nonlocal seen
        seen += 1
        return make() if seen > 7 else None

    tiler.mood = mood
    with pytest.raises(SourceError) as error:
        await build_mosaic(tiler.template, AREA, output, concurrency=4, part_size=512, **options)
    assert error.value.exit_code == 4
    assert left_behind(tmp_path) == ["out.tif.work"]
    tiler.mood = None
    report = await build_mosaic(tiler.template, AREA, output, part_size=512, **options)
    assert report.tiles_placed == 16
    assert_is_the_world(output, tiler, AREA, ZOOM)


@pytest.mark.parametrize(("make", "rules"), ENDS.values(), ids=ENDS)
async def test_a_server_that_answers_so_for_all_tiles_makes_no_mosaic(serve, tmp_path, make, rules):
    async def mood(tile, hit):
        return make()

    with pytest.raises(SourceError):
        await build_mosaic(serve(mood=mood).template, AREA, tmp_path / "out.tif", zoom=ZOOM, empty=rules)
    assert left_behind(tmp_path) == []


HEADS = {
    "no length": b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nConnection: close\r\n\r\n",
    "a length": b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nContent-Length: 9000\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nContent-Type: image/tiff\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_a_body_that_is_cut_off_at_its_first_byte_is_no_empty_tile(tmp_path, head):
    async def cut(server, tile, proper, writer):
        writer.write(head if tile == TILES[1] else proper)
        if tile == TILES[1]:
            writer.close()

    server = Desync(FakeTiler(pattern=Pattern(count=1)), cut, turns=range(1, 10**9))
    with server.running(), pytest.raises(IncompleteError, match="1 of 16") as error:
        await build_mosaic(server.template, AREA, tmp_path / "out.tif", zoom=ZOOM, attempts=1)
    assert error.value.report.tiles_empty == 0


async def test_rules_are_part_of_the_job(serve, tmp_path):
    tiler, output = serve(mood=only(answer(422))), tmp_path / "out.tif"
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, empty=["410"])
    with pytest.raises(WorkFolderError, match="another job"):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, output, zoom=ZOOM, empty=["410", "0410"])


async def test_a_plan_knows_the_rules(serve):
    tiler = serve(mood=only(answer(200, b"x", "image/png", X_Blank="1"), [(7, 63, 47)]))
    plan = await plan_mosaic(tiler.template, AREA, zoom=ZOOM, empty=["header:x-blank=1"])
    assert plan.assumed


@pytest.mark.parametrize(("share", "is_told"), [(8, True), (1, False)])
async def test_many_tiles_with_the_same_bytes_are_told(serve, tmp_path, share, is_told):
    tiler, output = serve(ext="png", pattern=PICTURE), tmp_path / "out.tif"
    tiles = [(7, x, y) for x in range(62, 66) for y in range(46, 50)]
    tiler.mood = only(answer(200, tiler.body((9, 1, 1)), "image/png"), tiles[:share])
    report = await build_mosaic(tiler.template, AREA, output, zoom=ZOOM)
    found = report.same_bytes
    assert (found is not None) == is_told
    if found:
        assert found.tiles in (7, 8)  # the probe counts none
        assert f"{found.tiles} of {found.total} tiles are the same bytes" in report_text(report)
        assert f"--empty sha256:{found.sha256}" in report_text(report)
        again = await build_mosaic(
            tiler.template, AREA, output, zoom=ZOOM, overwrite=True, empty=[f"sha256:{found.sha256}"]
        )
        assert (again.empty_kinds, again.same_bytes) == ({"rule": 8}, None)
        assert "8 empty (8 of them by a rule)" in report_text(again)
        assert type(report).from_dict(report.as_dict()) == report


async def test_tiles_of_one_colour_may_have_the_same_bytes(serve, tmp_path):
    tiler = serve(ext="png", pattern=Pattern(count=3, masked=False))
    sea = serve_body(np.full((3, 256, 256), 7, np.uint8))
    tiler.mood = only(answer(200, sea, "image/png"), [(7, x, y) for x in range(62, 65) for y in range(46, 50)])
    report = await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert (report.same_bytes, report.tiles_placed) == (None, 16)


def serve_body(pixels: np.ndarray) -> bytes:
    with rasterio.MemoryFile() as file:
        count, height, width = pixels.shape
        with file.open(driver="PNG", count=count, height=height, width=width, dtype="uint8") as target:
            target.write(pixels)
        return bytes(file.getbuffer())


WIDE = (-44.9, 0.1, 44.9, 66.4)
"""32 x 32 tiles at zoom 7."""


def at_the_rim(tile) -> bool:
    _, x, y = tile
    return x in (48, 79) or y in (32, 63)


@pytest.mark.slow
async def test_a_layer_with_data_at_its_rim_only_is_found(serve, tmp_path):
    tiler = serve(pattern=Pattern(count=1, masked=False), tile_size=128)

    async def mood(tile, hit):
        return None if at_the_rim(tile) else web.Response(status=404)

    tiler.mood = mood
    report = await build_mosaic(tiler.template, WIDE, tmp_path / "out.tif", zoom=ZOOM)
    assert (report.tiles_total, report.tiles_placed, report.tiles_not_found) == (1024, 124, 900)


async def test_a_sample_of_the_whole_area_finds_the_rim(serve, tmp_path):
    tiler, probed = serve(pattern=Pattern(count=1, masked=False), tile_size=128), []

    async def mood(tile, hit):
        probed.append(tile)
        return None if at_the_rim(tile) else web.Response(status=404)

    tiler.mood = mood
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, WIDE, tmp_path / "out.tif", zoom=ZOOM, on_error="fail", not_found="fail")
    assert any(map(at_the_rim, probed[:54]))


async def test_a_layer_with_one_tile_in_a_hundred_needs_the_option(serve, tmp_path):
    area, only_one = (-14.0, 30.0, 14.0, 50.0), (7, 60, 44)
    tiler = serve(pattern=Pattern(count=1, masked=False), tile_size=128)

    async def mood(tile, hit):
        return None if tile == only_one else web.Response(status=404)

    tiler.mood = mood
    with pytest.raises(SourceError, match=r"none of 5\d tiles from the whole area has data: 5\d are HTTP 404") as error:
        await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM)
    assert "``sparse``" in error.value.marked_hint
    report = await build_mosaic(tiler.template, area, tmp_path / "out.tif", zoom=ZOOM, sparse=True)
    assert (report.tiles_placed, report.tiles_not_found) == (1, report.tiles_total - 1)


async def test_with_the_option_a_wrong_url_is_still_no_mosaic(serve, tmp_path):
    tiler = serve(mood=only(answer(404), [(7, x, y) for x in range(62, 66) for y in range(46, 50)]))
    with pytest.raises(SourceError, match="none of the 16 tiles has data"):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM, sparse=True)
    assert left_behind(tmp_path) == []
