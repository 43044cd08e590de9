"""Pauses, the budget of retries, and outages, by a clock that the test moves."""

from __future__ import annotations

import pytest

from mosaic_async.http.pacing import Breaker, Pause, RetryBudget, retry_after


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("1e9", 1e9),
        ("-3", None),
        ("0", None),
        ("nan", None),
        ("inf", None),
        ("garbage", None),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 22 Nov 2026 11:00:00 GMT", None),
        ("Sun, 22 Nov 2026 12:00:30", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(value, seconds):
    assert retry_after(value, date="Sun, 22 Nov 2026 12:00:00 GMT") == seconds


@pytest.mark.parametrize("date", [None, "", "garbage", "Sun, 22 Nov 2026 12:00:00"])
def test_where_the_answer_has_no_date_ours_counts(date):
    assert retry_after("Fri, 31 Dec 9999 00:00:00 GMT", date=date) > 1e9
    assert retry_after("Sun, 22 Nov 2020 12:00:30 GMT", date=date) is None


def test_the_longest_pause_that_was_asked_for_counts():
    clock = Clock()
    pause = Pause(clock)
    assert pause.left() == 0
    assert pause.extend(10)
    assert not pause.extend(5)
    clock.now += 4
    assert pause.left() == 6
    clock.now += 7
    assert pause.left() == 0


def test_the_budget_bears_one_retry_in_six_for_ever():
    budget = RetryBudget()
    for _ in range(1000):
        assert budget.take(timed_out=False) is not None
        for _ in range(5):
            budget.earn(0)


def test_a_budget_that_is_never_paid_back_ends_and_timeouts_cost_double():
    budget = RetryBudget()
    assert sum(budget.take(timed_out=False) is not None for _ in range(200)) == 100
    budget = RetryBudget()
    assert sum(budget.take(timed_out=True) is not None for _ in range(200)) == 50


def test_a_success_gives_back_what_its_retries_cost():
    budget = RetryBudget()
    for _ in range(100):
        spent = budget.take(timed_out=False)
    assert budget.take(timed_out=False) is None
    budget.earn(spent)
    assert budget.take(timed_out=False) is not None


def test_twenty_failures_in_a_row_are_an_outage_and_nineteen_are_not():
    breaker = Breaker(900, Clock())
    for _ in range(19):
        assert not breaker.note_failure()
    breaker.note_success()
    for _ in range(19):
        assert not breaker.note_failure()
    assert breaker.note_failure()
    assert breaker.is_open


def test_in_an_outage_one_request_at_a_time_looks_for_the_server_ever_more_seldom():
    clock = Clock()
    breaker = Breaker(900, clock)
    for _ in range(20):
        breaker.note_failure()
    assert not breaker.take_probe()
    waits = []
    for _ in range(9):
        waits.append(breaker.wait())
        clock.now += breaker.wait()
        assert breaker.take_probe()
        assert not breaker.take_probe()
        breaker.note_failure()  # one that was under way when the outage began tells nothing
        assert not breaker.take_probe()
        breaker.note_failure(is_probe=True)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    breaker.note_success()
    assert not breaker.is_open


def test_an_outage_ends_hopeless_with_the_last_look_when_its_time_is_up():
    clock = Clock()
    breaker = Breaker(90, clock)
    for _ in range(20):
        breaker.note_failure()
    while not breaker.is_hopeless:
        clock.now += breaker.wait()
        assert breaker.take_probe()
        breaker.note_failure(is_probe=True)
    assert clock.now == pytest.approx(100 + 90)
