"""Headers for servers that scenes are read from: each goes only where the user's own source leads.

Requests of this process and GDAL's take them. It knows nothing of scenes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mosaic_async.errors import UsageError
from mosaic_async.safety.redaction import learn_request

_granted: dict[str, dict[str, str]] = {}


def origins_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return scheme, host and port of the URLs among these names, each once, in order of the alphabet."""
    found = {f"{parts.scheme}://{parts.netloc}" for name in names if (parts := urlsplit(name)).scheme in _HTTP}
    return tuple(sorted(found))


_HTTP = ("http", "https")


def headers_for(url: str) -> dict[str, str]:
    """Return the headers that requests for a URL take."""
    return dict(_granted.get(next(iter(origins_of([url])), ""), {}))


def use(headers: Mapping[str, str], origins: Iterable[str], file: Path) -> None:
    """Let requests of this process, and of GDAL before it opens its first file, take headers.

    Args:
        headers: the headers.
        origins: where they go: scheme, host and port.
        file: GDAL's configuration, to be written; one that the environment names is included.

    Raises:
        UsageError: a header cannot be told to GDAL.
        OSError: the file cannot be written.
    """
    if not headers:
        return
    if any(mark in f"{name}{value}" for name, value in headers.items() for mark in '"\r\n'):
        raise UsageError("a header of a source of scenes has a quotation mark or a line break")
    # GDAL takes the quotation marks of a single header for a part of it.
    text = ",".join(f'"{name}: {value}"' for name, value in {"Accept": "*/*", **headers}.items())
    kept = os.environ.get("GDAL_CONFIG_FILE")
    lines = [Path(kept).read_text(encoding="utf-8")] if kept and Path(kept) != file else []
    lines.append("[credentials]")
    for number, origin in enumerate(origins):
        learn_request(origin, headers)
        _granted[origin] = dict(headers)
        lines += [f"[.scenes{number}]", f"path=/vsicurl/{origin}/", f"GDAL_HTTP_HEADERS={text}"]
    file.touch(mode=0o600)
    file.write_text("\n".join(lines), encoding="utf-8")
    os.environ["GDAL_CONFIG_FILE"] = str(file)  # GDAL reads it before it opens its first file
