"""What a hostile server may send, and what it gets out of it: nothing. Each test fails without its defence."""

from __future__ import annotations

import asyncio
import io
import json
import resource
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib

import mercantile
import numpy as np
import pytest
import rasterio
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile
from rasterio.transform import from_bounds

from mosaic_async import IncompleteError, MosaicError, RefusedError, SourceError, TileSource, UsageError, build_mosaic
from mosaic_async.build.body_checks import check_answer, max_body
from mosaic_async.errors import TileError
from mosaic_async.geo.area import Area
from mosaic_async.geo.cover import Cover, Tile
from mosaic_async.http.request import Answer
from mosaic_async.raster.tile import decode, learn
from mosaic_async.sources.opening import from_tilejson
from tests.effort import examples
from tests.fake_tiler import FakeTiler
from tests.moods import at, says
from tests.test_api import AREA, BAD, ZOOM

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

PLACE = Tile(64, 49, 7)
HOME = tuple(mercantile.xy_bounds(64, 49, 7))
GOOD = FakeTiler().body((7, 64, 49))
PROFILE = learn(GOOD)


def check(body, profile=PROFILE, **headers):
    check_answer(Answer(200, body, {name.replace("_", "-"): value for name, value in headers.items()}), PLACE, profile)


def tiff(height=256, width=256, count=4, bounds=HOME, crs="EPSG:3857", dtype="uint8", write=True, **options):
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype}
    profile |= {"crs": crs, "transform": from_bounds(*bounds, width, height) if bounds else None, **options}
    with MemoryFile() as file:
        with rasterio.Env(), file.open(**profile) as dataset:
            if write:
                dataset.write(np.zeros((count, height, width), dtype))
        return bytes(file.getbuffer())


def small_tiff(**tags: int) -> bytes:
    """Write a TIFF of 122 bytes or so that claims what it is told to."""
    fields = {256: 256, 257: 256, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 256, 279: 1}
    fields |= {int(name[1:]): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHLL", code, 4, 1, value) for code, value in sorted(fields.items()))
    return b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", len(fields)) + entries + struct.pack("<L", 0)


HUGE_BLOCKS = small_tiff(t322=16384, t323=16384, t324=8, t325=1)


def jp2(width, height, tile=256, count=3):
    """Write the begin of a code stream of JPEG 2000 that claims what it is told to."""
    sizes = struct.pack(">HHLLLLLLLLH", 38 + 3 * count, 0, width, height, 0, 0, tile, tile, 0, 0, count % 2**16)
    return b"\xff\x4f\xff\x51" + sizes + b"\x07\x01\x01" * count


def in_boxes(stream):
    boxes = [(b"jP  ", b"\r\n\x87\n"), (b"ftyp", b"jp2 \0\0\0\0jp2 "), (b"xml ", jp2(256, 256)), (b"jp2c", stream)]
    return b"".join(struct.pack(">L4s", len(data) + 8, kind) + data for kind, data in boxes)


@pytest.mark.parametrize("wrapped", [in_boxes, bytes])
@pytest.mark.parametrize(
    "stream",
    [
        jp2(2**31, 256),
        jp2(256, 13_000_000),
        jp2(2**30, 256, tile=2**30),
        jp2(256, 256, tile=2),
        jp2(256, 256, tile=16, count=300),
        jp2(0, 256),
    ],
)
def test_a_jpeg_2000_that_claims_much_is_refused_before_anything_opens_it(stream, wrapped, monkeypatch):
    """OpenJPEG takes memory by the size that is claimed when it opens a file: 700 MB for a tile with a byte changed."""
    monkeypatch.setattr("mosaic_async.raster.tile.MemoryFile", None)
    with pytest.raises(TileError, match="the tile claims"):
        learn(wrapped(stream))


@pytest.mark.parametrize("cut", [3, 11, 12, 20, 40, 60, 90])
def test_a_jpeg_2000_whose_header_is_cut_is_refused(cut):
    with pytest.raises(TileError, match=r"cut short|known format"):
        learn(in_boxes(b"")[:cut])


def test_a_good_tile_passes():
    check(GOOD)
    check(GOOD, None)
    check(GOOD, Content_Type="image/tiff; application=geotiff")
    check(tiff(crs=None, bounds=None, write=False))
    check(tiff(count=3, tiled=True, blockxsize=256, blockysize=256, compress="zstd"))
    check(tiff(BIGTIFF="YES", compress="deflate"))
    check(tiff(ENDIANNESS="BIG", compress="lzw"))


VRT = """<VRTDataset rasterXSize="256" rasterYSize="256">{bands}</VRTDataset>"""
RAW_BAND = """<VRTRasterBand dataType="Byte" band="{band}" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="0">{path}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>
<LineOffset>256</LineOffset></VRTRasterBand>"""
URL_BAND = """<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>
<SourceFilename relativeToVRT="0">/vsicurl/{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand>"""


@pytest.mark.parametrize("band", [RAW_BAND, URL_BAND], ids=["a local file", "another server"])
async def test_a_vrt_in_place_of_a_tile_reads_no_file_and_asks_no_server(serve, tmp_path, band):
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"A" * 256 * 256)
    other = serve()
    path = secret if band is RAW_BAND else other.url + "/7/64/49.tif"
    vrt = VRT.format(bands="".join(band.format(band=number, path=path) for number in range(1, 5))).encode()
    with pytest.raises(TileError, match="not an image of a known format"):
        decode(vrt, PROFILE)
    with pytest.raises(TileError, match="not an image of a known format"):
        check(vrt)
    tiler = serve()
    tiler.mood = at(tiler, BAD, says(vrt), times=9)
    with pytest.raises(IncompleteError):
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert other.requests == 0


