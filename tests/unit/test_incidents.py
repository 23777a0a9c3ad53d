"""Which incident a change caused (P5), how long it exposed the traces, and what a target remembers of it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain import incidents
from chalicelib.domain.incidents import PAST_INCIDENTS
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import Actor, ChangeEvent, Setting
from chalicelib.domain.stored import Backoff, Cause, Incident, PastIncident, Phase, TargetState
from chalicelib.domain.times import CLOCK_SKEW
from tests.unit.targets import (
    ALICE,
    BOB,
    COMPLIANT,
    HOUR,
    MINUTE,
    NONE,
    NOW,
    OTHER,
    SECOND,
    TARGET,
    an_incident,
    change_event,
)


def change(at: datetime | None = NOW, result: Setting | None = NONE, actor: Actor = ALICE) -> ChangeEvent:
    return change_event(result, at=at, actor=actor)


def incident(opened_at: datetime = NOW, cause: Cause | None = None, before: Setting | None = NONE) -> Incident:
    return Incident(f"{TARGET}#1", opened_at, before, Phase.OPEN, cause=cause)


def cause(at: datetime = NOW, actor: Actor = ALICE, event_id: str = "event-1") -> Cause:
    return Cause(event_id, at, actor)


# --- P5: which incident a change caused ------------------------------------------------------------------------------


def test_p5_a_change_caused_the_incident_that_began_with_its_setting() -> None:
    assert incidents.caused_by(change(), incident(), None)


def test_p5_a_change_to_another_setting_did_not_cause_the_incident() -> None:
    assert not incidents.caused_by(change(result=OTHER), incident(), None)


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


def ended(number: int, at: datetime) -> PastIncident:
    """A past incident that lasted a minute."""
    return PastIncident(f"{TARGET}#{number}", at, at + 60 * SECOND, NONE)


def test_p5_of_two_incidents_that_a_change_may_have_caused_the_newest_gets_it() -> None:
    first, second = ended(1, NOW), ended(2, NOW + 120 * SECOND)
    state, fields = incidents.join_past(TargetState(str(TARGET), past=(first, second)), change(NOW))
    assert state.past == (first, replace(second, cause=cause(NOW)))
    assert fields == {"incident_id": second.id, "cause": cause(NOW), "exposure_seconds": 180}


def test_p5_a_change_that_is_known_already_is_given_to_the_incident_before() -> None:
    first, second = ended(1, NOW), replace(ended(2, NOW + 120 * SECOND), cause=cause(NOW, BOB))
    state, _ = incidents.join_past(TargetState(str(TARGET), past=(first, second)), change(NOW))
    assert state.past == (replace(first, cause=cause(NOW)), second)


def test_p5_a_change_that_caused_no_past_incident_leaves_them_as_they_are() -> None:
    state = TargetState(str(TARGET), past=(ended(1, NOW - HOUR),))
    assert incidents.join_past(state, change(NOW)) == (state, {})
    assert incidents.join_past(state, None) == (state, {})


def test_p9_the_rivals_of_a_fight_are_those_of_as_many_incidents_as_there_were_attempts() -> None:
    alices = replace(ended(1, NOW), cause=cause(NOW, ALICE))
    bobs = replace(ended(2, NOW + HOUR), cause=cause(NOW + HOUR, BOB))
    backoffs = {Lane.SETTING: Backoff(2), Lane.KEY: Backoff(3), Lane.UPKEEP: Backoff(1)}
    fought = TargetState(str(TARGET), past=(alices, bobs, ended(3, NOW + 2 * HOUR)), backoffs=backoffs)
    assert incidents.fight(fought, [Lane.SETTING, Lane.UPKEEP]) == {"attempts": 2, "against": [BOB.arn]}
    assert incidents.fight(fought, [Lane.KEY]) == {"attempts": 3, "against": sorted([ALICE.arn, BOB.arn])}


# --- what a target remembers -----------------------------------------------------------------------------------------


def test_the_exposure_counts_from_the_change_or_from_its_discovery_where_the_change_is_unknown() -> None:
    discovered = incident(opened_at=NOW + 10 * SECOND)
    caused = replace(discovered, cause=cause(NOW))
    assert incidents.exposure(discovered, NOW + 30 * SECOND) == 20
    assert incidents.exposure(caused, NOW + 30 * SECOND) == 30


def test_the_exposure_ends_when_x_ray_was_safe_though_other_violations_remained() -> None:
    safe = replace(incident(opened_at=NOW, cause=cause(NOW)), safe_at=NOW + 10 * SECOND)
    assert incidents.exposure(safe, NOW + HOUR) == 10
    (past,) = incidents.remember(TargetState(str(TARGET)), safe, NOW + HOUR)
    assert past.safe_at == NOW + 10 * SECOND
    assert incidents.past_exposure(past, NOW - 5 * SECOND) == 15
    assert incidents.past_exposure(replace(past, safe_at=None), NOW) == 3600


def test_an_exposure_is_never_negative() -> None:
    assert incidents.exposure(incident(opened_at=NOW), NOW - SECOND) == 0


def test_p5_a_target_remembers_its_latest_incidents_and_who_caused_them() -> None:
    state = TargetState(str(TARGET))
    for number in range(PAST_INCIDENTS + 3):
        ended = replace(incident(NOW + number * HOUR, cause=cause(NOW + number * HOUR)), id=f"{TARGET}#{number}")
        state = replace(state, past=incidents.remember(state, ended, NOW + number * HOUR + SECOND))
    assert len(state.past) == PAST_INCIDENTS
    last = NOW + (PAST_INCIDENTS + 2) * HOUR
    before = last - HOUR + SECOND
    latest = PastIncident(f"{TARGET}#{PAST_INCIDENTS + 2}", last, last + SECOND, NONE, cause(last), good_at=before)
    assert state.past[-1] == latest
    assert [past.opened_at for past in state.past] == sorted(past.opened_at for past in state.past)


def test_p5_a_late_event_of_an_older_identical_change_is_not_the_cause_of_a_new_drift() -> None:
    compliant_since = replace(COMPLIANT, good_at=NOW - HOUR)
    drift = an_incident(opened_at=NOW, before=NONE, cause=None)
    older = change_event(at=NOW - 2 * HOUR, actor=BOB)
    assert incidents.join(drift, older, compliant_since).cause is None
    newer = change_event(at=NOW - MINUTE, actor=ALICE)
    found = incidents.join(drift, newer, compliant_since).cause
    assert found is not None
    assert found.actor == ALICE


def test_p5_what_was_applied_meanwhile_does_not_hide_the_cause_of_the_incident() -> None:
    applied_since = replace(COMPLIANT, good_at=NOW)
    waiting = an_incident(opened_at=NOW - HOUR, before=NONE, cause=None)
    found = incidents.join(waiting, change_event(at=NOW - HOUR), applied_since).cause
    assert found is not None
    assert found.actor == ALICE
