"""Which answers state that a tile has no data: defaults that servers need, and rules of the user.

Where an answer can also mean that something is wrong, such as a 404 of a server that was deployed anew, it is only a
doubt, and the tile has to be requested again. It knows nothing of how that is done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mosaic_async.errors import UsageError

Emptiness = Literal["no content", "rule", "not found", "no body", "outside", "denied"]
"""204; a rule of the user, or a header that states it; 404; 200 without a body; 400 that calls the tile outside of the
matrix; 403 of a bucket, which answers so where a key does not exist and listing is not allowed."""
_SAYING_SO = {"x-ve-tile-info": "no-tile"}
"""Headers, in lower case, by which servers state it beside a picture that tells people."""
_OUTSIDE = re.compile(
    rb"\btile ?out ?(?:of|side) ?(?:the )?(?:range|bounds|limits|matrix)"
    rb"|\b(?:tile|row|col|column|tilerow|tilecol|x|y)\b.{0,80}?\bout(?:side)? (?:of )?(?:the )?"
    rb"(?:\w+ ){0,3}?(?:range|bounds|extent|limits|matrix)",
    re.IGNORECASE | re.DOTALL,
)
"""`TileOutOfRange` of OGC's WMTS (GeoServer, MapProxy, OnEarth), `TileOutsideBounds` of rio-tiler, and sentences."""
_DENIED = re.compile(rb"<Code>AccessDenied</Code>(?!.{0,500}<Message>(?!Access Denied\.?<))", re.IGNORECASE | re.DOTALL)
"""Of S3, Google Cloud Storage and their likes; a request that has expired has another message."""
_STATUSES = range(200, 600)
_NEVER = frozenset((200, 401, 407, 429, 503))
"""Statuses that no tile can have for being empty: everything, no right to ask, and a server that asks to wait."""


@dataclass(frozen=True, kw_only=True)
class EmptyRules:
    """What the user calls empty, beside the defaults."""

    statuses: frozenset[int] = frozenset()
    headers: frozenset[tuple[str, str]] = frozenset()
    """Names and values, in lower case."""
    digests: frozenset[str] = frozenset()
    """SHA-256 of bodies, in hexadecimal."""

    @classmethod
    def of(cls, rules: Iterable[str]) -> EmptyRules:
        """Return rules that `canonical` returned."""
        statuses, headers, digests = set(), set(), set()
        for rule in rules:
            kind, _, rest = rule.partition(":")
            if kind == "sha256":
                digests.add(rest)
            elif kind == "header":
                name, _, value = rest.partition("=")
                headers.add((name, value))
            else:
                statuses.add(int(rule))
        return cls(statuses=frozenset(statuses), headers=frozenset(headers), digests=frozenset(digests))

    def of_head(self, status: int, headers: Mapping[str, str]) -> Emptiness | None:
        """Return why an answer has no data, as far as its head tells; the headers are case-insensitive."""
        if status == 204:
            return "no content"
        if any(headers.get(name, "").strip().lower() == value for name, value in (*_SAYING_SO.items(), *self.headers)):
            return "rule" if status == 200 or status in self.statuses else None
        if status in self.statuses:
            return "rule"
        return "not found" if status == 404 else None

    def of_body(self, body: bytes) -> Emptiness | None:
        """Return why the body of a 200 has no data."""
        if self.digests and hashlib.sha256(body).hexdigest() in self.digests:
            return "rule"
        return None


def of_document(status: int, text: bytes) -> Emptiness | None:
    """Return why an error means that a tile has no data.

    Args:
        status: of the answer.
        text: the first bytes of its body.
    """
    if status == 400 and _OUTSIDE.search(text):
        return "outside"
    if status == 403 and _DENIED.search(text):
        return "denied"
    return None


def is_doubt(emptiness: Emptiness, status: int) -> bool:
    """Return whether the answer may also mean that something is wrong."""
    return status >= 400 or emptiness == "no body"


def spelled(rules: Sequence[str]) -> tuple[str, ...]:
    """Return rules in their one spelling and order; it blocks where one is a sample file.

    Raises:
        UsageError: one is not a rule.
    """
    if isinstance(rules, str):
        raise UsageError("``empty`` is a list of rules", hint=f"write [{rules!r}]")
    return tuple(sorted({canonical(rule) for rule in rules}))


def canonical(when: str) -> str:
    """Return a rule in its one spelling; it blocks where the rule is a sample file.

    Args:
        when: a status, `header:NAME=VALUE`, `sha256:DIGEST`, or the path of a file with the bytes of an empty tile.

    Raises:
        UsageError: it is something else, or the file cannot be read.
    """
    kind, colon, rest = when.strip().partition(":")
    if kind.isdecimal() and not colon:
        if int(kind) not in _STATUSES or int(kind) in _NEVER:
            raise UsageError(f"HTTP {kind} cannot mean that a tile is empty", hint="use a status such as 403 or 410")
        return str(int(kind))
    if kind.lower() == "header" and "=" in rest:
        name, _, value = rest.partition("=")
        if name.strip() and value.strip():
            return f"header:{name.strip().lower()}={value.strip().lower()}"
    elif kind.lower() == "sha256" and re.fullmatch(r"[0-9a-fA-F]{64}", rest):
        return f"sha256:{rest.lower()}"
    elif Path(when).is_file():
        return f"sha256:{_digest_of(Path(when))}"
    raise UsageError(
        f"``empty`` {when!r} is not known",
        hint="use a status such as 403, header:NAME=VALUE, sha256:DIGEST, or the path of a sample file",
    )


def _digest_of(path: Path) -> str:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if not body:
        raise UsageError(f"{path} is empty", hint="use the file of a tile that the server sends where it has no data")
    return hashlib.sha256(body).hexdigest()
