"""The notebooks, run from the first cell to the last as a reader would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rio_cogeo import cog_validate

from tests.conftest import SCENES

NOTEBOOKS = sorted((SCENES.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    "notebook",
    [pytest.param(notebook, marks=pytest.mark.slow) for notebook in NOTEBOOKS],
    ids=[path.stem for path in NOTEBOOKS],
)
def test_a_notebook_runs_to_its_end_and_leaves_valid_cogs(notebook, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "scenes").symlink_to(SCENES)
    (tmp_path / "demo.py").symlink_to(SCENES.parent / "demo.py")
    shutil.copy(notebook, tmp_path / "notebooks")
    env = {**os.environ, "JUPYTER_PLATFORM_DIRS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, "-m", "jupyter", "execute", "--timeout=100", notebook.name]
    done = subprocess.run(command, cwd=tmp_path / "notebooks", env=env, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-8000:]
    made = list((tmp_path / "notebooks" / "output").glob("*.tif"))
    assert made
    assert all(cog_validate(path, strict=True, quiet=True)[0] for path in made)


def test_there_are_the_three_parts_of_the_original():
    assert [path.stem for path in NOTEBOOKS] == ["1-median", "2-highest-ndvi", "3-at-scale"]
    assert all('"outputs": []' in Path(path).read_text() for path in NOTEBOOKS)
