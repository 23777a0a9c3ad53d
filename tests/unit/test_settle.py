"""What a run writes at its end, when its target is due again, and what goes on in silence: every End and Outcome."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from chalicelib.domain.attempts import Attempted
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import ChangeEvent, KeyEvent, Setting, TriggerKind
from chalicelib.domain.observation import Observation
from chalicelib.domain.policy import Rule
from chalicelib.domain.reasons import Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At
from chalicelib.domain.settle import (
    EchoConfirmed,
    End,
    Failed,
    Ignored,
    Judged,
    LeaseHeld,
    RegionDenied,
    settle,
)
from chalicelib.domain.settlement import Settlement
from chalicelib.domain.stored import (
    Backoff,
    Cause,
    Intent,
    Lease,
    PastIncident,
    Phase,
    Suppression,
    TargetState,
)
from chalicelib.domain.waiting import DEEP_EVERY, LONGEST_SETTLING, LONGEST_UPDATE, SETTLING_PAUSE, STALE_READS
from tests.unit.runs import SETUP, a_run, known_as, only_line, open_incident
from tests.unit.targets import (
    ALICE,
    BOB,
    COMPLIANT,
    FIRST_RECORD,
    GOOD,
    HOUR,
    KEY_ARN,
    MINUTE,
    NONE,
    NOT_KMS,
    NOW,
    OTHER,
    OTHER_ARN,
    RULE,
    SECOND,
    TARGET,
    UPDATING,
    a_lease,
    acting,
    an_incident,
    applied,
    change_event,
    drifted,
    key_event,
    seen_as,
)

NEVER_SEEN = TargetState(str(TARGET))
DENIED = Problem("AccessDeniedException", "xray:GetEncryptionConfig: with an explicit deny in a service control policy")
THROTTLED = Problem("ThrottlingException", "kms:DescribeKey: too many requests")
HELD = drifted(acting(a_lease(NOW + SECOND)), Outcome.REMEDIATING, lease_number=3)
LOST = drifted(acting(a_lease(NOW)), Outcome.REMEDIATING, lease_number=3)
ALICES = Cause("event-1", NOW - 11 * MINUTE, ALICE)
LATE = change_event(NONE, at=ALICES.at)
"""Alice's change, which caused the incident that was discovered a minute later."""


def settled(
    end: End,
    state: TargetState = COMPLIANT,
    event: ChangeEvent | KeyEvent | None = None,
    *,
    kind: TriggerKind = TriggerKind.SWEEP,
    rule: Rule | None = RULE,
    audited: bool = False,
    jitter: float = 0.0,
    now: datetime = NOW,
) -> Settlement:
    return settle(a_run(TARGET, rule, kind, event), known_as(state, audited=audited), end, At(now, jitter))


def judged(
    outcome: Outcome,
    reason: str | None = None,
    seen: Observation | None = None,
    *,
    glass: Weighed | None = None,
    **decided: Any,
) -> Judged:
    """The decision on an observation: of the wanted key where it is COMPLIANT, else of NONE."""
    compliant = outcome in (Outcome.COMPLIANT, Outcome.IGNORED)
    seen = seen or seen_as(GOOD if compliant else NONE)
    fields = {"violations": () if compliant else NOT_KMS, "lane": Lane.SETTING, **decided}
    return Judged(seen, glass or Weighed((), None), Decision(outcome, reason=reason, **fields))


def stored(settlement: Settlement) -> TargetState:
    """The stored state, but for the effects of events and what was last seen, which every audited event adds to."""
    assert settlement.state is not None
    return replace(settlement.state, effects=(), last_seen=())


def is_silent(settlement: Settlement) -> bool:
    """Whether nothing is written at all."""
    return settlement.lines == () and settlement.state is None


OBSERVES = judged(Outcome.OBSERVED, Reason.RULE_OBSERVES)
SUPPRESSES = judged(Outcome.SUPPRESSED, Reason.BREAK_GLASS)
PAUSED = judged(Outcome.DEFERRED, Reason.PAUSED, message="paused by Ops: freeze")
HELD_UNTIL = NOW + 7 * MINUTE
BACKS_OFF = judged(
    Outcome.DEFERRED, Reason.BACKOFF, message="held back", due=HELD_UNTIL, held=frozenset({Lane.SETTING})
)
OVER_BUDGET = judged(Outcome.DEFERRED, Reason.BLAST_RADIUS)
NOT_SEEN = Problem(Reason.KEY_NOT_YET_SEEN, "KMS does not show it yet")
SETTLES = judged(Outcome.DEFERRED, Reason.SETTLING, blocked=NOT_SEEN, message=NOT_SEEN.message)
UNTAGGED = Problem(Reason.KEY_NOT_TAGGED, "the key has no tag")
BLOCKED = judged(Outcome.FAILED, UNTAGGED.code, blocked=UNTAGGED, message=UNTAGGED.message)
HEALTHY = judged(Outcome.COMPLIANT)
NOT_ACTED_ON = [OBSERVES, SUPPRESSES, PAUSED, BACKS_OFF, OVER_BUDGET, SETTLES, BLOCKED]


def name_of(value: object) -> str | None:
    return f"{value.decision.outcome} {value.decision.reason}" if isinstance(value, Judged) else None


# --- noncompliant, and not acted on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", NOT_ACTED_ON, ids=name_of)
def test_a_new_violation_opens_an_incident_with_its_first_record(end: Judged) -> None:
    settlement = settled(end)
    line, state, incident = only_line(settlement), stored(settlement), open_incident(settlement)
    outcome, reason = end.decision.outcome, end.decision.reason
    assert (line.outcome, line.fields["reason"]) == (outcome, reason)
    assert (settlement.outcome, settlement.reason, settlement.violations) == (outcome, reason, NOT_KMS)
    assert (state.outcome, state.reason, state.violations, state.setting) == (outcome, reason, NOT_KMS, NONE)
    assert (incident.id, incident.opened_at, incident.before) == (FIRST_RECORD, NOW, NONE)
    assert (incident.phase, incident.lease, incident.attempt, incident.unended) == (Phase.OPEN, None, 0, False)
    assert (line.fields["incident_id"], line.fields["before"], line.fields["attempt"]) == (incident.id, NONE, None)
    assert line.fields["error"] == end.decision.blocked
    assert not settlement.mutated


