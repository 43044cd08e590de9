"""Templates and TileJSON become one kind of source."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mercantile import Tile

from mosaic_async.errors import MosaicError, SourceError, UsageError
from mosaic_async.sources.source import TileSource, from_template, from_tilejson, open_source

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
        '{"tiles": ["https://h/{z}/{x}/{y}"], "bounds": [1, 2]}',
        '{"tiles": ["https://h/{z}/{x}/{y}"], "bounds": [NaN, 2, 3, 4]}',
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


@given(
    st.dictionaries(
        st.sampled_from(["tiles", "minzoom", "maxzoom", "bounds", "scheme", "tileSize"]),
        st.recursive(
            st.none() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=6,
        ),
    )
)
@settings(max_examples=200, deadline=None)
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
