"""Which certificates are trusted beside those of the system: a file that holds for all requests of a block.

It knows nothing of the requests.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from mosaic_async.errors import UsageError

_FILE: ContextVar[str | None] = ContextVar("_FILE", default=None)


@contextmanager
def trusting(file: str | Path | None) -> Iterator[None]:
    """Trust the certificate authorities in a file for the block, beside those of the system; None changes nothing.

    Raises:
        UsageError: the file cannot be read as certificates.
    """
    token = _FILE.set(_FILE.get() if file is None else str(file))
    try:
        trusted()
        yield
    finally:
        _FILE.reset(token)


def trusted_files() -> list[str]:
    """Return the files of authorities beside or instead of the usual ones: of the environment, and of `trusting`."""
    paths = ssl.get_default_verify_paths()
    of_environment = paths.cafile if paths.cafile != paths.openssl_cafile else None
    return [file for file in (of_environment, _FILE.get()) if file]


def context_for_libraries() -> ssl.SSLContext | None:
    """Return what verifies servers in a library with authorities of its own; None where those are as good."""
    return _remembered(tuple(trusted_files())) if trusted_files() else None


@lru_cache(maxsize=4)
def _remembered(files: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context of files, which takes as long as a request to make."""
    found = _context(files[-1])
    assert isinstance(found, ssl.SSLContext)
    return found


def trusted() -> ssl.SSLContext | bool:
    """Return what verifies servers here, as aiohttp takes it."""
    return _context(_FILE.get())


def _context(file: str | None) -> ssl.SSLContext | bool:
    if file is None:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(file)
    except OSError as error:  # also of the ssl module
        raise UsageError(
            f"{file} cannot be read as certificates: {error.strerror or error}",
            hint="``ca`` is a PEM file with the certificates of authorities",
        ) from error
    return context
