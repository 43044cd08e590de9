"""What README, guides and changelog name exists: flags, variables, Python names, files, rooms."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from mosaic_async.cli.main import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
ROOMS = sorted(path.parent.name for path in (ROOT / "mosaic_async").glob("*/__init__.py"))
OTHER_TOOLS = {"--full", "--rounds", "--strict"}
"""Flags of the benchmarks, of mypy and of rio."""
GONE = {"_meters_per_pixel", "_filter_futures"}
"""Names of the notebook, of which README says that they no longer exist."""
FOREIGN = {
    "cog_validate", "format_meter", "exitwhenfull", "skipcovered", "color_ops", "MemoryFile", "CapacityLimiter",
    "MosaicTilerFactory", "MultiPolygon", "STACReader", "from_features", "gdal_edit", "promote_types", "tRNS",
}  # fmt: skip
"""Names of other libraries and servers."""


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request):
    return request.param


def code(text):
    """The code of a document: fenced, and in backticks."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return fenced + inline


def flags(command):
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {"-h", "--help"} | {flag for option in options for flag in (*option.opts, *option.secondary_opts)}


@cache
def identifiers():
    """Every name in the code: defined, imported, an attribute, a keyword, or a word of a short string."""
    found = set(dir(builtins))
    for folder in ("mosaic_async", "benchmarks", "tests", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            found.add(path.stem)
            if path == Path(__file__):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                for name in ("id", "name", "attr", "arg", "asname"):
                    if isinstance(value := getattr(node, name, None), str):
                        found |= set(value.split("."))
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= set(re.findall(r"[A-Za-z_]\w*", node.value)) if len(node.value) < 200 else set()
    return found


def test_every_flag_in_a_document_exists(document):
    text = document.read_text()
    known = {"--version", *OTHER_TOOLS, *(flag for command in main.commands.values() for flag in flags(command))}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known == set()


def test_every_command_in_a_document_has_its_flags(document):
    for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "mosaic-async" in words:
                command = words[words.index("mosaic-async") + 1]
                given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
                assert given <= flags(main.commands[command]), line


def test_every_variable_and_tag_in_a_document_is_in_the_code(document):
    text = document.read_text()
    code = [path for folder in ("mosaic_async", "tests") for path in (ROOT / folder).rglob("*.py")]
    source = "\n".join(path.read_text() for path in code if path != Path(__file__))
    named = set(re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+_?\b", text))
    assert {variable for variable in named if variable not in source} == set()


def test_every_module_and_public_name_in_a_document_can_be_imported(document):
    text = document.read_text()
    rooms = "|".join(ROOMS)
    dotted = set(re.findall(r"\bmosaic_async(?:\.\w+)+", "\n".join(code(text))))
    dotted |= {f"mosaic_async.{found}" for found in re.findall(rf"`((?:{rooms})(?:\.\w+)+)", text)}
    dotted -= {found for found in dotted if found.endswith(".py")}
    dotted -= {"mosaic_async.search"}  # the changelog tells its new name
    for found in dotted:
        resolve(found)


def resolve(dotted):
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.quick(3)
def test_every_function_class_and_parameter_in_backticks_exists(document):
    inline = [found for found in re.findall(r"`([^`\n]+)`", document.read_text()) if not found.startswith("-")]
    words = {word for found in inline for word in re.findall(r"(?<![\w/.-])[A-Za-z_]\w*(?![\w/-])", found)}
    names = {word for word in words if re.search(r"[a-z]_[a-z]|[a-z][A-Z]", word)}
    assert names - identifiers() - FOREIGN - GONE == set()


def test_every_link_in_a_document_leads_somewhere(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_file_in_backticks_exists(document):
    folders = ("docs", "tests", "benchmarks", "examples", *ROOMS)
    for found in re.findall(rf"`((?:{'|'.join(folders)})/[\w./]*)`", document.read_text()):
        assert (ROOT / found).exists() or (ROOT / "mosaic_async" / found).exists(), found


def test_python_in_a_document_imports_what_exists(document):
    for block in re.findall(r"^```python\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    resolve(f"{node.module}.{alias.name}")


def test_the_architecture_names_every_room_and_nothing_else():
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.split("| room |")[1].split("\n\n")[0]
    named = set(re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE))
    assert named == set(ROOMS)
    assert {room for room in ROOMS if f"<b>{room}</b>" not in text} == set()


def test_decisions_are_grouped_by_room_with_an_index():
    text = (ROOT / "docs/decisions.md").read_text()
    groups = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert groups[0] == "The whole"
    assert set(groups[1:]) == {*ROOMS, "tests"}
    assert re.findall(r"^- \[(.+)\]\(#", text, re.MULTILINE) == groups
