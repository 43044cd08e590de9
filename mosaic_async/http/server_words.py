"""The reason that a server states in the body of an error: in JSON, in XML, in the title of a page, or as plain text.

It knows nothing of requests. Its result is a stranger's text: `redaction.one_line` makes it fit to be shown.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from mosaic_async.safety.safe_json import parse

_MOST = 2**16
"""Bytes of a body that are searched."""
_KEYS = (
    "detail",
    "message",
    "errorMessage",
    "description",
    "error_description",
    "msg",
    "reason",
    "title",
    "error",
    "errors",
    "exceptions",
    "fault",
    "code",
)
"""Of FastAPI, TiTiler, API Gateway, AWS Lambda, OGC API, OAuth, ArcGIS, RFC 9457 and others, the most telling first."""
_DEPTH = 4
_ELEMENTS = ("ServiceException", "ExceptionText", "Message", "faultstring", "ErrorMessage", "title", "h1")
"""Of OGC services (WMS, then OWS), S3 and Azure, SOAP, and pages."""
_ELEMENT = {
    name: re.compile(
        rf"<(?:\w{{1,20}}:)?{name}(?:\s[^<>]{{0,500}})?>([^<]{{1,4000}}|<!\[CDATA\[.{{1,4000}}?\]\]>)<",
        re.IGNORECASE | re.DOTALL,
    )
    for name in _ELEMENTS
}
_CODE = re.compile(r"<Code>([\w.]{1,100})</Code>|\b(?:exceptionC|c)ode=\"([\w.]{1,100})\"")
_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\ufffd]")


def words_in(body: bytes, content_type: str) -> str:
    """Return the reason that the body of an error states, or an empty string.

    Args:
        body: its first bytes are enough.
        content_type: as the server sends it; the body itself counts more.
    """
    text = body[:_MOST].decode("utf-8", "replace").strip()
    if text.startswith(("{", "[")):
        return _in_json(text)
    if text.startswith("<"):
        return _in_markup(text)
    is_text = content_type.startswith("text/") and not _NOT_TEXT.search(text)
    return text if is_text else ""


def words_of(document: Any) -> str:
    """Return the message in a JSON document, or an empty string."""
    return "; ".join(_messages(document, _DEPTH))


def _in_json(text: str) -> str:
    try:
        return words_of(parse(text))
    except ValueError:
        return ""


def _messages(found: Any, depth: int) -> Iterator[str]:
    """Yield the texts under the most telling key, or of each element of a list."""
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        yield str(found)
    elif depth and isinstance(found, list):
        for element in found[:3]:
            yield from _messages(element, depth - 1)
    elif depth and isinstance(found, dict):
        key = next((key for key in _KEYS if found.get(key)), None)
        where = ".".join(str(step) for step in found.get("loc", ()))[:100] if isinstance(found.get("loc"), list) else ""
        if key is not None:
            yield from (f"{where}: {message}" if where else message for message in _messages(found[key], depth - 1))


def _in_markup(text: str) -> str:
    """Return the text of the most telling element; no entity but those of HTML is expanded."""
    for name, element in _ELEMENT.items():
        if (found := element.search(text)) is None:
            continue
        words = found[1].removeprefix("<![CDATA[").removesuffix("]]>").strip()
        code = None if name in {"title", "h1"} else _CODE.search(text)
        if words:
            return html.unescape(f"{code[1] or code[2]}: {words}" if code else words)
    return ""
