"""Removes secrets from texts before they leave the program. It knows nothing of where the texts go."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_NAME = (
    r"(?:[\w-]*(?:token|secret|passw(?:or)?d|signature|credentials?)|(?:[\w-]*[-_])?(?:api|access|subscription)?[-_]?key"
    r"|sig|auth(?:orization)?|jwt)"
)
_SECRET = re.compile(
    r"((?:[?&]|%(?:25)*(?:3F|26))" + _NAME + r"(?:=|%(?:25)*3D))(?:(?!%(?:25)*26)[^&#])*", re.IGNORECASE
)
"""A parameter that holds a secret, also inside a nested URL that is percent-encoded once or more often."""
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_USER = re.compile(r"((?:/|%(?:25)*2F){2})[^/?#&%]*(?:(?::|%(?:25)*3A)[^/?#&]*?)?(?:@|%(?:25)*40)", re.IGNORECASE)
_PLAIN_HEADERS = frozenset(("accept", "accept-language", "user-agent", "referer", "origin"))
_SHORTEST = 6
"""Characters; shorter values are too common as words to be removed from texts."""
_hidden: ContextVar[tuple[str, ...]] = ContextVar("hidden", default=())
"""Texts that are secrets wherever they stand."""


@contextmanager
def hiding(secrets: Iterable[str]) -> Iterator[None]:
    """Have `redact` and `scrub` remove these texts too, however they are spelt, inside the block and its tasks."""
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    token = _hidden.set((*sorted(spellings, key=len, reverse=True), *_hidden.get()))
    try:
        yield
    finally:
        _hidden.reset(token)


def _spellings(secret: str) -> set[str]:
    return {secret, quote(secret), quote(secret, safe=""), unquote(secret), json.dumps(secret)[1:-1]} - {""}


def redact(url: str) -> str:
    """Return a URL without users, passwords and secret parameter values, also in nested URLs."""
    for secret in _hidden.get():
        url = url.replace(secret, "***")
    return _SECRET.sub(r"\1***", _USER.sub(r"\1", url))


def secrets_of(url: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of a request, longest first: a server may repeat them in its answer.

    Args:
        url: its user, password and parameters may be secret.
        headers: their values are secret, except those that every browser sends; of `Bearer abc` also `abc` alone.
    """
    found = set()
    for name, value in headers.items():
        if name.lower() not in _PLAIN_HEADERS:
            found |= {value, *value.split()}
    parts = urlsplit(url)
    found |= {unquote(part) for part in (parts.username, parts.password) if part}
    found |= {value for name, value in parse_qsl(parts.query) if _SECRET_NAME.fullmatch(name)}
    return tuple(sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True))


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return a stranger's text without the known secrets and without the secrets of URLs."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return redact(text)
