"""The package as a whole: its names, its parts, its size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_first_look_at_the_package_shows_sixteen_entries_at_most():
    entries = [path.name for path in ROOT.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 16, sorted(entries)


@pytest.mark.slow
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


FOR_PEOPLE = {"print", "input", "click", "sys.stdout", "sys.stderr", "os.environ", "os.getenv", "uvloop", "tqdm"}
EXCEPTIONS = {
    ("http/route.py", "os.environ"),  # proxies, and where ~/.netrc is, as every HTTP client reads them
    ("sources/access.py", "os.environ"),  # GDAL takes headers per server from a file that its environment names only
    ("tiler/launcher.py", "os.environ"),  # a child gets its parent's environment
    ("tiler/server.py", "print"),  # the child tells its parent by a line on its pipe that it is ready
}


def uses(path, names):
    """What a module uses of the names, dotted or not: imported, called or only looked at."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import():
                found = [alias.name for alias in node.names]
            case ast.ImportFrom():
                found = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            case ast.Name() | ast.Attribute():
                found = [ast.unparse(node)]
            case _:
                found = []
        yield from names & set(found)


def test_only_the_command_line_prints_reads_the_environment_or_chooses_the_loop():
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] not in ("cli", "__main__.py")
        for name in uses(path, FOR_PEOPLE)
    }
    assert found == EXCEPTIONS
    inside = {name for path in (ROOT / "cli").glob("*.py") for name in uses(path, FOR_PEOPLE)}
    assert inside >= {"click", "sys.stderr", "os.environ", "uvloop", "tqdm"}  # the detector works


def test_bytes_from_servers_are_opened_in_one_place_only():
    """A `MemoryFile` of bytes, or any way of rasterio to open them; `MemoryFile()` for writing is free."""
    openers = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("MemoryFile", "ZipMemoryFile")
        if node.args or any(keyword.arg == "file_or_bytes" for keyword in node.keywords)
    }
    assert openers == {"raster/tile.py"}


def test_errors_have_the_exit_codes_of_the_readme_and_of_the_tree_in_their_module():
    def below(error):
        return {error, *(sub for child in error.__subclasses__() for sub in below(child))}

    codes = {
        error.__name__: error.exit_code
        for error in below(mosaic_async.errors.MosaicError)
        if error.__module__ == "mosaic_async.errors"
    }
    tree = re.findall(r"(\w+Error) .*?(\d)$", mosaic_async.errors.__doc__, re.MULTILINE)
    assert codes == {name: int(code) for name, code in tree}
    readme = (ROOT.parent / "README.md").read_text().split("Exit codes: ")[1].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"(?:^|·\s)(\d)", readme)} == {0, *codes.values()}
    assert "130, 143" in readme
    table = (ROOT.parent / "docs/failures.md").read_text().split("## Exit codes")[1].split("## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d) \|", table, re.MULTILINE)} == {0, *codes.values()}
