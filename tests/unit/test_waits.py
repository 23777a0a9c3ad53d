"""What the guard waits for, in the very words that every face shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.auditlog.views import target_view
from chalicelib.auditlog.waits import Waiting, waiting
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Actor
from chalicelib.domain.reasons import Outcome, Reason, Violation
from chalicelib.domain.stored import (
    Attribution,
    Backoff,
    Cause,
    GuardState,
    Incident,
    Lease,
    Pause,
    Phase,
    Suppression,
    TargetState,
)

NOW = datetime(2026, 11, 20, 10, 0, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SOON = datetime(2026, 11, 20, 10, 4, 52, tzinfo=UTC)
TARGET = "111122223333/us-east-1"
CI = Actor("arn:aws:iam::111122223333:role/ci-deploy", "AssumedRole")
STRANGER = Actor("arn:aws:iam::444455556666:role/ci-deploy", "AssumedRole")
OPEN = Incident(f"{TARGET}#7", NOW, None, Phase.OPEN, due=SOON, cause=Cause("event", NOW, CI))
FOUGHT = {Lane.UPKEEP: Backoff(3, NOW, SOON), Lane.SETTING: Backoff(1, NOW)}
PAUSED = GuardState(paused=Pause(NOW - 60 * SECOND, "arn:aws:iam::111122223333:user/Ops", "INC-1234: KMS outage"))
SWEPT = GuardState(swept_at=NOW - timedelta(minutes=20))


def state(outcome: Outcome, reason: str | None = None, incident: Incident | None = OPEN, **fields: Any) -> TargetState:
    return replace(TargetState(TARGET, outcome=outcome, reason=reason, incident=incident), **fields)


def told(of: TargetState, guard: GuardState = SWEPT, now: datetime = NOW) -> tuple[str, datetime | None] | None:
    found = waiting(of, guard, now)
    return (found.text, found.until) if found else None


BACKING_OFF = state(Outcome.DEFERRED, Reason.BACKOFF, backoffs=FOUGHT)


def test_p9_backing_off_names_the_time_the_attempts_and_the_rival() -> None:
    text = "next attempt 10:04:52, backing off after 3 attempts against role/ci-deploy"
    assert told(BACKING_OFF) == (text, SOON)


def test_p9_a_rival_of_another_account_is_named_by_the_whole_arn() -> None:
    made = Attribution(Violation.ALIAS_MOVED, (Cause("other", NOW, STRANGER),))
    found = told(replace(BACKING_OFF, incident=replace(OPEN, attributions=(made,))))
    assert found is not None
    assert found[0].endswith(f"after 3 attempts against role/ci-deploy, {STRANGER.arn}")


def test_p9_a_backoff_against_nobody_known_and_one_of_tomorrow() -> None:
    tomorrow = datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC)
    unknown = replace(BACKING_OFF, incident=replace(OPEN, cause=None, due=tomorrow))
    assert told(unknown) == ("next attempt 2026-11-21 01:02:03, backing off after 3 attempts", tomorrow)


def test_a_time_that_has_come_is_within_a_minute_and_not_stated() -> None:
    text = "next attempt within a minute, backing off after 3 attempts against role/ci-deploy"
    assert told(BACKING_OFF, now=SOON) == (text, None)


def test_a_failure_that_is_held_back_backs_off() -> None:
    text = "next attempt 10:04:52, backing off after 3 attempts against role/ci-deploy"
    assert told(state(Outcome.FAILED, Reason.KEY_NOT_TAGGED, backoffs=FOUGHT)) == (text, SOON)


def test_a_failure_is_retried() -> None:
    once = {Lane.READING: Backoff(1, NOW)}
    assert told(state(Outcome.FAILED, "ThrottlingException", backoffs=once)) == (
        "next attempt 10:04:52, retrying after 1 failed attempt",
        SOON,
    )
    twice = {Lane.READING: Backoff(2, NOW)}
    assert told(state(Outcome.FAILED, "ThrottlingException", backoffs=twice)) == (
        "next attempt 10:04:52, retrying after 2 failed attempts",
        SOON,
    )


def test_what_settles_says_when_it_counts_as_failed() -> None:
    settles = replace(OPEN, due=NOW + 20 * SECOND, settles_until=NOW + timedelta(minutes=15))
    assert told(state(Outcome.DEFERRED, Reason.SETTLING, settles)) == (
        "next attempt 10:00:32, AWS has not finished a change; it counts as failed after 10:15:12",
        NOW + 20 * SECOND,
    )


def test_a_pause_lasts_until_an_operator_ends_it() -> None:
    text = (
        "no attempt until an operator runs `xray-guard resume`: paused by user/Ops since 09:59:12: INC-1234: KMS outage"
    )
    for reason in (Reason.PAUSED, Reason.BACKOFF, Reason.SETTLING):
        assert told(state(Outcome.DEFERRED, reason), PAUSED) == (text, None)


def test_after_a_pause_the_scheduled_check_takes_the_target_up() -> None:
    deferred = state(Outcome.DEFERRED, Reason.PAUSED, replace(OPEN, due=NOW))
    assert told(deferred) == ("next check within a minute, the pause has ended", None)


GLASS = Suppression("carrier", "value", "INC-1", NOW, SOON, SOON, opened_by=CI)


def test_a_break_glass_says_until_when_and_who_opened_it() -> None:
    sooner = replace(GLASS, until=NOW + SECOND)
    over = replace(GLASS, until=SOON + timedelta(hours=1), closed="ENDED")
    refused = replace(over, closed=None, refused="NOT_ALLOWED")
    suppressed = state(Outcome.SUPPRESSED, Reason.BREAK_GLASS, suppressions=(sooner, GLASS, over, refused))
    text = "no attempt before 10:04:52: a break-glass opened by role/ci-deploy is in force"
    assert told(suppressed) == (text, SOON)
    assert told(suppressed, PAUSED) == (text, SOON)
    ended = ("next check within a minute, the break-glass has ended", None)
    assert told(replace(suppressed, suppressions=())) == ended


def test_a_break_glass_past_its_end_is_not_in_force_though_the_guard_has_not_noted_the_end() -> None:
    past = state(Outcome.SUPPRESSED, Reason.BREAK_GLASS, suppressions=(replace(GLASS, until=NOW),))
    assert told(past) == ("next check within a minute, the break-glass has ended", None)
    assert not target_view(past, GuardState(), NOW).suppressions
    still = state(Outcome.SUPPRESSED, Reason.BREAK_GLASS, suppressions=(replace(GLASS, until=NOW + SECOND),))
    assert len(target_view(still, GuardState(), NOW).suppressions) == 1


def test_a_sweep_that_reached_its_limit_waits_for_the_next_one() -> None:
    limited = state(Outcome.DEFERRED, Reason.BLAST_RADIUS, replace(OPEN, due=None))
    why = "this sweep reached its remediation limit"
    assert told(limited) == (f"next attempt with the next sweep, about 10:40:12: {why}", NOW + timedelta(minutes=40))
    assert told(limited, GuardState()) == (f"next attempt with the next sweep: {why}", None)


def test_a_denied_region_waits_for_the_next_sweep() -> None:
    denied = state(Outcome.IGNORED, Reason.REGION_DENIED)
    assert told(denied) == (
        "next attempt with the next sweep, about 10:40:12: a service control policy denies the guard this Region",
        NOW + timedelta(minutes=40),
    )


def test_what_is_applied_waits_for_active_also_during_a_pause() -> None:
    applied = replace(OPEN, phase=Phase.APPLIED, applied_at=NOW - 12 * SECOND, due=NOW)
    text = "waiting since 10:00:00 for X-Ray to report ACTIVE, checked every minute"
    assert told(state(Outcome.APPLIED, None, applied)) == (text, None)
    assert told(state(Outcome.APPLIED, None, applied), PAUSED) == (text, None)
    assert told(state(Outcome.FAILED, Reason.UPDATING_TOO_LONG, replace(applied, due=SOON))) == (text, SOON)


def test_an_attempt_that_runs_is_waited_for() -> None:
    acting = replace(OPEN, phase=Phase.ACTING, lease=Lease("worker", 1, SOON, NOW))
    assert told(state(Outcome.REMEDIATING, None, acting)) == (
        "an attempt is running; if its worker is lost, the next one is 10:04:52",
        SOON,
    )
    lost = "next attempt within a minute, the worker of the last one was lost"
    assert told(state(Outcome.REMEDIATING, None, acting), now=SOON) == (lost, None)


@pytest.mark.parametrize(
    "of",
    [
        state(Outcome.COMPLIANT, None, None),
        state(Outcome.IGNORED, Reason.REGION_DENIED, None),
        state(Outcome.OBSERVED, Reason.RULE_OBSERVES),
        state(Outcome.OBSERVED),
    ],
)
def test_without_an_incident_and_where_the_guard_only_observes_it_waits_for_nothing(of: TargetState) -> None:
    assert waiting(of, PAUSED, NOW) is None


def test_a_text_and_its_time_are_what_every_face_gets() -> None:
    assert waiting(BACKING_OFF, SWEPT, NOW) == Waiting(
        "next attempt 10:04:52, backing off after 3 attempts against role/ci-deploy", SOON
    )
