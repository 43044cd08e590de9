"""JSON that others wrote: deep, packed, broken; wherever it comes in, the error is ours and says where."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from click.testing import CliRunner

from mosaic_async.build.failed_tiles import read_tiles
from mosaic_async.build.work_folder import WorkFolder
from mosaic_async.cli.main import main
from mosaic_async.errors import SourceError, UsageError
from mosaic_async.safety.safe_json import parse, read, read_text
from mosaic_async.sources.opening import from_tilejson
from mosaic_async.sources.stac_files import read_document
from mosaic_async.tiler.scenes.mosaic import open_mosaic

DEEP = '{"tiles": ' + "[" * 100_000


def test_json_is_read_from_text_and_bytes_and_files(tmp_path):
    document = {"tiles": ["é"], "number": 1.5}
    text = json.dumps(document, ensure_ascii=False)
    (tmp_path / "plain.json").write_text(text)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(text.encode()))
    assert parse(text) == parse(text.encode()) == document
    assert read(tmp_path / "plain.json") == read(tmp_path / "packed.json.gz") == document


@pytest.mark.parametrize("text", [DEEP, DEEP.encode(), "", "{", b"\xff\xfe\x00"])
def test_what_is_no_json_is_a_value_error_however_deep(text):
    with pytest.raises(ValueError, match=r"."):
        parse(text)


@pytest.mark.parametrize(
    "data", [b"{}", b"\x1f\x8b", gzip.compress(b"[1, 2, 3]" * 99, mtime=0)[:-9], b"\x1f\x8b\x08" + b"?" * 50]
)
def test_what_is_not_gzipped_as_its_name_says_is_a_value_error(tmp_path, data):
    (tmp_path / "packed.json.gz").write_bytes(data)
    with pytest.raises(ValueError, match="gzipped"):
        read_text(tmp_path / "packed.json.gz")


def test_a_packed_file_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("mosaic_async.safety.safe_json._MAX_UNPACKED", 10_000)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * 10_001))
    (tmp_path / "fits.json.gz").write_bytes(gzip.compress(b" " * 9_998 + b"{}"))
    assert read(tmp_path / "fits.json.gz") == {}
    with pytest.raises(ValueError, match="more than 10,000 bytes unpacked"):
        read(tmp_path / "bomb.json.gz")


@pytest.mark.parametrize(
    "reader",
    [read_tiles, read_document, open_mosaic, lambda path: asyncio.run(from_tilejson(str(path)))],
    ids=["tiles", "item", "mosaic", "tilejson"],
)
def test_deep_json_is_our_error_wherever_a_file_comes_in(reader, tmp_path):
    path = tmp_path / "given.json"
    path.write_text(DEEP)
    with pytest.raises((SourceError, UsageError), match=r"given\.json"):
        reader(path)


@pytest.mark.parametrize(
    "arguments",
    [["given.json", "--bounds", "0", "0", "1", "1"], ["http://127.0.0.1:1/{z}/{x}/{y}.tif", "--area", "given.json"]],
)
def test_deep_json_on_the_command_line_is_an_error_of_usage(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.json").write_text(DEEP)
    source, *area = arguments
    done = CliRunner().invoke(main, ["build", source, "out.tif", "--zoom", "5", *area])
    assert done.exit_code == 2
    assert "given.json is not JSON: the JSON is nested too deeply" in done.output


async def test_a_work_folder_whose_state_is_deep_is_begun_anew(tmp_path):
    (tmp_path / "out.tif.work").mkdir()
    (tmp_path / "out.tif.work" / "job.json").write_text(DEEP)
    dropped = []
    work = await WorkFolder.open(tmp_path / "out.tif", "a", on_drop=lambda *piece: dropped.append(piece))
    await work.close()
    assert dropped == [("job.json", "it is damaged")]
