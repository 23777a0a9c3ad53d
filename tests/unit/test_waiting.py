"""When a target is checked again: how long a fight is held back (P9, P10), and how long AWS may be slow."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chalicelib.domain import waiting
from chalicelib.domain.policy import Limits
from chalicelib.domain.run import At
from chalicelib.domain.stored import Backoff
from tests.unit.targets import HOUR, NOW, SECOND

LIMITS = Limits(max_backoff_minutes=30)


# --- P9, P10: how long a fight is held back --------------------------------------------------------------------------


def after_attempts(count: int, jitter: float = 0.0, apart: timedelta = SECOND) -> Backoff:
    backoff = Backoff()
    for number in range(count):
        backoff = waiting.backoff_after_attempt(backoff, At(NOW + number * apart, jitter), LIMITS)
    return backoff


def pause(backoff: Backoff) -> float:
    """Seconds from the last attempt to the end of its pause."""
    assert backoff.until is not None
    assert backoff.last_at is not None
    return (backoff.until - backoff.last_at).total_seconds()


def test_p9_two_attempts_are_free_and_then_the_pauses_double_up_to_the_limit() -> None:
    assert after_attempts(1).until is None
    assert after_attempts(2).until is None
    assert [pause(after_attempts(count)) for count in range(3, 10)] == [60, 120, 240, 480, 960, 1800, 1800]


@pytest.mark.parametrize(("quiet", "count"), [(HOUR - SECOND, 6), (HOUR, 5), (3 * HOUR, 3), (9 * HOUR, 1)])
def test_p9_each_quiet_hour_takes_one_attempt_of_a_fight_back(quiet: timedelta, count: int) -> None:
    fought = Backoff(5, NOW, NOW + HOUR / 2)
    assert waiting.backoff_after_attempt(fought, At(NOW + quiet), LIMITS).count == count


def test_p9_a_day_after_a_fight_a_drift_is_put_right_at_once_again() -> None:
    fought = after_attempts(8)
    assert waiting.backoff_after_attempt(fought, At(NOW + 24 * HOUR), LIMITS).until is None


def test_p10_jitter_shortens_a_pause_by_up_to_a_quarter() -> None:
    assert pause(after_attempts(4, jitter=0.0)) == 120
    assert pause(after_attempts(4, jitter=0.5)) == 105
    assert pause(after_attempts(4, jitter=1.0)) == 90


def test_p10_a_failed_attempt_is_due_again_soon_at_first_and_later_each_time_with_jitter() -> None:
    def seconds(count: int, jitter: float) -> float:
        due = waiting.retry_after(Backoff(count), At(NOW, jitter), LIMITS)
        return (due - NOW).total_seconds()

    assert [seconds(count, 0.0) for count in (0, 1, 2, 3, 20)] == [15, 15, 30, 60, 1800]
    assert seconds(3, 1.0) == 45


def test_p9_a_failed_attempt_is_not_due_within_the_pause_of_its_fight() -> None:
    held_until = NOW + HOUR / 2
    assert waiting.retry_after(Backoff(3, NOW, held_until), At(NOW), LIMITS) == held_until


def test_of_two_times_the_later_one_counts_and_one_may_be_missing() -> None:
    assert waiting.later(NOW, NOW + SECOND) == waiting.later(NOW + SECOND, NOW) == NOW + SECOND
    assert waiting.later(None, NOW) == NOW
