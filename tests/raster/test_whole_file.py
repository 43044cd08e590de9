"""A reader sees the old file or the new one, whatever happens to the writer."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mosaic_async.raster import whole_file


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write_half(path: Path, error: type[BaseException]) -> None:
    with whole_file.aside(path) as partial:
        partial.write_text("half")
        raise error


def test_the_target_is_replaced_only_after_the_block(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with whole_file.aside(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == path.parent
        assert partial.name.endswith(whole_file.SUFFIX)
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.json"]


def test_an_error_before_anything_is_written_is_told_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        whole_file.write(tmp_path / "missing" / "a.json", b"")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file.aside(tmp_path / "a.json"):
        pass
    assert not names_in(tmp_path)


def test_two_writers_of_one_target_never_share_a_file(tmp_path):
    path = tmp_path / "a.bin"
    with whole_file.aside(path) as first:
        first.write_bytes(b"first")
        with whole_file.aside(path) as second:
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"


def test_of_many_writers_at_once_one_wins_with_all_its_bytes(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([number]) * 200_000 for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: whole_file.write(path, data), contents))
    assert path.read_bytes() in contents
    assert names_in(tmp_path) == ["a.bin"]


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    code = (
        "from pathlib import Path; from mosaic_async.raster import whole_file; import sys;"
        "whole_file.write(Path(sys.argv[1]), '\\u00e9\\u6f22')"
    )
    path = tmp_path / "a.txt"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, path], check=True, env=environment)
    assert path.read_bytes() == "é漢".encode()


def test_a_durable_file_is_flushed_before_the_rename_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(Path(f"/proc/self/fd/{fd}").readlink()), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (calls.append("rename"), replace(old, new))[1])
    whole_file.write(tmp_path / "a.bin", b"x", durable=True)
    assert calls[0].name.endswith(whole_file.SUFFIX)
    assert calls[1:] == ["rename", tmp_path]
    calls.clear()
    whole_file.write(tmp_path / "a.bin", b"x")
    assert calls == ["rename"]
