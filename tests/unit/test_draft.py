"""Which incident a change caused (P5), how long a fight is held back (P9, P10), and what a target remembers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_type_hints

import pytest
from msgspec.structs import replace

from chalicelib.auditlog.chaincheck import verify_chain
from chalicelib.auditlog.draft import Draft
from chalicelib.auditlog.hashchain import StoredRow, sort_key, time_index
from chalicelib.domain import incidents, waiting
from chalicelib.domain.incidents import PAST_INCIDENTS
from chalicelib.domain.model import (
    Actor,
    ChangeEvent,
    EncryptionStatus,
    EncryptionType,
    Setting,
    Target,
    Trigger,
    TriggerKind,
)
from chalicelib.domain.policy import Limits
from chalicelib.domain.reasons import Outcome
from chalicelib.domain.run import At
from chalicelib.domain.settlement import RecordFields
from chalicelib.domain.stored import Backoff, Cause, Incident, PastIncident, Phase, Record, TargetState
from chalicelib.domain.times import CLOCK_SKEW

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
TARGET = Target("111122223333", "us-east-1")
ALICE = Actor("arn:aws:iam::111122223333:user/Alice")
BOB = Actor("arn:aws:iam::111122223333:user/Bob")
NONE = Setting(EncryptionType.NONE, None, EncryptionStatus.ACTIVE)
OTHER_KEY = Setting(EncryptionType.KMS, "arn:aws:kms:us-east-1:111122223333:key/other", EncryptionStatus.ACTIVE)
LIMITS = Limits(max_backoff_minutes=30)


def change(at: datetime | None = NOW, result: Setting | None = NONE, actor: Actor = ALICE) -> ChangeEvent:
    return ChangeEvent(TARGET, Trigger(TriggerKind.CHANGE, "event-1", event_time=at, actor=actor), result)


def incident(opened_at: datetime = NOW, cause: Cause | None = None, before: Setting | None = NONE) -> Incident:
    return Incident(f"{TARGET}#1", opened_at, before, Phase.OPEN, cause=cause)


def cause(at: datetime = NOW, actor: Actor = ALICE, event_id: str = "event-1") -> Cause:
    return Cause(event_id, at, actor)


# --- P5: which incident a change caused ------------------------------------------------------------------------------


def test_p5_a_change_caused_the_incident_that_began_with_its_setting() -> None:
    assert incidents.caused_by(change(), incident(), None)


def test_p5_a_change_to_another_setting_did_not_cause_the_incident() -> None:
    assert not incidents.caused_by(change(result=OTHER_KEY), incident(), None)


def test_p5_a_change_did_not_cause_an_incident_whose_setting_is_unknown() -> None:
    assert not incidents.caused_by(change(), incident(before=None), None)


def test_p5_an_incident_keeps_the_cause_that_it_has() -> None:
    assert not incidents.caused_by(change(actor=BOB), incident(cause=cause(actor=ALICE)), None)


@pytest.mark.parametrize(("after_the_skew", "caused"), [(-SECOND, True), (0 * SECOND, True), (SECOND, False)])
def test_p5_a_change_made_after_the_incident_was_discovered_did_not_cause_it(
    after_the_skew: timedelta, caused: bool
) -> None:
    event = change(NOW + CLOCK_SKEW + after_the_skew)
    assert incidents.caused_by(event, incident(opened_at=NOW), None) is caused


@pytest.mark.parametrize(("after_the_skew", "caused"), [(-SECOND, False), (0 * SECOND, True), (SECOND, True)])
def test_p5_a_change_that_ended_with_the_incident_before_did_not_cause_this_one(
    after_the_skew: timedelta, caused: bool
) -> None:
    ended = NOW - HOUR
    event = change(ended - CLOCK_SKEW + after_the_skew)
    assert incidents.caused_by(event, incident(), ended) is caused


@pytest.mark.parametrize("event", [change(at=None), change(result=None)], ids=["no time", "no result"])
def test_p5_a_change_whose_time_or_result_is_unknown_is_joined_to_nothing(event: ChangeEvent) -> None:
    assert not incidents.caused_by(event, incident(), None)


def test_p14_of_two_changes_the_later_one_is_the_latest_in_whatever_order_they_arrive() -> None:
    early, late = cause(NOW), cause(NOW + SECOND, BOB, "event-2")
    assert incidents.latest(early, late) == late
    assert incidents.latest(late, early) == late


def test_p14_of_two_changes_in_one_second_the_one_received_last_is_the_latest() -> None:
    first, second = cause(NOW), cause(NOW, BOB, "event-2")
    assert incidents.latest(first, second) == second


def test_a_change_that_cannot_be_dated_replaces_no_known_one() -> None:
    assert incidents.latest(cause(), None) == cause()
    assert incidents.latest(None, cause()) == cause()


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


# --- what a target remembers -----------------------------------------------------------------------------------------


def test_the_exposure_counts_from_the_change_or_from_its_discovery_where_the_change_is_unknown() -> None:
    discovered = incident(opened_at=NOW + 10 * SECOND)
    caused = replace(discovered, cause=cause(NOW))
    assert incidents.exposure(discovered, NOW + 30 * SECOND) == 20
    assert incidents.exposure(caused, NOW + 30 * SECOND) == 30


def test_an_exposure_is_never_negative() -> None:
    assert incidents.exposure(incident(opened_at=NOW), NOW - SECOND) == 0


def test_p5_a_target_remembers_its_latest_incidents_and_who_caused_them() -> None:
    state = TargetState(str(TARGET))
    for number in range(PAST_INCIDENTS + 3):
        ended = replace(incident(NOW + number * HOUR, cause=cause(NOW + number * HOUR)), id=f"{TARGET}#{number}")
        state = replace(state, past=incidents.remember(state, ended, NOW + number * HOUR + SECOND))
    assert len(state.past) == PAST_INCIDENTS
    last = NOW + (PAST_INCIDENTS + 2) * HOUR
    assert state.past[-1] == PastIncident(f"{TARGET}#{PAST_INCIDENTS + 2}", last, last + SECOND, NONE, cause(last))
    assert [past.opened_at for past in state.past] == sorted(past.opened_at for past in state.past)


def test_of_two_times_the_later_one_counts_and_one_may_be_missing() -> None:
    assert waiting.later(NOW, NOW + SECOND) == waiting.later(NOW + SECOND, NOW) == NOW + SECOND
    assert waiting.later(None, NOW) == NOW


def test_a_draft_takes_every_field_of_a_record_but_those_it_fills_in_itself() -> None:
    own = {"record_id", "target", "seq", "at", "outcome", "trigger", "prev_hash"}
    of_record = get_type_hints(Record)
    assert get_type_hints(RecordFields) == {name: kind for name, kind in of_record.items() if name not in own}


def test_p16_records_that_are_written_together_carry_on_the_chain() -> None:
    draft = Draft(TargetState(str(TARGET)))
    for number in range(3):
        assert draft.next_id() == f"{TARGET}#{number + 1}"
        draft.add(NOW, Outcome.COMPLIANT, Trigger(TriggerKind.SWEEP))
    rows = [
        StoredRow(record.target, sort_key(record.seq), body, digest, time_index(record.target, record.seq, record.at))
        for record, body, digest in draft.records
    ]
    assert not list(verify_chain(str(TARGET), rows, (draft.after.seq, draft.after.head)))
    assert draft.after.seq == 3
