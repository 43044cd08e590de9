"""Requests are spaced evenly."""

from __future__ import annotations

import pytest

from mosaic_async.errors import UsageError
from mosaic_async.limits import RateLimit


def test_starts_are_spaced_by_one_over_the_rate():
    now = [100.0]
    limit = RateLimit(4, clock=lambda: now[0])
    assert [limit.reserve() for _ in range(4)] == [0, 0.25, 0.5, 0.75]
    now[0] += 10
    assert [limit.reserve() for _ in range(2)] == [0, 0.25]


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_is_not_above_zero_is_a_usage_error(rate):
    with pytest.raises(UsageError):
        RateLimit(rate)


async def test_no_rate_never_waits():
    limit = RateLimit(None)
    for _ in range(1000):
        await limit.wait()
    assert limit.reserve() == 0