@pytest.mark.parametrize("magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_a_vrt_that_begins_like_an_image_is_not_opened_as_one(tmp_path, magic):
    """GDAL takes whatever has `<VRTDataset` in its first kilobyte for one, unless it is told what to expect."""
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"A" * 256 * 256)
    vrt = VRT.format(bands="".join(RAW_BAND.format(band=number, path=secret) for number in range(1, 4))).encode()
    body = magic + vrt + b"\0IEND\xaeB`\x82"
    with MemoryFile(body) as file, file.open() as dataset:
        assert dataset.driver == "VRT"
    with pytest.raises(TileError, match=r"cannot be read|cut short"):
        learn(body)
    with pytest.raises(TileError, match=r"cannot be read|cut short"):
        decode(body, PROFILE)


@pytest.mark.parametrize(
    ("body", "says_what"),
    [
        (small_tiff(t256=10**6, t257=10**6), "1000000 x 1000000"),
        (small_tiff(t256=2**31 - 1, t257=2**31 - 1), "2147483647"),
        (small_tiff(t277=65535), "65,535 bands"),
        (small_tiff(t322=16384, t323=16384, t324=8, t325=1), "16,384 x 16,384"),
        (small_tiff(t322=256, t323=2**31, t324=8, t325=1), "blocks claim"),
        (small_tiff(t322=0, t323=0, t324=8, t325=1), "blocks claim"),
        (small_tiff(t278=0), "blocks claim"),
        (small_tiff(t256=0), "0 x 256"),
        (small_tiff(t259=34925), "codec 34925"),
        (small_tiff(t259=34887), "codec 34887"),
        (small_tiff()[:40], "cut short"),
        (b"II*\0" + struct.pack("<L", 2**32 - 1), "cut short"),
        (b"II*\0" + struct.pack("<LH", 8, 65535) + bytes(70000), "cut short"),
        (b"II+\0" + struct.pack("<HHQ", 8, 0, 2**63), "cut short"),
        (b"II*\0", "cut short"),
        (small_tiff(**{f"t{code}": 1 for code in range(1000, 1600)}), "damaged"),
        (HUGE_BLOCKS.replace(struct.pack("<HH", 322, 4), struct.pack("<HH", 322, 9)), "damaged"),
        (HUGE_BLOCKS.replace(struct.pack("<HHLL", 324, 4, 1, 8), struct.pack("<HHLL", 322, 4, 1, 256)), "damaged"),
        (HUGE_BLOCKS.replace(struct.pack("<HHL", 322, 4, 1), struct.pack("<HHL", 322, 4, 5000)), "damaged"),
    ],
)
def test_a_few_bytes_that_claim_much_are_refused_before_anything_opens_them(body, says_what):
    with pytest.raises(TileError, match=says_what):
        check(body)


