"""The package as a whole: its names, its parts, its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mosaic_async

ROOT = Path(mosaic_async.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if path.stem != "__main__"
)


def test_public_names_are_sorted_and_there():
    assert mosaic_async.__all__ == sorted(mosaic_async.__all__)
    assert all(hasattr(mosaic_async, name) for name in mosaic_async.__all__)


def test_each_module_can_be_imported_alone_without_a_warning():
    """In one process: whatever `import mosaic_async` brings is there for every module, all others are forgotten."""
    code = """
import importlib, sys, mosaic_async
core = set(sys.modules)
for module in sys.argv[1:]:
    for name in set(sys.modules) - core:
        if name.startswith("mosaic_async."):
            del sys.modules[name]
    importlib.import_module(module)
"""
    quiet = ["-W", "error", "-W", "ignore::PendingDeprecationWarning", "-W", "ignore::DeprecationWarning:importlib"]
    modules = [module.removesuffix(".__init__") for module in MODULES]
    done = subprocess.run([sys.executable, *quiet, "-c", code, *modules], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_importing_the_core_imports_no_extra():
    extras = "('titiler', 'rio_tiler', 'fastapi', 'distributed', 'pystac_client', 'shapely', 'requests')"
    code = f"import sys, mosaic_async.cli.main; print([m for m in {extras} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_only_the_command_line_prints():
    assert [path.name for path in ROOT.rglob("*.py") if "click.echo(" in path.read_text()] == ["main.py"]


def test_bytes_from_servers_are_opened_in_one_place_only():
    openers = [path.name for path in ROOT.rglob("*.py") if "MemoryFile(body)" in path.read_text()]
    assert openers == ["tile.py"]


def test_errors_have_the_exit_codes_of_the_readme():
    codes = {error.__name__: error.exit_code for error in mosaic_async.errors.MosaicError.__subclasses__()}
    assert codes == {
        "UsageError": 2,
        "RequestError": 4,
        "TileError": 4,
        "IncompleteError": 3,
        "SourceError": 4,
        "ResourceError": 5,
        "RefusedError": 6,
        "WorkFolderError": 7,
        "StitchError": 1,
    }
