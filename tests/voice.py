"""The voice check: reads documents, docstrings, comments and messages, and prints what is not plain English.

`python -m tests.voice` checks the project; with paths it checks those. Each finding names a rule and what to write
instead. proselint adds its own rules for English in general.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from proselint.checks import __register__ as proselint_checks
from proselint.config import DEFAULT
from proselint.registry import CheckRegistry
from proselint.tools import LintFile

ROOT = Path(__file__).parent.parent
READ = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "benchmarks", "docs", "examples/demo.py", "mosaic_async")
"""Files and folders that the check reads."""
_CODE = "\N{MIDDLE DOT}"

Kind = Literal["document", "docstring", "comment", "message"]


@dataclass(frozen=True)
class Text:
    """A piece of English."""

    line: int
    """Where it begins, from 1."""
    kind: Kind
    content: str
    """Code in it is replaced by `_CODE`, so that positions stay."""


@dataclass(frozen=True)
class Rule:
    """A pattern that is not plain, and what to write instead."""

    name: str
    pattern: str
    """A blank matches any white space, line ends included."""
    write: str
    kinds: tuple[Kind, ...] = ("document", "docstring", "comment", "message")

    def matches(self, text: Text) -> Iterator[re.Match[str]]:
        """Yield every place in the text where the rule is broken."""
        if text.kind in self.kinds:
            without_indents = re.sub(r"[ \t]*\n[ \t]*", "\n", text.content)
            yield from re.finditer(self.pattern.replace(" ", r"\s"), without_indents, re.IGNORECASE)


_COUNTED = "seconds? requests? tiles? pixels? bytes bits parts? attempts? scenes? files? cores? ms times lines?"
_COUNTED += " pairs? one threads? process(?:es)? permits? sockets? [0-9]+ MB MiB GiB tokens? images? cells? degrees?"
_EACH = "second|tile|part|core|line|request|attempt|cell|pixel|job|scene|band|block|run|origin|worker|day|hour"
_NOT_A_RATE = r"(?! (?:chance|time|try|attempt|request|later|after|run|copy|body|answer))"

RULES = (
    Rule("asked-for", r"\bask(?:s|ed|ing)? for\b", "request, fetch"),
    Rule("said", r"\bsaid\b", "name, state, print"),
    Rule("be-had", r"\b(?:cannot|can|could|to|may)(?: not)? be had\b", "cannot be fetched, is available"),
    Rule("per", rf"\b(?:{'|'.join(_COUNTED.split())}) an? (?:{_EACH})\b{_NOT_A_RATE}", "per tile, per second"),
    Rule("a-side", r"\b(?:pixels?|blocks?|tiles?) (?:a|on a|each) side\b", "pixels wide, tile width in pixels"),
    Rule("is-no", r"(?<!there\s)\b(?:is|are|was|were|be) no (?!longer|more|less|fewer|\w+er than)", "is not a"),
    Rule("there-is-no", r"\bthere (?:is|are|was|were) (?:no|none|nothing|nobody)\b", "X not found, without X"),
    Rule("that-is-none", r"\b(?:that|which|it) (?:is|are) none\b", "that is not one; name the thing"),
    Rule("mend", r"\bmend(?:s|ed|ing)?\b", "fix"),
    Rule("goes-on", r"\b(?:go|goes|going|went|gone) on\b", "resume, continue"),
    Rule("by-now", r"\bby now\b|\bof late\b", "already, recently"),
    Rule("shall", r"\bshall\b", "must, will"),
    Rule("whoever", r"\bwhoever\b|\bwhatever it\b", "anyone who"),
    Rule("so-many", r"\bso many\b|\bso long as\b", "that many, N, as long as"),
    Rule("is-away", r"\b(?:is|are|was|be) away\b", "unavailable"),
    Rule("that-passes", r"\btroubles? (?:that|which) passe?s?\b|\bmay pass\b", "temporary, can be retried"),
    Rule("looked-for", r"\b(?:is|are|was|were) looked (?:for|at)\b", "searched, checked; name who does it"),
    Rule("tries-a", r"\btries an? (?:tile|page|part|URL|request)\b", "attempts per"),
    Rule("to-be-there", r"\b(?:have|has) to be there\b", "requires"),
    Rule("no-sense", r"\bmakes? no sense\b|\bmeans? nothing\b", "is invalid, is ignored; name the reason"),
    Rule("too-little", r"\bare too little\b|\bwould do\b", "is too small: at least N is needed", ("message",)),
    Rule("reader-pays", r"\breader pays\b", "requester-pays"),
    Rule("verb-first", r"\A\s*(?:Give|Tell|Say)s?\b(?! up)", "Return, Describe, Print", ("docstring",)),
    Rule("and-tell", r"\band (?:give|tell|say)s? (?:its|the|how|what|which|them|it)\b", "and return", ("docstring",)),
    Rule("in-place-of", r"\bin place of\b", "instead of"),
    Rule("insist", r"\binsists?\b", "require, check"),
    Rule("imperative-give", r"(?:\A|[;,:] |\bor |\band )give\b(?! up)", "set, pass, name", ("message",)),
    Rule("question", r"(?:\w+ ){2,}\w+\?\Z", "what is wrong and what to try, not a question", ("message",)),
    Rule("run-again", r"\brun (?:it|the same|this) again\b", "re-run the same command", ("message", "document")),
)

_UNUSED = (
    "dates_times",
    "industrial_language.chatspeak",  # B4 is a band here
    "restricted",
    "spelling.consistency",  # `color_formula` is a parameter
    "typography",  # printers' quotes
    "weasel_words",
)
"""Checks of proselint that do not fit."""


def main(arguments: list[str]) -> int:
    """Check the paths, or the project, and print the findings."""
    findings = [found for path in files_of(arguments or READ) for found in check_file(path)]
    sys.stdout.writelines(f"{found}\n" for found in findings)
    return min(len(findings), 1)


def files_of(places: Iterable[str]) -> list[Path]:
    """Return the Python files and documents at or below the places."""
    found: set[Path] = set()
    for place in places:
        path = ROOT / place
        found |= {path} if path.is_file() else {*path.rglob("*.py"), *path.rglob("*.md")}
    return sorted(found)


def check_file(path: Path) -> list[str]:
    """Return the findings in a file, as `path:line: rule: what to write`."""
    texts = list(texts_of(path))
    found = {(text.line + before, rule.name, advice) for text in texts for rule, before, advice in check(text)}
    if texts:
        found |= set(_proselint(texts))
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return [f"{name}:{line}: {rule}: {advice}" for line, rule, advice in sorted(found)]


def check(text: Text) -> Iterator[tuple[Rule, int, str]]:
    """Yield each rule that a text breaks, how many lines into the text, and what to write."""
    for rule in RULES:
        for match in rule.matches(text):
            words = " ".join(match[0].split())
            yield rule, match.string.count("\n", 0, match.start()), f"not {words!r} but {rule.write}"


def texts_of(path: Path) -> Iterator[Text]:
    """Yield the English of a document or of a Python file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield Text(1, "document", _without_code(source))
    else:
        yield from _strings(ast.parse(source))
        yield from _comments(source)


