"""Removes secrets from texts before they leave the program.

Every text that leaves passes `scrub`: messages, log lines, events, reports, tags and keys. `scrub` knows all secrets of
the process in every spelling, from all callers of `learn`. It knows nothing of where texts go.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html.entities import codepoint2name
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

_NAME = (
    r"(?:[\w-]*(?:token|secret|passw(?:or)?d|signature|credentials?)|(?:[\w-]*[-_])?(?:api|access|subscription)?[-_]?key"
    r"|sig|auth(?:orization)?|jwt)"
)
_PARAMETER = re.compile(
    r"((?:[?&]|%(?:25)*(?:3F|26))" + _NAME + r"(?:=|%(?:25)*3D))(?:(?!%(?:25)*26)[^&#\s\"'<>])*", re.IGNORECASE
)
"""A parameter that holds a secret, also inside a nested URL that is percent-encoded once or more often."""
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_USER = re.compile(r"((?:/|%(?:25)*2F){2})[^/?#&%\s]*(?:(?::|%(?:25)*3A)[^/?#&\s]*?)?(?:@|%(?:25)*40)", re.IGNORECASE)
_PLAIN_HEADERS = frozenset(
    ("accept", "accept-encoding", "accept-language", "connection", "content-type", "origin", "referer", "user-agent")
)
_SHORTEST, _SHORTEST_PASSWORD = 6, 4
"""Characters; shorter values are too common as words to be removed from texts."""
_LONGEST = 64
"""Characters by which a longer secret is recognised; what follows them is removed with them."""
_KEPT = 1000
"""Secrets; signatures are renewed, and the oldest are forgotten."""
_MOST = 4096
"""Characters of a stranger's text that are searched."""
_DIGITS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=%")
"""Characters of base64, also in a URL."""


@dataclass(frozen=True)
class _Patterns:
    """What finds one secret."""

    spelled: re.Pattern[str]
    encoded: re.Pattern[str]
    """Its digits in base64."""


_known: dict[str, _Patterns | None] = {}
"""All secrets, the oldest first; their patterns are made when the first text is scrubbed."""


def learn(secrets: Iterable[str]) -> None:
    """Remove these secrets from all texts from now on."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_PASSWORD:
            _known.setdefault(secret, None)
    while len(_known) > _KEPT:
        del _known[next(iter(_known))]


def learn_request(url: str, headers: Mapping[str, str]) -> None:
    """Remove the secrets of a request from all texts from now on: a server may repeat them in its answer."""
    learn(secrets_of(url, headers))


def scrub(text: str) -> str:
    """Return a text without known secrets, and without users, passwords and secret parameters of any URL in it."""
    for secret in sorted(_known, key=len, reverse=True):
        patterns = _known[secret]
        if patterns is None:
            patterns = _known[secret] = _patterns(secret)
        text = _without_encoded(patterns.spelled.sub("***", text), patterns.encoded)
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1", text))


def one_line(text: str, length: int) -> str:
    """Return a stranger's text without secrets and control characters, on one line of at most `length` characters."""
    words = " ".join("".join(letter for letter in text if letter.isprintable() or letter.isspace()).split())
    shown = scrub(words[:_MOST])
    if len(words) > _MOST:
        shown = shown[: shown.rfind(" ") + 1]  # the last word may be the begin of a secret
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"