@pytest.mark.parametrize(
    ("end", "due"),
    [
        (OBSERVES, None),
        (SUPPRESSES, NOW),
        (PAUSED, NOW),
        (BACKS_OFF, HELD_UNTIL),
        (OVER_BUDGET, None),
        (SETTLES, NOW + SETTLING_PAUSE),
        (BLOCKED, NOW + 15 * SECOND),
    ],
    ids=name_of,
)
def test_p1_p10_each_says_when_it_is_checked_again(end: Judged, due: datetime | None) -> None:
    assert settled(end).due == due


@pytest.mark.parametrize("end", NOT_ACTED_ON, ids=name_of)
def test_p10_what_goes_on_as_before_writes_nothing(end: Judged) -> None:
    again = settled(end, stored(settled(end)))
    assert is_silent(again)
    assert (again.outcome, again.reason, again.violations) == (end.decision.outcome, end.decision.reason, NOT_KMS)


@pytest.mark.parametrize(
    "changed",
    [
        judged(Outcome.OBSERVED, Reason.KEY_NOT_OURS),
        judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, violations=(Violation.KEY_DISABLED,)),
        judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, seen_as(OTHER)),
        SUPPRESSES,
    ],
    ids=["reason", "violations", "setting", "outcome"],
)
def test_a_change_of_what_goes_on_is_recorded_in_the_same_incident(changed: Judged) -> None:
    settlement = settled(changed, stored(settled(OBSERVES)))
    line = only_line(settlement)
    assert (line.fields["incident_id"], line.fields["before"]) == (FIRST_RECORD, changed.seen.setting)
    assert line.fields["violations"] == open_incident(settlement).violations == changed.decision.violations


def test_a_status_is_no_change_of_the_setting() -> None:
    state = stored(settled(judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, seen_as(OTHER))))
    updating = judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, seen_as(replace(OTHER, status=UPDATING.status)))
    assert is_silent(settled(updating, state))


@pytest.mark.parametrize("end", NOT_ACTED_ON, ids=name_of)
def test_p5_a_change_is_recorded_though_nothing_is_new(end: Judged) -> None:
    state = stored(settled(end))
    settlement = settled(end, state, change_event(NONE))
    assert only_line(settlement).outcome is end.decision.outcome
    assert open_incident(settlement).latest == Cause("event-1", NOW - 5 * SECOND, ALICE)
    assert is_silent(settled(end, state, change_event(NONE), audited=True))


def test_p5_the_change_that_made_the_drift_is_the_cause_of_the_incident() -> None:
    settlement = settled(OBSERVES, event=change_event(NONE))
    assert open_incident(settlement).cause == Cause("event-1", NOW - 5 * SECOND, ALICE)
    assert only_line(settlement).fields["cause"] == open_incident(settlement).cause


def test_p3_a_lost_workers_attempt_ends_on_the_record_before_what_holds_the_next_one_back() -> None:
    lost, held = settled(PAUSED, LOST).lines
    assert (lost.outcome, lost.fields["reason"], lost.fields["attempt"]) == (Outcome.FAILED, Reason.WORKER_LOST, 1)
    assert (held.outcome, held.fields["reason"], held.fields["attempt"]) == (Outcome.DEFERRED, Reason.PAUSED, None)
    incident = open_incident(settled(PAUSED, LOST))
    assert (incident.lease, incident.phase, incident.unended) == (None, Phase.OPEN, False)


def test_p3_a_lost_worker_is_news_though_all_else_is_as_before() -> None:
    as_before = replace(LOST, outcome=Outcome.OBSERVED, reason=Reason.RULE_OBSERVES)
    assert [line.fields["reason"] for line in settled(OBSERVES, as_before).lines] == [
        Reason.WORKER_LOST,
        Reason.RULE_OBSERVES,
    ]
    backing_off = replace(LOST, outcome=Outcome.DEFERRED, reason=Reason.BACKOFF)
    assert [line.fields["reason"] for line in settled(BACKS_OFF, backing_off).lines] == [
        Reason.WORKER_LOST,
        Reason.BACKOFF,
    ]


def test_the_record_names_what_holds_the_guard_back() -> None:
    assert only_line(settled(PAUSED)).fields["detail"] == {"message": "paused by Ops: freeze"}
    assert only_line(settled(OVER_BUDGET)).fields["detail"] == {}


def test_p1_a_recheck_that_was_due_is_cleared_in_silence() -> None:
    state = replace(stored(settled(OBSERVES)), recheck_at=NOW)
    settlement = settled(OBSERVES, state)
    assert (settlement.lines, stored(settlement)) == ((), replace(state, recheck_at=None))


def test_p1_a_recheck_is_not_cleared_by_what_was_read_before_it_was_due() -> None:
    state = replace(stored(settled(OBSERVES)), recheck_at=NOW)
    assert is_silent(settled(judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, seen_as(NONE, at=NOW - SECOND)), state))
    assert is_silent(settled(judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, seen_as(NONE, deep=False)), state))


# --- suppressed, paused and settling ---------------------------------------------------------------------------------

BREAK_GLASS = Suppression(KEY_ARN, "2026-11-20T18:00:00Z INC-1", "INC-1", NOW, NOW + 6 * HOUR, NOW + 6 * HOUR, ALICE)
REFUSAL = Suppression(OTHER_ARN, "soon", "", NOW, None, None, refused="NO_END")


def test_p14_the_record_names_the_break_glass_in_force_or_the_one_that_does_not_count() -> None:
    in_force = judged(Outcome.SUPPRESSED, Reason.BREAK_GLASS, suppression=BREAK_GLASS)
    assert only_line(settled(in_force)).fields["suppression"] == BREAK_GLASS
    refused = judged(Outcome.OBSERVED, Reason.RULE_OBSERVES, glass=Weighed((), None, refusal=REFUSAL))
    assert only_line(settled(refused)).fields["suppression"] == REFUSAL


def test_what_settles_has_a_quarter_of_an_hour_from_its_first_time() -> None:
    first = stored(settled(SETTLES))
    assert first.incident is not None
    assert first.incident.settles_until == NOW + LONGEST_SETTLING
    later = settled(SETTLES, first, change_event(NONE), now=NOW + MINUTE)
    assert open_incident(later).settles_until == NOW + LONGEST_SETTLING


