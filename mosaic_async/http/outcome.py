"""What an answer, or the lack of one, means for its tile and for the run: one table, without any I/O.

It knows nothing of how often or when something is asked for again.
"""

from __future__ import annotations

from enum import Enum, auto

import aiohttp

REFUSALS = frozenset((401, 403))
"""Statuses that say who may ask, and not what there is."""
_CONNECT_TIMEOUT = 10.0
_ATTEMPTS_AT_500 = 3
"""A 500 of TiTiler is now and then a failed read of the storage, and else an error that comes again."""


class Outcome(Enum):
    """What is to be done about an answer."""

    OK = auto()
    EMPTY = auto()
    """The tile has no data."""
    RETRY = auto()
    """It may be different in a while."""
    THROTTLE = auto()
    """As RETRY, and the server says that it is asked too much."""
    FAIL = auto()
    """This tile cannot be had."""
    END = auto()
    """No tile can be had: the run ends."""


def of_status(status: int, *, refusals: int = 0) -> Outcome:
    """Classify an HTTP status.

    204 and 404 are how tilers of all generations say that a tile has no data.

    Args:
        status: of the answer.
        refusals: answers of 401 or 403 in a row before this one. One may be the tile's, two are the run's.
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
    """Classify what was raised in place of an answer; a name that is not found may be found in a while."""
    match error:
        case aiohttp.ClientSSLError() | aiohttp.InvalidURL():
            return Outcome.END
        case aiohttp.ClientError() | TimeoutError() | OSError():
            return Outcome.RETRY
        case _:
            return Outcome.FAIL


def attempts_at(status: int | None, attempts: int) -> int:
    """Give how many of the `attempts` a tile gets that ends with this status."""
    return min(attempts, _ATTEMPTS_AT_500) if status == 500 else attempts


def connect_timeout(timeout: float) -> float:
    """Give the seconds that connecting may take where a whole attempt may take `timeout`."""
    return min(_CONNECT_TIMEOUT, timeout)


def reason_of(error: BaseException, timeout: float) -> str:
    """Say in our words what was raised; aiohttp's own texts may hold the URL with its secrets.

    Args:
        error: what was raised.
        timeout: seconds that the attempt had.
    """
    match error:
        case aiohttp.ConnectionTimeoutError():
            reason = f"no connection within {connect_timeout(timeout):g} seconds"
        case TimeoutError():
            reason = f"no answer within {timeout:g} seconds"
        case aiohttp.ClientSSLError() | aiohttp.InvalidURL():
            reason = f"{type(error).__name__}: the certificate or the URL is not valid"
        case aiohttp.ClientConnectorDNSError():
            reason = f"the host's name is not found: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientConnectorError():
            reason = f"cannot connect: {error.os_error.strerror or type(error.os_error).__name__}"
        case aiohttp.ClientPayloadError():
            reason = "the body was cut short"
        case aiohttp.ClientResponseError():
            reason = "the answer is malformed HTTP"
        case _:
            reason = f"the connection broke ({type(error).__name__})"
    return reason
