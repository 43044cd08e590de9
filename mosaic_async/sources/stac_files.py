"""STAC documents on disk: hrefs resolved, items told from catalogues, links followed.

It knows nothing of searches, servers or pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from mosaic_async.errors import SourceError
from mosaic_async.safety.redaction import scrub
from mosaic_async.safety.safe_json import parse, read_text

_LEADING_TO_ITEMS = ("item", "child")


def resolve_href(href: str, location: str | None) -> str:
    """Return an href as an absolute path or URL.

    Args:
        href: as it stands in a document; absolute ones are returned unchanged.
        location: path or URL of that document; None when it has none, which leaves the href as it is.
    """
    if location is None or urlsplit(href).scheme:
        return href
    scheme, mark, rest = location.partition("://")
    if not mark or scheme == "file":
        return str(Path(location.removeprefix("file://")).parent / href)  # an absolute path replaces the parent
    # `urljoin` returns the bare href for schemes that it does not know, such as s3.
    return scheme + urljoin(f"http://{rest}", href).removeprefix("http")


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON object, gzipped if its name ends so; JSON that is not an object is returned as an empty one.

    Raises:
        SourceError: the file cannot be read or is not JSON.
    """
    try:
        document = parse(text_of(path))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def text_of(path: Path) -> str:
    """Read a text, gzipped if its name ends so.

    Raises:
        SourceError: the file cannot be read or is not text.
    """
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise SourceError(f"{path} not found") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def is_item(document: Mapping[str, Any]) -> bool:
    """Return whether a document is a STAC item."""
    return document.get("type") == "Feature" and "stac_version" in document and "assets" in document


def linked_documents(
    path: Path, on_bad: Callable[[str, SourceError], None] | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Follow a file of a collection or catalogue to the documents that it leads to, each file once.

    Links are followed in their order, in depth first.

    Args:
        path: the file.
        on_bad: called for each linked file that cannot be read, and each link to a URL; None: they are errors.

    Yields:
        Path and content of each document that leads no further: items, and whatever else is linked.

    Raises:
        SourceError: a file cannot be read, is not JSON, or has malformed links.
    """
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop()
        if (real := file.resolve()) in seen:
            continue
        seen.add(real)
        try:
            document = read_document(file)
        except SourceError as error:
            if on_bad is None or file == path:
                raise
            on_bad(str(file), error)
            continue
        if is_item(document) or "features" in document or not document.get("links"):
            yield file, document
        else:
            waiting += reversed(_targets(document["links"], file, on_bad))


def _targets(
    links: Sequence[Mapping[str, Any]], file: Path, on_bad: Callable[[str, SourceError], None] | None
) -> list[Path]:
    try:
        hrefs = [link["href"] for link in links if link.get("rel") in _LEADING_TO_ITEMS]
        remote = [href for href in hrefs if urlsplit(href).scheme]
        local = [Path(resolve_href(href, str(file))) for href in hrefs if not urlsplit(href).scheme]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{file} has malformed links: {error!r}", hint="each link requires `rel` and `href`"
        ) from error
    if on_bad is not None:
        for href in remote:
            on_bad(href, SourceError(f"{file} links to {scrub(href)} on a server", hint="search its API instead"))
    return local