def secrets_of(url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of a request, longest first.

    Args:
        url: its user, password and parameters may be secret, also those of nested URLs.
        headers: their values are secret, except those that every browser sends; of `Bearer abc` also `abc` alone.
    """
    found = {secret for secret in _of_url(url) if len(secret) >= _SHORTEST}
    for name, value in headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            found |= {secret for secret in _of_header(value) if len(secret) >= _SHORTEST}
    found |= {secret for secret in _passwords(url, headers.values()) if len(secret) >= _SHORTEST_PASSWORD}
    return tuple(sorted(found, key=len, reverse=True))


def _of_url(url: str) -> Iterator[str]:
    """Yield the values of secret parameters, as they stand in the URL and decoded."""
    query = urlsplit(url).query
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if _SECRET_NAME.fullmatch(unquote_plus(name)):
            yield from (value, unquote(value), unquote_plus(value))
    for _, value in parse_qsl(query):
        if "://" in value:
            yield from _of_url(value)


def _of_header(value: str) -> Iterator[str]:
    """Yield the value of a header and its parts: a token after its scheme, cookies, the fields of a signature."""
    yield value
    for part in re.split(r"[\s,;]+", value):
        yield part
        yield part.partition("=")[2].strip('"')


def _passwords(url: str, headers: Iterable[str]) -> Iterator[str]:
    """Yield the passwords of users, and the pairs that Basic authorization encodes."""
    parts = urlsplit(url)
    if parts.username:
        yield from _of_pair(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    for value in headers:
        scheme, _, encoded = value.partition(" ")
        if scheme.lower() == "basic":
            try:
                yield from _of_pair(b64decode(encoded.strip(), validate=True).decode())
            except (binascii.Error, UnicodeDecodeError):
                continue


def _of_pair(pair: str) -> Iterator[str]:
    """Yield `user:password` and the password alone; a user without a password is a key."""
    user, _, password = pair.partition(":")
    yield pair
    yield password or user


def _patterns(secret: str) -> _Patterns:
    """Return what finds a secret in any spelling."""
    rest = r"[^\s\"'<>&,;]*" if len(secret) > _LONGEST else ""
    spelled = "".join(map(_letter, secret[:_LONGEST])) + rest
    hexed = secret[:_LONGEST].encode().hex()
    encoded = "|".join(_base64_cores(secret.encode()))
    return _Patterns(re.compile(f"{spelled}|{hexed}", re.IGNORECASE), re.compile(encoded))


def _without_encoded(text: str, encoded: re.Pattern[str]) -> str:
    """Remove each run of base64 digits that holds a secret."""
    kept, end = [], 0
    for found in encoded.finditer(text):
        if found.start() < end:
            continue
        start, stop = found.span()
        while start > end and text[start - 1] in _DIGITS:
            start -= 1
        while stop < len(text) and text[stop] in _DIGITS:
            stop += 1
        kept += [text[end:start], "***"]
        end = stop
    return "".join([*kept, text[end:]])


@cache
def _letter(letter: str) -> str:
    """Return what finds one character: itself, or escaped in a URL, in JSON, in HTML, or in Python."""
    code, raw = ord(letter), letter.encode()
    quoted = "".join(f"%(?:25)*{byte:02X}" for byte in raw)
    units = letter.encode("utf-16-be")
    escaped = "".join(rf"\\{{1,4}}u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
    spellings = [re.escape(letter), quoted, escaped, f"&(?:amp;)*#0*{code};", f"&(?:amp;)*#x0*{code:x};"]
    if code in codepoint2name:
        spellings.append(f"&(?:amp;)*{codepoint2name[code]};")
    if code > 127:
        spellings += [re.escape(raw.decode("latin-1")), "".join(rf"\\{{1,4}}x{byte:02x}" for byte in raw)]
    if letter.isspace():
        spellings += [r"\s{1,8}", r"\+"]
    optional = "" if letter == "\\" else r"\\{0,4}"
    return f"{optional}(?:{'|'.join(spellings)})"


def _base64_cores(secret: bytes) -> Iterator[str]:
    """Yield patterns of the base64 digits that hold the secret alone, wherever it stands in an encoded text."""
    for before in range(3):
        digits = b64encode(bytes(before) + secret).decode().rstrip("=")
        first = -(-8 * before // 6)
        last = 8 * (before + len(secret)) // 6
        core = digits[first:last]
        if len(core) >= _SHORTEST_PASSWORD:
            yield "".join(_digit(digit) for digit in core[:_LONGEST])


def _digit(digit: str) -> str:
    either = {"+": r"(?:[+\-]|%(?:25)*2B)", "/": r"(?:[/_]|%(?:25)*2F)"}
    return either.get(digit, digit)