def test_what_does_not_settle_in_time_has_failed_for_its_own_reason() -> None:
    waits = drifted(an_incident(settles_until=NOW, due=NOW), Outcome.DEFERRED, Reason.SETTLING)
    line = only_line(settled(SETTLES, waits))
    assert (line.outcome, line.fields["reason"], line.fields["error"]) == (Outcome.FAILED, NOT_SEEN.code, NOT_SEEN)
    assert stored(settled(SETTLES, waits)).backoffs[Lane.SETTING].count == 1
    assert settled(SETTLES, waits, now=NOW - SECOND).outcome is Outcome.DEFERRED


@pytest.mark.parametrize(
    ("end", "until"),
    [(SUPPRESSES, None), (PAUSED, None), (OBSERVES, NOW + MINUTE), (BACKS_OFF, NOW + MINUTE), (BLOCKED, NOW + MINUTE)],
    ids=name_of,
)
def test_what_settles_has_its_time_anew_once_a_person_no_longer_holds_the_guard_back(
    end: Judged, until: datetime | None
) -> None:
    waits = drifted(an_incident(settles_until=NOW + MINUTE), Outcome.DEFERRED, Reason.SETTLING)
    assert open_incident(settled(end, waits, LATE)).settles_until == until


# --- backoff: a fight ------------------------------------------------------------------------------------------------


def past(number: int, cause: Cause | None) -> PastIncident:
    return PastIncident(f"{TARGET}#{number}", NOW - HOUR, NOW - HOUR + number * SECOND, NONE, cause)


FOUGHT = replace(
    COMPLIANT,
    backoffs={Lane.SETTING: Backoff(2, NOW - MINUTE, HELD_UNTIL)},
    past=(past(1, replace(ALICES, actor=replace(ALICE, arn="before the fight"))), past(2, ALICES), past(3, None)),
)


def test_p9_the_guard_names_whom_it_fights_with_and_how_often() -> None:
    detail = only_line(settled(BACKS_OFF, FOUGHT, change_event(NONE, actor=BOB))).fields["detail"]
    assert detail == {"message": "held back", "attempts": 2, "against": sorted([ALICE.arn, BOB.arn])}


def test_p9_whoever_caused_the_open_incident_is_named_too() -> None:
    incident = an_incident(cause=replace(ALICES, actor=BOB))
    state = drifted(
        incident, Outcome.IGNORED, Reason.REGION_DENIED, backoffs={Lane.SETTING: Backoff(1, NOW - MINUTE, HELD_UNTIL)}
    )
    assert only_line(settled(BACKS_OFF, state)).fields["detail"]["against"] == [BOB.arn]


def test_p9_a_failure_that_is_held_back_stays_a_failure() -> None:
    failed = drifted(an_incident(due=HELD_UNTIL), Outcome.FAILED, UNTAGGED.code)
    assert is_silent(settled(BACKS_OFF, failed))
    audited = settled(BACKS_OFF, failed, LATE)
    assert (only_line(audited).outcome, only_line(audited).fields["reason"]) == (Outcome.DEFERRED, Reason.BACKOFF)
    assert (stored(audited).outcome, stored(audited).reason) == (Outcome.FAILED, UNTAGGED.code)


def test_p9_what_changes_while_the_guard_is_held_back_is_no_news() -> None:
    state = stored(settled(BACKS_OFF))
    moved = judged(Outcome.DEFERRED, Reason.BACKOFF, seen_as(OTHER), violations=(Violation.KEY_NOT_ALLOWED,))
    settlement = settled(moved, state)
    assert is_silent(settlement)
    assert settlement.violations == (Violation.KEY_NOT_ALLOWED,)


def test_a_region_that_is_open_again_says_so_though_the_guard_is_held_back() -> None:
    denied = drifted(an_incident(), Outcome.IGNORED, Reason.REGION_DENIED)
    settlement = settled(BACKS_OFF, denied)
    assert only_line(settlement).outcome is Outcome.DEFERRED
    assert stored(settlement).reason == Reason.BACKOFF
    assert settlement.due == HELD_UNTIL


# --- failed: what the guard cannot repair ----------------------------------------------------------------------------


def test_p10_a_failure_counts_when_it_is_new_and_each_time_it_is_due() -> None:
    first = settled(BLOCKED)
    assert stored(first).backoffs[Lane.SETTING] == Backoff(1, NOW, None)
    assert first.due == NOW + 15 * SECOND
    state = stored(first)
    again = settled(BLOCKED, state, now=NOW + 15 * SECOND)
    assert only_line(again).outcome is Outcome.FAILED
    assert stored(again).backoffs[Lane.SETTING].count == 2
    assert again.due == NOW + 45 * SECOND


def test_p10_the_pause_after_a_failure_has_jitter() -> None:
    assert settled(BLOCKED, jitter=1.0).due == NOW + 11.25 * SECOND


@pytest.mark.parametrize("event", [None, LATE])
def test_a_failure_that_is_seen_before_it_is_due_does_not_count(event: ChangeEvent | None) -> None:
    waits = drifted(
        an_incident(due=NOW + MINUTE),
        Outcome.FAILED,
        Reason.KEY_POLICY_DENIES,
        backoffs={Lane.SETTING: Backoff(1, NOW)},
    )
    settlement = settled(BLOCKED, waits, event)
    assert only_line(settlement).fields["reason"] == UNTAGGED.code
    assert stored(settlement).backoffs == waits.backoffs
    assert settlement.due == NOW + MINUTE


# --- compliant, without an incident ----------------------------------------------------------------------------------


