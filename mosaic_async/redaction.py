"""Removes secrets from texts before they leave the program. It knows nothing of where the texts go."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

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


def redact(url: str) -> str:
    """Return a URL without users, passwords and secret parameter values, also in nested URLs."""
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
