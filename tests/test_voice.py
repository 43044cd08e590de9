"""The voice check: each rule finds what it is for, and leaves plain English alone."""

from __future__ import annotations

import re

import pytest

from tests.voice import READ, ROOT, RULES, Text, check, check_file, files_of, main, texts_of

EXAMPLES = {
    "asked-for": ("each tile is asked for once", "each tile is requested once"),
    "said": ("what the source said", "what the source states"),
    "be-had": ("the tile cannot be had", "the tile cannot be fetched"),
    "per": ("at most five requests a second", "at most five requests per second, each tile has a second chance"),
    "a-side": ("tiles of 512 pixels a side", "tiles 512 pixels wide"),
    "is-no": ("the file is no COG", "the file is not a COG, and the server is no longer used"),
    "there-is-no": ("there is no such folder", "folder not found"),
    "that-is-none": ("a line that is none", "a line without a colon"),
    "mend": ("mend the call", "fix the call"),
    "goes-on": ("the run goes on where it stopped", "the run resumes, going one step at a time"),
    "by-now": ("the file exists by now", "the file already exists"),
    "shall": ("the tiler shall render it", "the tiler renders it"),
    "whoever": ("open to whoever can reach it", "open to everyone who can reach it"),
    "so-many": ("use so many scenes", "use the first scenes, as many as needed"),
    "is-away": ("the server is away", "the server is unavailable"),
    "that-passes": ("trouble that passes", "temporary trouble"),
    "looked-for": ("the server is looked for", "the client probes the server"),
    "tries-a": ("five tries a tile", "five attempts per tile; it tries them in turn"),
    "to-be-there": ("Python has to be there", "Requires Python"),
    "no-sense": ("the zooms make no sense", "the lowest zoom is above the highest"),
    "too-little": ("10 MiB are too little", "10 MiB is too small"),
    "reader-pays": ("buckets whose reader pays", "requester-pays buckets"),
    "verb-first": ("Give the pixels of a tile.", "Return the pixels of a tile. Give up after an hour."),
    "and-tell": ("Build the file and give its path.", "Build the file and return its path."),
    "in-place-of": ("NumPy in place of GDAL", "NumPy instead of GDAL"),
    "insist": ("insist that they are equal", "require that they are equal"),
    "imperative-give": ("leave it out, or give a zoom", "set a zoom; the server may give up"),
    "question": ("is there room on the disk?", "make room on the disk; see https://h/x?"),
    "run-again": ("make room and run the same again", "make room and re-run the same command"),
}


def broken(content, kinds=("document", "docstring", "message")):
    return {rule.name for kind in kinds for rule, _, _ in check(Text(1, kind, content))}


def test_every_rule_has_an_example():
    assert [rule.name for rule in RULES] == list(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_rule_finds_what_it_is_for_and_nothing_else(name):
    bad, good = EXAMPLES[name]
    kind = next(rule.kinds[0] for rule in RULES if rule.name == name)
    assert broken(bad, [kind]) == {name}
    assert broken(bad.replace(" ", "\n    "), [kind]) == {name}  # wrapped lines
    assert broken(good) == set()


def test_findings_name_the_line_the_rule_and_the_words_to_write(tmp_path, capsys):
    module = tmp_path / "module.py"
    module.write_text(
        '"""Give a thing.\n\nIt is no\ntoy."""\n\n\ndef go(name):\n    # what was asked\n    # for, twice\n'
        '    raise UsageError(f"there is no {name} here", hint="`mend` it")\n    """Of a field: tiles a second."""\n'
    )
    found = [re.sub(r".*module.py:", "", line) for line in check_file(module)]
    assert [":".join(line.split(":")[:2]) for line in found] == [
        "1: verb-first",
        "3: is-no",
        "8: asked-for",
        "10: there-is-no",
        "11: per",
    ]
    assert found[1].endswith("not 'is no' but is not a")
    assert main([str(module)]) == 1
    assert capsys.readouterr().out.count("\n") == 5


def test_code_in_a_document_is_not_read(tmp_path):
    document = tmp_path / "guide.md"
    document.write_text(
        "Run `mend`:\n\n```sh\nmosaic-async goes on  # said\n```\n\n[x](https://h/goes on)\n\nIt said so.\n"
    )
    assert check_file(document) == [f"{document}:9: said: not 'said' but name, state, print"]


def test_a_file_without_words_has_no_findings(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("")
    assert check_file(module) == []


def test_proselint_reads_every_file_too(tmp_path):
    document = tmp_path / "guide.md"
    document.write_text("A tile.\n\nIt is very unique, irregardless.\n")
    names = [line.split(": ")[1] for line in check_file(document)]
    assert "proselint nonwords" in names
    assert all(line.startswith(f"{document}:3: ") for line in check_file(document))


def test_words_of_a_python_file_are_docstrings_comments_and_messages():
    path = ROOT / "mosaic_async/errors.py"
    kinds = {text.kind for text in texts_of(path)}
    assert kinds >= {"docstring", "comment"} or kinds == {"docstring"}


@pytest.mark.slow  # `make lint` checks it too
def test_the_project_is_in_plain_english():
    files = files_of(READ)
    assert len(files) > 100
    assert [line for path in files for line in check_file(path)] == []