def test_a_tag_of_a_million_numbers_is_not_read():
    """A first tile may be large, and a number in Python is several times as large as one in a file."""
    body = small_tiff(t34264=8).replace(struct.pack("<HHL", 34264, 4, 1), struct.pack("<HHL", 34264, 12, 1_000_000))
    body += bytes(8_000_000)
    tracemalloc.start()
    try:
        check(body, None)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("body", [small_tiff(t256=10**6, t257=10**6), small_tiff(t277=65535)])
def test_a_first_tile_may_not_claim_much_either(body):
    with pytest.raises(TileError, match="claims"):
        check(body, None)


def test_a_tiff_whose_directories_go_in_circles_is_refused():
    endless = small_tiff()[:-4] + struct.pack("<L", 8)
    with pytest.raises(TileError, match="more than 32 images"):
        check(endless)


def test_a_mask_inside_the_file_may_not_have_huge_blocks_either():
    image = small_tiff()
    mask = small_tiff(t254=4, t322=16384, t323=16384, t324=8, t325=1)
    with pytest.raises(TileError, match="blocks claim"):
        check(image[:-4] + struct.pack("<L", len(image)) + mask[8:])


@pytest.mark.parametrize("codec", ["deflate", "zstd", "lerc_deflate"])
def test_a_codec_bomb_takes_no_memory(codec):
    """268 MB of zeros; LERC compresses them to a few kilobytes."""
    bomb = tiff(8192, 8192, 4, compress=codec, tiled=True, blockxsize=8192, blockysize=8192, write=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for profile in (PROFILE, None):
        with pytest.raises(TileError):
            check(bomb, profile)
    with pytest.raises(TileError, match="size"):
        decode(bomb, PROFILE)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


@pytest.mark.parametrize(("ext", "size"), [("png", 20000), ("npy", 100000)])
def test_a_bomb_of_another_format_takes_no_memory(ext, size):
    if ext == "png":
        header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10_000_000))), (b"IEND", b"")]
        body = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    else:
        text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': (4, {size}, {size})}}".ljust(117) + "\n"
        body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    learnt = FakeTiler(ext=ext)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TileError):
        decode(body, learn(learnt.body((7, 64, 49))))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_a_pickle_in_an_npy_is_not_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    stream = io.BytesIO()
    np.save(stream, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(TileError):
        learn(stream.getvalue())
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("body", "says_what"),
    [
        (FakeTiler().body((7, 65, 49)), "another place"),
        (FakeTiler().body((7, 64, 48)), "another place"),
        (FakeTiler().body((8, 128, 98)), "another place"),
        (tiff(bounds=(HOME[0] + 700, HOME[1], HOME[2] + 700, HOME[3])), "another place"),
        (tiff(bounds=(float("nan"), HOME[1], HOME[2], HOME[3])), "another place"),
        (tiff(bounds=(0, 38, 3, 41), crs="EPSG:4326"), "EPSG:4326|degrees"),
        (tiff(crs="EPSG:32631"), "EPSG:32631"),
    ],
)
def test_a_tile_of_another_place_is_refused(body, says_what):
    with pytest.raises(TileError, match=says_what):
        check(body)