def test_a_target_that_is_compliant_at_first_sight_is_recorded() -> None:
    settlement = settled(HEALTHY, replace(NEVER_SEEN, managed_key=KEY_ARN))
    line, state = only_line(settlement), stored(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (Outcome.COMPLIANT,) * 3
    assert (line.fields["before"], line.fields["after"]) == (None, GOOD)
    assert (state.setting, state.first_seen, state.good_at, state.checked_at) == (GOOD, NOW, NOW, NOW)
    assert (state.rule, state.policy_digest, state.ever_used) == (RULE.id, SETUP.policy_digest, True)
    assert settlement.due is None


@pytest.mark.parametrize("outcome", [Outcome.COMPLIANT, Outcome.REMEDIATED])
def test_p10_a_target_that_stays_compliant_is_not_written(outcome: Outcome) -> None:
    settlement = settled(HEALTHY, replace(COMPLIANT, outcome=outcome))
    assert is_silent(settlement)
    assert (settlement.outcome, settlement.violations) == (Outcome.COMPLIANT, ())


@pytest.mark.parametrize(
    "state",
    [
        replace(COMPLIANT, rule="another"),
        replace(COMPLIANT, setting=OTHER),
        replace(COMPLIANT, outcome=Outcome.IGNORED, reason=Reason.RULE_OFF),
        replace(COMPLIANT, outcome=Outcome.IGNORED, reason=Reason.REGION_DENIED),
    ],
    ids=["another rule", "another setting", "rule was off", "Region was denied"],
)
def test_a_target_that_is_compliant_in_another_way_is_recorded_once(state: TargetState) -> None:
    settlement = settled(HEALTHY, state)
    line = only_line(settlement)
    assert (line.outcome, line.fields["before"], line.fields["after"]) == (Outcome.COMPLIANT, state.setting, GOOD)
    assert (stored(settlement).outcome, stored(settlement).reason) == (Outcome.COMPLIANT, None)
    assert is_silent(settled(HEALTHY, stored(settlement)))


def test_the_daily_check_is_kept_in_silence() -> None:
    yesterday = replace(COMPLIANT, checked_at=NOW - DEEP_EVERY)
    settlement = settled(HEALTHY, yesterday)
    assert (settlement.lines, stored(settlement).checked_at, stored(settlement).good_at) == ((), NOW, NOW)
    assert is_silent(settled(HEALTHY, replace(yesterday, checked_at=NOW - DEEP_EVERY + SECOND)))
    assert is_silent(settled(judged(Outcome.COMPLIANT, None, seen_as(GOOD, deep=False)), yesterday))


def test_only_a_deep_observation_is_a_check() -> None:
    shallow = judged(Outcome.COMPLIANT, None, seen_as(GOOD, deep=False))
    assert stored(settled(shallow, replace(COMPLIANT, rule="another"))).checked_at == COMPLIANT.checked_at


def test_p1_a_compliant_targets_recheck_is_cleared_in_silence_once_it_was_due() -> None:
    due = replace(COMPLIANT, recheck_at=NOW)
    settlement = settled(HEALTHY, due)
    assert (settlement.lines, stored(settlement).recheck_at, settlement.due) == ((), None, None)
    assert (stored(settlement).good_at, stored(settlement).checked_at) == (NOW, NOW)
    early = settled(HEALTHY, replace(COMPLIANT, recheck_at=NOW + SECOND))
    assert is_silent(early)
    assert early.due == NOW + SECOND
    assert is_silent(settled(judged(Outcome.COMPLIANT, None, seen_as(at=NOW - SECOND)), due))
    assert is_silent(settled(judged(Outcome.COMPLIANT, None, seen_as(deep=False)), due))


def test_p5_a_key_event_that_finds_the_target_compliant_is_recorded_once() -> None:
    settlement = settled(HEALTHY, event=key_event(KEY_ARN))
    assert only_line(settlement).outcome is Outcome.COMPLIANT
    assert (stored(settlement).good_at, stored(settlement).checked_at) == (NOW, NOW)
    assert settled(HEALTHY, event=key_event(KEY_ARN), audited=True).lines == ()


def test_p2_a_key_that_is_adopted_is_recorded_and_read_again() -> None:
    settlement = settled(HEALTHY, replace(COMPLIANT, managed_key=None))
    assert only_line(settlement).fields["detail"] == {"adopted": KEY_ARN}
    assert stored(settlement).managed_key == KEY_ARN
    assert settlement.due == NOW + STALE_READS


def test_p5_a_change_that_left_the_target_compliant_is_recorded_once() -> None:
    settlement = settled(HEALTHY, event=change_event(GOOD))
    line = only_line(settlement)
    assert (line.outcome, line.fields["before"], line.fields["after"]) == (Outcome.COMPLIANT, GOOD, GOOD)
    assert "incident_id" not in line.fields
    assert is_silent(settled(HEALTHY, event=change_event(GOOD), audited=True))


def test_p5_a_change_that_comes_after_its_incident_was_remediated_is_added_to_it() -> None:
    older = PastIncident(f"{TARGET}#1", NOW - 5 * HOUR, NOW - 4 * HOUR, NONE)
    closed = PastIncident(f"{TARGET}#2", NOW - 10 * MINUTE, NOW - 9 * MINUTE, NONE)
    state = replace(COMPLIANT, outcome=Outcome.REMEDIATED, past=(older, closed))
    settlement = settled(HEALTHY, state, LATE)
    line = only_line(settlement)
    assert (line.fields["incident_id"], line.fields["cause"]) == (closed.id, ALICES)
    assert line.fields["exposure_seconds"] == 120
    assert stored(settlement).past == (older, replace(closed, cause=ALICES))


# --- compliant, and an incident ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mutated", "outcome"), [(True, Outcome.REMEDIATED), (False, Outcome.COMPLIANT)])
def test_p4_an_incident_is_remediated_only_if_the_guard_had_a_hand_in_it(mutated: bool, outcome: Outcome) -> None:
    settlement = settled(HEALTHY, drifted(an_incident(attempt=2, mutated=mutated), Outcome.FAILED, UNTAGGED.code))
    line, state = only_line(settlement), stored(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (outcome,) * 3
    assert (line.fields["incident_id"], line.fields["before"], line.fields["after"]) == (f"{TARGET}#4", NONE, GOOD)
    assert (line.fields["exposure_seconds"], line.fields["error"]) == (600, None)
    assert line.fields["attempt"] is None, "the last one has its end on the record already"
    assert (state.incident, state.setting, state.reason, state.violations) == (None, GOOD, None, ())
    assert (state.good_at, state.checked_at) == (NOW, NOW)
    assert state.past == (PastIncident(f"{TARGET}#4", NOW - 10 * MINUTE, NOW, NONE, good_at=NOW - HOUR),)


def test_p3_an_incident_that_a_lost_worker_ended_says_that_the_worker_was_lost() -> None:
    line = only_line(settled(HEALTHY, LOST))
    error = line.fields["error"]
    assert error is not None
    assert (line.outcome, line.fields["attempt"], error.code) == (Outcome.REMEDIATED, 1, Reason.WORKER_LOST)


def test_p5_a_change_that_comes_as_its_incident_ends_is_its_cause() -> None:
    state = drifted(an_incident(), Outcome.OBSERVED, Reason.RULE_OBSERVES)
    settlement = settled(HEALTHY, state, LATE)
    line = only_line(settlement)
    assert (line.fields["cause"], line.fields["exposure_seconds"]) == (ALICES, 660)
    assert stored(settlement).past[-1].cause == ALICES
    assert only_line(settled(HEALTHY, state, LATE, audited=True)).fields["cause"] is None


# --- still updating --------------------------------------------------------------------------------------------------

STILL_UPDATING = judged(Outcome.COMPLIANT, None, seen_as(UPDATING))
APPLIED = drifted(applied(), Outcome.APPLIED, setting=UPDATING)


@pytest.mark.parametrize("setting", [UPDATING, replace(GOOD, status=None)], ids=["UPDATING", "no status"])
def test_p4_an_incident_does_not_end_before_xray_reports_active(setting: Setting) -> None:
    failed = drifted(an_incident(), Outcome.FAILED, UNTAGGED.code)
    settlement = settled(judged(Outcome.COMPLIANT, None, seen_as(setting)), failed)
    line, incident = only_line(settlement), open_incident(settlement)
    assert (settlement.outcome, line.outcome, stored(settlement).outcome) == (Outcome.APPLIED,) * 3
    assert (line.fields["after"], line.fields["error"], stored(settlement).reason) == (setting, None, None)
    assert (incident.phase, incident.applied_at, incident.lease) == (Phase.APPLIED, NOW, None)
    assert settlement.due == NOW


def test_p3_a_lost_worker_that_set_the_key_is_named_while_xray_is_updating() -> None:
    settlement = settled(STILL_UPDATING, LOST)
    error = only_line(settlement).fields["error"]
    assert error is not None
    assert (error.code, only_line(settlement).fields["attempt"]) == (Reason.WORKER_LOST, 1)
    assert (open_incident(settlement).lease, open_incident(settlement).unended) == (None, True)


def test_p10_waiting_for_active_is_recorded_once() -> None:
    settlement = settled(STILL_UPDATING, APPLIED)
    assert is_silent(settlement)
    assert (settlement.outcome, settlement.reason, settlement.violations) == (Outcome.APPLIED, Reason.UPDATING, ())
    assert settlement.due == NOW - MINUTE, "with the next tick"


def test_p5_a_change_while_xray_is_updating_is_recorded_and_joined() -> None:
    settlement = settled(STILL_UPDATING, APPLIED, LATE)
    line = only_line(settlement)
    assert (line.outcome, line.fields["reason"]) == (Outcome.COMPLIANT, Reason.UPDATING)
    assert (line.fields["incident_id"], line.fields["after"]) == (f"{TARGET}#4", UPDATING)
    assert open_incident(settlement).cause == ALICES
    assert is_silent(settled(STILL_UPDATING, APPLIED, LATE, audited=True))


def test_a_region_that_is_open_again_says_so_while_xray_is_updating() -> None:
    denied = replace(APPLIED, outcome=Outcome.IGNORED, reason=Reason.REGION_DENIED)
    settlement = settled(STILL_UPDATING, denied)
    assert (only_line(settlement).outcome, only_line(settlement).fields["reason"]) == (
        Outcome.COMPLIANT,
        Reason.UPDATING,
    )
    assert (stored(settlement).outcome, stored(settlement).reason) == (Outcome.APPLIED, None)
    assert settlement.due is not None


def test_an_update_that_takes_too_long_fails_and_is_reported_again_later() -> None:
    late = LONGEST_UPDATE + SECOND
    overdue = drifted(applied(NOW - late), Outcome.APPLIED)
    settlement = settled(STILL_UPDATING, overdue)
    line = only_line(settlement)
    assert (line.outcome, line.fields["reason"], line.fields["after"]) == (
        Outcome.FAILED,
        Reason.UPDATING_TOO_LONG,
        UPDATING,
    )
    assert line.fields["error"] == Problem(Reason.UPDATING_TOO_LONG, "X-Ray has been UPDATING for 30 minutes")
    assert (stored(settlement).outcome, stored(settlement).reason) == (Outcome.FAILED, Reason.UPDATING_TOO_LONG)
    assert open_incident(settlement).phase is Phase.APPLIED
    assert settlement.due == NOW + 30 * MINUTE
    assert is_silent(settled(STILL_UPDATING, stored(settlement), now=NOW + 29 * MINUTE))
    assert only_line(settled(STILL_UPDATING, stored(settlement), now=NOW + 30 * MINUTE)).outcome is Outcome.FAILED


def test_an_update_of_half_an_hour_is_not_too_long() -> None:
    assert is_silent(settled(STILL_UPDATING, drifted(applied(NOW - LONGEST_UPDATE), Outcome.APPLIED)))


# --- the guard's own change, confirmed -------------------------------------------------------------------------------


def test_p4_p7_an_echo_ends_the_incident_that_waits_for_active() -> None:
    settlement = settled(EchoConfirmed(GOOD), APPLIED, kind=TriggerKind.CHANGE)
    line, state = only_line(settlement), stored(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (Outcome.REMEDIATED,) * 3
    assert (line.fields["after"], line.fields["attempt"], line.fields["cause"]) == (GOOD, 1, None)
    assert (line.fields["exposure_seconds"], line.fields["error"]) == (600, None)
    assert (state.incident, state.setting, state.good_at, state.violations) == (None, GOOD, NOW, ())
    assert state.past[-1].id == f"{TARGET}#4"
    assert settlement.due is None


def test_an_echo_is_no_check_of_the_key() -> None:
    waits = replace(APPLIED, recheck_at=NOW)
    state = stored(settled(EchoConfirmed(GOOD), waits, kind=TriggerKind.CHANGE))
    assert (state.checked_at, state.recheck_at) == (COMPLIANT.checked_at, NOW)


# --- ignored ---------------------------------------------------------------------------------------------------------

OFF = Ignored(Reason.RULE_OFF, "rule baseline is off")
REFUSED_CALL = Ignored("AccessDeniedException", "not authorized")
ELSEWHERE = Ignored(Reason.ACCOUNT_NOT_OURS, "this guard acts in another account")


@pytest.mark.parametrize("reason", [Reason.RULE_OFF, Reason.UNGOVERNED, Reason.IDLE])
def test_a_target_that_is_no_longer_judged_says_so_once(reason: Reason) -> None:
    settlement = settled(Ignored(reason, "why"), replace(COMPLIANT, recheck_at=NOW))
    line, state = only_line(settlement), stored(settlement)
    assert (line.outcome, line.fields["reason"], line.fields["detail"]) == (Outcome.IGNORED, reason, {"message": "why"})
    assert (settlement.outcome, settlement.reason) == (state.outcome, state.reason) == (Outcome.IGNORED, reason)
    assert (state.violations, settlement.due) == ((), None)
    assert is_silent(settled(Ignored(reason, "why"), state))


def test_the_incident_of_a_target_that_is_no_longer_judged_ends() -> None:
    state = stored(settled(OFF, drifted(an_incident(due=NOW), Outcome.FAILED, UNTAGGED.code)))
    assert (state.incident, state.violations) == (None, ())
    assert state.past == (PastIncident(f"{TARGET}#4", NOW - 10 * MINUTE, NOW, NONE, good_at=NOW - HOUR),)


def test_an_incident_ends_even_where_the_reason_is_as_before() -> None:
    left = drifted(an_incident(), Outcome.IGNORED, Reason.RULE_OFF)
    assert stored(settled(OFF, left)).incident is None


def test_p3_a_lost_workers_attempt_ends_before_the_target_is_no_longer_judged() -> None:
    lost, ignored = settled(OFF, LOST).lines
    assert (lost.outcome, lost.fields["reason"], lost.fields["attempt"]) == (Outcome.FAILED, Reason.WORKER_LOST, 1)
    assert ignored.outcome is Outcome.IGNORED


def test_p8_a_worker_that_still_acts_ends_its_attempt_itself() -> None:
    settlement = settled(OFF, HELD, kind=TriggerKind.TICK)
    assert is_silent(settlement)
    assert settlement.due == NOW + SECOND


def test_p5_a_change_to_a_target_that_is_not_judged_is_recorded_once() -> None:
    state = stored(settled(OFF))
    assert only_line(settled(OFF, state, LATE)).fields["reason"] == Reason.RULE_OFF
    assert is_silent(settled(OFF, state, LATE, audited=True))


def test_p5_a_change_while_a_worker_acts_is_recorded_and_leaves_the_worker_alone() -> None:
    settlement = settled(OFF, HELD, LATE)
    assert only_line(settlement).outcome is Outcome.IGNORED
    assert stored(settlement) == HELD


def test_p5_an_audited_change_is_no_sign_that_the_target_is_no_longer_judged() -> None:
    assert is_silent(settled(OFF, event=LATE, audited=True))


@pytest.mark.parametrize("end", [REFUSED_CALL, ELSEWHERE])
@pytest.mark.parametrize("state", [COMPLIANT, HELD, LOST, NEVER_SEEN])
def test_p5_a_refused_call_is_recorded_once_and_changes_nothing(end: Ignored, state: TargetState) -> None:
    settlement = settled(end, state, LATE)
    line = only_line(settlement)
    assert (line.outcome, line.fields["reason"]) == (Outcome.IGNORED, end.reason)
    assert line.fields["detail"] == {"message": end.message}
    assert stored(settlement) == state
    assert is_silent(settled(end, state, LATE, audited=True))


def test_a_refused_call_without_a_message_has_no_detail() -> None:
    assert only_line(settled(Ignored("AccessDenied"), event=LATE)).fields["detail"] == {}


def test_p17_a_target_of_another_account_is_never_written_by_a_sweep() -> None:
    assert is_silent(settled(ELSEWHERE, NEVER_SEEN))
    assert is_silent(settled(ELSEWHERE, LOST))


def test_a_target_that_is_idle_is_recorded_with_the_setting_that_was_seen() -> None:
    settlement = settled(judged(Outcome.IGNORED, Reason.IDLE, seen_as(NONE), message="no traces"), NEVER_SEEN)
    assert only_line(settlement).fields["before"] == NONE
    assert only_line(settlement).fields["detail"] == {"message": "no traces"}
    assert (stored(settlement).setting, stored(settlement).ever_used) == (NONE, False)


# --- another worker holds the lease ----------------------------------------------------------------------------------


def test_p8_a_run_that_meets_a_lease_writes_nothing() -> None:
    settlement = settled(LeaseHeld(), HELD)
    assert is_silent(settlement)
    assert (settlement.outcome, settlement.reason) == (Outcome.DEFERRED, Reason.IN_PROGRESS)
    assert settlement.due == NOW + SECOND


def test_p5_a_change_that_meets_a_lease_is_recorded_and_joined_and_checked_after_it() -> None:
    settlement = settled(LeaseHeld(), HELD, LATE)
    line = only_line(settlement)
    assert (line.outcome, line.fields["reason"]) == (Outcome.DEFERRED, Reason.IN_PROGRESS)
    assert line.fields["incident_id"] == f"{TARGET}#4"
    incident = acting(a_lease(NOW + SECOND), cause=ALICES, latest=ALICES)
    assert stored(settlement) == replace(HELD, incident=incident, recheck_at=NOW)
    assert is_silent(settled(LeaseHeld(), HELD, LATE, audited=True))


def test_p1_a_recheck_that_waits_longer_than_the_lease_stays() -> None:
    waits = replace(HELD, recheck_at=NOW + HOUR)
    assert stored(settled(LeaseHeld(), waits, LATE)).recheck_at == NOW + HOUR


# --- the Region is denied --------------------------------------------------------------------------------------------


def test_a_denied_region_is_recorded_once_with_the_setting_that_was_last_read() -> None:
    settlement = settled(RegionDenied(DENIED))
    line, state = only_line(settlement), stored(settlement)
    assert (line.outcome, line.fields["reason"], line.fields["error"]) == (
        Outcome.IGNORED,
        Reason.REGION_DENIED,
        DENIED,
    )
    assert (line.fields["before"], line.fields["incident_id"]) == (GOOD, None)
    assert (state.outcome, state.reason, state.setting) == (Outcome.IGNORED, Reason.REGION_DENIED, GOOD)
    again = settled(RegionDenied(DENIED), state)
    assert is_silent(again)
    assert (again.outcome, again.reason) == (Outcome.IGNORED, Reason.REGION_DENIED)


def test_a_region_that_was_never_open_has_no_setting_before() -> None:
    assert only_line(settled(RegionDenied(DENIED), NEVER_SEEN)).fields["before"] is None


def test_what_waits_in_a_denied_region_waits_for_the_next_sweep() -> None:
    waiting = drifted(an_incident(due=NOW), Outcome.FAILED, UNTAGGED.code, recheck_at=NOW, violations=NOT_KMS)
    settlement = settled(RegionDenied(DENIED), waiting)
    assert only_line(settlement).fields["incident_id"] == f"{TARGET}#4"
    assert open_incident(settlement) == waiting.incident
    assert stored(settlement).violations == NOT_KMS
    assert settlement.due is None


def test_p5_a_change_in_a_denied_region_is_recorded_and_is_no_news_of_the_region() -> None:
    denied = stored(settled(RegionDenied(DENIED)))
    settlement = settled(RegionDenied(DENIED), denied, LATE)
    assert only_line(settlement).fields["before"] is None
    assert is_silent(settled(RegionDenied(DENIED), denied, LATE, audited=True))


def test_p3_a_lost_workers_attempt_ends_where_the_region_is_denied() -> None:
    settlement = settled(RegionDenied(DENIED), LOST)
    lost, denied = settlement.lines
    assert (lost.fields["reason"], denied.fields["reason"]) == (Reason.WORKER_LOST, Reason.REGION_DENIED)
    incident = open_incident(settlement)
    assert (incident.lease, incident.phase, incident.unended) == (None, Phase.OPEN, False)


def test_p8_a_denied_region_leaves_a_worker_that_still_acts_alone() -> None:
    assert is_silent(settled(RegionDenied(DENIED), HELD))
    assert settled(RegionDenied(DENIED), HELD).reason == Reason.IN_PROGRESS
    line = only_line(settled(RegionDenied(DENIED), HELD, LATE))
    assert (line.outcome, line.fields["reason"]) == (Outcome.DEFERRED, Reason.IN_PROGRESS)


# --- what could not be read or done ----------------------------------------------------------------------------------


def test_p1_a_failed_read_opens_an_incident_and_is_due_again() -> None:
    settlement = settled(Failed(THROTTLED))
    line, state, incident = only_line(settlement), stored(settlement), open_incident(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (Outcome.FAILED,) * 3
    assert settlement.reason == line.fields["reason"] == state.reason == THROTTLED.code
    assert (line.fields["error"], line.fields["attempt"], line.fields["detail"]) == (THROTTLED, None, {"tries": 1})
    assert (incident.id, incident.before, incident.opened_at) == (FIRST_RECORD, None, NOW)
    assert line.fields["incident_id"] == FIRST_RECORD
    assert state.setting == GOOD, "what was last read"
    assert settlement.due == NOW + 15 * SECOND


def test_p10_each_failed_read_counts_and_waits_longer_with_jitter() -> None:
    again = settled(Failed(THROTTLED), stored(settled(Failed(THROTTLED))), jitter=1.0)
    assert only_line(again).fields["detail"] == {"tries": 2}
    assert only_line(again).fields["incident_id"] == FIRST_RECORD
    assert {lane: each.count for lane, each in stored(again).backoffs.items()} == {Lane.READING: 2}
    assert again.due == NOW + 22.5 * SECOND


def test_p8_a_run_that_failed_gives_back_the_lease_that_it_took() -> None:
    lease = a_lease(NOW + MINUTE, SETUP.worker)
    settlement = settled(Failed(THROTTLED, lease), drifted(acting(lease), Outcome.REMEDIATING))
    incident = open_incident(settlement)
    assert (incident.lease, incident.phase, incident.unended) == (None, Phase.OPEN, False)
    assert only_line(settlement).fields["attempt"] == 1


@pytest.mark.parametrize(
    "held",
    [None, a_lease(NOW + SECOND, SETUP.worker), a_lease(NOW + SECOND, number=4)],
    ids=["no lease", "another owner", "an earlier try of the same request"],
)
def test_p8_a_run_that_failed_leaves_the_lease_of_another_worker(held: Lease | None) -> None:
    settlement = settled(Failed(THROTTLED, held), HELD)
    assert is_silent(settlement)
    assert (settlement.outcome, settlement.reason) == (Outcome.DEFERRED, Reason.IN_PROGRESS)
    assert only_line(settled(Failed(THROTTLED, held), HELD, LATE)).fields["reason"] == Reason.IN_PROGRESS


def test_p3_a_lost_workers_attempt_ends_before_the_failure_of_its_successor() -> None:
    lost, failed = settled(Failed(THROTTLED), LOST).lines
    assert (lost.fields["reason"], lost.fields["attempt"]) == (Reason.WORKER_LOST, 1)
    assert (failed.fields["reason"], failed.fields["attempt"]) == (THROTTLED.code, None)
    assert open_incident(settled(Failed(THROTTLED), LOST)).lease is None


def test_p4_what_waits_for_active_goes_on_waiting_after_a_failed_read() -> None:
    incident = open_incident(settled(Failed(THROTTLED), APPLIED))
    assert (incident.phase, incident.unended, incident.applied_at) == (Phase.APPLIED, True, NOW - MINUTE)
    assert incident.due == NOW + 15 * SECOND


def test_p10_after_failed_reads_the_next_one_waits_whatever_the_other_lanes_wait_for() -> None:
    backoffs = {Lane.READING: Backoff(2, NOW - MINUTE), Lane.SETTING: Backoff(5, NOW, NOW + HOUR)}
    settlement = settled(Failed(THROTTLED), replace(COMPLIANT, backoffs=backoffs))
    assert settlement.due == NOW + MINUTE
    assert stored(settlement).backoffs[Lane.SETTING] == backoffs[Lane.SETTING]


# --- whatever the end ------------------------------------------------------------------------------------------------

ENDS: list[tuple[End, TargetState | None]] = [
    (HEALTHY, COMPLIANT),
    (HEALTHY, drifted(an_incident(), Outcome.FAILED)),
    (STILL_UPDATING, APPLIED),
    (STILL_UPDATING, LOST),
    (EchoConfirmed(GOOD), APPLIED),
    (OFF, COMPLIANT),
    (REFUSED_CALL, COMPLIANT),
    (LeaseHeld(), HELD),
    (RegionDenied(DENIED), COMPLIANT),
    (RegionDenied(DENIED), None),
    (Failed(THROTTLED), COMPLIANT),
    (Attempted(seen_as(GOOD), None, (), True), HELD),
    (Attempted(seen_as(NONE), THROTTLED, (), False), HELD),
    *((end, COMPLIANT) for end in NOT_ACTED_ON),
    *((end, None) for end in NOT_ACTED_ON),
]
"""With the state before; None for the state that the same end left behind."""


def before(end: End, state: TargetState | None) -> TargetState:
    return state or stored(settled(end))


@pytest.mark.parametrize(("end", "state"), ENDS)
def test_p5_a_change_that_is_not_on_the_record_yet_always_gets_there(end: End, state: TargetState | None) -> None:
    assert settled(end, before(end, state), LATE).lines


@pytest.mark.parametrize(("end", "state"), ENDS)
def test_what_is_stored_is_due_when_the_settlement_says(end: End, state: TargetState | None) -> None:
    state = before(end, state)
    settlement = settled(end, state)
    assert settlement.due == (settlement.state or state).due
    if settlement.lines:
        assert settlement.state is not None


@pytest.mark.parametrize(("end", "state"), ENDS)
def test_p1_after_a_key_event_all_is_read_again_whatever_was_found(end: End, state: TargetState | None) -> None:
    assert stored(settled(end, before(end, state), key_event(KEY_ARN))).recheck_at == NOW + STALE_READS


@pytest.mark.parametrize(("end", "state"), ENDS)
def test_the_chain_is_left_to_the_commit(end: End, state: TargetState | None) -> None:
    state = before(end, state)
    after = stored(settled(end, state, LATE))
    assert (after.version, after.seq, after.head) == (state.version, state.seq, state.head)


@pytest.mark.parametrize(("end", "state"), ENDS)
def test_p4_only_active_on_the_wanted_key_is_recorded_as_remediated(end: End, state: TargetState | None) -> None:
    for line in settled(end, before(end, state), LATE).lines:
        if line.outcome is Outcome.REMEDIATED:
            assert line.fields["after"] == GOOD


# --- what a run learned, and break-glass, on the way to any end ------------------------------------------------------

SEARCHING = replace(COMPLIANT, intent=Intent("nonce", NOW + HOUR))


def learned(end: End, state: TargetState, **changes: Any) -> Settlement:
    """A run that learned something before it came to its end."""
    known = known_as(state)
    return settle(a_run(TARGET, RULE), replace(known, state=replace(state, **changes)), end, At(NOW))


def test_p2_what_a_run_learned_is_stored_though_its_end_is_silent() -> None:
    found = learned(HEALTHY, SEARCHING, intent=None, keys_made=(OTHER_ARN,))
    assert [line.fields["reason"] for line in found.lines] == [Reason.KEY_FOUND]
    assert stored(found) == replace(SEARCHING, intent=None, keys_made=(OTHER_ARN,))


def test_what_a_run_learned_does_not_change_its_answer() -> None:
    searching = replace(APPLIED, intent=SEARCHING.intent)
    silent, found = settled(STILL_UPDATING, searching), learned(STILL_UPDATING, searching, intent=None)
    assert (found.outcome, found.reason, found.violations) == (silent.outcome, silent.reason, silent.violations)


OPENED = Weighed((BREAK_GLASS,), BREAK_GLASS, ((Reason.BREAK_GLASS_OPENED, BREAK_GLASS),))


@pytest.mark.parametrize("end", [HEALTHY, *NOT_ACTED_ON], ids=name_of)
def test_p14_a_break_glass_that_was_opened_is_recorded_with_whatever_else_the_run_writes(end: Judged) -> None:
    before = COMPLIANT if end is HEALTHY else stored(settled(end))
    settlement = settled(replace(end, glass=OPENED), before)
    line = only_line(settlement)
    assert (line.outcome, line.fields["reason"]) == (Outcome.SUPPRESSED, Reason.BREAK_GLASS_OPENED)
    assert (line.fields["suppression"], line.fields["before"]) == (BREAK_GLASS, end.seen.setting)
    assert (stored(settlement).suppressions, stored(settlement).watch) == ((BREAK_GLASS,), NOW)
    assert settlement.due is not None
    assert settlement.due <= NOW, "its tag is read again every minute"


def test_p14_a_note_comes_before_the_record_that_follows_from_it() -> None:
    note, record = settled(replace(SUPPRESSES, glass=OPENED)).lines
    assert (note.fields["reason"], record.fields["reason"]) == (Reason.BREAK_GLASS_OPENED, Reason.BREAK_GLASS)
    assert "incident_id" not in note.fields
    assert record.fields["incident_id"] == f"{TARGET}#6", "the number of its own first record"


@pytest.mark.parametrize("reason", [Reason.BREAK_GLASS_ENDED, Reason.BREAK_GLASS_REFUSED])
def test_p14_a_break_glass_that_does_not_count_suppresses_nothing(reason: Reason) -> None:
    closed = replace(BREAK_GLASS, closed="END")
    watched = replace(COMPLIANT, suppressions=(BREAK_GLASS,), watch=NOW - MINUTE)
    settlement = settled(judged(Outcome.COMPLIANT, glass=Weighed((closed,), None, ((reason, closed),))), watched)
    assert only_line(settlement).outcome is Outcome.IGNORED
    assert (stored(settlement).suppressions, stored(settlement).watch) == ((closed,), None)


def test_p14_a_break_glass_that_is_shortened_is_stored_in_silence() -> None:
    shorter = replace(BREAK_GLASS, until=NOW + HOUR)
    watched = replace(COMPLIANT, suppressions=(BREAK_GLASS,), watch=NOW)
    settlement = settled(judged(Outcome.COMPLIANT, glass=Weighed((shorter,), shorter)), watched)
    assert (settlement.lines, stored(settlement).suppressions) == ((), (shorter,))


def test_p14_a_break_glass_that_stays_as_it_is_writes_nothing() -> None:
    watched = replace(COMPLIANT, suppressions=(BREAK_GLASS,), watch=NOW - MINUTE)
    assert is_silent(settled(judged(Outcome.COMPLIANT, glass=Weighed((BREAK_GLASS,), BREAK_GLASS)), watched))


def test_a_record_says_that_it_is_not_known_whether_xray_is_in_use() -> None:
    unknown = seen_as(NONE, use_problem=Problem("AccessDeniedException", "xray:GetServiceGraph: no"))
    line = only_line(settled(judged(Outcome.DEFERRED, Reason.PAUSED, unknown, message="paused"), NEVER_SEEN))
    assert line.fields["detail"] == {
        "message": "paused",
        "in_use": "not known, so judged as in use: xray:GetServiceGraph: no",
    }
