"""How an attempt to remediate begins and ends: the records, the state and the time of the next check (P3, P4)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from chalicelib.domain.attempts import Attempted, begin, end, learn_of_intent
from chalicelib.domain.breakglass import Weighed
from chalicelib.domain.decide import Decision
from chalicelib.domain.echo import plan_entry
from chalicelib.domain.lanes import Lane
from chalicelib.domain.model import ChangeEvent, KeyEvent, Setting, Subject, TriggerKind
from chalicelib.domain.reasons import SETTLING_CODES, Outcome, Problem, Reason, Violation
from chalicelib.domain.run import At, Run
from chalicelib.domain.settlement import Settlement
from chalicelib.domain.steps import Step, StepName
from chalicelib.domain.stored import (
    Action,
    Attribution,
    Backoff,
    Cause,
    Incident,
    Intent,
    Lease,
    Maker,
    PastIncident,
    Phase,
    Suppression,
    TargetState,
)
from chalicelib.domain.waiting import LONGEST_SETTLING, SETTLING_PAUSE, STALE_READS
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

NO_GLASS = Weighed((), None)
OURS = Lease(SETUP.worker, 1, NOW + timedelta(seconds=SETUP.lease_seconds), NOW)
UNKNOWN = (Attribution(NOT_KMS[0]),)
PUT = Decision(Outcome.REMEDIATING, NOT_KMS, steps=(Step(StepName.PUT_SETTING, KEY_ARN, lane=Lane.SETTING),))
CREATE = Decision(Outcome.REMEDIATING, NOT_KMS, steps=(Step(StepName.CREATE_KEY), Step(StepName.PUT_SETTING)))
FAILED = drifted(an_incident(attempt=1, mutated=True), Outcome.FAILED, Reason.KEY_NOT_TAGGED)


def run_for(event: ChangeEvent | KeyEvent | None = None) -> Run:
    return a_run(TARGET, RULE, TriggerKind.SWEEP, event)


def begun(
    state: TargetState = COMPLIANT,
    event: ChangeEvent | KeyEvent | None = None,
    decision: Decision = PUT,
    *,
    glass: Weighed = NO_GLASS,
    audited: bool = False,
    jitter: float = 0.0,
    setting: Setting = NONE,
) -> Settlement:
    known = known_as(state, audited=audited)
    return begin(run_for(event), known, seen_as(setting), glass, decision, At(NOW, jitter), "nonce")


def stored(settlement: Settlement) -> TargetState:
    assert settlement.state is not None
    return settlement.state


# --- the beginning ---------------------------------------------------------------------------------------------------


def test_p3_an_attempt_begins_with_its_record() -> None:
    settlement = begun()
    line = only_line(settlement)
    assert (settlement.outcome, settlement.reason) == (line.outcome, None) == (Outcome.REMEDIATING, None)
    assert line.at == NOW
    assert line.fields == {
        "incident_id": FIRST_RECORD,
        "attempt": 1,
        "rule": RULE.id,
        "policy_digest": SETUP.policy_digest,
        "violations": NOT_KMS,
        "before": NONE,
        "cause": None,
        "suppression": None,
        "actions": (),
        "detail": {"plan": ["PutEncryptionConfig"]},
        "attributions": UNKNOWN,
    }


def test_p3_p8_an_attempt_begins_with_a_lease_in_the_same_transaction() -> None:
    settlement = begun()
    state = stored(settlement)
    assert state.incident == Incident(
        FIRST_RECORD,
        NOW,
        NONE,
        Phase.ACTING,
        NOT_KMS,
        1,
        OURS,
        OURS.until,
        unended=True,
        mutated=True,
        planned=(plan_entry(PUT.steps[0]),),
        attributions=UNKNOWN,
        makers=(Maker(Violation.NOT_KMS, NOW, Subject.SETTING, (), ("NONE",), COMPLIANT.good_at),),
    )
    assert (state.outcome, state.reason, state.violations) == (Outcome.REMEDIATING, None, NOT_KMS)
    assert state.lease_number == OURS.number
    assert state.is_held(NOW)


def test_p1_an_attempt_whose_worker_is_lost_is_due_when_its_lease_ends() -> None:
    assert begun().due == OURS.until


def test_what_was_observed_is_kept_with_the_rule_and_the_policy() -> None:
    state = stored(begun(TargetState(str(TARGET)), setting=OTHER))
    assert (state.setting, state.first_seen, state.ever_used) == (OTHER, NOW, True)
    assert (state.rule, state.policy_digest) == (RULE.id, SETUP.policy_digest)
    assert stored(begun()).first_seen == COMPLIANT.first_seen


def test_p3_each_attempt_of_an_incident_has_a_number_of_its_own() -> None:
    settlement = begun(replace(FAILED, lease_number=6))
    incident = open_incident(settlement)
    assert (incident.id, incident.opened_at, incident.attempt) == (f"{TARGET}#4", NOW - 10 * MINUTE, 2)
    assert incident.lease == replace(OURS, number=7)
    assert only_line(settlement).fields["incident_id"] == incident.id
    assert only_line(settlement).fields["attempt"] == 2
    assert (stored(settlement).outcome, stored(settlement).reason) == (Outcome.REMEDIATING, None)


def test_an_incident_that_began_with_a_failed_read_gets_the_setting_that_is_read_now() -> None:
    settlement = begun(drifted(an_incident(before=None), Outcome.FAILED))
    assert open_incident(settlement).before == NONE
    assert only_line(settlement).fields["before"] == NONE


def test_p3_a_lost_workers_attempt_ends_on_the_record_before_the_next_begins() -> None:
    lost, ours = begun(drifted(acting(a_lease(NOW - SECOND)), Outcome.REMEDIATING, lease_number=3)).lines
    assert (lost.outcome, lost.fields["reason"], lost.fields["attempt"]) == (Outcome.FAILED, Reason.WORKER_LOST, 1)
    error = lost.fields["error"]
    assert error is not None
    assert "worker other/1 stored no result" in error.message
    assert (ours.outcome, ours.fields["attempt"]) == (Outcome.REMEDIATING, 2)
    assert lost.fields["incident_id"] == ours.fields["incident_id"] == f"{TARGET}#4"


# --- the beginning: backoff ------------------------------------------------------------------------------------------


def test_p9_each_attempt_counts_and_the_third_holds_the_next_one_back() -> None:
    assert stored(begun()).backoffs[Lane.SETTING] == Backoff(1, NOW, None)
    third = stored(begun(replace(COMPLIANT, backoffs={Lane.SETTING: Backoff(2, NOW - MINUTE)}))).backoffs[Lane.SETTING]
    assert third == Backoff(3, NOW, NOW + MINUTE)


def test_p10_the_pause_has_jitter() -> None:
    fought = replace(COMPLIANT, backoffs={Lane.SETTING: Backoff(2, NOW - MINUTE)})
    assert stored(begun(fought, jitter=1.0)).backoffs[Lane.SETTING] == Backoff(3, NOW, NOW + 45 * SECOND)


def settling(until: datetime, *closed_at: datetime) -> TargetState:
    """A target whose last attempt was stopped by what passes by itself, with incidents that ended at these times."""
    past = tuple(PastIncident(f"{TARGET}#{number}", at, at, NONE) for number, at in enumerate(closed_at))
    fought = Backoff(2, NOW - MINUTE)
    return drifted(
        an_incident(settles_until=until, settles_in=Lane.SETTING),
        Outcome.DEFERRED,
        Reason.SETTLING,
        past=past,
        backoffs={Lane.SETTING: fought},
    )


def test_p1_an_attempt_while_aws_settles_does_not_count() -> None:
    assert stored(begun(settling(NOW + SECOND))).backoffs[Lane.SETTING] == Backoff(2, NOW - MINUTE)


@pytest.mark.parametrize(
    "state",
    [
        settling(NOW),
        settling(NOW + SECOND, NOW - HOUR + SECOND, NOW - MINUTE),
        replace(settling(NOW + SECOND), reason=Reason.KEY_NOT_TAGGED),
    ],
    ids=["it did not settle", "in a fight", "stopped by something else"],
)
def test_p9_every_other_attempt_counts(state: TargetState) -> None:
    assert stored(begun(state)).backoffs[Lane.SETTING].count == 3


def test_p9_incidents_of_more_than_an_hour_ago_are_no_fight() -> None:
    state = settling(NOW + SECOND, NOW - HOUR, NOW - MINUTE)
    assert stored(begun(state)).backoffs[Lane.SETTING].count == 2


# --- the beginning: the key that may have to be made -----------------------------------------------------------------


def test_p2_a_key_that_must_be_made_is_announced_by_its_nonce() -> None:
    assert stored(begun(decision=CREATE)).intent == Intent("nonce", OURS.until + STALE_READS)


def test_p2_an_attempt_that_makes_no_key_leaves_the_search_for_one_as_it_is() -> None:
    assert stored(begun()).intent is None
    searching = replace(COMPLIANT, intent=Intent("before", NOW + MINUTE))
    assert stored(begun(searching)).intent == searching.intent


def test_p2_what_the_run_learned_before_is_stored_with_the_beginning() -> None:
    searching = replace(COMPLIANT, managed_key=None, intent=Intent("before", NOW + MINUTE))
    known = replace(known_as(searching), state=replace(searching, intent=None, keys_made=(OTHER_ARN,)))
    settlement = begin(run_for(), known, seen_as(NONE), NO_GLASS, PUT, At(NOW), "nonce")
    assert (stored(settlement).intent, stored(settlement).keys_made) == (None, (OTHER_ARN,))


# --- the beginning: events -------------------------------------------------------------------------------------------

ALICES = Cause("event-1", NOW - 5 * SECOND, ALICE)


def test_p5_the_change_that_made_the_drift_is_the_cause_of_the_incident() -> None:
    settlement = begun(event=change_event(NONE))
    assert open_incident(settlement).cause == ALICES
    assert only_line(settlement).fields["cause"] == ALICES


@pytest.mark.parametrize(
    ("event", "audited"),
    [
        (change_event(OTHER), False),
        (change_event(None), False),
        (change_event(NONE, at=NOW - 2 * HOUR), False),
        (change_event(NONE), True),
        (None, False),
    ],
    ids=["another setting", "result unknown", "before the last incident ended", "audited before", "no event"],
)
def test_p5_a_change_that_did_not_make_the_drift_is_not_its_cause(event: ChangeEvent | None, audited: bool) -> None:
    past = PastIncident(f"{TARGET}#2", NOW - 3 * HOUR, NOW - HOUR, NONE)
    settlement = begun(replace(COMPLIANT, past=(past,)), event, audited=audited)
    assert open_incident(settlement).cause is None


@pytest.mark.parametrize(
    ("violations", "caused"),
    [((Violation.KEY_DISABLED,), True), ((Violation.KEY_DISABLED, Violation.NOT_KMS), False), (NOT_KMS, False)],
)
def test_p5_a_change_to_a_key_is_the_cause_only_of_what_is_wrong_with_keys(
    violations: tuple[Violation, ...], caused: bool
) -> None:
    settlement = begun(event=key_event(KEY_ARN), decision=replace(PUT, violations=violations))
    cause = open_incident(settlement).cause
    assert (cause is not None and cause.actor == ALICE) is caused


def test_p5_a_change_that_comes_late_is_joined_to_the_incident_that_it_caused() -> None:
    event = change_event(NONE, at=NOW - 11 * MINUTE)
    incident = open_incident(begun(FAILED, event))
    assert incident.cause == incident.latest == Cause("event-1", NOW - 11 * MINUTE, ALICE)


def test_p5_a_change_that_was_audited_before_is_not_joined_again() -> None:
    incident = open_incident(begun(FAILED, change_event(NONE, at=NOW - 11 * MINUTE), audited=True))
    assert (incident.cause, incident.latest) == (None, None)


def test_p5_a_later_change_is_known_and_does_not_take_the_place_of_the_first() -> None:
    caused = drifted(an_incident(cause=replace(ALICES, actor=BOB)), Outcome.FAILED)
    incident = open_incident(begun(caused, change_event(NONE)))
    assert incident.cause == replace(ALICES, actor=BOB)
    assert incident.latest == ALICES


def test_p1_after_a_key_event_all_is_read_again_once_kms_surely_shows_it() -> None:
    assert stored(begun(event=key_event(KEY_ARN))).recheck_at == NOW + STALE_READS
    assert stored(begun(event=change_event())).recheck_at is None


# --- the beginning: break-glass --------------------------------------------------------------------------------------

EXPIRED = Suppression(KEY_ARN, "2026-11-20T11:00:00Z INC-1", "INC-1", NOW - HOUR, NOW, NOW, closed="END")
REFUSAL = Suppression(OTHER_ARN, "soon", "", NOW, None, None, refused="NO_END")


def test_p14_a_break_glass_that_ended_is_on_the_record_before_the_attempt() -> None:
    glass = Weighed((EXPIRED,), None, ((Reason.BREAK_GLASS_ENDED, EXPIRED),))
    settlement = begun(glass=glass)
    note, attempt = settlement.lines
    assert (note.outcome, note.fields["reason"]) == (Outcome.IGNORED, Reason.BREAK_GLASS_ENDED)
    assert note.fields["suppression"] == EXPIRED
    assert attempt.outcome is Outcome.REMEDIATING
    assert stored(settlement).suppressions == (EXPIRED,)


def test_an_incident_has_the_number_of_its_own_first_record_after_a_note() -> None:
    note, attempt = begun(glass=Weighed((EXPIRED,), None, ((Reason.BREAK_GLASS_ENDED, EXPIRED),))).lines
    assert "incident_id" not in note.fields
    assert attempt.fields["incident_id"] == f"{TARGET}#6"


def test_p14_the_break_glass_that_does_not_count_is_named_by_the_attempt() -> None:
    assert only_line(begun(glass=Weighed((), None, refusal=REFUSAL))).fields["suppression"] == REFUSAL


# --- the end ---------------------------------------------------------------------------------------------------------

ACTING = drifted(
    acting(OURS), Outcome.REMEDIATING, backoffs={Lane.SETTING: Backoff(1, NOW - MINUTE)}, lease_number=OURS.number
)
SENT = Action("PutEncryptionConfig", NOW, KEY_ARN, "NONE", KEY_ARN, "request-1")
REFUSED = Problem("AccessDeniedException", "xray:PutEncryptionConfig: no")


def ended(
    setting: Setting = GOOD,
    problem: Problem | None = None,
    state: TargetState = ACTING,
    *,
    actions: tuple[Action, ...] = (SENT,),
    mutated: bool = True,
    jitter: float = 0.0,
    event: KeyEvent | None = None,
) -> Settlement:
    attempted = Attempted(seen_as(setting), problem, actions, mutated, Lane.SETTING)
    return end(run_for(event), known_as(state), attempted, At(NOW, jitter))


def with_incident(**changes: object) -> TargetState:
    return drifted(acting(OURS, **changes), Outcome.REMEDIATING, backoffs=ACTING.backoffs)


def test_p4_a_target_is_remediated_once_xray_reports_the_wanted_key_in_active() -> None:
    settlement = ended()
    line, state = only_line(settlement), stored(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (Outcome.REMEDIATED,) * 3
    assert (settlement.reason, state.reason, state.violations, state.setting) == (None, None, (), GOOD)
    assert (state.good_at, state.checked_at) == (NOW, NOW)
    assert line.fields["after"] == GOOD
    assert line.fields["before"] == NONE
    assert line.fields["violations"] == NOT_KMS
    assert line.fields["actions"] == (SENT,)
    assert line.fields["attempt"] == 1
    assert settlement.mutated


def test_a_remediated_incident_is_closed_and_remembered() -> None:
    state = stored(ended())
    assert state.incident is None
    assert state.past == (PastIncident(f"{TARGET}#4", NOW - 10 * MINUTE, NOW, NONE, good_at=NOW - HOUR),)
    assert not state.is_held(NOW)


def test_the_exposure_counts_from_the_change_if_it_is_known() -> None:
    assert only_line(ended()).fields["exposure_seconds"] == 600
    caused = with_incident(cause=replace(ALICES, at=NOW - 11 * MINUTE))
    assert only_line(ended(state=caused)).fields["exposure_seconds"] == 660


@pytest.mark.parametrize("setting", [UPDATING, replace(GOOD, status=None)], ids=["UPDATING", "no status"])
def test_p4_a_target_is_not_remediated_before_xray_reports_active(setting: Setting) -> None:
    settlement = ended(setting)
    line, incident = only_line(settlement), open_incident(settlement)
    assert (settlement.outcome, line.outcome, stored(settlement).outcome) == (Outcome.APPLIED,) * 3
    assert (line.fields["after"], line.fields["actions"], line.fields["attempt"]) == (setting, (SENT,), 1)
    assert "exposure_seconds" not in line.fields
    assert (incident.phase, incident.lease, incident.applied_at, incident.unended) == (Phase.APPLIED, None, NOW, True)
    assert stored(settlement).past == ()


def test_p1_what_waits_for_active_is_checked_with_the_next_tick() -> None:
    assert ended(UPDATING).due == NOW


@pytest.mark.parametrize("problem", [None, REFUSED])
def test_p1_what_was_acted_on_is_read_again_once_kms_surely_shows_it(problem: Problem | None) -> None:
    assert stored(ended(problem=problem)).recheck_at == NOW + STALE_READS
    assert stored(ended(problem=problem, actions=())).recheck_at is None


def test_p1_a_recheck_that_waits_longer_stays() -> None:
    assert stored(ended(state=replace(ACTING, recheck_at=NOW + HOUR))).recheck_at == NOW + HOUR


def test_an_attempt_that_sent_nothing_clears_a_recheck_that_was_due() -> None:
    assert stored(ended(state=replace(ACTING, recheck_at=NOW), actions=())).recheck_at is None
    assert stored(ended(state=replace(ACTING, recheck_at=NOW + SECOND), actions=())).recheck_at == NOW + SECOND


@pytest.mark.parametrize("setting", [GOOD, UPDATING])
def test_p2_the_key_in_use_is_recorded_where_none_was(setting: Setting) -> None:
    assert stored(ended(setting, state=replace(ACTING, managed_key=None))).managed_key == KEY_ARN
    assert stored(ended(setting, state=replace(ACTING, managed_key=OTHER_ARN))).managed_key == OTHER_ARN


@pytest.mark.parametrize("setting", [GOOD, UPDATING])
def test_p9_an_attempt_is_not_counted_again_at_its_end(setting: Setting) -> None:
    assert stored(ended(setting)).backoffs == ACTING.backoffs
    assert stored(ended(setting, REFUSED)).backoffs == ACTING.backoffs


# --- the end: what stopped short -------------------------------------------------------------------------------------


def test_p3_an_attempt_that_failed_says_why_and_what_was_sent() -> None:
    settlement = ended(NONE, REFUSED)
    line, state = only_line(settlement), stored(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (Outcome.FAILED,) * 3
    assert settlement.reason == line.fields["reason"] == state.reason == REFUSED.code
    assert line.fields["error"] == REFUSED
    assert (line.fields["after"], line.fields["actions"], line.fields["attempt"]) == (NONE, (SENT,), 1)
    assert state.setting == NONE
    assert state.good_at == COMPLIANT.good_at
    assert settlement.mutated


def test_p8_an_attempt_that_failed_gives_its_lease_back() -> None:
    incident = open_incident(ended(NONE, REFUSED))
    assert (incident.phase, incident.lease, incident.unended, incident.attempt) == (Phase.OPEN, None, False, 1)
    assert incident.violations == NOT_KMS


def test_p10_a_failed_attempt_is_due_again_soon_at_first_and_later_each_time() -> None:
    assert ended(NONE, REFUSED, actions=()).due == NOW + 15 * SECOND
    assert ended(NONE, REFUSED, actions=(), jitter=1.0).due == NOW + 11.25 * SECOND
    often = replace(ACTING, backoffs={Lane.SETTING: Backoff(4, NOW - MINUTE)})
    assert ended(NONE, REFUSED, often, actions=()).due == NOW + 2 * MINUTE


def test_p9_a_failed_attempt_is_not_due_within_the_pause_of_its_fight() -> None:
    fought = replace(ACTING, backoffs={Lane.SETTING: Backoff(3, NOW, NOW + 3 * MINUTE)})
    assert ended(NONE, REFUSED, fought, actions=()).due == NOW + 3 * MINUTE


@pytest.mark.parametrize("code", sorted(SETTLING_CODES))
def test_what_passes_by_itself_is_deferred_and_tried_with_the_next_tick(code: str) -> None:
    problem = Problem(code, "not yet")
    settlement = ended(NONE, problem, actions=())
    line, state = only_line(settlement), stored(settlement)
    assert (settlement.outcome, line.outcome, state.outcome) == (Outcome.DEFERRED,) * 3
    assert settlement.reason == line.fields["reason"] == state.reason == Reason.SETTLING
    assert line.fields["error"] == problem
    assert open_incident(settlement).settles_until == NOW + LONGEST_SETTLING
    assert (open_incident(settlement).phase, open_incident(settlement).lease) == (Phase.OPEN, None)
    assert settlement.due == NOW + SETTLING_PAUSE


def test_what_does_not_pass_within_its_time_has_failed_for_its_own_reason() -> None:
    problem = Problem(Reason.XRAY_UPDATING, "still UPDATING")
    early = ended(NONE, problem, with_incident(settles_until=NOW + SECOND))
    late = ended(NONE, problem, with_incident(settles_until=NOW))
    assert (early.outcome, early.reason) == (Outcome.DEFERRED, Reason.SETTLING)
    assert open_incident(early).settles_until == NOW + SECOND, "counted from the first time"
    assert (late.outcome, late.reason) == (Outcome.FAILED, Reason.XRAY_UPDATING)
    assert only_line(late).fields["reason"] == Reason.XRAY_UPDATING
    assert late.due == NOW + 15 * SECOND


def test_what_does_not_pass_by_itself_fails_while_something_else_settles() -> None:
    settlement = ended(NONE, REFUSED, with_incident(settles_until=NOW + MINUTE))
    assert (settlement.outcome, settlement.reason) == (Outcome.FAILED, REFUSED.code)
    assert open_incident(settlement).settles_until == NOW + MINUTE
    assert open_incident(ended(NONE, REFUSED)).settles_until is None


@pytest.mark.parametrize("mutated", [True, False])
def test_p4_an_incident_is_the_guards_doing_only_if_something_took_effect(mutated: bool) -> None:
    assert open_incident(ended(NONE, REFUSED, mutated=mutated)).mutated is mutated


def test_an_attempt_for_a_key_event_is_checked_again_though_nothing_was_sent() -> None:
    settlement = ended(NONE, REFUSED, actions=(), event=key_event(KEY_ARN))
    assert stored(settlement).recheck_at == NOW + STALE_READS


def test_a_change_made_meanwhile_is_named_with_the_setting_that_it_left() -> None:
    changed = Problem(Reason.CHANGED_AGAIN, "X-Ray now answers another key")
    settlement = ended(OTHER, changed)
    assert (settlement.outcome, settlement.reason) == (Outcome.FAILED, Reason.CHANGED_AGAIN)
    assert stored(settlement).setting == OTHER
    assert only_line(settlement).fields["after"] == OTHER
    assert only_line(settlement).fields["before"] == NONE


def test_a_take_over_of_what_was_applied_keeps_the_incident() -> None:
    again = open_incident(begun(drifted(applied(), Outcome.APPLIED)))
    assert (again.id, again.attempt, again.phase) == (f"{TARGET}#4", 2, Phase.ACTING)


# --- the key that a lost worker may have made ------------------------------------------------------------------------

SEARCHING = replace(COMPLIANT, keys_made=(OTHER_ARN,), intent=Intent("nonce", NOW + SECOND))


def test_p2_the_key_of_a_lost_worker_is_the_guards_once_it_is_found() -> None:
    found = learn_of_intent(SEARCHING, KEY_ARN, NOW)
    assert found == replace(SEARCHING, keys_made=(OTHER_ARN, KEY_ARN), intent=None)


def test_p2_not_finding_a_lost_workers_key_proves_nothing_until_kms_surely_shows_it() -> None:
    assert learn_of_intent(SEARCHING, None, NOW) == SEARCHING
    assert learn_of_intent(SEARCHING, None, NOW + SECOND) == replace(SEARCHING, intent=None)