@pytest.mark.parametrize("shift", [0.49, -0.49])
def test_a_place_within_half_a_pixel_is_that_place(shift):
    pixel = (HOME[2] - HOME[0]) / 256
    moved = (HOME[0] + shift * pixel, HOME[1], HOME[2] + shift * pixel, HOME[3])
    check(tiff(bounds=moved))
    with pytest.raises(TileError, match="another place"):
        check(tiff(bounds=tuple(value + np.sign(shift) * pixel * 0.1 for value in moved)))


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/html; charset=utf-8", ""])
def test_the_first_bytes_of_a_tile_overrule_its_media_type(kind):
    for body in (GOOD, *(FakeTiler(ext=ext).body((7, 64, 49)) for ext in ("png", "jpg", "webp", "npy"))):
        check(body, Content_Type=kind)
    with pytest.raises(TileError, match="is text/html, not a tile" if "html" in kind else "not"):
        check(b"<!doctype html><title>oops</title>", Content_Type=kind)


def test_an_array_without_bands_or_with_thousands_is_no_first_tile():
    for shape in ((1, 4, 4), (5000, 4, 4)):
        stream = io.BytesIO()
        np.save(stream, np.zeros(shape, "uint8"))
        with pytest.raises(TileError, match="bands beside its mask"):
            learn(stream.getvalue())


def test_the_header_s_place_counts_in_web_mercator_only():
    mercator = "<http://www.opengis.net/def/crs/EPSG/0/3857>"
    check(GOOD, Content_Bbox=",".join(map(str, HOME)), Content_Crs=mercator)
    check(GOOD, Content_Bbox="0,38,3,41", Content_Crs="<http://www.opengis.net/def/crs/OGC/1.3/CRS84>")
    check(GOOD, Content_Bbox="0,38,3,41")
    for bbox in ("0,38,3,41", "nan,nan,nan,nan", "x", "1,2"):
        with pytest.raises(TileError):
            check(GOOD, Content_Bbox=bbox, Content_Crs=mercator)


@pytest.mark.parametrize("kind", ["text/html", "application/json", "text/plain; charset=utf-8", "application/xml"])
def test_a_text_is_no_tile_and_is_quoted(kind):
    with pytest.raises(TileError, match="Service suspended"):
        check(b"<h1>Service suspended</h1>", Content_Type=kind)


async def test_a_body_larger_than_any_such_tile_is_left_while_it_streams(serve, tmp_path):
    """Four megabytes can be a tile, but not one of 256 x 256 bytes."""
    tiler = serve()
    sent = []

    async def stream():
        for _ in range(400):
            sent.append(65536)
            yield bytes(65536)

    async def mood(tile, hit):
        return web.Response(body=stream(), content_type="image/tiff") if tile == BAD else None

    tiler.mood = mood
    with pytest.raises(IncompleteError) as error:
        await build_mosaic(tiler.template, AREA, tmp_path / "out.tif", zoom=ZOOM)
    assert f"larger than {max_body(PROFILE):,} bytes" in error.value.report.failed[0].reason
    assert sum(sent) < 20_000_000


async def test_a_tilejson_may_not_send_us_to_another_origin_unless_told(serve, tmp_path):
    other = serve()
    tiler = serve()
    tiler.documents["/t.json"] = {"tiles": [other.template], "maxzoom": 7}
    secrets = {"X-API-Key": "secret"}
    with pytest.raises(SourceError, match="another host"):
        await build_mosaic(f"{tiler.url}/t.json", AREA, tmp_path / "out.tif", zoom=ZOOM, headers=secrets)
    assert other.requests == 0
    await build_mosaic(
        f"{tiler.url}/t.json", AREA, tmp_path / "out.tif", zoom=ZOOM, headers=secrets, allow_hosts=["127.0.0.1"]
    )
    assert other.requests == 16
    assert not any("X-API-Key" in headers for headers in other.headers_seen)


