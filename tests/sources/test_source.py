"""Templates and TileJSON become one kind of source."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mercantile import Tile

from mosaic_async import plan_mosaic
from mosaic_async.build.job import Job
from mosaic_async.errors import MosaicError, RefusedError, SourceError, UsageError
from mosaic_async.geo.area import Area
from mosaic_async.sources.coverage import check_coverage
from mosaic_async.sources.opening import from_tilejson, open_source
from mosaic_async.sources.source import TileSource, from_template
from tests.effort import examples

TILEJSON = {
    "tilejson": "2.1.0",
    "tiles": ["https://tiler/tiles/abc/{z}/{x}/{y}@2x.tif?"],
    "minzoom": 7,
    "maxzoom": 12,
    "bounds": [-5.2, 47.2, -0.9, 48.9],
}


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://h/{z}/{x}/{y}.tif", "https://h/5/9/7.tif"),
        ("https://h/%7Bz%7D/%7Bx%7D/%7By%7D.tif", "https://h/5/9/7.tif"),
        ("https://h/%7bz%7d/{x}/{y}", "https://h/5/9/7"),
        ("http://h/{z}/{x}/{-y}.png", "http://h/5/9/24.png"),
        (
            'https://h/{z}/{x}/{y}?colormap={"0":"#fff"}&tile={z}-{x}-{y}',
            'https://h/5/9/7?colormap={"0":"#fff"}&tile=5-9-7',
        ),
    ],
)
def test_placeholders_are_filled_with_any_kind_of_braces_and_other_braces_stay(template, url):
    assert from_template(template).url(Tile(9, 7, 5)) == url


@pytest.mark.parametrize(
    ("template", "size"),
    [
        ("https://h/{z}/{x}/{y}.tif", None),
        ("https://h/{z}/{x}/{y}@2x.tif", 512),
        ("https://h/%7Bz%7D/%7Bx%7D/%7By%7D@4x.png", 1024),
        ("https://h/{z}/{x}/{y}.tif?url=a&tilesize=512", 512),
        ("https://h/{z}/{x}/{y}.png?width=2&size=3,4", None),
        ("https://h/?bbox={bbox-epsg-3857}&WIDTH=512&HEIGHT=512", 512),
        ("https://h/?bbox={bbox}&size=1024,1024", 1024),
        ("https://h/?bbox={bbox}&width={width}", 256),
    ],
)
def test_the_tile_size_is_read_from_the_url(template, size):
    assert from_template(template).tile_size == size


@pytest.mark.parametrize(
    "template", ["https://h/{z}/{x}.tif", "https://h/tiles", "ftp://h/{z}/{x}/{y}", "/{z}/{x}/{y}", ""]
)
def test_what_is_no_template_is_a_usage_error(template):
    with pytest.raises(UsageError):
        TileSource(template=template)


@pytest.mark.parametrize(
    ("template", "longer"),
    [
        ("https://h/{z}/{x}/{y}.tif", "https://h/{z}/{x}/{y}.tif?bands=4%2C3&a=b+c"),
        ("https://h/{z}/{x}/{y}.tif?", "https://h/{z}/{x}/{y}.tif?bands=4%2C3&a=b+c"),
        ("https://h/{z}/{x}/{y}.tif?url=u", "https://h/{z}/{x}/{y}.tif?url=u&bands=4%2C3&a=b+c"),
    ],
)
def test_parameters_are_joined_whatever_the_url_ends_with(template, longer):
    assert from_template(template).with_params({"bands": "4,3", "a": "b c"}).template == longer


async def test_a_tilejson_in_a_file_tells_everything(tmp_path):
    path = tmp_path / "mosaic.json"
    path.write_text(json.dumps(TILEJSON))
    source = await from_tilejson(path)
    assert source.template == TILEJSON["tiles"][0]
    assert (source.tile_size, source.minzoom, source.maxzoom) == (512, 7, 12)
    assert source.bounds == (-5.2, 47.2, -0.9, 48.9)


async def test_a_tilejson_at_a_url_is_fetched_with_the_headers(serve):
    tiler = serve(
        documents={"/tilejson.json": {**TILEJSON, "tilejson": "3.0.0", "tiles": ["/{z}/{x}/{y}.tif?tilesize=1024"]}}
    )
    source = await open_source(
        f"{tiler.url}/tilejson.json?url=x", headers={"Authorization": "Bearer t"}, params={"a": "b"}
    )
    assert source.template == f"{tiler.url}/{{z}}/{{x}}/{{y}}.tif?tilesize=1024&a=b"
    assert source.tile_size == 1024
    assert source.headers == {"Authorization": "Bearer t"}
    assert "Bearer" not in repr(source)


async def test_a_tms_scheme_counts_rows_from_the_south(tmp_path):
    path = tmp_path / "tms.json"
    path.write_text(json.dumps({"tiles": ["https://h/{z}/{x}/{y}.png"], "scheme": "tms"}))
    assert (await from_tilejson(path)).url(Tile(0, 0, 2)) == "https://h/2/0/3.png"


@pytest.mark.parametrize(
    "text",
    [
        "<html>",
        "[]",
        "{}",
        '{"tiles": []}',
        '{"tiles": [3]}',
        '{"tiles": ["https://h/{z}/{x}.png"]}',
        '{"tiles": ["file:///etc/{z}/{x}/{y}"]}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "maxzoom": 99}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "maxzoom": "deep"}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "maxzoom": 1e999}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "scheme": "zxy"}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "scheme": ["tms"]}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "tileSize": -1}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "format": "pbf"}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "vector_layers": [{"id": "roads"}]}',
        "[" * 100_000,
        '{"tiles": ["https://h/{z}/{x}/{y}"], "maxzoom": ' + "9" * 5000 + "}",
    ],
)
async def test_what_is_no_tilejson_is_a_source_error(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(MosaicError) as error:
        await from_tilejson(path)
    assert error.value.exit_code in (2, 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bounds", [1, 2]),
        ("bounds", [float("nan"), 2, 3, 4]),
        ("bounds", [-400000, 5000000, 300000, 6000000]),
        ("bounds", [0, 9, 1, 3]),
        ("bounds", [None, None, None, None]),
        ("minzoom", "deep"),
    ],
)
async def test_a_field_that_decides_no_pixel_is_left_out_with_a_note(tmp_path, field, value):
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps({**TILEJSON, field: value}))
    source = await from_tilejson(path)
    assert getattr(source, field) is None
    assert source.notes == (f"`{field}` of the TileJSON cannot be read and is left out",)


async def test_a_tilejson_is_read_as_people_write_it(tmp_path):
    path = tmp_path / "tiles.json"
    written = {
        "tiles": "https://h/{z}/{x}/{y}.png", "bounds": "-5.2, 47.2,-0.9,48.9", "minzoom": "0", "maxzoom": 14.0,
        "scheme": "TMS", "encoding": "Terrarium", "center": "nowhere", "vector_layers": [], "attribution": None,
    }  # fmt: skip
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(written).encode())
    source = await from_tilejson(path)
    assert (source.minzoom, source.maxzoom, source.bounds) == (0, 14, (-5.2, 47.2, -0.9, 48.9))
    assert (source.url(Tile(0, 0, 2)), source.encoding, source.notes) == ("https://h/2/0/3.png", "terrarium", ())
    path.write_text(json.dumps({"tiles": ["https://h/{z}/{x}/{y}"], "bounds": None, "maxzoom": 30, "minzoom": ""}))
    source = await from_tilejson(path)
    assert (source.minzoom, source.maxzoom, source.bounds, source.zooms) == (None, None, None, None)


@pytest.mark.parametrize(
    ("size", "template", "zoom"),
    [
        (None, "https://h/{z}/{x}/{y}.png", 14),
        (256, "https://h/{z}/{x}/{y}.png", 14),
        (512, "https://h/{z}/{x}/{y}.png", 14),  # its zooms count tiles of 512 pixels
        ("512", "https://h/{z}/{x}/{y}@2x.png", 14),
        (None, "https://h/{z}/{x}/{y}@2x.png", 13),  # TiTiler before 2: zooms count tiles of 256 pixels
        (None, "https://h/{z}/{x}/{y}.tif?tilesize=512", 13),
    ],
)
async def test_the_default_zoom_is_that_of_the_last_tiles_or_of_their_resolution(tmp_path, size, template, zoom):
    path = tmp_path / "tiles.json"
    path.write_text(json.dumps({"tiles": [template], "maxzoom": 14, "tileSize": size}))
    job = Job(source=await from_tilejson(path), area=Area.parse((0, 0, 1, 1)))
    assert job.tile_zoom == zoom


FRANCE = (-5.2, 41.3, 9.6, 51.2)


@pytest.mark.parametrize(
    ("bounds", "area"),
    [
        (FRANCE, (2, 48, 3, 49)),
        (FRANCE, (9.65, 45, 9.7, 46)),  # the same tile at zoom 8
        ((170, -20, -170, -10), (175, -18, -178, -12)),
        ((170, -20, 190, -10), (-179, -18, -178, -12)),
        ((-180, -90, 180, 90), (179, 84, -179, 85)),
        (None, (48, 2, 49, 3)),
    ],
)
def test_an_area_that_touches_a_tile_of_the_source_is_taken(bounds, area):
    source = TileSource(template="https://h/{z}/{x}/{y}", bounds=bounds, zooms=(3, 8))
    for zoom in (3, 8):
        check_coverage(source, Area.parse(area), zoom)


@pytest.mark.parametrize(
    ("bounds", "area", "hint"),
    [
        (FRANCE, (48, 2, 49, 3), "swapped"),
        (FRANCE, {"type": "Polygon", "coordinates": [[(48, 2), (49, 2), (49, 3), (48, 2)]]}, "swapped"),
        (FRANCE, (100, 45, 101, 46), "check the area"),
        (FRANCE, (2, -49, 3, -48), "check the area"),
        ((170, -20, -170, -10), (10, -18, 20, -12), "check the area"),
    ],
)
async def test_an_area_outside_of_the_source_is_refused_before_any_work(bounds, area, hint):
    source = TileSource(template="https://h.invalid/{z}/{x}/{y}", bounds=bounds)
    with pytest.raises(RefusedError, match="outside of what the source covers") as error:
        await plan_mosaic(source, area, zoom=8)
    assert hint in str(error.value.hint)


@pytest.mark.parametrize(("zoom", "word"), [(9, "above the source's highest, 8"), (2, "below the source's lowest, 3")])
async def test_a_zoom_that_the_source_does_not_have_is_refused_before_any_work(zoom, word):
    source = TileSource(template="https://h.invalid/{z}/{x}/{y}", zooms=(3, 8))
    with pytest.raises(UsageError, match=word):
        await plan_mosaic(source, (2, 48, 3, 49), zoom=zoom)


@given(
    st.dictionaries(
        st.sampled_from(["tiles", "minzoom", "maxzoom", "bounds", "scheme", "tileSize", "encoding", "format"]),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=6,
        ),
    )
)
@settings(max_examples=examples(200), deadline=None)
def test_hostile_tilejson_gives_a_source_or_our_error_and_nothing_else(tmp_path_factory, document):
    import asyncio

    path = tmp_path_factory.mktemp("t") / "t.json"
    path.write_text(json.dumps(document))
    try:
        source = asyncio.run(from_tilejson(path))
    except MosaicError:
        return
    assert source.url(Tile(0, 0, 0))


async def test_a_tilejson_that_is_not_there_says_so_without_the_query(serve, tmp_path):
    tiler = serve()
    with pytest.raises(SourceError, match="HTTP 404") as error:
        await from_tilejson(f"{tiler.url}/nothing.json?token=hunter2")
    assert "hunter2" not in str(error.value)
    with pytest.raises(SourceError, match="No such file"):
        await from_tilejson(tmp_path / "nothing.json")