def _without_code(text: str) -> str:
    """Replace code, fenced, in backticks or in the target of a link."""
    pattern = r"^```.*?^```|(`+)[^`]+\1|\]\([^)]*\)|\w+://\S+|\b\d+(?:\.\d+){2,}"
    return re.sub(pattern, lambda match: re.sub(r"[^\n]", _CODE, match[0]), text, flags=re.DOTALL | re.MULTILINE)


def _strings(tree: ast.Module) -> Iterator[Text]:
    """Yield docstrings, those of fields too, and messages: other strings of three words or more."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    pieces = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in pieces:
            continue
        if isinstance(node, ast.JoinedStr):
            written = "".join(str(part.value) if isinstance(part, ast.Constant) else _CODE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            written = node.value
        else:
            continue
        if id(node) in docstrings:
            yield Text(node.lineno, "docstring", _without_code(written))
        elif len(re.findall(r"[A-Za-z]{2,}", written)) > 2:
            yield Text(node.lineno, "message", _without_code(written))


def _comments(source: str) -> Iterator[Text]:
    """Yield comments; those on lines that follow each other are one text."""
    tokens = [
        token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT
    ]
    block: list[tokenize.TokenInfo] = []
    for token in tokens:
        if block and token.start != (block[-1].start[0] + 1, block[-1].start[1]):
            yield _block(block)
            block = []
        block.append(token)
    if block:
        yield _block(block)


def _block(block: list[tokenize.TokenInfo]) -> Text:
    written = "\n".join(token.string.lstrip("# ") for token in block)
    return Text(block[0].start[0], "comment", _without_code(written))


def _proselint(texts: list[Text]) -> Iterator[tuple[int, str, str]]:
    """Run proselint once over all texts of a file, each in its own lines."""
    lines: list[str] = [""] * (max(text.line + text.content.count("\n") for text in texts) + 1)
    for text in texts:
        for offset, line in enumerate(text.content.splitlines()):
            lines[text.line + offset] += f" {_CODE} {line}"
    registry = CheckRegistry()
    if not registry.checks:
        registry.register_many(proselint_checks)
    checks = dict.fromkeys(_UNUSED, False) | {name: True for name in DEFAULT["checks"] if name not in _UNUSED}
    for result in LintFile("texts", "\n".join(lines)).lint({"max_errors": 1000, "checks": checks}):
        found = result.check_result
        yield result.pos[0] - 1, f"proselint {found.check_path}", " ".join(found.message.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