@pytest.mark.parametrize(
    "template",
    [
        "file:///etc/{z}/{x}/{y}",
        "/vsicurl/http://h/{z}/{x}/{y}",
        "//evil/{z}/{x}/{y}",
        "ftp://h/{z}/{x}/{y}",
        "{z}{x}{y}@h",
    ],
)
async def test_a_tilejson_s_template_is_of_http_and_its_own_host(serve, template):
    tiler = serve()
    tiler.documents["/t.json"] = {"tiles": [template]}
    try:
        source = await from_tilejson(f"{tiler.url}/t.json")
    except SourceError:
        return
    assert source.template.startswith(tiler.url + "/")


async def test_headers_like_a_bomb_and_json_without_end_are_refused(serve):
    tiler = serve()
    tiler.documents["/big.json"] = {"tiles": ["x" * 20_000_000]}
    with pytest.raises(SourceError, match="larger than"):
        await from_tilejson(f"{tiler.url}/big.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = (
    st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5) | st.none() | st.lists(st.floats(), max_size=5)
)
TEMPLATE = st.sampled_from(
    ["http://h/{z}/{x}/{y}", "{z}/{x}/{y}.tif", "http://[/{z}/{x}/{y}", "http://h:99999999/{z}/{x}/{y}", "\0{z}{x}{y}"]
)
TILEJSON = st.fixed_dictionaries(
    {"tiles": st.lists(TEMPLATE | JSON, max_size=2) | JSON},
    optional={
        "minzoom": NUMBERS,
        "maxzoom": NUMBERS,
        "bounds": st.lists(NUMBERS, min_size=3, max_size=5) | JSON,
        "tileSize": NUMBERS,
        "scheme": JSON,
    },
)


@given(document=TILEJSON | JSON, hostile=st.sampled_from(["", "1e999", "[" * 5000, '{"a":' * 3000, "9" * 5000]))
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_tilejson_says_it_is_a_source_or_our_error(tmp_path, document, hostile):
    path = tmp_path / "t.json"
    path.write_text(hostile or json.dumps(document))
    try:
        source = asyncio.run(from_tilejson(path))
    except MosaicError:
        return
    assert isinstance(source, TileSource)
    assert source.maxzoom is None or 0 <= source.maxzoom <= 24


NUMBER = st.floats() | st.integers(-400, 400) | st.sampled_from([90, -90, 180, -180, 1e308])
RINGS = st.lists(st.lists(st.tuples(NUMBER, NUMBER), max_size=6), max_size=3)
AREAS = (
    st.lists(NUMBER, min_size=3, max_size=5)
    | st.builds(lambda rings: {"type": "Polygon", "coordinates": rings}, RINGS)
    | st.builds(lambda kind, inner: {"type": kind, "coordinates": inner}, st.text(max_size=5), JSON)
)  # fmt: skip


@given(area=AREAS, zoom=st.integers(-2, 60))
@settings(max_examples=examples(80))
def test_whatever_an_area_says_it_has_a_few_tiles_or_is_our_error(area, zoom):
    try:
        cover = Cover.of(Area.parse(area), zoom, max_tiles=10_000)
    except MosaicError:
        return
    assert 0 < cover.count <= 10_000


@pytest.mark.parametrize("zoom", [22, 24])
async def test_an_absurd_number_of_tiles_is_refused_at_once(tmp_path, zoom):
    async with asyncio.timeout(2):
        with pytest.raises(RefusedError, match="tiles at zoom"):
            await build_mosaic("http://127.0.0.1:9/{z}/{x}/{y}", (-180, -85, 180, 85), tmp_path / "out.tif", zoom=zoom)


