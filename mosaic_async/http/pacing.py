"""When a server that is in trouble is asked again: pauses that it asks for, a budget of retries, and outages.

Pure bookkeeping with a clock; who waits and asks is elsewhere. It knows nothing of HTTP beyond the Retry-After header.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 120.0
"""Seconds; a server that asks for more is asked again after this."""
_CAPACITY = 500.0
_COST = 5.0
"""Of a retry, in successes; the last retry of those that succeed costs nothing."""
_COST_OF_TIMEOUT = 10.0
_FAILURES = 20
"""In a row, without one answer between them, are an outage."""
_FIRST_PROBE = 1.0
_LAST_PROBE = 60.0
_POLL = 0.5
"""Seconds between looks whether the probe has come back."""


def retry_after(value: str | None, *, date: str | None = None) -> float | None:
    """Read a Retry-After header, seconds or an HTTP date, as seconds; None when it says nothing usable.

    Args:
        value: of the header.
        date: the answer's Date header. A time is one of the server's clock; ours may be wrong, or be set on the way.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _http_date(value)
        if until is None:
            return None
        seconds = (until - (_http_date(date or "") or datetime.now(UTC))).total_seconds()
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo else None


class Pause:
    """A pause that one answer asks for and all requests keep.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = -math.inf

    def extend(self, seconds: float) -> bool:
        """Pause from now on for so long at least, and tell whether that is longer than before."""
        until = self._clock() + seconds
        is_longer = until > self._until
        self._until = max(self._until, until)
        return is_longer

    def left(self) -> float:
        """Give the seconds that are left; 0 when there is no pause."""
        return max(0.0, self._until - self._clock())


class RetryBudget:
    """How many retries a server is asked to bear: each costs, and every clean answer earns a little (as in botocore).

    An empty budget leaves the tile for later, so a run against a server that fails more than a third of its answers
    does not add half of its load again in retries.
    """

    def __init__(self) -> None:
        self._left = _CAPACITY

    def take(self, *, timed_out: bool) -> float | None:
        """Pay for a retry and give what it cost; None when there is not enough left."""
        cost = _COST_OF_TIMEOUT if timed_out else _COST
        if cost > self._left:
            return None
        self._left -= cost
        return cost

    def earn(self, refund: float) -> None:
        """Take note of a success, and take back what its retries cost."""
        self._left = min(_CAPACITY, self._left + refund + 1)


class Breaker:
    """Notices that a server is away, has one request at a time look for it, and says when to give up.

    It opens after 20 failures in a row, however many succeeded before: a server that has gone would otherwise be asked
    for every tile of the run within seconds. It closes with the first answer.

    Args:
        max_outage: seconds from the first failure after which waiting is pointless.
        clock: seconds that never go back.
    """

    def __init__(self, max_outage: float, clock: Callable[[], float]) -> None:
        self._max_outage = max_outage
        self._clock = clock
        self._failures = 0
        self._since = 0.0
        self._next_probe = 0.0
        self._wait = _FIRST_PROBE
        self._is_probing = False
        self.is_hopeless = False
        """Whether the outage has lasted too long, and the last look for the server was in vain."""

    @property
    def is_open(self) -> bool:
        """Whether there is an outage."""
        return self._failures >= _FAILURES

    @property
    def lasted(self) -> float:
        """Seconds since the first failure of those in a row."""
        return self._clock() - self._since

    def note_success(self) -> None:
        """Take note of an answer, be it a refusal: the server is there."""
        self._failures = 0
        self._is_probing = False

    def note_failure(self, *, is_probe: bool = False) -> bool:
        """Take note that there was no answer, or one of a server in trouble, and tell whether an outage begins.

        Args:
            is_probe: whether it was the look for a server that is away.
        """
        now = self._clock()
        if not self._failures:
            self._since = now
        self._failures += 1
        begins = self._failures == _FAILURES
        if begins:
            self._wait = _FIRST_PROBE
        elif is_probe:
            self._wait = min(2 * self._wait, _LAST_PROBE)
            self._is_probing = False
            self.is_hopeless = now - self._since >= self._max_outage
        if begins or is_probe:
            # The last look comes when it is time to give up, and not a minute after.
            self._next_probe = min(now + self._wait, max(now, self._since + self._max_outage))
        return begins

    def take_probe(self) -> bool:
        """Tell whether it is time to look for the server, and that the caller is who looks."""
        if self._is_probing or self._clock() < self._next_probe:
            return False
        self._is_probing = True
        return True

    def drop_probe(self) -> None:
        """Take note that whoever looked was stopped before there was an answer."""
        self._is_probing = False

    def wait(self) -> float:
        """Give the seconds after which it is worth asking again whether to look."""
        return max(self._next_probe - self._clock(), _POLL)
