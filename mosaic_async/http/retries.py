"""When a URL that failed gets another attempt, and after what wait.

It knows nothing of permits and sockets: the caller makes the attempts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from mosaic_async.http.outcome import Outcome, attempts_at
from mosaic_async.http.pacing import MAX_RETRY_AFTER, RetryBudget, jitter
from mosaic_async.http.request import Answer, AttemptError

_MAX_BAD_BODIES = 2
"""Per URL: a second wrong body shows that the first was not an accident."""
_backoff = wait_random_exponential(multiplier=0.5, max=20)
_throttled_backoff = wait_random_exponential(multiplier=1, max=60)


class Retries:
    """The retries of one URL whose first attempt failed.

    Args:
        attempts: maximum attempts, the first included.
        budget: pays for each retry; all URLs share it.
    """

    def __init__(self, attempts: int, budget: RetryBudget) -> None:
        self._attempts = attempts
        self._budget = budget
        self._bad_bodies = 0
        self._may_retry = True
        self.failed = 0
        """Failed attempts."""
        self.paid = 0.0
        """Cost of the last retry; the budget gets it back if that retry succeeds."""
        self.is_out_of_budget = False
        """Whether a retry was allowed, and the budget could not pay for it."""

    async def run(
        self,
        first: AttemptError,
        attempt: Callable[[], Awaitable[Answer]],
        *,
        sleep: Callable[[float], Awaitable[None]],
        on_retry: Callable[[int, str, float], None],
    ) -> Answer:
        """Attempt until there is an answer.

        Args:
            first: the failure of the first attempt.
            attempt: makes one attempt.
            sleep: waits for a number of seconds.
            on_retry: called before each wait with the number of the failed attempt, its reason, and the wait.

        Raises:
            AttemptError: the last failure.
        """

        async def next_attempt() -> Answer:
            try:
                if not self.failed:
                    raise first
                return await attempt()
            except AttemptError as failure:
                self._note(failure)
                raise

        def before_sleep(state: RetryCallState) -> None:
            assert state.next_action is not None
            on_retry(state.attempt_number, _failure_of(state).reason, state.next_action.sleep)

        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, AttemptError) and self._may_retry),
            wait=_wait,
            before_sleep=before_sleep,
            sleep=sleep,
            reraise=True,
        )
        return await retrying(next_attempt)

    def _note(self, failure: AttemptError) -> None:
        """Count a failed attempt, decide whether another follows, and pay for it."""
        self.failed += 1
        self._bad_bodies += failure.is_bad_body
        self._may_retry = self._is_worth_retrying(failure) and self._pay(failure)

    def _is_worth_retrying(self, failure: AttemptError) -> bool:
        has_attempts = self.failed < attempts_at(failure.status, self._attempts)
        return failure.is_retried and has_attempts and self._bad_bodies < _MAX_BAD_BODIES

    def _pay(self, failure: AttemptError) -> bool:
        """Take the cost of a retry from the budget, and return whether there was enough."""
        cost = self._budget.take(timed_out=failure.is_timeout)
        self.is_out_of_budget = cost is None
        self.paid = cost or 0.0
        return cost is not None


def _failure_of(state: RetryCallState) -> AttemptError:
    """Return the error of the last attempt; tenacity calls its hooks only after a failure."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, AttemptError)
    return error


def _wait(state: RetryCallState) -> float:
    """Return the longer of the backoff (full jitter, AWS) and the server's Retry-After with a little jitter."""
    failure = _failure_of(state)
    own = (_throttled_backoff if failure.outcome is Outcome.THROTTLE else _backoff)(state)
    if failure.retry_after is None:
        return own
    return max(own, min(failure.retry_after, MAX_RETRY_AFTER) + jitter(1))