@pytest.mark.parametrize(
    "area", [(float("nan"), 0, 1, 1), (float("-inf"), 0, float("inf"), 1), (0, 5, 1, float("nan"))]
)
async def test_an_area_that_is_no_number_is_refused(tmp_path, area):
    with pytest.raises(RefusedError, match="must be finite"):
        await build_mosaic("http://127.0.0.1:9/{z}/{x}/{y}", area, tmp_path / "out.tif", zoom=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_corner_that_is_no_number_is_refused_wherever_it_stands(place, value):
    ring = [(0, 0), (8, 0), (8, 8), (0, 8)]
    ring[place] = (4, value)
    with pytest.raises(RefusedError, match="not finite"):
        Area.parse({"type": "Polygon", "coordinates": [ring]})


@pytest.mark.parametrize(
    "area",
    [(-500_000, 4_000_000, 500_000, 5_000_000), (0, 0, 1, 91), (0, -91, 1, 0), (370, 0, 380, 1), (-380, 0, -370, 1)],
)
def test_metres_are_not_degrees(area):
    with pytest.raises(RefusedError, match="not degrees of longitude and latitude"):
        Area.parse(area)


@pytest.mark.parametrize("zoom", [-1, 25, 60])
def test_a_zoom_beyond_all_tilers_is_refused(zoom):
    with pytest.raises(UsageError, match="zoom must be from 0 to 24"):
        Cover.of(Area.parse((0, 0, 1e-6, 1e-6)), zoom)


def test_a_polygon_around_the_world_at_an_absurd_zoom_is_refused_before_it_takes_memory():
    ring = [(-179, -80), (179, -80), (179, 80), (-179, 80)]
    area = Area.parse({"type": "Polygon", "coordinates": [ring]})
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match="bounding box has"):
            Cover.of(area, 24)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_small_polygons_far_apart_are_refused_before_the_box_around_them_takes_memory():
    places = [(-170, -80), (170, 80)]
    rings = [[(x, y), (x + 1e-4, y), (x + 1e-4, y + 1e-4)] for x, y in places]
    area = Area.parse({"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]})
    with pytest.raises(RefusedError, match="bounding box has"):
        Cover.of(area, 20)


@pytest.mark.parametrize("name", ["../../x", "a/b", "x" * 300, ".hidden", "CON"])
async def test_names_from_a_server_never_become_paths(serve, tmp_path, name):
    tiler = serve()
    tiler.documents["/t.json"] = {"tiles": [tiler.template], "name": name, "id": name, "maxzoom": 7}
    inside = tmp_path / "inside"
    inside.mkdir()
    await build_mosaic(f"{tiler.url}/t.json", AREA, inside / "out.tif", zoom=ZOOM)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["inside", "inside/out.tif"]


def test_a_server_that_drips_bytes_for_ever_is_left_at_the_timeout(tmp_path):
    """A socket that sends a little now and then does not extend the timeout, which is that of the whole attempt."""
    from mosaic_async import build_mosaic_sync

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_drip, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/{{z}}/{{x}}/{{y}}"
        with pytest.raises(SourceError, match=r"no answer within 0\.5 seconds"):
            build_mosaic_sync(url, AREA, tmp_path / "out.tif", zoom=ZOOM, timeout=0.5, attempts=1)


def _drip(server):
    while True:
        try:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            threading.Thread(target=_drip_into, args=(connection,), daemon=True).start()
        except OSError:
            return


def _drip_into(connection):
    import time

    try:
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        connection.close()


FORMATS = ["tif", "png", "jpg", "webp", "npy", "jp2"]


def fuzz(ext, count, seed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.raster.fuzz_tiles", str(seed), str(count), ext],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.quick(2)
@pytest.mark.parametrize("ext", FORMATS)
def test_damaged_tiles_end_in_our_error_or_in_pixels_and_never_in_a_crash(ext):
    assert "refused" in fuzz(ext, 100, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ext", FORMATS)
def test_ten_thousand_damaged_tiles_end_in_our_error_or_in_pixels(ext):
    assert "refused" in fuzz(ext, 10_000, seed=2)
