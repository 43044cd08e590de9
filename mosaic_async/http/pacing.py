"""How requests spare a server in trouble: pauses that it requests, a budget of retries, and outages.

Pure bookkeeping with a clock; the client waits and requests. It knows nothing of HTTP but the Retry-After header.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER = 120.0
"""Seconds; a longer pause is cut to this."""
_CAPACITY = 500.0
_COST = 5.0
"""Of a retry, in successes; a retry that succeeds costs nothing."""
_COST_OF_TIMEOUT = 10.0
_FAILURES = 20
"""Failures in a row, without an answer between them, that are an outage."""
_FIRST_PROBE = 1.0
_LAST_PROBE = 60.0
_POLL = 0.5
"""Seconds between checks of whether the probe has returned."""


def jitter(most: float) -> float:
    """Return a random number up to `most`, so that clients that wait for the same moment do not return together."""
    return random.uniform(0, most)  # noqa: S311 - nobody gains from guessing it


def retry_after(value: str | None, *, date: str | None = None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or an HTTP date; None if it is not usable.

    Args:
        value: of the header.
        date: the answer's Date header. The server's clock made the date; our clock may be wrong, or change meanwhile.
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
    """A pause that one answer requests and all requests observe.

    Args:
        clock: seconds that never decrease.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = -math.inf

    def extend(self, seconds: float) -> bool:
        """Pause for at least this long from now, and return whether the pause got longer."""
        until = self._clock() + seconds
        is_longer = until > self._until
        self._until = max(self._until, until)
        return is_longer

    def left(self) -> float:
        """Return the seconds left; 0 without a pause."""
        return max(0.0, self._until - self._clock())


class RetryBudget:
    """How many retries a server has to bear: each costs, and every answer without trouble earns a little (botocore).

    With an empty budget a tile waits for the end of the run. So the retries never add half of the load again to a
    server that fails more than a third of its answers.
    """

    def __init__(self) -> None:
        self._left = _CAPACITY

    def take(self, *, timed_out: bool) -> float | None:
        """Pay for a retry and return its cost; None if too little is left."""
        cost = _COST_OF_TIMEOUT if timed_out else _COST
        if cost > self._left:
            return None
        self._left -= cost
        return cost

    def earn(self, refund: float) -> None:
        """Note a success, and take back what its retries cost."""
        self._left = min(_CAPACITY, self._left + refund + 1)


class Breaker:
    """Notices that a server is unavailable, lets one request at a time probe for it, and decides when to give up.

    It opens after 20 failures in a row, however many requests succeeded before: otherwise the run would request every
    tile from a dead server within seconds. It closes with the first answer.

    Args:
        max_outage: seconds from the first failure after which waiting is pointless.
        clock: seconds that never decrease.
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
        """Whether the outage has lasted too long, and the last probe failed."""

    @property
    def is_open(self) -> bool:
        """Whether there is an outage."""
        return self._failures >= _FAILURES

    @property
    def lasted(self) -> float:
        """Seconds since the first failure of those in a row."""
        return self._clock() - self._since

    def note_success(self) -> None:
        """Note an answer, even a refusal: the server is available."""
        self._failures = 0
        self._is_probing = False

    def note_failure(self, *, is_probe: bool = False) -> bool:
        """Note a missing answer, or one of a server in trouble; return whether an outage begins.

        Args:
            is_probe: whether the request probed for an unavailable server.
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
            # The last probe comes when it is time to give up, not a minute later.
            self._next_probe = min(now + self._wait, max(now, self._since + self._max_outage))
        return begins

    def take_probe(self) -> bool:
        """Return whether it is time for a probe, which the caller then makes."""
        if self._is_probing or self._clock() < self._next_probe:
            return False
        self._is_probing = True
        return True

    def drop_probe(self) -> None:
        """Note that a probe was cancelled before its answer."""
        self._is_probing = False

    def wait(self) -> float:
        """Return the seconds after which to call `take_probe` again."""
        return max(self._next_probe - self._clock(), _POLL)
