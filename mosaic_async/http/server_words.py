"""The reason that a server states in the body of an error.

It knows nothing of requests. Its result is the server's text: the caller removes secrets before it shows the text.
"""

from __future__ import annotations

from typing import Any

_KEYS = ("detail", "message", "errorMessage", "description")
"""Of FastAPI and TiTiler, API Gateway, AWS Lambda, and OGC API, in this order."""


def words_of(document: Any) -> str:
    """Return the message in a JSON document on one line, or an empty string."""
    if not isinstance(document, dict):
        return ""
    words = next((document[key] for key in _KEYS if key in document), "")
    return " ".join(str(words).split())
