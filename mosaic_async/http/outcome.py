"""What an answer, or the lack of one, means for its tile and for the run: one table, without I/O.

It knows nothing of when or how often a request is retried.
"""

from __future__ import annotations

from enum import Enum, auto

import aiohttp

REFUSALS = frozenset((401, 403))
"""Statuses about who may request, not about what exists."""
_CONNECT_TIMEOUT = 10.0
_ATTEMPTS_AT_500 = 3
"""A 500 of TiTiler is sometimes a failed read of the storage, and otherwise an error that returns every time."""


class Outcome(Enum):
    """What follows from an answer."""

    OK = auto()
    EMPTY = auto()
    """The tile has no data."""
    RETRY = auto()
    """A later attempt may succeed."""
    THROTTLE = auto()
    """As RETRY, and the server reports too many requests."""
    FAIL = auto()
    """Every attempt for this tile would fail."""
    END = auto()
    """Every request would fail: the run ends."""


def of_status(status: int, *, refusals: int = 0) -> Outcome:
    """Classify an HTTP status.

    Tilers of all generations answer 204 or 404 where a tile has no data.

    Args:
        status: of the answer.
        refusals: answers of 401 or 403 in a row before this one. One may concern the tile; two concern the run.
    """
    if status == 200:
        return Outcome.OK
    if status in (204, 404):
        return Outcome.EMPTY
    if status in (429, 503):
        return Outcome.THROTTLE
    if status in (408, 425) or (status >= 500 and status != 501):
        return Outcome.RETRY
    if status in REFUSALS and refusals:
        return Outcome.END
    return Outcome.FAIL


def of_error(error: BaseException) -> Outcome:
    """Classify an exception; a host name that does not resolve may resolve later."""
    match error:
        case aiohttp.ClientSSLError() | aiohttp.InvalidURL():
            return Outcome.END
        case aiohttp.ClientError() | TimeoutError() | OSError():
            return Outcome.RETRY
        case _:
            return Outcome.FAIL


def attempts_at(status: int | None, attempts: int) -> int:
    """Return how many of the `attempts` a URL gets that ends with this status."""
    return min(attempts, _ATTEMPTS_AT_500) if status == 500 else attempts


def connect_timeout(timeout: float) -> float:
    """Return the seconds that connecting may take where a complete attempt may take `timeout`."""
    return min(_CONNECT_TIMEOUT, timeout)


def reason_of(error: BaseException, timeout: float) -> str:
    """Describe an exception in our words; aiohttp's own texts may hold the URL with its secrets.

    Args:
        error: the exception.
        timeout: seconds that the attempt had.
    """
    match error:
        case aiohttp.ConnectionTimeoutError():
            reason = f"no connection within {connect_timeout(timeout):g} seconds"
        case TimeoutError():
            reason = f"no answer within {timeout:g} seconds"
        case aiohttp.ClientConnectorCertificateError():
            reason = f"the certificate is not valid: {_verdict(error.certificate_error)}"
        case aiohttp.ClientSSLError() | aiohttp.InvalidURL():
            reason = f"{type(error).__name__}: the certificate or the URL is not valid"
        case aiohttp.ClientConnectorDNSError():
            reason = f"the host name does not resolve: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientConnectorError():
            reason = f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientPayloadError():
            reason = "the body was cut short"
        case aiohttp.ClientResponseError():
            reason = "the answer is malformed HTTP"
        case _:
            reason = f"the connection broke ({type(error).__name__})"
    return reason


def hint_of(error: BaseException) -> str | None:
    """Return what helps against an exception; None where nothing is known."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "if an authority of your own signed it, name the authority's file by ``ca`` or in SSL_CERT_FILE"
        case aiohttp.ClientSSLError():
            return "check the server's encryption, or whether a proxy stands before it"
        case aiohttp.InvalidURL():
            return "check the URL"
        case _:
            return None


def _verdict(error: BaseException) -> str:
    return str(getattr(error, "verify_message", "") or type(error).__name__)
